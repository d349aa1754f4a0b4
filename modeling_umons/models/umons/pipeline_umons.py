# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pipeline for UMONS: a clip, a sound or words in; sentiment and emotions out."""

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from .segmentation_umons import Segment, as_dict, iter_segments, transcribe


# A rest of a file that is shorter is no segment: codecs pad.
SHORTEST_S = 0.1
MODALITY_OF_MASK = {"attention_mask": "text", "input_features_mask": "audio", "video_features_mask": "video"}


class MultimodalEmotionPipeline(ChunkPipeline):
    """
    Sentiment and emotions of clips, sounds and words.

    ```python
    >>> from transformers import pipeline
    >>> import modeling_umons

    >>> recognize = pipeline("multimodal-emotion-recognition", model="path/to/model")
    >>> recognize({"text": "what a wonderful day", "audio": "clip.wav"})
    {'sentiment': 1.2, 'emotions': [{'label': 'happy', 'score': 0.9}, ...], 'modalities': ['text', 'audio']}
    ```

    An input is a path, a URL or the bytes of a clip or sound file; or what a column of `datasets.Audio` or
    `datasets.Video` holds; or a dict with any of
        text (`str`): what is said.
        words (`list[dict]`): the same word by word, `{"word": "glad", "timestamp": (start, end)}` with seconds from the
            beginning of the file, as a `transcriber` gave them: so that words can be cut into segments.
        audio: a path, a URL, bytes, or a waveform (samples,) with `sampling_rate` in Hz beside it; also what
            `datasets.Audio` gives.
        video: a path, a URL or bytes, whose sound is used unless `audio` is given; or frames (num_frames, height, width,
            3) at the rate of the video processor; also what `datasets.Video` gives.
    or a list, generator or `KeyDataset` of those, with `batch_size`. Of a file of which one answer is wanted, the first
    two minutes are read. Pictures count in a model with a video tower. A clip without sound is no error where there is
    `text` to go on with. Silence, sound that stays below the smallest step of 16 bits, is nothing. A stretch of a file in
    which there is nothing has no answer, but for `modalities`, an empty list. Raises ValueError for an input in which there is nothing that the model can use, and OSError for a file that
    cannot be read. Results are plain numbers and strings, which `json.dumps` takes.

    Options, here or in the call:
        top_k (`int`, *optional*): how many emotions to give, the likeliest first. All by default.
        chunk_length_s (`float`, *optional*): cut the clip in segments of this many seconds and give a list of results, each
            with its `timestamp` (start, end) in seconds. Files are read window by window, however long they are, and
            [`~MultimodalEmotionPipeline.stream`] gives each result as soon as it is there. What is left at the end
            joins in unless it is shorter than a frame of the model's sound. Of a segment that is longer than the model
            hears, the beginning counts.
        return_timestamps (`bool`, *optional*): the same, with segments as long as the model hears at most.
        transcriber (an `automatic-speech-recognition` pipeline, *optional*): hears the words where neither `text` nor
            `words` are given. Results then have its `text` and, if it can tell, `words` with the `timestamp` of each.
            One that can tell hears 30 seconds at once, of which segments get the words that are spoken in them.
        return_attention (`bool`, *optional*): add `attention`, for each modality where its final glimpse looked.
            ValueError for a model without glimpses.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processor.check_model(self.model.config)

    def _sanitize_parameters(
        self,
        top_k=None,
        chunk_length_s=None,
        return_timestamps=None,
        transcriber=None,
        return_attention=None,
        **unknown,
    ):
        if unknown:
            raise ValueError(f"Unknown option(s) {sorted(unknown)}: see the help of {type(self).__name__}.")
        preprocess, forward, postprocess = {}, {}, {}
        if return_timestamps and chunk_length_s is None:
            chunk_length_s = self.processor.max_duration
        if chunk_length_s is not None:
            if (
                isinstance(chunk_length_s, bool)
                or not isinstance(chunk_length_s, Real)
                or not 0 < chunk_length_s < math.inf
            ):
                raise ValueError(
                    f"`chunk_length_s` is {chunk_length_s!r}: a segment must be longer than 0 seconds, and end."
                )
            preprocess["chunk_length_s"] = postprocess["chunk_length_s"] = float(chunk_length_s)
        if transcriber is not None:
            preprocess["transcriber"] = transcriber
        if top_k is not None:
            if isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 1:
                raise ValueError(f"`top_k` is {top_k!r}: ask for a whole number of emotions, at least one.")
            postprocess["top_k"] = top_k
        if return_attention is not None:
            forward["return_attention"] = postprocess["return_attention"] = return_attention
        return preprocess, forward, postprocess

    @property
    def labels(self) -> list[str]:
        """Names of the scores that results have, in the order of the model; none for a model of sentiment alone."""
        config = self.model.config
        if config.problem_type == "regression" or config.num_labels == 1:
            return []
        names = [config.id2label[i] for i in range(config.num_labels)]
        return names[1:] if getattr(config, "joint_sentiment", False) else names

    def __call__(self, inputs, **options):
        """
        The result of an input, or of each of a list; of a generator or `KeyDataset` an iterator over the results.

        Args:
            inputs: as the class says.
            options: those of the class, and `batch_size`: inputs, or segments of them, that the model takes at once.
        """
        if isinstance(inputs, list) and not inputs:
            return []  # transformers would look at the first one
        return super().__call__(inputs, **options)

    def stream(
        self, inputs, chunk_length_s: float | None = None, batch_size: int | None = None, **options
    ) -> Iterator[dict[str, Any]]:
        """
        The results of the segments of one input, each as soon as it is there, in memory that does not grow with the file.

        Args:
            inputs: one input, as the class says.
            chunk_length_s: seconds of a segment; as long as the model hears at most by default.
            batch_size: segments that the model takes at once.
            options: the others of the class.
        """
        if chunk_length_s is None:
            chunk_length_s = self._preprocess_params.get("chunk_length_s")
        given = self._sanitize_parameters(chunk_length_s=chunk_length_s, **{"return_timestamps": True, **options})
        set_before = (self._preprocess_params, self._forward_params, self._postprocess_params)
        preprocess, forward, postprocess = ({**before, **new} for before, new in zip(set_before, given, strict=True))
        if batch_size is None:
            batch_size = self._batch_size or 1
        for results in self.get_iterator(
            [inputs], 0, batch_size, {**preprocess, "stream": True}, forward, postprocess
        ):
            yield from results

    def preprocess(
        self, inputs, chunk_length_s: float | None = None, transcriber=None, stream: bool = False
    ) -> Iterator[dict[str, Any]]:
        """
        Yields the model's inputs for each segment, batch axis of 1, every modality of the model in each. The results of
        segments are put together up to the one that `is_last`; each is in a `stream`.
        """
        config, video_processor = self.model.config, self.processor.video_processor
        inputs = as_dict(inputs)
        if "text" not in config.modalities:
            inputs.pop("text", None)
            inputs.pop("words", None)
        knows_words = "text" in inputs or "words" in inputs
        transcribes = transcriber is not None and "text" in config.modalities and not knows_words
        segments = iter_segments(
            inputs,
            chunk_length_s,
            listens="audio" in config.modalities or transcribes,
            looks=self._has_tower,
            shortest_s=max(SHORTEST_S, self.processor.frame_duration),
            frame_rate=video_processor.frame_rate,
            size=(video_processor.size["height"], video_processor.size["width"]),
        )
        if transcribes:
            segments = transcribe(segments, transcriber)
        segment = next(segments)
        while segment is not None:
            following = next(segments, None)
            item = self._process(segment)
            if chunk_length_s is None and not any(item[mask].any() for mask in MODALITY_OF_MASK if mask in item):
                raise ValueError(self._nothing_in(segment))
            yield {**item, "is_last": stream or following is None}
            segment = following

    @property
    def _has_tower(self) -> bool:
        config = self.model.config
        return any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))

    def _process(self, segment: Segment) -> dict[str, Any]:
        """Tensors for the model, of the same names in every segment, so that segments make batches."""
        config = self.model.config
        item = {
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "words": segment.words,
            "offset": 0.0,
        }
        if "text" in config.modalities:
            tokenizer = self.processor.tokenizer
            ids = tokenizer(segment.text or "", truncation=True)["input_ids"]
            ids = ids if self.processor.has_words(ids) else []
            item["input_ids"] = torch.tensor([ids or [tokenizer.pad_token_id]])
            item["attention_mask"] = torch.tensor([[1] * len(ids) or [0]])
        if "audio" in config.modalities:
            item["input_features"] = torch.zeros(1, 1, config.audio_feature_size)
            item["input_features_mask"] = torch.zeros(1, 1, dtype=torch.long)
            if segment.audio is not None and getattr(config, "audio_encoder", None) is not None:
                sound = self.processor(audio=[segment.audio], sampling_rate=segment.sampling_rate, return_tensors="pt")
                with torch.no_grad():  # the encoder here, as the tower below
                    heard = self.model.get_audio_features(**sound.to(self.device))
                item["input_features"] = heard.pooler_output.float().cpu()
                item["input_features_mask"] = heard.attention_mask.cpu()
            elif segment.audio is not None:
                frames = self.processor.feature_extractor(
                    [segment.audio], sampling_rate=segment.sampling_rate, return_offsets=True, return_tensors="pt"
                )
                item["offset"] = float(frames.pop("offsets")[0])
                item.update(frames)
        if self._has_tower:
            item["video_features"] = torch.zeros(1, 1, config.video_feature_size)
            item["video_features_mask"] = torch.zeros(1, 1, dtype=torch.long)
            if segment.frames is not None:
                clips = self.processor.video_processor([segment.frames], return_tensors="pt")
                with torch.no_grad():  # the tower here, so that what waits for a batch is small
                    seen = self.model.get_video_features(clips["pixel_values_videos"].to(self.device))
                item["video_features"] = seen.pooler_output.float().cpu()
                item["video_features_mask"] = clips["video_features_mask"]
        return item

    def _nothing_in(self, segment: Segment) -> str:
        modalities = self.model.config.modalities
        remedies = {"text": "{'text': ...} with words", "audio": "a file with sound"}
        if self._has_tower:
            remedies["video"] = "a clip with pictures"
        return (
            f"There is nothing in this input for a model of {' and '.join(modalities)}"
            f"{', its sound is silence' if segment.is_silent else ''}"
            f"{'' if segment.text is None else f', and no word in its text, {segment.text!r:.50}'}: "
            f"pass {' or '.join(remedies[m] for m in modalities if m in remedies)}."
        )

    def _forward(self, model_inputs: dict[str, Any], return_attention: bool = False) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        masks = {name: tensors[name].bool() for name in MODALITY_OF_MASK if name in tensors}
        # Stretches of a file in which there is nothing stay out of the model.
        rows = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        logits = torch.full((len(rows), self.model.config.num_labels), torch.nan)
        weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()} if return_attention else {}
        if rows.any():
            asked = {"output_glimpse_weights": True} if return_attention else {}
            given = {name: tensor[rows] for name, tensor in tensors.items()}
            if getattr(self.model.config, "takes_conversations", False):  # each input, or segment, is one by itself
                given = {name: tensor[:, None] for name, tensor in given.items()}
            outputs = self.model(**given, **asked)
            logits[rows.cpu()] = outputs.logits.float().cpu().reshape(-1, self.model.config.num_labels)
            if return_attention and getattr(outputs, "glimpse_weights", None) is None:
                raise ValueError(
                    f"`return_attention=True` wants to know where the model looked, but a {type(self.model).__name__} has "
                    "no glimpses: leave it out."
                )
            for name, glimpse in zip(weights, outputs.glimpse_weights[-len(masks) :] if weights else (), strict=True):
                # A model with `legacy_masking` pads to its full length.
                weights[name][rows.cpu()] = glimpse.squeeze(-1)[:, : masks[name].shape[1]].float().cpu()
        if not logits[rows.cpu()].isfinite().all():
            raise ValueError(
                "The model answers with NaN or infinite numbers: its weights are damaged, or too large for its dtype "
                f"({self.model.dtype}). Load it with `dtype=torch.float32`, or train it anew."
            )
        plain = {name: value for name, value in model_inputs.items() if name not in tensors}
        glimpses = {f"{MODALITY_OF_MASK[name]}_weights": weights[name] for name in weights}
        lengths = {f"{MODALITY_OF_MASK[name]}_length": mask.sum(dim=1).cpu() for name, mask in masks.items()}
        return {"logits": logits, **glimpses, **lengths, **plain}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        chunk_length_s: float | None = None,
        top_k: int | None = None,
        return_attention: bool = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        results = []
        for outputs in model_outputs:
            # Batched or not, what arrives here is one segment; only the batch axis may still be there.
            outputs = {k: v[0] if isinstance(v, torch.Tensor) and k != "logits" else v for k, v in outputs.items()}
            modalities = [m for m in self.model.config.modalities if outputs.get(f"{m}_length", 0) > 0]
            # A stretch of a file in which there is nothing has no answer.
            result = self._answer(outputs["logits"].flatten(), top_k) if modalities else {}
            result["modalities"] = modalities
            if chunk_length_s is not None:
                result["timestamp"] = (round(outputs["start"], 3), round(outputs["end"], 3))
            if outputs["words"] is not None:
                result["text"] = outputs["text"]
            if outputs["words"]:
                result["words"] = outputs["words"]
            if return_attention:
                result["attention"] = {m: self._where_it_looked(m, outputs) for m in modalities}
            results.append(result)
        return results if chunk_length_s is not None else results[0]

    def _answer(self, logits: torch.Tensor, top_k: int | None) -> dict[str, Any]:
        """What the logits (num_labels,) of one segment mean, by the kind of model."""
        config, names = self.model.config, self.labels
        if not names:
            return {"sentiment": logits[0].item()}
        if getattr(config, "joint_sentiment", False):
            return {"sentiment": logits[0].item(), "emotions": _ranked(names, logits[1:].sigmoid(), top_k)}
        if config.problem_type == "multi_label_classification":
            return {"emotions": _ranked(names, logits.sigmoid(), top_k)}
        scores = logits.softmax(dim=0)
        answer = {"labels": _ranked(names, scores, top_k)}
        if all(_is_number(name) for name in names):  # classes of sentiment: its expected value
            answer["sentiment"] = sum(float(name) * score for name, score in zip(names, scores.tolist(), strict=True))
        return answer

    def _where_it_looked(self, modality: str, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        weights = outputs[f"{modality}_weights"][: int(outputs[f"{modality}_length"])].tolist()
        if modality == "text":
            tokenizer = self.processor.tokenizer
            # Words as they were written, not as the vocabulary knows them.
            spans = tokenizer(outputs["text"], truncation=True, return_offsets_mapping=True)["offset_mapping"]
            if getattr(self.model.config, "text_encoder", None) is not None:
                return _sum_by_word(outputs["text"], spans, weights)
            return [{"word": outputs["text"][i:j], "weight": w} for (i, j), w in zip(spans, weights, strict=True)]
        first = outputs["start"] or 0.0
        if modality == "audio":
            step = self.processor.frame_duration
            first += outputs["offset"]
        else:  # the middle of each clip
            cut = self.processor.video_processor
            step = cut.clip_stride / cut.frame_rate
            first += cut.clip_length / 2 / cut.frame_rate
        return [{"time": round(first + i * step, 3), "weight": weight} for i, weight in enumerate(weights)]


def _sum_by_word(text: str, spans: list[tuple[int, int]], weights: list[float]) -> list[dict[str, Any]]:
    """The words of a text, as white space parts them, with the summed weights of their tokens; special tokens have none."""
    words = list(re.finditer(r"\S+", text))
    ends, sums = [word.end() for word in words], {}
    for (start, end), weight in zip(spans, weights, strict=True):
        if text[start:end].strip():
            index = bisect_left(ends, end)
            sums[index] = sums.get(index, 0.0) + weight
    return [{"word": words[index].group(), "weight": weight} for index, weight in sums.items()]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _ranked(names: list[str], scores: torch.Tensor, top_k: int | None) -> list[dict[str, Any]]:
    ranked = sorted(zip(names, scores.tolist(), strict=True), key=lambda pair: -pair[1])
    return [{"label": name, "score": score} for name, score in ranked[:top_k]]


__all__ = ["MultimodalEmotionPipeline"]
