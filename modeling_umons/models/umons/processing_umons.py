# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Processor of the UMONS models: text, audio and video to model inputs."""

import inspect
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, PreTrainedConfig, WhisperFeatureExtractor
from transformers.audio_utils import AudioInput
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import TextInput
from transformers.utils import auto_docstring
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoInput

from .configuration_umons import count_positions
from .encoders_umons import build_without_weights, default_length, describe_sound, fetch
from .feature_extraction_umons import UmonsFeatureExtractor, as_batch, is_silent, normalize_level, to_mono
from .media_umons import read_clip, resample
from .tokenization_umons import build_tokenizer, normalize_typography
from .video_processing_umons import UmonsVideoProcessor


# Vocabularies of models may exceed those of their tokenizers: they are rounded up to a multiple of a power of two.
SPARE_IDS = 1024
ENCODER_FRAME_RATE = 7.5  # frames per second of video encoders: VideoMAE was trained on every fourth of 30


class UmonsProcessorKwargs(ProcessingKwargs, total=False):
    pass


# An exception to TRF019 of the model linter: transformers 5.20 does not read defaults from processor_config.json.
UmonsProcessorKwargs._defaults = {"text_kwargs": {"padding": True, "truncation": True}}  # type: ignore[attr-defined]


@auto_docstring(
    custom_intro="""
    Combines a word-level tokenizer, [`UmonsFeatureExtractor`] and [`UmonsVideoProcessor`] into a processor for
    [`UmonsModel`]. Sequences are truncated to the model's maximum and padded to the longest of the batch. For a model
    with pretrained encoders, [`~UmonsProcessor.from_encoders`] uses their own tokenizer and feature extractor.
    """
)
class UmonsProcessor(ProcessorMixin):
    valid_processor_kwargs = UmonsProcessorKwargs
    # `save_pretrained` copies the code, so that the folder loads without this package.
    _auto_class = "AutoProcessor"  # type: ignore[assignment]

    def __init__(
        self, tokenizer, feature_extractor, video_processor, max_audio_length=None, audio_frame_duration=None
    ):
        r"""
        max_audio_length (`int`, *optional*):
            Maximum number of audio encoder steps of a model with an audio encoder.
        audio_frame_duration (`float`, *optional*):
            Seconds from one step of the audio encoder to the next.
        """
        tokenizer.padding_side = "right"  # as the tables of a training and the pipeline pad
        super().__init__(tokenizer, feature_extractor, video_processor)
        # Set by saving and dropped by loading. Set here, so that a loaded processor equals the saved one.
        self.auto_map = {self._auto_class: "processing_umons.UmonsProcessor"}
        self.max_audio_length = max_audio_length
        self.audio_frame_duration = audio_frame_duration

    @classmethod
    def from_encoders(
        cls,
        text: str | None = None,
        audio: str | None = None,
        video: str | None = None,
        tokenizer=None,
        max_text_length: int = 60,
        max_audio_length: int | None = None,
        max_video_length: int = 60,
        normalize_level: bool = True,
    ):
        """
        Create the processor for a model of [`UmonsModel.from_encoders`], with the encoders' own tokenizer and feature
        extractor, and clips of the video encoder's length, size and normalisation. The tokenizer normalises typography
        first (`normalize_typography`); pass `tokenizer` to use it as it is.

        Args:
            text, audio, video: folder or Hub id of each encoder of the model.
            tokenizer (*optional*): used instead of the text encoder's, or, from `build_tokenizer`, for a model without
                a text encoder. With neither, all words are unknown.
            max_text_length, max_audio_length, max_video_length: those of the model. Texts are truncated to the
                encoder's number of positions at most; `max_audio_length` defaults to 30 seconds, as in the model.
            normalize_level: whether waveforms for the audio encoder are scaled to the same level of speech, so that
                the level of a recording does not matter. Saved with the feature extractor.

        Raises:
            OSError: an encoder, or a part of it, cannot be read or downloaded.
            ValueError: the tokenizer does not belong to the encoder, or an encoder is not of its modality.
        """
        if text is not None:
            config = fetch(AutoConfig, text, "text")
            if tokenizer is None:
                tokenizer = fetch(AutoTokenizer, text, "text")
                tokenizer = normalize_typography(tokenizer) if tokenizer.is_fast else tokenizer
            _check_vocabulary(tokenizer, config)
            # Encoders get a single text: token types are not needed.
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
            for setting in ("max_length", "truncation", "padding", "pad_to_multiple_of"):  # left from earlier use
                tokenizer.init_kwargs.pop(setting, None)
            if tokenizer.is_fast:  # they are also saved in `tokenizer.json`
                tokenizer.backend_tokenizer.no_truncation()
                tokenizer.backend_tokenizer.no_padding()
            positions = count_positions(config, "text") or max_text_length
            tokenizer.model_max_length = min(max_text_length, tokenizer.model_max_length, positions)
        elif tokenizer is None:
            tokenizer = build_tokenizer([], max_length=max_text_length)

        frame_duration = None
        if audio is not None:
            feature_extractor = fetch(AutoFeatureExtractor, audio, "audio")
            feature_extractor.normalize_level = normalize_level
            encoder = build_without_weights(audio, "audio")
            _, frame_duration = describe_sound(encoder, feature_extractor)
            max_audio_length = max_audio_length or default_length(encoder, frame_duration)
        else:
            feature_extractor = UmonsFeatureExtractor(max_length=max_audio_length or 60)

        settings = {} if video is None else _describe_clips(video)
        video_processor = UmonsVideoProcessor(max_clips=max_video_length, **settings)
        max_audio_length = None if audio is None else max_audio_length
        return cls(tokenizer, feature_extractor, video_processor, max_audio_length, frame_duration)

    @property
    def frame_duration(self) -> float:
        """Seconds from one audio step of the model to the next."""
        return self.audio_frame_duration or self.feature_extractor.frame_duration

    def audio_times(self, num_frames: int, offset: float = 0.0) -> np.ndarray:
        """Return the middles (num_frames,) of audio steps in seconds. `offset` is the start of step 0."""
        if self.audio_frame_duration is None:
            return self.feature_extractor.frame_times(num_frames, offset)
        return offset + (np.arange(num_frames) + 0.5) * self.audio_frame_duration

    @property
    def max_duration(self) -> float:
        """Maximum seconds of audio that the model uses."""
        return self.frame_duration * (self.max_audio_length or self.feature_extractor.max_length)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self._audio_names, *self.video_processor.model_input_names]

    @property
    def _audio_names(self) -> list[str]:
        name = self.feature_extractor.model_input_names[0]
        return [name, f"{name}_mask"]

    def check_argument_for_proper_class(self, argument_name, argument):
        # transformers exports the class that it would check for only if torchvision is installed.
        if argument_name == "video_processor" and isinstance(argument, BaseVideoProcessor):
            return BaseVideoProcessor
        return super().check_argument_for_proper_class(argument_name, argument)

    @auto_docstring(
        custom_intro="""
        Pass `None` for a missing modality of a row; its mask is then zero. A text without words and audio that stays
        below one 16-bit quantisation step are missing too. A modality that no row has is omitted.
        """
    )
    def __call__(
        self,
        text: TextInput | list[TextInput | None] | None = None,
        audio: AudioInput | None = None,
        videos: VideoInput | None = None,
        **kwargs: Unpack[UmonsProcessorKwargs],
    ) -> BatchFeature:
        r"""
        text (`str` or `list[str | None]`, *optional*):
            Transcripts.
        audio (`np.ndarray`, `torch.Tensor`, `str` or a list of them and `None`, *optional*):
            Waveforms, as [`UmonsFeatureExtractor`] accepts them, with their `sampling_rate` in Hz: audio at another
            rate is resampled. Or paths or URLs of files, without a `sampling_rate`.
        videos (`VideoInput` or a list of them and `None`, *optional*):
            Videos, as [`UmonsVideoProcessor`] accepts them.

        Returns:
            [`BatchFeature`] with
            - **input_ids**, **attention_mask** -- `(B, T_text)` int64, for text.
            - **input_features** -- `(B, T_audio, 80)` float32, for audio.
            - **input_features_mask** -- `(B, T_audio)` int64. For an audio encoder, these are its own input,
              `input_values` or `input_features`, and the mask of it.
            - **pixel_values_videos** -- `(B, T_video, 16, 3, 112, 112)` float32, for videos.
            - **video_features_mask** -- `(B, T_video)` int64.

        Raises:
            ValueError: `images` or `video` is passed; a list is empty; modalities have different numbers of rows; a
                row has no modality; a part rejects its input.
            ImportError: a package for the input is missing: `av` for audio at another rate and for files,
                `torchvision` for videos.
        """
        if kwargs.get("images") is not None:
            raise ValueError("UMONS models have no `images`: pass the frames of a video as `videos`.")
        if "video" in kwargs:
            raise ValueError("The processor has no `video`: pass `videos`.")
        if isinstance(text, str):
            text = [text]
        for name, rows in {"text": text, "audio": audio, "videos": videos}.items():
            if isinstance(rows, (list, tuple)) and not rows:
                raise ValueError(f"`{name}` is an empty list: pass at least one row, or omit it.")

        options: dict[str, Any] = {**kwargs}
        words = text and ["" if row is None else row for row in text]
        present_audio, has_audio = _drop_missing(audio if audio is None else as_batch(audio))
        if present_audio and all(isinstance(row, str) for row in present_audio):
            rate = options["sampling_rate"] = self.feature_extractor.sampling_rate
            present_audio = [read_clip(file, video=False, sampling_rate=rate).audio for file in present_audio]
        present_videos, has_video = _drop_missing(videos)
        data = super().__call__(text=words, audio=present_audio, videos=present_videos, **options)
        _restore_missing(data, self._audio_names, has_audio)
        _restore_missing(data, self.video_processor.model_input_names, has_video)

        found = {
            "text": [has_words(self.tokenizer, ids) for ids in data["input_ids"]] if "input_ids" in data else None,
            "audio": _find_present(data, self._audio_names[1]) or has_audio,
            "videos": _find_present(data, "video_features_mask") or has_video,
        }
        has: dict[str, list[bool]] = {name: rows for name, rows in found.items() if rows is not None}
        _check_rows(has, text, has_audio)
        if not any(has.get("audio", [True])):
            for name in self._audio_names:
                data.pop(name, None)
        if not any(has.get("text", [True])):
            for name in self.tokenizer.model_input_names:
                data.pop(name, None)
        elif "text" in has:
            self._blank_wordless(data, has["text"])
        return data

    def _blank_wordless(self, data: BatchFeature, has_words: list[bool]):
        """Replace the special tokens of rows without words by padding."""
        for name, value in {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}.items():
            rows = data.get(name, [])
            for i, row in enumerate(rows):
                if not has_words[i]:
                    rows[i] = [value] * len(row) if isinstance(row, list) else row * 0 + value

    def _process_audio(self, audio: AudioInput, sampling_rate: float | None = None, **kwargs):
        extractor = self.feature_extractor
        if self.audio_frame_duration is None:
            return super()._process_audio(audio, sampling_rate=sampling_rate, **kwargs)
        if sampling_rate is None or not sampling_rate > 0:
            raise ValueError(f"`sampling_rate` is {sampling_rate}: pass the rate of `audio` in Hz.")
        waveforms = []
        for i, waveform in enumerate(audio):
            waveform = to_mono(waveform, f"Waveform {i} of the batch")
            waveforms.append(resample(waveform, sampling_rate, extractor.sampling_rate))
        # Other `kwargs` are ignored: transformers also passes options of the tokenizer, such as `max_length`.
        return prepare_waveforms(self, waveforms, kwargs.get("return_tensors") or "np"), []


def has_words(tokenizer, input_ids) -> bool:
    """Return whether ids (T,) have more than padding and the special tokens that are added to every text."""
    # Read from the ids: the mask can be switched off.
    added = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return any(int(index) not in added for index in input_ids)


def prepare_waveforms(
    processor: UmonsProcessor, waveforms: list[np.ndarray], return_tensors: str = "np", return_times: bool = False
) -> dict:
    """
    Return the audio inputs of the model.

    Args:
        processor: processor of the model.
        waveforms: (num_samples,) float32 each, mono at the feature extractor's rate. Truncated to `max_duration`.
            Rows of silence, also without samples, have zeros, also in the mask.
        return_tensors: `"np"` or `"pt"`.
        return_times: whether to return `audio_times` (B, num_frames) float32 of log-mel frames, in seconds.

    Returns:
        `input_features` (B, num_frames, frame_size) float32 and `input_features_mask` (B, num_frames); for an audio
        encoder `input_values` (B, num_samples) float32 and `input_values_mask`; for an encoder of spectrograms
        `input_features` (B, num_mel_bins, num_frames) float32 and `input_features_mask` (B, num_frames). Whisper's are
        not padded to its window of 30 seconds, but to the longest of the batch.
    """
    extractor = processor.feature_extractor
    if processor.audio_frame_duration is None:  # log-mel frames
        waveforms = [np.zeros(1, np.float32) if is_silent(waveform) else waveform for waveform in waveforms]
        rate = extractor.sampling_rate
        inputs = dict(
            extractor(waveforms, sampling_rate=rate, return_offsets=return_times, return_tensors=return_tensors)
        )
        if return_times:
            middles = torch.from_numpy(extractor.frame_times(inputs["input_features"].shape[1])).float()
            inputs["audio_times"] = inputs.pop("offsets")[:, None] + middles
        return inputs
    maximum = round(processor.max_duration * extractor.sampling_rate)
    minimum = 3 * round(processor.frame_duration * extractor.sampling_rate)  # encoders have no output for less
    silent = [i for i, waveform in enumerate(waveforms) if is_silent(waveform)]
    waveforms = [waveform[:maximum] for waveform in waveforms]
    if getattr(extractor, "normalize_level", False):  # processors that were saved without it do not normalise
        waveforms = [normalize_level(waveform, extractor.sampling_rate) for waveform in waveforms]
    waveforms = [np.pad(waveform, (0, max(0, minimum - len(waveform)))) for waveform in waveforms]
    if isinstance(extractor, WhisperFeatureExtractor):
        encoded: dict[str, Any] = _whisper_frames(extractor, waveforms)
        if return_tensors == "pt":
            encoded = {name: torch.from_numpy(values) for name, values in encoded.items()}
    else:
        encoded = extractor(
            waveforms,
            sampling_rate=extractor.sampling_rate,
            # Some pad to a window by default, others only on request.
            padding=inspect.signature(extractor.__call__).parameters["padding"].default or True,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
    mask = encoded["attention_mask"]  # of some extractors int32
    mask = mask.long() if isinstance(mask, torch.Tensor) else mask.astype(np.int64)
    name = extractor.model_input_names[0]
    inputs = {name: encoded[name], f"{name}_mask": mask}
    for values in inputs.values():
        values[silent] = 0
    return inputs


def _whisper_frames(extractor: WhisperFeatureExtractor, waveforms: list[np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return Whisper's `input_features` (B, num_mel_bins, num_frames) and `attention_mask` (B, num_frames) without its
    padding to 30 seconds. Each clip is transformed alone: its frames are the same in any batch.
    """
    hop, rows = extractor.hop_length, []
    for waveform in waveforms:
        num_frames = -(-len(waveform) // hop)
        # After two more hops of silence, the last frame does not reflect the end of the clip.
        padded = np.pad(waveform, (0, (num_frames + 2) * hop - len(waveform)))
        features = extractor(padded, sampling_rate=extractor.sampling_rate, padding="longest", return_tensors="np")
        rows.append(features["input_features"][0, :, :num_frames])
    values = np.zeros((len(rows), len(rows[0]), max(row.shape[1] for row in rows)), np.float32)
    mask = np.zeros((len(rows), values.shape[2]), np.int64)
    for i, row in enumerate(rows):
        values[i, :, : row.shape[1]], mask[i, : row.shape[1]] = row, 1
    return {"input_features": values, "attention_mask": mask}


def check_processor(processor: UmonsProcessor, config: PreTrainedConfig):
    """Raise ValueError if a model of this configuration has encoders that need other inputs than the processor's."""
    if not isinstance(length := processor.tokenizer.model_max_length, (int, float)):
        raise ValueError(
            f"`model_max_length` in tokenizer_config.json is {length!r:.80}, expected a number of tokens."
        )
    if getattr(config, "text_encoder", None) is not None:
        _check_vocabulary(processor.tokenizer, config.text_encoder)
    has_encoder = getattr(config, "audio_encoder", None) is not None
    if has_encoder != (processor.audio_frame_duration is not None) and "audio" in config.modalities:
        raise ValueError(
            f"The model has {'an' if has_encoder else 'no'} audio encoder, but the processor is for a model with "
            f"{'none' if has_encoder else 'one'} (`audio_frame_duration` in processor_config.json): create it with "
            "`UmonsProcessor.from_encoders`."
        )
    expected = getattr(config, "audio_sampling_rate", None)
    if has_encoder and expected not in (None, processor.feature_extractor.sampling_rate):
        raise ValueError(
            f"The processor's audio is at {processor.feature_extractor.sampling_rate} Hz, but the model's audio "
            f"encoder was trained at {expected} Hz (`audio_sampling_rate`): use the encoder's own feature extractor."
        )


def _check_vocabulary(tokenizer, config: PreTrainedConfig):
    """Raise ValueError if a tokenizer does not have the ids of a text encoder."""
    if not 0 <= config.vocab_size - len(tokenizer) < SPARE_IDS:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the text encoder ({config.model_type}) has "
            f"{config.vocab_size}: use the tokenizer that was saved with the encoder."
        )


def _describe_clips(name: str) -> dict:
    """Return the settings of [`UmonsVideoProcessor`] for the clips of a video encoder."""
    config = fetch(AutoConfig, name, "video")
    size = getattr(config, "image_size", None) or config.crop_size
    height, width = (size, size) if isinstance(size, int) else size
    num_frames = getattr(config, "num_frames", None) or config.frames_per_clip
    try:
        saved, _ = UmonsVideoProcessor.get_video_processor_dict(name)
    except OSError as error:
        raise OSError(f"The video encoder {name} has no readable `preprocessor_config.json`: {error}") from error
    return {
        "size": {"height": height, "width": width},
        "clip_length": num_frames,
        "clip_stride": num_frames,
        "frame_rate": ENCODER_FRAME_RATE,
        **{key: saved[key] for key in ("image_mean", "image_std") if key in saved},
    }


def _drop_missing(rows):
    """Return the rows that are not None (None if all are), and which they are (None if no row is missing)."""
    if not isinstance(rows, (list, tuple)) or all(row is not None for row in rows):
        return rows, None
    return [row for row in rows if row is not None] or None, [row is not None for row in rows]


def _restore_missing(data: BatchFeature, names: list[str], is_present: list[bool] | None):
    """Insert zeros, also in masks, for the rows that were dropped."""
    if is_present is None:
        return
    for name in names:
        if name in data:
            # Present rows get their own values; missing ones get those of another row, which are then zeroed.
            rows = data[name][np.cumsum(is_present) - 1]
            for i in np.flatnonzero(np.logical_not(is_present)):
                rows[i] = rows[i] * 0
            data[name] = rows


def _find_present(data: BatchFeature, name: str) -> list[bool] | None:
    """Return for each row whether `data[name]` has anything but padding."""
    return [bool((torch.as_tensor(row) != 0).any()) for row in data[name]] if name in data else None


def _check_rows(has: dict[str, list[bool]], text: list[str | None] | None, has_audio: list[bool] | None):
    """Raise ValueError if modalities have different numbers of rows, or a row has no modality."""
    if len({len(rows) for rows in has.values()}) > 1:
        sizes = ", ".join(f"`{name}` {len(rows)}" for name, rows in has.items())
        raise ValueError(f"Every modality needs the same number of rows, with None where it is missing: {sizes}.")
    for i, row in enumerate(zip(*has.values(), strict=True)):
        if not any(row):
            reasons = [f"its text, {text[i]!r}, has no word"] if text and text[i] is not None else []
            if "audio" in has and (has_audio is None or has_audio[i]):
                reasons.append("its audio is silent")
            reason = f": {' and '.join(reasons)}" if reasons else ""
            raise ValueError(f"Row {i} of the batch has no modality{reason}. Leave it out.")


__all__ = ["UmonsProcessor"]
