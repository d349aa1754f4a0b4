# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pipeline of the UMONS models: sentiment and emotions of video, audio and text."""

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from .calibration_umons import (
    UNSURE,
    calibration_weights,
    check_calibration,
    choose_emotion,
    choose_polarity,
    find_calibration,
    sentiment_interval,
)
from .media_umons import iter_windows
from .processing_umons import check_processor, has_words
from .segmentation_umons import Segment, is_dataset, iter_segments, normalize_input, transcribe
from .tokenization_umons import find_word_times


MIN_LENGTH_S = 0.1  # seconds; a shorter last segment is dropped: codecs pad
MODALITY_OF_MASK = {
    "attention_mask": "text",
    "input_features_mask": "audio",
    "audio_embeds_mask": "audio",
    "video_features_mask": "video",
    "video_embeds_mask": "video",
}


class MultimodalEmotionPipeline(ChunkPipeline):
    """
    Predicts sentiment and emotions from video, audio and text.

    ```python
    >>> from transformers import pipeline
    >>> import modeling_umons

    >>> recognize = pipeline("multimodal-emotion-recognition", model="path/to/model")
    >>> recognize({"text": "what a wonderful day", "audio": "clip.wav"})
    {'sentiment': 1.2, 'label': 'happy', 'confidence': 0.9, 'emotions': [{'label': 'happy', 'score': 0.9,
    'present': True}, ...], 'modalities': ['text', 'audio']}
    ```

    An input is a video or audio file as a path, a URL, bytes or an open file; a value of a `datasets.Audio` or
    `datasets.Video` column; or a dict or row of a data set with any of

        text (`str`): the transcript.
        words (`list[dict]`): the transcript word by word, `{"word": "glad", "timestamp": (start, end)}` with seconds
            from the beginning of the file, as a `transcriber` returns them. Words can be cut into segments.
        audio: a file, a value of `datasets.Audio`, or a waveform `(num_samples,)` or `(num_channels, num_samples)`
            with its `sampling_rate` in Hz as another key. It is resampled as files are.
        video: a file, a value of `datasets.Video`, or frames `(num_frames, height, width, 3)` at the `frame_rate` of
            the video processor. The audio of a file is used unless `audio` is given.

    or a list, generator, data set or column of inputs, with `batch_size`. `None` and NaN are missing values.

    - Without `chunk_length_s`, the first two minutes of a file are read.
    - Video frames are used by models with a video tower or encoder.
    - A video without audio raises no error if `text` is given.
    - Audio below one 16-bit quantisation step is treated as missing.
    - Segments without input return only `{"modalities": []}` and their `timestamp`. Words without a file have no such
      segments between them.
    - `label` is the strongest emotion that is `present`, "neutral" without one, or the class; of a model of sentiment
      only, "positive" or "negative". `confidence` is its probability.
    - A model that `umons evaluate --calibrate` has calibrated returns `sentiment_interval`, which contains the
      annotated sentiment of 90 % of unseen inputs with the same modalities.
    - Results are plain numbers and strings, which `json.dumps` accepts.

    Options, of the constructor or of a call:
        top_k (`int`, *optional*): number of emotions to return, by decreasing score. All by default.
        chunk_length_s (`float`, *optional*): length of a segment in seconds. The result is then a list with one result
            per segment, each with its `timestamp` (start, end) in seconds. Files of any length are read window by
            window; [`~MultimodalEmotionPipeline.stream`] yields each result as soon as it is computed. A last segment
            shorter than one audio frame of the model is dropped. Of a segment longer than the model's maximum, the
            beginning is used.
        return_timestamps (`bool`, *optional*): the same, with segments of the model's maximum length.
        transcriber (an `automatic-speech-recognition` pipeline, *optional*): transcribes the audio of inputs without
            `text` and `words`. Results then have their `text` and, if the transcriber returns times, their `words`
            with `timestamp`. With times, 30 seconds are transcribed at once and words are assigned to the segments.
        on_error (`str`, *optional*, defaults to `"raise"`): `"return"` returns `{"error": message}` for an input that
            is invalid or cannot be read, and the results of the others.
        abstain_below (`float`, *optional*): the `label` of a result with a lower `confidence` is `"unsure"`.
        return_attention (`bool`, *optional*): adds `attention`, the weights of the final glimpse over the words, audio
            frames and video clips. ValueError for a model without glimpses.

    Raises:
        ValueError: an input has nothing that the model can use.
        OSError: a file cannot be read.
        ImportError: a package for the input is missing: `av` for audio and video files, `torchvision` for frames.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    read_windows = staticmethod(iter_windows)  # decoder of files; a server replaces it by a worker process

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        check_processor(self.processor, self.model.config)
        check_calibration(getattr(self.model.config, "calibration", None))

    def _sanitize_parameters(
        self,
        top_k=None,
        chunk_length_s=None,
        return_timestamps=None,
        transcriber=None,
        return_attention=None,
        abstain_below=None,
        on_error=None,
        **unknown,
    ):
        if unknown:
            raise ValueError(f"Unknown option(s) {sorted(unknown)}: see the documentation of {type(self).__name__}.")
        preprocess, forward, postprocess = {}, {}, {}
        if return_timestamps and chunk_length_s is None:
            chunk_length_s = self.processor.max_duration
        if chunk_length_s is not None:
            if (
                isinstance(chunk_length_s, bool)
                or not isinstance(chunk_length_s, Real)
                or not 0 < chunk_length_s < math.inf
            ):
                raise ValueError(f"`chunk_length_s` is {chunk_length_s!r}: pass a positive, finite number of seconds.")
            preprocess["chunk_length_s"] = postprocess["chunk_length_s"] = float(chunk_length_s)
        if transcriber is not None:
            preprocess["transcriber"] = transcriber
        if on_error is not None:
            if on_error not in ("raise", "return"):
                raise ValueError(f"`on_error` is {on_error!r}: pass 'raise' or 'return'.")
            preprocess["on_error"] = on_error
        if top_k is not None:
            if isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 1:
                raise ValueError(f"`top_k` is {top_k!r}: pass a positive integer.")
            postprocess["top_k"] = top_k
        if abstain_below is not None:
            if isinstance(abstain_below, bool) or not isinstance(abstain_below, Real) or not 0 <= abstain_below <= 1:
                raise ValueError(f"`abstain_below` is {abstain_below!r}: pass a probability from 0 to 1.")
            postprocess["abstain_below"] = float(abstain_below)
        if return_attention is not None:
            forward["return_attention"] = postprocess["return_attention"] = return_attention
        return preprocess, forward, postprocess

    @property
    def labels(self) -> list[str]:
        """Labels of the scores in results, in the model's order; empty for a model of sentiment only."""
        config = self.model.config
        is_number = config.num_labels == 1 and config.problem_type != "multi_label_classification"
        if config.problem_type == "regression" or is_number:
            return []
        names = [config.id2label[i] for i in range(config.num_labels)]
        return names[1:] if getattr(config, "joint_sentiment", False) else names

    def __call__(self, inputs, **options):
        """
        Predict one input or each of a list. For a generator, data set or column, return an iterator over the results.

        Args:
            inputs: see the class.
            options: see the class; also `batch_size`, the number of inputs, or segments of them, per batch.
        """
        if isinstance(inputs, (list, tuple)) and not inputs:
            return []  # transformers would index the first one
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif is_dataset(inputs):
            inputs = (one for one in inputs)
        return super().__call__(inputs, **options)

    def stream(
        self, inputs, chunk_length_s: float | None = None, batch_size: int | None = None, **options
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the result of each segment of one input as soon as it is computed, in memory independent of its length.

        Args:
            inputs: one input, see the class.
            chunk_length_s: length of a segment in seconds; the model's maximum by default.
            batch_size: number of segments per batch.
            options: other options of the class.
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
            yield from results if isinstance(results, list) else [results]  # a single one is an error

    def preprocess(
        self,
        inputs,
        chunk_length_s: float | None = None,
        transcriber=None,
        stream: bool = False,
        on_error: str = "raise",
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the model's inputs of each segment, with a batch axis of 1 and all modalities of the model.

        Results are collected up to the segment that `is_last`; in a `stream` every segment is.
        """
        try:
            yield from self._iter_items(inputs, chunk_length_s, transcriber, stream)
        except (OSError, ValueError) as error:
            if on_error == "raise":
                raise
            yield {**self._process(Segment()), "error": str(error), "is_last": True}

    def _iter_items(self, inputs, chunk_length_s, transcriber, stream) -> Iterator[dict[str, Any]]:
        config, video_processor = self.model.config, self.processor.video_processor
        inputs = normalize_input(inputs)
        if "text" not in config.modalities:
            inputs.pop("text", None)
            inputs.pop("words", None)
        has_text = "text" in inputs or "words" in inputs
        needs_transcript = transcriber is not None and "text" in config.modalities and not has_text
        segments = iter_segments(
            inputs,
            chunk_length_s,
            audio="audio" in config.modalities or needs_transcript,
            video=self._uses_frames,
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            min_length_s=max(MIN_LENGTH_S, self.processor.frame_duration),
            frame_rate=video_processor.frame_rate,
            size=(video_processor.size["height"], video_processor.size["width"]),
            read_windows=self.read_windows,
        )
        if needs_transcript:
            segments = transcribe(segments, transcriber)
        segment = next(segments)
        while segment is not None:
            following = next(segments, None)
            item = self._process(segment)
            if chunk_length_s is None and not any(item[mask].any() for mask in MODALITY_OF_MASK if mask in item):
                raise ValueError(self._describe_missing_input(inputs, segment))
            yield {**item, "is_last": stream or following is None}
            segment = following

    @property
    def _uses_frames(self) -> bool:
        config = self.model.config
        return any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))

    def _process(self, segment: Segment) -> dict[str, Any]:
        """Return the model's tensors, under the same names for every segment, so that segments can be batched."""
        modalities = self.model.config.modalities
        item = {name: getattr(segment, name) for name in ("start", "end", "text", "words")}
        item |= {"offset": 0.0, "error": None}
        if "text" in modalities:
            item.update(self._process_text(segment.text or ""))
        if "audio" in modalities:
            item.update(self._process_audio(segment.audio, segment.sampling_rate))
        if self._uses_frames:
            item.update(self._process_frames(segment.frames))
        # CODEPATH: MFN and Graph-MFN align frames with words; UMONS models have no use of times
        if getattr(self.model.config, "alignment", None) == "words" and "text" in modalities:
            item.update(self._find_times(segment, item))
        return item

    def _find_times(self, segment: Segment, item: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the times of words and audio frames, in seconds from the beginning of the segment; NaN if unknown."""
        start = segment.start or 0.0
        words = [
            (word["word"], *(None if time is None else time - start for time in word["timestamp"]))
            for word in segment.words or ()
        ]
        times = {"word_times": find_word_times(self.processor.tokenizer, item["input_ids"], [words])}
        if "input_features" in item:
            middles = self.processor.audio_times(item["input_features"].shape[1], item["offset"])
            times["audio_times"] = torch.from_numpy(middles).float()[None]
        return times

    def _process_text(self, text: str) -> dict[str, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        ids = tokenizer(text, truncation=True)["input_ids"]
        ids = ids if has_words(tokenizer, ids) else []
        return {
            "input_ids": torch.tensor([ids or [tokenizer.pad_token_id]]),
            "attention_mask": torch.tensor([[1] * len(ids) or [0]]),
        }

    def _process_audio(self, audio, sampling_rate: int | None) -> dict[str, Any]:
        """Extract log-mel frames, or run the audio encoder: segments that wait for a batch then take little memory."""
        config = self.model.config
        has_encoder = getattr(config, "audio_encoder", None) is not None
        if audio is None:
            name = "audio_embeds" if has_encoder else "input_features"
            features = torch.zeros(1, 1, config.audio_feature_size)
            return {name: features, f"{name}_mask": torch.zeros(1, 1, dtype=torch.long)}
        if has_encoder:
            inputs = self.processor(audio=[audio], sampling_rate=sampling_rate, return_tensors="pt")
            with torch.no_grad():
                outputs = self.model.get_audio_features(**inputs.to(self.device))
            features = outputs.pooler_output.float().cpu()
            return {"audio_embeds": features, "audio_embeds_mask": outputs.attention_mask.cpu()}
        frames = self.processor.feature_extractor(
            [audio], sampling_rate=sampling_rate, return_offsets=True, return_tensors="pt"
        )
        return {"offset": float(frames.pop("offsets")[0]), **frames}

    def _process_frames(self, frames) -> dict[str, torch.Tensor]:
        """Run the video tower or encoder: segments that wait for a batch then take little memory."""
        name = self.model.config.sequence_name("video")
        if frames is None:
            features = torch.zeros(1, 1, self.model.config.video_feature_size)
            return {name: features, f"{name}_mask": torch.zeros(1, 1, dtype=torch.long)}
        clips = self.processor.video_processor([frames], return_tensors="pt")
        with torch.no_grad():
            outputs = self.model.get_video_features(clips["pixel_values_videos"].to(self.device))
        features = outputs.pooler_output.float().cpu()
        return {name: features, f"{name}_mask": clips["video_features_mask"]}

    def _describe_missing_input(self, inputs: dict[str, Any], segment: Segment) -> str:
        modalities = self.model.config.modalities
        remedies = {"text": "{'text': ...} with words", "audio": "a file with audio"}
        if self._uses_frames:
            remedies["video"] = "a clip with video"
        files = [inputs[name] for name in ("audio", "video") if isinstance(inputs.get(name), str)]
        return (
            f"{files[0] if files else 'This input'} has nothing for a model of {' and '.join(modalities)}"
            f"{', its audio is silent' if segment.is_silent else ''}"
            f"{'' if segment.text is None else f', and there is no word in its text, {segment.text!r:.50}'}: "
            f"pass {' or '.join(remedies[m] for m in modalities if m in remedies)}."
        )

    def _forward(self, model_inputs: dict[str, Any], return_attention: bool = False) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        masks = {name: tensors[name].bool() for name in MODALITY_OF_MASK if name in tensors}
        # Segments without input are not passed to the model.
        rows = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        logits = torch.full((len(rows), self.model.config.num_labels), torch.nan)
        weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()} if return_attention else {}
        if rows.any():
            options = {"output_glimpse_weights": True} if return_attention else {}
            inputs = {name: tensor[rows] for name, tensor in tensors.items()}
            if getattr(self.model.config, "takes_conversations", False):  # each input or segment is a conversation
                inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
            outputs = self.model(**inputs, **options)
            logits[rows.cpu()] = outputs.logits.float().cpu().reshape(-1, self.model.config.num_labels)
            if return_attention and getattr(outputs, "glimpse_weights", None) is None:
                raise ValueError(
                    "`return_attention=True` requires a model with glimpses, which a "
                    f"{type(self.model).__name__} does not have: omit it."
                )
            for name, glimpse in zip(weights, outputs.glimpse_weights[-len(masks) :] if weights else (), strict=True):
                # A model with `legacy_masking` pads to its full length.
                weights[name][rows.cpu()] = glimpse.squeeze(-1)[:, : masks[name].shape[1]].float().cpu()
        if not logits[rows.cpu()].isfinite().all():
            raise ValueError(
                "The model's logits are NaN or infinite: its weights are damaged, or too large for its dtype "
                f"({self.model.dtype}). Load it with `dtype=torch.float32`, or retrain it."
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
        abstain_below: float | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        if (error := model_outputs[-1]["error"]) is not None:
            return {"error": error}
        results = []
        for outputs in model_outputs:
            # Each entry is one segment, with or without its batch axis.
            outputs = {k: v[0] if isinstance(v, torch.Tensor) and k != "logits" else v for k, v in outputs.items()}
            modalities = [m for m in self.model.config.modalities if outputs.get(f"{m}_length", 0) > 0]
            result = self._to_scores(outputs["logits"].flatten(), modalities, top_k) if modalities else {}
            if abstain_below is not None and result:
                self._abstain(result, abstain_below)
            result["modalities"] = modalities
            if chunk_length_s is not None:
                result["timestamp"] = (round(outputs["start"], 3), round(outputs["end"], 3))
            if outputs["words"] is not None:
                result["text"] = outputs["text"]
            if outputs["words"]:
                result["words"] = outputs["words"]
            if return_attention:
                result["attention"] = {m: self._attention_over(m, outputs) for m in modalities}
            results.append(result)
        return results if chunk_length_s is not None else results[0]

    def _to_scores(self, logits: torch.Tensor, modalities: list[str], top_k: int | None) -> dict[str, Any]:
        """Convert the logits (num_labels,) of one segment to sentiment, emotions or labels, by the model's task."""
        config, names = self.model.config, self.labels
        calibration, result = find_calibration(config, modalities), {}
        if not names or getattr(config, "joint_sentiment", False):
            result["sentiment"] = logits[0].item()
            if (interval := sentiment_interval(result["sentiment"], calibration)) is not None:
                result["sentiment_interval"] = interval
        if not names:
            label, confidence = choose_polarity(result["sentiment"], calibration)
            return {**result, "label": label, **({} if confidence is None else {"confidence": confidence})}
        factors, biases = calibration_weights(names, calibration)
        logits = logits[-len(names) :] * torch.tensor(factors) + torch.tensor(biases)
        if result or config.problem_type == "multi_label_classification":
            scores = dict(zip(names, logits.sigmoid().tolist(), strict=True))
            result["label"], result["confidence"], present = choose_emotion(scores, calibration)
            result["emotions"] = [{**entry, "present": entry["label"] in present} for entry in _rank(scores, top_k)]
            return result
        scores = dict(zip(names, logits.softmax(dim=0).tolist(), strict=True))
        ranked = _rank(scores, top_k)
        result = {"label": ranked[0]["label"], "confidence": ranked[0]["score"], "labels": ranked}
        if all(_is_number(name) for name in names):  # sentiment classes: the expected value
            result["sentiment"] = sum(float(name) * score for name, score in scores.items())
        return result

    def _abstain(self, result: dict[str, Any], abstain_below: float):
        """Replace the label of a result that is less confident than `abstain_below`."""
        if "confidence" not in result:
            raise ValueError(
                "`abstain_below` requires a calibrated model for these modalities: calibrate it with `umons evaluate "
                "--calibrate`, or omit `abstain_below`."
            )
        if result["confidence"] < abstain_below:
            result["label"] = UNSURE

    def _attention_over(self, modality: str, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the glimpse weights of a modality with the word or time of each."""
        weights = outputs[f"{modality}_weights"][: int(outputs[f"{modality}_length"])].tolist()
        if modality == "text":
            tokenizer = self.processor.tokenizer
            # Words as in the text, not as in the vocabulary.
            spans = tokenizer(outputs["text"], truncation=True, return_offsets_mapping=True)["offset_mapping"]
            if getattr(self.model.config, "text_encoder", None) is not None:
                return _sum_by_word(outputs["text"], spans, weights)
            return [{"word": outputs["text"][i:j], "weight": w} for (i, j), w in zip(spans, weights, strict=True)]
        first = outputs["start"] or 0.0
        if modality == "audio":
            step = self.processor.frame_duration
            first += outputs["offset"]
        else:  # the middle of each clip
            settings = self.processor.video_processor
            step = settings.clip_stride / settings.frame_rate
            first += settings.clip_length / 2 / settings.frame_rate
        return [{"time": round(first + i * step, 3), "weight": weight} for i, weight in enumerate(weights)]


def _sum_by_word(text: str, spans: list[tuple[int, int]], weights: list[float]) -> list[dict[str, Any]]:
    """Return the whitespace-separated words of a text with the summed weights of their tokens."""
    words = list(re.finditer(r"\S+", text))
    ends, sums = [word.end() for word in words], {}
    for (start, end), weight in zip(spans, weights, strict=True):
        if text[start:end].strip():
            index = bisect_left(ends, end)
            sums[index] = sums.get(index, 0.0) + weight
    return [{"word": words[index].group(), "weight": weight} for index, weight in sums.items()]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _rank(scores: dict[str, float], top_k: int | None) -> list[dict[str, Any]]:
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    return [{"label": name, "score": score} for name, score in ranked[:top_k]]


__all__ = ["MultimodalEmotionPipeline"]
