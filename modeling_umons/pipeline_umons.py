# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pipeline for UMONS: a clip, a sound or words in; sentiment and emotions out."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import logging

from .segments_umons import Segment, as_dict, iter_segments


logger = logging.get_logger(__name__)

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

    An input is a path, a URL or the bytes of a clip or sound file; or a dict with any of `text` (a string), `audio` (a
    path, a URL, bytes, or a waveform (samples,) with `sampling_rate` in Hz beside it; also what `datasets.Audio` gives)
    and `video` (a path, a URL or bytes, whose sound is used unless `audio` is given, or frames at the rate of the video
    processor); or a list or generator of those. Of a file of which one answer is wanted, the first two minutes are read.
    Pictures count in a model with a video tower. A clip without sound is no error where there is `text` to go on with. Raises ValueError for an input in which there is
    nothing that the model can use, and OSError for a file that cannot be read.

    Options, here or in the call:
        top_k (`int`, *optional*): how many emotions to give, the likeliest first. All by default.
        segment_s (`float`, *optional*): cut the clip in segments of this many seconds and give a list of results, each
            with its `timestamp` (start, end) in seconds. Files are read window by window, however long they are. What
            is left at the end joins in unless it is shorter than a frame of the model's sound.
        return_timestamps (`bool`, *optional*): the same, with segments as long as the model hears at most.
        transcriber (an `automatic-speech-recognition` pipeline, *optional*): hears the words where no `text` is given.
            Results then have its `text` and, if it can tell, `words` with the `timestamp` of each.
        return_attention (`bool`, *optional*): add `attention`, for each modality where its final glimpse looked.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def _sanitize_parameters(
        self,
        top_k=None,
        segment_s=None,
        return_timestamps=None,
        transcriber=None,
        return_attention=None,
        **unknown,
    ):
        if unknown:
            raise ValueError(f"Unknown option(s) {sorted(unknown)}: see the help of {type(self).__name__}.")
        preprocess, postprocess = {}, {}
        if return_timestamps and segment_s is None:
            extractor = self.processor.feature_extractor
            segment_s = extractor.max_length * extractor.frame_duration
        if segment_s is not None:
            if not segment_s > 0:
                raise ValueError(f"`segment_s` is {segment_s}: a segment must be longer than 0 seconds.")
            preprocess["segment_s"] = postprocess["segment_s"] = segment_s
        if transcriber is not None:
            preprocess["transcriber"] = transcriber
        if top_k is not None:
            if top_k < 1:
                raise ValueError(f"`top_k` is {top_k}: ask for at least one emotion.")
            postprocess["top_k"] = top_k
        if return_attention is not None:
            postprocess["return_attention"] = return_attention
        return preprocess, {}, postprocess

    def preprocess(self, inputs, segment_s: float | None = None, transcriber=None) -> Iterator[dict[str, Any]]:
        """Yields the model's inputs for each segment, batch axis of 1, every modality of the model in each."""
        config, video_processor = self.model.config, self.processor.video_processor
        inputs = as_dict(inputs)
        if "text" not in config.modalities:
            inputs.pop("text", None)
        transcribes = transcriber is not None and "text" in config.modalities and "text" not in inputs
        segments = iter_segments(
            inputs,
            segment_s,
            listens="audio" in config.modalities or transcribes,
            looks=config.video_tower is not None,
            shortest_s=self.processor.feature_extractor.frame_duration,
            frame_rate=video_processor.frame_rate,
            size=(video_processor.size["height"], video_processor.size["width"]),
        )
        segment = next(segments)
        while segment is not None:
            following = next(segments, None)
            if transcribes and segment.audio is not None:
                self._transcribe(segment, transcriber)
            item = self._process(segment)
            if segment_s is None and not any(item[mask].any() for mask in MODALITY_OF_MASK if mask in item):
                raise ValueError(self._nothing_in(segment.text))
            yield {**item, "is_last": following is None}
            segment = following

    def _transcribe(self, segment: Segment, transcriber):
        """Fills in the words of a segment, and when each is spoken if the transcriber can tell."""
        sound = {"raw": segment.audio, "sampling_rate": segment.sampling_rate}
        try:
            heard = transcriber(dict(sound), return_timestamps="word")  # a copy: pipelines empty what they are given
        except ValueError as error:
            logger.warning_once(f"The transcriber gives words without time stamps: {error}")
            heard = transcriber(dict(sound))
        segment.text = heard["text"]
        segment.words = [
            {
                "word": chunk["text"].strip(),
                "timestamp": tuple(
                    None if time is None else round(segment.start + time, 3) for time in chunk["timestamp"]
                ),
            }
            for chunk in heard.get("chunks", [])
        ]

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
            item["input_ids"] = torch.tensor([ids or [tokenizer.pad_token_id]])
            item["attention_mask"] = torch.tensor([[1] * len(ids) or [0]])
        if "audio" in config.modalities:
            item["input_features"] = torch.zeros(1, 1, config.audio_feature_size)
            item["input_features_mask"] = torch.zeros(1, 1, dtype=torch.long)
            if segment.audio is not None:
                frames = self.processor.feature_extractor(
                    [segment.audio], sampling_rate=segment.sampling_rate, return_offsets=True, return_tensors="pt"
                )
                item["offset"] = float(frames.pop("offsets")[0])
                item.update(frames)
        if config.video_tower is not None:
            item["video_features"] = torch.zeros(1, 1, config.video_feature_size)
            item["video_features_mask"] = torch.zeros(1, 1, dtype=torch.long)
            if segment.frames is not None:
                clips = self.processor.video_processor([segment.frames], return_tensors="pt")
                with torch.no_grad():  # the tower here, so that what waits for a batch is small
                    seen = self.model.get_video_features(clips["pixel_values_videos"].to(self.device))
                item["video_features"] = seen.pooler_output.float().cpu()
                item["video_features_mask"] = clips["video_features_mask"]
        return item

    def _nothing_in(self, text: str | None) -> str:
        modalities = self.model.config.modalities
        remedies = {"text": "{'text': ...} with words", "audio": "a file with sound"}
        if self.model.config.video_tower is not None:
            remedies["video"] = "a clip with pictures"
        return (
            f"There is nothing in this input for a model of {' and '.join(modalities)}"
            f"{'' if text is None else f', and no word in its text, {text!r:.50}'}: "
            f"pass {' or '.join(remedies[m] for m in modalities if m in remedies)}."
        )

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        masks = {name: tensors[name].bool() for name in MODALITY_OF_MASK if name in tensors}
        # Stretches of a file in which there is nothing stay out of the model.
        rows = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        logits = torch.full((len(rows), self.model.config.num_labels), torch.nan)
        weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()}
        if rows.any():
            outputs = self.model(
                **{name: tensor[rows] for name, tensor in tensors.items()}, output_glimpse_weights=True
            )
            logits[rows.cpu()] = outputs.logits.float().cpu()
            for name, glimpse in zip(masks, outputs.glimpse_weights[-len(masks) :], strict=True):
                # A model with `legacy_masking` pads to its full length.
                weights[name][rows.cpu()] = glimpse.squeeze(-1)[:, : masks[name].shape[1]].float().cpu()
        plain = {name: value for name, value in model_inputs.items() if name not in tensors}
        glimpses = {f"{MODALITY_OF_MASK[name]}_weights": weights[name] for name in masks}
        lengths = {f"{MODALITY_OF_MASK[name]}_length": mask.sum(dim=1).cpu() for name, mask in masks.items()}
        return {"logits": logits, **glimpses, **lengths, **plain}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        segment_s: float | None = None,
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
            if segment_s is not None:
                result["timestamp"] = (round(outputs["start"], 3), round(outputs["end"], 3))
            if outputs["words"] is not None:
                result["text"] = outputs["text"]
            if outputs["words"]:
                result["words"] = outputs["words"]
            if return_attention:
                result["attention"] = {m: self._where_it_looked(m, outputs) for m in modalities}
            results.append(result)
        return results if segment_s is not None else results[0]

    def _answer(self, logits: torch.Tensor, top_k: int | None) -> dict[str, Any]:
        """What the logits (num_labels,) of one segment mean, by the kind of model."""
        config = self.model.config
        if config.problem_type == "regression" or config.num_labels == 1:
            return {"sentiment": logits[0].item()}
        names = [config.id2label[i] for i in range(config.num_labels)]
        if config.joint_sentiment:
            return {"sentiment": logits[0].item(), "emotions": _ranked(names[1:], logits[1:].sigmoid(), top_k)}
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
            return [{"word": outputs["text"][i:j], "weight": w} for (i, j), w in zip(spans, weights, strict=True)]
        first = outputs["start"] or 0.0
        if modality == "audio":
            step = self.processor.feature_extractor.frame_duration
            first += outputs["offset"]
        else:  # the middle of each clip
            cut = self.processor.video_processor
            step = cut.clip_stride / cut.frame_rate
            first += cut.clip_length / 2 / cut.frame_rate
        return [{"time": round(first + i * step, 3), "weight": weight} for i, weight in enumerate(weights)]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _ranked(names: list[str], scores: torch.Tensor, top_k: int | None) -> list[dict[str, Any]]:
    ranked = sorted(zip(names, scores.tolist(), strict=True), key=lambda pair: -pair[1])
    return [{"label": name, "score": score} for name, score in ranked[:top_k]]


__all__ = ["MultimodalEmotionPipeline"]
