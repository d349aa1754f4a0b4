# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pipeline of the UMONS models: sentiment and emotions of video, audio and text."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import groupby
from numbers import Integral, Real
from operator import itemgetter
from typing import Any, cast

import torch
from transformers.pipelines.base import ChunkPipeline

from .calibration_umons import (
    UNSURE,
    calibration_weights,
    check_calibration,
    choose_emotion,
    choose_polarity,
    find_calibration,
    find_language,
    name_combination,
    sentiment_interval,
)
from .decoding_umons import DecodingWorker
from .explanations_umons import (
    MAX_UNITS,
    MOMENT_S,
    explain_scores,
    group_steps,
    group_words,
    list_variants,
    predict_variants,
)
from .input_checks_umons import (
    check_audio,
    check_sampling_rate,
    check_text,
    make_warning,
    read_emoji,
)
from .live_umons import LiveStream
from .media_umons import WHOLE_S, Clip, iter_windows
from .processing_umons import check_processor, has_words
from .segmentation_umons import (
    History,
    Segment,
    cut_segments,
    is_dataset,
    iter_segments,
    normalize_input,
    split_segment,
)
from .speaker_encoders_umons import CAMPPLUS
from .speakers_umons import diarize
from .tokenization_umons import encode_history, find_word_times
from .transcription_umons import load_transcriber, transcribe
from .units_umons import GRANULARITIES, iter_units


MIN_LENGTH_S = 0.1  # seconds; a shorter last segment is dropped: codecs pad
OVERFLOWS = ("segment", "truncate", "error")
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
        history (`list`): previous utterances of the conversation, the oldest first, as texts or
            `{"speaker": "Ross", "text": "Hi."}`, for a model with `context_size`.
        speaker (`str`): speaker of the input, for such a model.
        video: a file, a value of `datasets.Video`, or frames `(num_frames, height, width, 3)` at the `frame_rate` of
            the video processor. The audio of a file is used unless `audio` is given.
        segments: times of the segments that are predicted, `(start, end)` in seconds, in order of their starts. Each
            may also be `{"timestamp": (start, end), "text": ..., "words": ..., "speaker": ...}`.
        speakers (`list[dict]`): who speaks when, `{"speaker": "A", "timestamp": (start, end)}`. Results of segments
            then have their `speaker`.

    or a list, generator, data set or column of inputs, with `batch_size`. `None` and NaN are missing values.

    - Without `chunk_length_s`, the result is of the whole input; see `overflow`.
    - `warnings` names properties of the input that make the result doubtful, `[{"code": ..., "message": ...}]`: see
      `input_checks_umons.py` and the page on predictions in the documentation.
    - Segments and parts of an input are the history of later ones that do not overlap with them.
    - Video frames are used by models with a video tower or encoder.
    - A video without audio raises no error if `text` is given.
    - Audio below one 16-bit quantisation step is treated as missing.
    - Segments without input return only `{"modalities": []}` and their `timestamp`. Words without a file have no such
      segments between them.
    - `label` is the strongest emotion that is `present`, "neutral" without one ("none" for labels of your own), or the
      class; of a model of sentiment only, "positive" or "negative". `confidence` is its probability.
    - A model that `umons evaluate --calibrate` has calibrated returns `sentiment_interval`, which contains the
      annotated sentiment of 90 % of unseen inputs with the same modalities.
    - A model of other numbers, such as valence and arousal, returns `values`: their `score`, in the units of its
      training labels, and the `range` of these.
    - Results are plain numbers and strings, which `json.dumps` accepts.

    Options, of the constructor or of a call:
        top_k (`int`, *optional*): number of emotions to return, by decreasing score. All by default.
        chunk_length_s (`float`, *optional*): length of a segment in seconds. The result is then a list with one result
            per segment, each with its `timestamp` (start, end) in seconds. Files of any length are read window by
            window; [`~MultimodalEmotionPipeline.stream`] yields each result as soon as it is computed. A last segment
            shorter than one audio frame of the model is dropped.
        hop_length_s (`float`, *optional*): seconds between the starts of segments; `chunk_length_s` by default.
        return_timestamps (`bool`, *optional*): the same, with segments of the model's maximum length.
        granularity (`str`, *optional*): the segments of a file. `"window"`: `chunk_length_s` seconds. `"utterance"`:
            speech between pauses. `"sentence"`, `"word"`: of the `words` or the transcript; a word is predicted from
            the three seconds around it, its `context`. `"turn"`: the turns of the input's `speakers`. All but windows
            need `faster-whisper`, which finds speech, if there is audio.
        speakers (`bool`, *optional*): find who speaks when in inputs without `speakers`. Results then have their
            `speaker`, and the segments are `"turn"`s unless `granularity` or `chunk_length_s` is given.
        num_speakers (`int`, *optional*): the same, with this number of speakers; estimated by default.
        speaker_encoder (`str`, *optional*, defaults to `"campplus"`): model of voices, see
            `speaker_encoders_umons.load_speaker_encoder`.
        transcriber (`str` or an `automatic-speech-recognition` pipeline, *optional*): transcribes the audio of inputs
            without `text` and `words`: `"whisper"` or another name of `transcription_umons.load_transcriber`. Results
            then have their `text` and, if the transcriber returns times, their `words` with `timestamp`. With times,
            30 seconds are transcribed at once and words are assigned to the segments.
        on_error (`str`, *optional*, defaults to `"raise"`): `"return"` returns `{"error": message}` for an input that
            is invalid or cannot be read, and the results of the others.
        overflow (`str`, *optional*, defaults to `"segment"`): treatment of a text or file that is longer than the
            model processes at once: `"segment"` predicts it in parts and returns means of their scores, weighted by
            their lengths; `"truncate"` uses the beginning; `"error"` raises ValueError.
        strict (`bool`, *optional*, defaults to `False`): raise ValueError for an input with `warnings`.
        abstain_below (`float`, *optional*): the `label` of a result with a lower `confidence` is `"unsure"`.
        return_explanations (`bool`, *optional*): adds `explanations`: the contribution of each modality to the
            sentiment and to each score (Shapley values), and those of single words and of moments of one second, the
            prediction minus the one without them.
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

    read_windows: Callable[..., Generator[Clip]] = staticmethod(iter_windows)  # decoder of files

    def __init__(self, *args, **kwargs):
        self._transcribers: dict[str, Any] = {}
        super().__init__(*args, **kwargs)
        check_processor(self.processor, self.model.config)
        check_calibration(getattr(self.model.config, "calibration", None))

    def decode_in_worker(self, deadline_s: float = 300.0, memory_mb: int = 2048) -> DecodingWorker:
        """
        Decode files in a process with a deadline and a memory limit from now on, for files of untrusted people.

        Args:
            deadline_s: seconds for a window, or for a whole file without `chunk_length_s`.
            memory_mb: MiB that decoding may allocate.

        Returns:
            The worker. A file that exceeds a limit is an OSError, and the next one starts another process.
        """
        worker = DecodingWorker(deadline_s, memory_mb)
        self.read_windows = worker.iter_windows
        return worker

    def _sanitize_parameters(
        self,
        top_k=None,
        chunk_length_s=None,
        hop_length_s=None,
        granularity=None,
        return_timestamps=None,
        speakers=None,
        num_speakers=None,
        speaker_encoder=None,
        transcriber=None,
        return_attention=None,
        return_explanations=None,
        abstain_below=None,
        overflow=None,
        strict=None,
        on_error=None,
        **unknown,
    ):
        if unknown:
            raise ValueError(f"Unknown option(s) {sorted(unknown)}: see the documentation of {type(self).__name__}.")
        preprocess, forward, postprocess = {}, {}, {}
        if speakers is not None and not isinstance(speakers, bool):
            raise ValueError(
                f"`speakers` is {speakers!r:.100}: pass True, their number as `num_speakers`, or turns in the input."
            )
        if speaker_encoder is not None and not speakers and num_speakers is None:
            raise ValueError("`speaker_encoder` requires `speakers=True` or `num_speakers`.")
        if speakers or num_speakers is not None:
            preprocess["diarization"] = {"num_speakers": num_speakers, "speaker_encoder": speaker_encoder or CAMPPLUS}
            if granularity is None and chunk_length_s is None:
                granularity = "turn"
        if return_timestamps and chunk_length_s is None:
            chunk_length_s = self.processor.max_duration
        for name, seconds in {"chunk_length_s": chunk_length_s, "hop_length_s": hop_length_s}.items():
            if seconds is not None:
                preprocess[name] = _check_seconds(name, seconds)
        if granularity is not None:
            if granularity not in GRANULARITIES:
                raise ValueError(
                    f"`granularity` is {granularity!r}: pass one of {', '.join(map(repr, GRANULARITIES))}."
                )
            preprocess["granularity"] = granularity
        if transcriber is not None:
            preprocess["transcriber"] = self._load_transcriber(transcriber)
        if overflow is not None:
            if overflow not in OVERFLOWS:
                raise ValueError(f"`overflow` is {overflow!r}: pass one of {', '.join(map(repr, OVERFLOWS))}.")
            preprocess["overflow"] = overflow
        if strict is not None:
            preprocess["strict"] = bool(strict)
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
        if return_explanations is not None:
            for options in (preprocess, forward, postprocess):
                options["return_explanations"] = bool(return_explanations)
        return preprocess, forward, postprocess

    def _load_transcriber(self, transcriber):
        """Return a transcriber, loaded once if it is a name."""
        if transcriber is not None and not isinstance(transcriber, str) and not callable(transcriber):
            raise ValueError(
                f"`transcriber` is {transcriber!r:.100}: pass a name, such as 'whisper', or a speech recognition "
                "pipeline."
            )
        if not isinstance(transcriber, str):
            return transcriber
        if transcriber not in self._transcribers:
            self._transcribers[transcriber] = load_transcriber(transcriber)
        return self._transcribers[transcriber]

    @property
    def _is_regression(self) -> bool:
        config = self.model.config
        is_number = config.num_labels == 1 and config.problem_type != "multi_label_classification"
        return config.problem_type == "regression" or is_number

    @property
    def labels(self) -> list[str]:
        """Labels of the scores in results, in the model's order; empty for a model of sentiment only."""
        config = self.model.config
        names = [config.id2label[i] for i in range(config.num_labels)]
        if self._is_regression and len(names) == 1 and names[0] in ("sentiment", "LABEL_0"):
            return []
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

    def live(self, sampling_rate: float | None = None, transcriber=None, **options) -> LiveStream:
        """
        Return a stream to `push` chunks of audio to, which returns predictions while the audio arrives.

        Args:
            sampling_rate: rate of the chunks in Hz; that of the model's audio by default.
            transcriber, options: see the class and [`~live_umons.LiveStream`].
        """
        return LiveStream(self, sampling_rate, transcriber=self._load_transcriber(transcriber), **options)

    @property
    def min_length_s(self) -> float:
        """Seconds of the shortest last segment that is predicted."""
        return max(MIN_LENGTH_S, self.processor.frame_duration)

    def preprocess(
        self,
        inputs,
        stream: bool = False,
        on_error: str = "raise",
        overflow: str = "segment",
        strict: bool = False,
        return_explanations: bool = False,
        **cutting,
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the model's inputs of each segment, with a batch axis of 1 and all modalities of the model.

        Results are collected up to the segment that `is_last`; in a `stream` every segment is.
        """
        try:
            for item, number in self._iter_items(inputs, stream, overflow, strict, **cutting):
                yield {**item, "units": self._list_units(item, number)} if return_explanations else item
        except (OSError, ValueError) as error:
            if on_error == "raise":
                raise
            yield {**self._process(Segment()), "error": str(error), "is_last": True}

    def _iter_segments(
        self,
        inputs: dict[str, Any],
        overflow: str,
        chunk_length_s: float | None = None,
        hop_length_s: float | None = None,
        granularity: str | None = None,
        transcriber=None,
        diarization: dict[str, Any] | None = None,
    ) -> tuple[Iterator[Segment], bool]:
        """Return the segments of an input, and whether the result is a list of theirs."""
        config, video_processor = self.model.config, self.processor.video_processor
        if diarization is not None and "speakers" not in inputs:
            inputs["speakers"] = diarize(inputs, read_windows=self.read_windows, **diarization)
            if granularity == "turn" and not inputs["speakers"]:
                granularity = "utterance"  # one segment with the warning `no_speech`
        if granularity == "window" or hop_length_s is not None:
            chunk_length_s = chunk_length_s or self.processor.max_duration
        granularity = granularity or "window"
        has_speakers = chunk_length_s is not None and "speakers" in inputs
        has_units = "segments" not in inputs and (granularity != "window" or hop_length_s is not None or has_speakers)
        if "text" not in config.modalities or "words" in inputs or ("text" in inputs and not has_units):
            transcriber = None
        media = {
            "audio": self._uses_audio or transcriber is not None,
            "video": self._uses_frames,
            "sampling_rate": self.processor.feature_extractor.sampling_rate,
            "min_length_s": self.min_length_s,
            "frame_rate": video_processor.frame_rate,
            "size": (video_processor.size["height"], video_processor.size["width"]),
            "read_windows": self.read_windows,
        }
        if (units := inputs.get("segments")) is not None:
            segments = cut_segments(inputs, units, **media)
            return segments if transcriber is None else transcribe(segments, transcriber), True
        if not has_units:
            segments = iter_segments(inputs, chunk_length_s, read_all=overflow == "segment", **media)
            return segments if transcriber is None else transcribe(segments, transcriber), chunk_length_s is not None
        units = iter_units(
            inputs,
            granularity,
            transcriber=transcriber,
            chunk_length_s=chunk_length_s,
            hop_length_s=hop_length_s or chunk_length_s,
            read_windows=self.read_windows,
        )
        return cut_segments(inputs, units, ends_with_file=granularity == "window", **media), True

    def _iter_items(
        self, inputs, stream: bool, overflow: str, strict: bool, **cutting
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each part of each segment with the number of its parts: several if it exceeds the model."""
        inputs = normalize_input(inputs)
        history, input_speaker = self._take_history(inputs)
        if "text" not in self.model.config.modalities:
            inputs.pop("text", None)
            inputs.pop("words", None)
        segments, is_list = self._iter_segments(inputs, overflow, **cutting)
        segment, group, has_input = next(segments, None), 0, False
        if segment is None:
            raise ValueError("There is no segment to predict: `segments`, or `speakers` for their turns, is empty.")
        while segment is not None:
            following = next(segments, None)
            warnings = self._check(inputs, segment, overflow)
            parts = [(segment, 1.0)]
            if overflow == "segment":
                parts = split_segment(segment, self._max_duration, self._frame_rate, self._split_text)
            if strict and (len(parts) > 1 or (not is_list and following is not None)):
                has_sound = segment.audio is not None or segment.frames is not None
                known = ["text"] * bool(segment.text) + ["audio"] * has_sound
                raise ValueError(self._describe_parts(len(parts), known)["message"])
            transcript = None
            if segment.words is not None:
                transcript = segment.result.pop("text", segment.text), segment.result.pop("words", segment.words)
            for index, (part, weight) in enumerate(parts):
                speaker = segment.result.get("speaker", input_speaker)
                tensors = self._process(part, history.before(part), speaker)
                item = {**tensors, "group": group, "weight": weight, "is_list": is_list}
                if part.text not in [other.text for other, _ in parts[index + 1 :]]:  # the same text, in several parts
                    history.add(part, speaker)
                given = {modality for mask, modality in MODALITY_OF_MASK.items() if mask in item and item[mask].any()}
                has_input |= bool(given)
                item["transcript"] = transcript if index == 0 else None
                item["repeats_text"] = index > 0 and part.text == segment.text
                item["warnings"] = (warnings if index == 0 else []) + self._check_modalities(given)
                if strict and item["warnings"]:
                    raise ValueError("; ".join(f"{w['code']}: {w['message']}" for w in item["warnings"]))
                is_end = index == len(parts) - 1
                if is_end and following is None and not is_list and not has_input:
                    raise ValueError(self._describe_missing_input(inputs, segment))
                yield {**item, "is_last": is_end and (stream or following is None)}, len(parts)
            segment, group = following, group + 1 if is_list else group

    def _take_history(self, inputs: dict[str, Any]) -> tuple[History, str | None]:
        """Remove the previous utterances and the speaker from an input, and return them."""
        size = getattr(self.model.config, "context_size", 0)
        history, speaker = inputs.pop("history", []), inputs.pop("speaker", None)
        if not size and (history or speaker):
            raise ValueError(
                "This model takes no previous utterances: omit `history` and `speaker`, or train one with "
                "`--context_size`."
            )
        return History(history, size), speaker

    @property
    def _max_duration(self) -> float:
        """Seconds of a file that the model processes at once."""
        settings = self.processor.video_processor
        of_frames = settings.max_clips * settings.clip_stride / settings.frame_rate
        return min(
            [self.processor.max_duration] * self._uses_audio + [of_frames] * self._uses_frames, default=math.inf
        )

    @property
    def _frame_rate(self) -> float:
        return self.processor.video_processor.frame_rate

    @property
    def _uses_audio(self) -> bool:
        return "audio" in self.model.config.modalities

    @property
    def _max_tokens(self) -> int:
        """Tokens of a text, without special ones, that the model processes at once."""
        tokenizer = self.processor.tokenizer
        limit = min(tokenizer.model_max_length, self.model.config.max_text_length)
        return max(1, limit - tokenizer.num_special_tokens_to_add())

    def _count_tokens(self, words: list[str]) -> list[int]:
        ids = self.processor.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"] if words else []
        return [len(of_word) for of_word in ids]

    def _split_text(self, text: str) -> list[str]:
        """Cut a text that is longer than the model processes into parts of about the same length, between words."""
        limit = self._max_tokens
        words = [text] if len(self._count_tokens([text])) == 0 else text.split()
        counts = self._count_tokens(words)
        if sum(counts) <= limit:
            return [text]
        # A "word" of a script without spaces alone can exceed the limit.
        pieces = [
            word[i : i + size]
            for word, count in zip(words, counts, strict=True)
            for size in [max(1, len(word) * limit // (count + 1)) if count > limit else len(word)]
            for i in range(0, len(word), size)
        ]
        counts = self._count_tokens(pieces)
        target = sum(counts) / -(-sum(counts) // limit)
        parts: list[list[str]] = [[]]
        length = 0
        for piece, count in zip(pieces, counts, strict=True):
            if parts[-1] and (length + count > limit or length >= target):
                parts.append([])
                length = 0
            parts[-1].append(piece)
            length += count
        return [" ".join(part) for part in parts]

    def _check(self, inputs: dict[str, Any], segment: Segment, overflow: str) -> list[dict[str, str]]:
        """Return the warnings of a segment, and replace its text by words if it has emoji only."""
        warnings = [make_warning(warning["code"], warning["message"]) for warning in segment.warnings]
        if "text" in self.model.config.modalities and segment.text is not None and segment.text.strip():
            warnings += self._check_text(segment, overflow)
        if self._uses_audio:
            if segment.is_silent:
                warnings.append(make_warning("silent", "The audio is silent, and is treated as missing."))
            if not isinstance(inputs.get("audio"), (str, bytes)) and isinstance(inputs.get("sampling_rate"), Real):
                warnings += check_sampling_rate(inputs["sampling_rate"])
            if segment.audio is not None:
                warnings += check_audio(segment.audio, segment.sampling_rate)
                warnings += self._check_duration(len(segment.audio) / segment.sampling_rate, overflow)
        return warnings

    def _check_text(self, segment: Segment, overflow: str) -> list[dict[str, str]]:
        tokenizer, text = self.processor.tokenizer, segment.text or ""
        if not any(character.isalnum() for character in text):
            words = read_emoji(text)
            if not words:
                return [make_warning("no_words", f"The text has no word: {text!r:.50}.")]
            segment.text = words
            return [make_warning("emoji", f"The text has emoji only; they were read as {words!r:.100}.")]
        if not has_words(tokenizer, tokenizer(text, truncation=True)["input_ids"]):
            return [make_warning("no_words", f"The text has no word that the model can know: {text!r:.50}.")]
        warnings = check_text(text, tokenizer, find_language(self.model.config))
        count = sum(self._count_tokens(text.split()))
        if count > self._max_tokens:
            fact = f"The text has {count} tokens, and the model processes {self._max_tokens} at once"
            warnings += _check_overflow("text_cut", fact, overflow)
        return warnings

    def _check_modalities(self, modalities: set[str]) -> list[dict[str, str]]:
        """Return a warning for a combination of modalities that the training rows or the calibration lack."""
        config = self.model.config
        fields = {"trained": "trained_modalities", "validated": "calibration"}
        tested = {verb: getattr(config, name, None) for verb, name in fields.items()}
        combination = name_combination([m for m in config.modalities if m in modalities])
        lacking = [(verb, known) for verb, known in tested.items() if known and combination not in known]
        if not combination or not lacking:
            return []
        verb, known = lacking[0]
        message = f"The model was {verb} on {' and '.join(known)}, not on {combination}: scores are less certain."
        return [make_warning("untested_modalities", message)]

    def _check_duration(self, duration: float, overflow: str) -> list[dict[str, str]]:
        if duration <= self._max_duration + 0.1:
            return []
        limit = "at least " if duration >= WHOLE_S and overflow != "segment" else ""
        fact = f"The audio has {limit}{duration:.1f} s, and the model processes {self._max_duration:.1f} s at once"
        return _check_overflow("audio_cut", fact, overflow)

    def _describe_parts(self, number: int, modalities: Sequence[str]) -> dict[str, str]:
        limits = [f"{self._max_tokens} tokens of text"] * ("text" in modalities)
        limits += [f"{self._max_duration:.1f} s"] * (math.isfinite(self._max_duration) and set(modalities) != {"text"})
        fact = f"The input is longer than the model processes at once ({', '.join(limits)})"
        return make_warning("pooled", f"{fact}: the scores are means over {number} parts.")

    @property
    def _uses_frames(self) -> bool:
        config = self.model.config
        return any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))

    def _process(
        self, segment: Segment, history: Sequence[dict[str, Any]] = (), speaker: str | None = None
    ) -> dict[str, Any]:
        """Return the model's tensors, under the same names for every segment, so that segments can be batched."""
        modalities = self.model.config.modalities
        item = {name: getattr(segment, name) for name in ("start", "end", "text", "result")}
        item |= {
            "offset": 0.0,
            "error": None,
            "group": 0,
            "weight": 1.0,
            "warnings": [],
            "transcript": None,
            "repeats_text": False,
            "is_list": False,
        }
        if "text" in modalities:
            item.update(self._process_text(segment.text or ""))
        # CODEPATH: models of conversations also take the previous utterances
        if getattr(self.model.config, "context_size", 0):
            item.update(self._process_history(history, speaker))
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

    def _process_history(self, history: Sequence[dict[str, Any]], speaker: str | None) -> dict[str, torch.Tensor]:
        config = self.model.config
        limits = (config.context_size, config.max_context_length)
        ids = encode_history(self.processor.tokenizer, history, speaker, *limits)
        return {"history_ids": torch.tensor([ids or [0]]), "history_mask": torch.tensor([[1] * len(ids) or [0]])}

    def _process_audio(self, audio, sampling_rate: int) -> dict[str, Any]:
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
        remedies = {"text": "a `text` with words", "audio": "a file with audio"}
        if self._uses_frames:
            remedies["video"] = "a clip with video"
        files = [inputs[name] for name in ("audio", "video") if isinstance(inputs.get(name), str)]
        return (
            f"{files[0] if files else 'This input'} has nothing for a model of {' and '.join(modalities)}"
            f"{', its audio is silent' if segment.is_silent else ''}"
            f"{'' if segment.text is None else f', and there is no word in its text, {segment.text!r:.50}'}: "
            f"pass {' or '.join(remedies[m] for m in modalities if m in remedies)}."
        )

    def _list_units(self, item: dict[str, Any], num_parts: int) -> dict[str, dict[str, Any]]:
        """Return the words and moments of a part that are left out: their steps and names, by the mask."""
        units = {}
        for mask, modality in MODALITY_OF_MASK.items():
            length = int(item[mask].sum()) if mask in item else 0
            names: list[str] | list[float] = []
            if length == 0:
                continue
            if modality == "text":
                words = list(re.finditer(r"\S+", item["text"]))
                spans = self._token_spans(item["text"])
                size = max(1, -(-len(words) * num_parts // MAX_UNITS))
                steps = group_words(spans, [word.end() for word in words], size)
                ends = [word.end() for word in words]
                numbers = [bisect_left(ends, spans[group[0]][1]) // size for group in steps]
                names = [" ".join(word.group() for word in words[n * size : (n + 1) * size]) for n in numbers]
            elif modality in self._averaged:
                steps = []
            else:
                times = self._step_times(modality, item, length)
                steps = group_steps(length, times[1] - times[0] if length > 1 else MOMENT_S)
                names = [times[group[0]] for group in steps]
            units[mask] = {"steps": steps, "names": names}
        return units

    def _token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters (start, end) of each token of a text."""
        tokenizer = self.processor.tokenizer
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} does not return the places of words: use a fast tokenizer.")
        return tokenizer(text, truncation=True, return_offsets_mapping=True)["offset_mapping"]

    @property
    def _averaged(self) -> tuple[str, ...]:
        """Modalities of one step, the mean over time: no moment of them has a weight or contribution of its own."""
        return ("audio",) if getattr(self.model.config, "average_audio", False) else ()

    def _step_times(self, modality: str, outputs: dict[str, Any], length: int) -> list[float]:
        """Return the time of each audio frame or video clip, in seconds from the beginning of the file."""
        first = outputs["start"] or 0.0
        if modality == "audio":
            step = self.processor.frame_duration
            first += outputs["offset"]
        else:  # the middle of each clip
            settings = self.processor.video_processor
            step = settings.clip_stride / settings.frame_rate
            first += settings.clip_length / 2 / settings.frame_rate
        return [round(first + i * step, 3) for i in range(length)]

    def _forward(
        self, model_inputs: dict[str, Any], return_attention: bool = False, return_explanations: bool = False
    ) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        masks = {name: tensors[name].bool() for name in MODALITY_OF_MASK if name in tensors}
        # Segments without input are not passed to the model.
        rows = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        logits = torch.full((len(rows), self.model.config.num_labels), torch.nan)
        weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()} if return_attention else {}
        if rows.any():
            options = {"output_glimpse_weights": True} if return_attention else {}
            inputs = {name: tensor[rows] for name, tensor in tensors.items()}
            outputs = self._run_model(inputs, **options)
            logits[rows.cpu()] = outputs.logits.float().cpu().reshape(-1, self.model.config.num_labels)
            if return_attention and not getattr(outputs, "glimpse_weights", None):
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
        if return_explanations:
            plain["variants"] = self._predict_variants(tensors, masks, plain.pop("units"))
        lengths = {f"{MODALITY_OF_MASK[name]}_length": mask.sum(dim=1).cpu() for name, mask in masks.items()}
        return {"logits": logits, **glimpses, **lengths, **plain}

    def _run_model(self, inputs: dict[str, torch.Tensor], **options):
        if getattr(self.model.config, "takes_conversations", False):  # each input or segment is a conversation
            inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
        return self.model(**inputs, **options)

    def _predict_variants(self, tensors, masks, units) -> list[dict[str, Any]]:
        """Predict each row without single modalities, words and moments."""

        def predict(history: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
            size = len(next(iter(batch.values())))
            batch |= {name: values.expand(size, -1) for name, values in history.items()}
            return self._run_model(batch).logits.float().cpu().reshape(-1, self.model.config.num_labels)

        found = []
        for row, of_row in enumerate([units] if isinstance(units, dict) else units):
            lengths = {name: int(mask[row].sum()) for name, mask in masks.items() if mask[row].any()}
            variants = list_variants(lengths, {mask: unit["steps"] for mask, unit in of_row.items()})
            alone = {name: tensor[row : row + 1] for name, tensor in tensors.items()}
            history = {name: alone.pop(name) for name in ("history_ids", "history_mask") if name in alone}
            kept = [[MODALITY_OF_MASK[mask] for mask, steps in variant.items() if steps] for variant in variants]
            scored = predict_variants(partial(predict, history), alone, variants)
            found.append({"logits": scored, "modalities": kept, "units": of_row})
        return found

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        top_k: int | None = None,
        return_attention: bool = False,
        return_explanations: bool = False,
        abstain_below: float | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        if (error := model_outputs[-1]["error"]) is not None:
            return {"error": error}
        results, is_list = [], model_outputs[-1]["is_list"]
        for _, group in groupby(model_outputs, key=itemgetter("group")):
            parts = [self._read_part(outputs) for outputs in group]
            result = self._pool(parts, top_k)
            if abstain_below is not None and "label" in result:
                self._abstain(result, abstain_below)
            result["modalities"] = self._list_modalities(parts)
            if is_list:
                result.update(self._describe_segment(parts))
            warnings = [self._describe_parts(len(parts), result["modalities"])] if len(parts) > 1 else []
            warnings += [warning for part in parts for warning in part["warnings"]]
            result["warnings"] = list({warning["code"]: warning for warning in reversed(warnings)}.values())[::-1]
            spoken = [part["transcript"] for part in parts if part["transcript"] is not None]
            if spoken:
                result["text"] = " ".join(text for text, _ in spoken)
                if words := [word for _, of_part in spoken for word in of_part]:
                    result["words"] = words
            if return_attention:
                result["attention"] = self._join_attention(parts)
            if return_explanations:
                result["explanations"] = self._join_explanations(parts)
            results.append(result)
        return results if is_list else results[0]

    @staticmethod
    def _describe_segment(parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the time of a segment, and the other entries that were given or found with it."""
        found = dict(parts[0]["result"])
        times = found.pop("timestamp", None) or (parts[0]["start"], max(part["end"] for part in parts))
        if "context" in found:
            found["context"] = {**found["context"], "timestamp": _round_times(found["context"]["timestamp"])}
        return {"timestamp": _round_times(times), **found}

    def _read_part(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of one part without their batch axis, with its modalities and calibrated scores."""
        part = {k: v[0] if isinstance(v, torch.Tensor) and k != "logits" else v for k, v in outputs.items()}
        part["modalities"] = [m for m in self.model.config.modalities if part.get(f"{m}_length", 0) > 0]
        if part["modalities"]:
            part["sentiment"], part["scores"] = self._score(part["logits"].flatten(), part["modalities"])
        return part

    def _list_modalities(self, parts: list[dict[str, Any]]) -> list[str]:
        return [m for m in self.model.config.modalities if any(m in part["modalities"] for part in parts)]

    def _score(self, logits: torch.Tensor, modalities: list[str]) -> tuple[float | None, dict[str, float]]:
        """Convert logits (num_labels,) to the sentiment, `None` without one, and the calibrated score of labels."""
        config, names = self.model.config, self.labels
        sentiment = logits[0].item() if not names or getattr(config, "joint_sentiment", False) else None
        if not names:
            return sentiment, {}
        if self._is_regression:
            return None, dict(zip(names, logits.tolist(), strict=True))
        factors, biases = calibration_weights(names, find_calibration(config, modalities))
        logits = logits[-len(names) :] * torch.tensor(factors) + torch.tensor(biases)
        is_binary = sentiment is not None or config.problem_type == "multi_label_classification"
        scores = logits.sigmoid() if is_binary else logits.softmax(dim=0)
        return sentiment, dict(zip(names, scores.tolist(), strict=True))

    def _pool(self, parts: list[dict[str, Any]], top_k: int | None) -> dict[str, Any]:
        """Return the result of a segment: means of the scores of its parts, weighted by their lengths."""
        known = [part for part in parts if part["modalities"]]
        if not known:
            return {}
        weights = [part["weight"] / sum(part["weight"] for part in known) for part in known]
        sentiments = [part["sentiment"] for part in known]
        sentiment = None if None in sentiments else _dot(weights, sentiments)
        scores = {name: _dot(weights, [part["scores"][name] for part in known]) for name in self.labels}
        return self._describe_scores(sentiment, scores, self._list_modalities(known), top_k)

    def _describe_scores(
        self, sentiment: float | None, scores: dict[str, float], modalities: list[str], top_k: int | None
    ) -> dict[str, Any]:
        """Return sentiment, interval, label and scores, by the model's task."""
        calibration = find_calibration(self.model.config, modalities)
        result: dict[str, Any] = {}
        if sentiment is not None:
            result["sentiment"] = sentiment
            if (interval := sentiment_interval(sentiment, calibration)) is not None:
                result["sentiment_interval"] = interval
        if sentiment is not None and not scores:
            label, confidence = choose_polarity(sentiment, calibration)
            return {**result, "label": label, **({} if confidence is None else {"confidence": confidence})}
        if self._is_regression:
            return {"values": self._describe_values(scores)}
        ranked = [{"label": name, "score": score} for name, score in sorted(scores.items(), key=lambda pair: -pair[1])]
        if sentiment is not None or self.model.config.problem_type == "multi_label_classification":
            result["label"], result["confidence"], present = choose_emotion(scores, calibration)
            result["emotions"] = [{**entry, "present": entry["label"] in present} for entry in ranked[:top_k]]
            return result
        result = {"label": ranked[0]["label"], "confidence": ranked[0]["score"], "labels": ranked[:top_k]}
        if all(_is_number(name) for name in scores):  # sentiment classes: the expected value
            result["sentiment"] = sum(float(name) * score for name, score in scores.items())
        return result

    def _describe_values(self, values: dict[str, float]) -> list[dict[str, Any]]:
        """Return the numbers of a regression in the model's order, with the range of their training labels."""
        ranges = getattr(self.model.config, "label_ranges", None) or [None] * len(values)
        return [
            {"label": name, "score": value, **({} if limits is None else {"range": list(limits)})}
            for (name, value), limits in zip(values.items(), ranges, strict=True)
        ]

    def _abstain(self, result: dict[str, Any], abstain_below: float):
        """Replace the label of a result that is less confident than `abstain_below`."""
        if "confidence" not in result:
            raise ValueError(
                "`abstain_below` requires a calibrated model for these modalities: calibrate it with `umons evaluate "
                "--calibrate`, or omit `abstain_below`."
            )
        if result["confidence"] < abstain_below:
            result["label"] = UNSURE

    def _explain_part(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return the contributions of the modalities, words and moments of a part to the sentiment and the scores."""
        variants = part["variants"][0] if isinstance(part["variants"], list) else part["variants"]
        found = []
        for logits, modalities in zip(variants["logits"], variants["modalities"], strict=False):
            found.append(self._name_scores(*self._score(logits, modalities)) if modalities else None)
        found += [None] * (len(variants["modalities"]) - len(found))
        order = {modality: mask for mask, modality in MODALITY_OF_MASK.items() if mask in variants["units"]}
        names = {modality: variants["units"][mask]["names"] for modality, mask in order.items()}
        full = self._name_scores(part["sentiment"], part["scores"])
        explanation = explain_scores(full, found, list(order), {modality: len(n) for modality, n in names.items()})
        for modality, of_units in names.items():
            key = "word" if modality == "text" else "time"
            explanation[modality] = [
                {key: name, **scores} for name, scores in zip(of_units, explanation[modality], strict=True)
            ]
        return explanation

    @staticmethod
    def _name_scores(sentiment: float | None, scores: dict[str, float]) -> dict[str, float]:
        return {**({} if sentiment is None else {"sentiment": sentiment}), **scores}

    def _join_explanations(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the explanation of a segment; contributions in a part are scaled by its length."""
        known = [part for part in parts if part["modalities"]]
        total = sum(part["weight"] for part in known)
        joined: dict[str, Any] = {"modalities": {}}
        for part in known:
            explanation, share = self._explain_part(part), part["weight"] / total
            for modality, scores in explanation.pop("modalities").items():
                before = joined["modalities"].get(modality, dict.fromkeys(scores, 0.0))
                joined["modalities"][modality] = {n: before[n] + share * value for n, value in scores.items()}
            for modality, units in explanation.items():
                scaled = [
                    {n: value * share if n not in ("word", "time") else value for n, value in unit.items()}
                    for unit in units
                ]
                _extend(joined.setdefault(modality, []), scaled, modality == "text" and part["repeats_text"])
        return joined

    def _join_attention(self, parts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Return the attention of a segment by modality; weights of a part are scaled by its length."""
        attention: dict[str, list[dict[str, Any]]] = {}
        for modality in self._list_modalities(parts):
            if modality in self._averaged:
                continue
            having = [part for part in parts if modality in part["modalities"]]
            total = sum(part["weight"] for part in having)
            attention[modality] = []
            for part in having:
                weights = self._attention_over(modality, part)
                scaled = [{**entry, "weight": entry["weight"] * part["weight"] / total} for entry in weights]
                _extend(attention[modality], scaled, modality == "text" and part["repeats_text"])
        return attention

    def _attention_over(self, modality: str, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the glimpse weights of a modality with the word or time of each."""
        weights = outputs[f"{modality}_weights"][: int(outputs[f"{modality}_length"])].tolist()
        if modality == "text":
            spans = self._token_spans(outputs["text"])  # words as in the text, not as in the vocabulary
            if getattr(self.model.config, "text_encoder", None) is not None:
                return _sum_by_word(outputs["text"], spans, weights)
            return [{"word": outputs["text"][i:j], "weight": w} for (i, j), w in zip(spans, weights, strict=True)]
        times = self._step_times(modality, outputs, len(weights))
        return [{"time": time, "weight": weight} for time, weight in zip(times, weights, strict=True)]


def _sum_by_word(text: str, spans: list[tuple[int, int]], weights: list[float]) -> list[dict[str, Any]]:
    """Return the whitespace-separated words of a text with the summed weights of their tokens."""
    words = list(re.finditer(r"\S+", text))
    ends = [word.end() for word in words]
    sums: dict[int, float] = {}
    for (start, end), weight in zip(spans, weights, strict=True):
        if text[start:end].strip():
            index = bisect_left(ends, end)
            sums[index] = sums.get(index, 0.0) + weight
    return [{"word": words[index].group(), "weight": weight} for index, weight in sums.items()]


def _round_times(timestamp: tuple[float, float]) -> tuple[float, float]:
    start, end = timestamp
    return round(start, 3), round(end, 3)


def _check_seconds(name: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < cast(float, seconds) < math.inf:
        raise ValueError(f"`{name}` is {seconds!r}: pass a positive, finite number of seconds.")
    return float(seconds)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _extend(entries: list[dict[str, Any]], following: list[dict[str, Any]], repeats: bool):
    """Append the entries of another part, or add their numbers to those of the same words."""
    if not repeats or not entries:
        entries.extend(following)
        return
    for entry, other in zip(entries, following, strict=True):
        entry.update({n: entry[n] + value for n, value in other.items() if n != "word"})


def _dot(weights: list[float], values: list[float]) -> float:
    return values[0] if len(values) == 1 else sum(w * value for w, value in zip(weights, values, strict=True))


def _check_overflow(code: str, fact: str, overflow: str) -> list[dict[str, str]]:
    """Return a warning for an input that is truncated; raise ValueError if its length is an error."""
    if overflow == "error":
        raise ValueError(f"{fact}: pass a shorter one, or `overflow='segment'`.")
    return [make_warning(code, f"{fact}: the rest was not used.")] if overflow == "truncate" else []


__all__ = ["MultimodalEmotionPipeline"]
