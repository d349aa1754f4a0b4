# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pipeline for UMONS: a clip, a sound or words in; sentiment and emotions out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from .media import iter_windows, read_clip


# What a dict of inputs may hold.
INPUT_NAMES = ("text", "audio", "sampling_rate", "video")
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
    path, a URL, bytes, or a waveform (samples,) with `sampling_rate` in Hz beside it; also the dict of `datasets.Audio`)
    and `video` (a path, a URL or bytes, of which the sound is used too unless `audio` is given); or a list or generator
    of those. Raises ValueError for an input in which there is nothing that the model can use, and OSError for a file
    that cannot be read.

    Options, here or in the call:
        top_k (`int`, *optional*): how many emotions to give, the likeliest first. All by default.
        segment_s (`float`, *optional*): cut the clip in segments of this many seconds and give a list of results, each
            with its `timestamp` (start, end) in seconds. Files are read window by window, however long they are.
        return_timestamps (`bool`, *optional*): the same, with segments as long as the model hears at most.
        transcriber (an `automatic-speech-recognition` pipeline, *optional*): hears the words where no `text` is given.
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
        segments = self._segments(self._as_dict(inputs), segment_s)
        segment = next(segments)
        while segment is not None:
            following = next(segments, None)
            if segment["text"] is None and transcriber is not None and segment["audio"] is not None:
                segment["text"] = transcriber({"raw": segment["audio"], "sampling_rate": segment["sampling_rate"]})[
                    "text"
                ]
            yield {**self._process(segment), "is_last": following is None}
            segment = following

    def _as_dict(self, inputs) -> dict[str, Any]:
        if isinstance(inputs, (str, Path, bytes)):
            if isinstance(inputs, str) and not _is_file_or_url(inputs):
                raise ValueError(
                    f"{inputs!r:.200} is neither a file nor a URL. To analyse words, pass {{'text': ...}}."
                )
            return {"video": inputs}
        if not isinstance(inputs, dict):
            raise ValueError(
                f"An input is a path, a URL, bytes, or a dict with any of {', '.join(INPUT_NAMES)}, not {type(inputs).__name__}."
            )
        unknown = set(inputs) - set(INPUT_NAMES)
        if unknown:
            raise ValueError(f"An input has no {sorted(unknown)}: pass any of {', '.join(INPUT_NAMES)}.")
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if isinstance(inputs.get("audio"), dict):  # what `datasets.Audio` gives
            sound = inputs["audio"]
            inputs = {**inputs, "audio": sound.get("array", sound.get("raw")), "sampling_rate": sound["sampling_rate"]}
        if not isinstance(inputs.get("text", ""), str):
            raise ValueError(f"`text` must be a string, not {type(inputs['text']).__name__}.")
        return inputs

    def _segments(self, inputs: dict[str, Any], segment_s: float | None) -> Iterator[dict[str, Any]]:
        """Yields dicts of `start`, `end` (seconds; `None` without sound), `text`, `audio` (samples,), `sampling_rate`."""
        text, sound, rate = inputs.get("text"), inputs.get("audio"), inputs.get("sampling_rate")
        nothing = {"start": None, "end": None, "text": text, "audio": None, "sampling_rate": None}
        if segment_s is not None and text is not None:
            raise ValueError(
                "`text` cannot be cut into segments, as nothing says when its words are spoken: pass `transcriber=` "
                "instead of `text`, or leave `segment_s` and `return_timestamps` out."
            )
        if "audio" not in self.model.config.modalities or (sound is None and inputs.get("video") is None):
            if segment_s is not None:
                raise ValueError(
                    "There is no sound to cut into segments: leave `segment_s` and `return_timestamps` out."
                )
            yield nothing
            return
        if sound is not None and not isinstance(sound, (str, Path, bytes)):
            if rate is None:
                raise ValueError("`audio` is a waveform: say its `sampling_rate` in Hz beside it.")
            sound = np.asarray(sound)
            step = max(1, round(segment_s * rate)) if segment_s else max(1, sound.shape[-1])
            for first in range(0, max(1, sound.shape[-1]), step):
                part = sound[..., first : first + step]
                times = {"start": first / rate, "end": (first + part.shape[-1]) / rate}
                yield {**nothing, **times, "audio": part, "sampling_rate": rate}
            return

        source = sound if sound is not None else inputs["video"]
        if segment_s is None:
            clips = iter([read_clip(source, video=False)])
        else:
            clips = iter_windows(source, segment_s, video=False)
        for clip in clips:
            times = {"start": clip.start, "end": clip.start + clip.duration}
            yield {**nothing, **times, "audio": clip.audio, "sampling_rate": clip.sampling_rate}

    def _process(self, segment: dict[str, Any]) -> dict[str, Any]:
        """Tensors for the model, of the same names in every segment, so that segments make batches."""
        config, text, audio = self.model.config, segment["text"], segment["audio"]
        text = text if "text" in config.modalities else None
        if text is None and audio is None and segment["start"] is None:
            raise ValueError(
                f"There is nothing in this input for a model of {' and '.join(config.modalities)}: pass "
                "{'text': ...} for words, or a file with sound."
            )
        inputs = {}
        if text is not None or audio is not None:
            inputs = self.processor(
                text=None if text is None else [text],
                audio=None if audio is None else [audio],
                sampling_rate=segment["sampling_rate"],
                audio_kwargs={"return_offsets": True},
                return_tensors="pt",
            )
        absent = {
            "text": {"input_ids": torch.zeros(1, 1, dtype=torch.long), "attention_mask": torch.zeros(1, 1)},
            "audio": {
                "input_features": torch.zeros(1, 1, config.audio_feature_size),
                "input_features_mask": torch.zeros(1, 1),
            },
        }
        item = {name: segment[name] for name in ("start", "end", "text")}
        item["offset"] = float(inputs["offsets"][0]) if "offsets" in inputs else 0.0
        for modality, nothing in absent.items():
            if modality in config.modalities:
                item.update({name: inputs.get(name, empty) for name, empty in nothing.items()})
        return item

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        masks = {name: tensors[name].bool() for name in MODALITY_OF_MASK if name in tensors}
        # Stretches of a file in which there is nothing stay out of the model, and have no answer.
        rows = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        logits = torch.full((len(rows), self.model.config.num_labels), torch.nan)
        weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()}
        if rows.any():
            outputs = self.model(
                **{name: tensor[rows] for name, tensor in tensors.items()}, output_glimpse_weights=True
            )
            logits[rows.cpu()] = outputs.logits.float().cpu()
            for name, glimpse in zip(masks, outputs.glimpse_weights[-len(masks) :], strict=True):
                weights[name][rows.cpu()] = glimpse.squeeze(-1).float().cpu()
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
            result = self._answer(outputs["logits"].flatten(), top_k)
            modalities = [m for m in self.model.config.modalities if outputs.get(f"{m}_length", 0) > 0]
            result["modalities"] = modalities
            if segment_s is not None:
                result["timestamp"] = (round(outputs["start"], 3), round(outputs["end"], 3))
                if outputs["text"] is not None:
                    result["text"] = outputs["text"]
            if return_attention:
                result["attention"] = {m: self._where_it_looked(m, outputs) for m in modalities}
            results.append(result)
        return results if segment_s is not None else results[0]

    def _answer(self, logits: torch.Tensor, top_k: int | None) -> dict[str, Any]:
        """What the logits (num_labels,) of one segment mean, by the kind of model; nothing for a segment with nothing."""
        config = self.model.config
        if logits.isnan().any():
            return {}
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
        step = self.processor.feature_extractor.frame_duration
        first = (outputs["start"] or 0.0) + outputs["offset"]
        return [{"time": round(first + i * step, 3), "weight": weight} for i, weight in enumerate(weights)]


def _is_file_or_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) or Path(text).exists()


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _ranked(names: list[str], scores: torch.Tensor, top_k: int | None) -> list[dict[str, Any]]:
    ranked = sorted(zip(names, scores.tolist(), strict=True), key=lambda pair: -pair[1])
    return [{"label": name, "score": score} for name, score in ranked[:top_k]]


__all__ = ["MultimodalEmotionPipeline"]
