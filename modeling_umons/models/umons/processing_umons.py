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
"""Processor class for UMONS."""

import inspect

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, PreTrainedConfig, VideoProcessorMixin
from transformers.audio_utils import AudioInput
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import TextInput
from transformers.utils import auto_docstring
from transformers.video_utils import VideoInput

from .configuration_umons import count_positions
from .encoders_umons import build_without_weights, default_length, describe_sound, fetch
from .feature_extraction_umons import UmonsFeatureExtractor, resample, to_mono
from .tokenization_umons import build_tokenizer
from .video_processing_umons import UmonsVideoProcessor


# What an audio encoder is given, in the place of what UMONS' own feature extractor makes.
ENCODER_AUDIO_NAMES = ["input_values", "input_values_mask"]
# Vocabularies of models are made a little larger than those of tokenizers, to a multiple of some power of two.
SPARE_IDS = 1024
# Pictures a second that video encoders see: VideoMAE learnt Kinetics with every fourth of 30.
ENCODER_FRAME_RATE = 7.5


@auto_docstring(
    custom_intro="""
    Text, sound and pictures in, the inputs of [`UmonsModel`] out: a word-level tokenizer, [`UmonsFeatureExtractor`] and
    [`UmonsVideoProcessor`] in one. Sequences are cut to what the model takes and padded to the longest of the batch. For a
    model with pretrained encoders, [`~UmonsProcessor.from_encoders`] takes the tokenizer and feature extractor of those.
    """
)
class UmonsProcessor(ProcessorMixin):
    text_kwargs = {"padding": True, "truncation": True}
    _auto_class = "AutoProcessor"  # saving copies the code, so that the folder loads without this package

    def __init__(
        self, tokenizer, feature_extractor, video_processor, max_audio_length=None, audio_frame_duration=None
    ):
        r"""
        max_audio_length (`int`, *optional*):
            Of a model with an audio encoder: the steps that it takes of what the encoder makes of sound.
        audio_frame_duration (`float`, *optional*):
            Seconds from one of these steps to the next. Its feature extractor knows neither.
        """
        super().__init__(tokenizer, feature_extractor, video_processor)
        # Saving sets it, and loading leaves it out: there from the start, a processor equals what was saved of it.
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
    ):
        """
        The processor for a model of [`UmonsModel.from_encoders`]: with the encoders' own tokenizer and feature extractor,
        and clips of the length, size and normalisation that the video encoder wants. The rest is UMONS' own.

        Args:
            text, audio, video: folder or Hub id of each encoder that the model has.
            tokenizer (*optional*): instead of that of the text encoder; or of a model whose words have no encoder, from
                `build_tokenizer`. With neither, no word is known.
            max_text_length, max_audio_length, max_video_length: those of the model. Texts are cut to what the encoder has
                positions for at most; `max_audio_length` covers half a minute, as in the model, unless it is given.

        Raises:
            OSError: an encoder, or a part of it, cannot be read, or fetched.
            ValueError: the tokenizer does not belong to the encoder; an encoder is not of the modality.
        """
        if text is not None:
            config = fetch(AutoConfig, text, "text")
            tokenizer = tokenizer if tokenizer is not None else fetch(AutoTokenizer, text, "text")
            _check_vocabulary(tokenizer, config)
            # No encoder here tells two texts apart, so that token types are left out.
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
            for setting in ("max_length", "truncation", "padding", "pad_to_multiple_of"):  # of how it was used before
                tokenizer.init_kwargs.pop(setting, None)
            if tokenizer.is_fast:  # which saves them with the rest, to be init_kwargs again
                tokenizer.backend_tokenizer.no_truncation()
                tokenizer.backend_tokenizer.no_padding()
            positions = count_positions(config, "text") or max_text_length
            tokenizer.model_max_length = min(max_text_length, tokenizer.model_max_length, positions)
        elif tokenizer is None:
            tokenizer = build_tokenizer([], max_length=max_text_length)

        frame_duration = None
        if audio is not None:
            feature_extractor = fetch(AutoFeatureExtractor, audio, "audio")
            encoder = build_without_weights(audio, "audio")
            _, frame_duration = describe_sound(encoder, feature_extractor)
            max_audio_length = max_audio_length or default_length(encoder, frame_duration)
        else:
            feature_extractor = UmonsFeatureExtractor(max_length=max_audio_length or 60)

        settings = {} if video is None else _describe_clips(video)
        video_processor = UmonsVideoProcessor(max_clips=max_video_length, **settings)
        most = None if audio is None else max_audio_length
        return cls(tokenizer, feature_extractor, video_processor, most, frame_duration)

    @property
    def frame_duration(self) -> float:
        """Seconds from one step of what the model sees of sound to the next."""
        return self.audio_frame_duration or self.feature_extractor.frame_duration

    @property
    def max_duration(self) -> float:
        """Seconds of sound that the model hears at most."""
        return self.frame_duration * (self.max_audio_length or self.feature_extractor.max_length)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self._audio_names, *self.video_processor.model_input_names]

    @property
    def _audio_names(self) -> list[str]:
        return self.feature_extractor.model_input_names if self.audio_frame_duration is None else ENCODER_AUDIO_NAMES

    def check_model(self, config: PreTrainedConfig):
        """Raises ValueError if a model of this configuration has encoders that want other inputs than this makes."""
        if getattr(config, "text_encoder", None) is not None:
            _check_vocabulary(self.tokenizer, config.text_encoder)
        has_encoder = getattr(config, "audio_encoder", None) is not None
        if has_encoder != (self.audio_frame_duration is not None) and "audio" in config.modalities:
            raise ValueError(
                f"The model has {'an' if has_encoder else 'no'} audio encoder, and the processor is for one that has "
                f"{'none' if has_encoder else 'one'}: make it with `UmonsProcessor.from_encoders`, from the same encoders."
            )
        wanted = getattr(config, "audio_sampling_rate", None)
        if has_encoder and wanted not in (None, self.feature_extractor.sampling_rate):
            raise ValueError(
                f"The processor gives sound at {self.feature_extractor.sampling_rate} Hz, but the model's audio encoder "
                f"was trained on {wanted} Hz (`audio_sampling_rate`): use the encoder's own feature extractor."
            )

    @auto_docstring(
        custom_intro="""
        A row may lack a modality: give `None` in its place, and its mask is zero. A text without a word lacks too. A
        modality that no row has is left out.
        """
    )
    def __call__(
        self,
        text: TextInput | list[TextInput | None] | None = None,
        audio: AudioInput | None = None,
        videos: VideoInput | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        r"""
        text (`str` or `list[str | None]`, *optional*):
            What is said.
        audio (`np.ndarray`, `torch.Tensor` or a list of them and `None`, *optional*):
            How it is said, as [`UmonsFeatureExtractor`] takes it. Pass `sampling_rate` (Hz) with it: sound at another
            rate than the model's is resampled.
        videos (`VideoInput` or a list of them and `None`, *optional*):
            What is seen, as [`UmonsVideoProcessor`] takes it.

        Returns:
            [`BatchFeature`]: of text `input_ids` and `attention_mask`, `(B, T_text)` int64; of audio `input_features`
            `(B, T_audio, 80)` float32 and `input_features_mask` `(B, T_audio)` int64, or for an audio encoder
            `input_values` and `input_values_mask`; of videos `pixel_values_videos` `(B, T_video, 16, 3, 112, 112)` float32
            and `video_features_mask` `(B, T_video)` int64.

        Raises:
            ValueError: there are `images`; a list is empty; modalities have different numbers of rows; a row has nothing
                in any of them; a part refuses its input.
        """
        if kwargs.get("images") is not None:
            raise ValueError("UMONS takes no `images`: pass the frames of a video as `videos`.")
        if isinstance(text, str):
            text = [text]
        for name, rows in {"text": text, "audio": audio, "videos": videos}.items():
            if isinstance(rows, (list, tuple)) and not rows:
                raise ValueError(f"`{name}` is an empty list: pass at least one row, or leave it out.")

        words = text and ["" if row is None else row for row in text]
        present_audio, has_audio = _leave_out_absent(audio)
        present_videos, has_video = _leave_out_absent(videos)
        data = super().__call__(text=words, audio=present_audio, videos=present_videos, **kwargs)
        _put_back_absent(data, self._audio_names, has_audio)
        _put_back_absent(data, self.video_processor.model_input_names, has_video)

        # Which rows have what.
        has = {
            "text": [self.has_words(ids) for ids in data["input_ids"]] if "input_ids" in data else None,
            "audio": _find_present(data, self._audio_names[1]) or has_audio,
            "videos": _find_present(data, "video_features_mask") or has_video,
        }
        has = {name: rows for name, rows in has.items() if rows is not None}
        _check_rows(has, text)
        if not any(has.get("text", [True])):
            for name in self.tokenizer.model_input_names:
                data.pop(name, None)
        elif "text" in has:
            self._blank_wordless(data, has["text"])
        return data

    def has_words(self, input_ids) -> bool:
        """Whether these ids (T,) hold more than padding and what a tokenizer puts around every text."""
        # Ids tell as well as the mask, which can be switched off.
        around = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        return any(int(index) not in around for index in input_ids)

    def _blank_wordless(self, data: BatchFeature, has_words: list[bool]):
        """Rows without a word lose what a tokenizer puts around every text."""
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
            raise ValueError(f"`sampling_rate` is {sampling_rate}: pass the rate of the sound in Hz with `audio`.")
        waveforms = []
        for i, waveform in enumerate(audio):
            waveform = to_mono(waveform, f"Waveform {i} of the batch")
            waveforms.append(resample(waveform, sampling_rate, extractor.sampling_rate).numpy())
        # Of `kwargs` no more than this: transformers passes on what it finds with the tokenizer, such as a `max_length`.
        return self.prepare_sound(waveforms, kwargs.get("return_tensors") or "np"), []

    def prepare_sound(self, waveforms: list[np.ndarray], return_tensors: str = "np") -> dict:
        """
        What the model's audio encoder takes.

        Args:
            waveforms: (samples,) float32 each, one channel at the feature extractor's rate. Cut to `max_duration`.
            return_tensors: `"np"` or `"pt"`.

        Returns:
            `input_values` (B, samples) or (B, mel bins, frames) float32, and `input_values_mask` over its time.
        """
        extractor = self.feature_extractor
        most = round(self.max_duration * extractor.sampling_rate)
        least = 3 * round(self.frame_duration * extractor.sampling_rate)  # of fewer samples an encoder makes nothing
        waveforms = [np.pad(waveform[:most], (0, max(0, least - len(waveform)))) for waveform in waveforms]
        # Whisper pads to its window by itself; others not at all unless they are told to.
        padding = inspect.signature(extractor.__call__).parameters["padding"].default or True
        made = extractor(
            waveforms,
            sampling_rate=extractor.sampling_rate,
            padding=padding,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        # Feature extractors call their mask as tokenizers do, and some have it in int32.
        mask = made["attention_mask"]
        mask = mask.long() if isinstance(mask, torch.Tensor) else mask.astype(np.int64)
        values = [made[extractor.model_input_names[0]], mask]
        return dict(zip(ENCODER_AUDIO_NAMES, values, strict=True))


def _check_vocabulary(tokenizer, config: PreTrainedConfig):
    """Refuses a tokenizer with other ids than a text encoder has."""
    if not 0 <= config.vocab_size - len(tokenizer) < SPARE_IDS:
        raise ValueError(
            f"The tokenizer knows {len(tokenizer)} tokens, but the text encoder ({config.model_type}) has "
            f"{config.vocab_size}: it is not the encoder's. Take the tokenizer that was saved beside it."
        )


def _describe_clips(name: str) -> dict:
    """The clips that a video encoder wants, in settings of [`UmonsVideoProcessor`]."""
    config = fetch(AutoConfig, name, "video")
    size = getattr(config, "image_size", None) or config.crop_size
    height, width = (size, size) if isinstance(size, int) else size
    num_frames = getattr(config, "num_frames", None) or config.frames_per_clip
    try:
        prepared, _ = VideoProcessorMixin.get_video_processor_dict(name)
    except OSError as error:
        raise OSError(f"The video encoder {str(name)!r} has no `preprocessor_config.json` to read: {error}") from error
    return {
        "size": {"height": height, "width": width},
        "clip_length": num_frames,
        "clip_stride": num_frames,
        "frame_rate": ENCODER_FRAME_RATE,
        **{key: prepared[key] for key in ("image_mean", "image_std") if key in prepared},
    }


def _leave_out_absent(rows):
    """The rows that are there (None if none is), and for each whether it is (None if nothing is absent)."""
    if not isinstance(rows, (list, tuple)) or all(row is not None for row in rows):
        return rows, None
    return [row for row in rows if row is not None] or None, [row is not None for row in rows]


def _put_back_absent(data: BatchFeature, names: list[str], is_present: list[bool] | None):
    """Zeros, masks included, for the rows that were left out."""
    for name in names if is_present is not None else ():
        if name in data:
            # To each row its own values, to an absent one those of another, which nothing remains of.
            rows = data[name][np.cumsum(is_present) - 1]
            for i in np.flatnonzero(np.logical_not(is_present)):
                rows[i] = rows[i] * 0
            data[name] = rows


def _find_present(data: BatchFeature, name: str) -> list[bool] | None:
    """For each row whether anything in `data[name]` is no padding."""
    return [bool((torch.as_tensor(row) != 0).any()) for row in data[name]] if name in data else None


def _check_rows(has: dict[str, list[bool]], text: list[str | None] | None):
    """Refuses modalities of unequal numbers of rows, and a row that has none of them."""
    if len({len(rows) for rows in has.values()}) > 1:
        sizes = ", ".join(f"`{name}` {len(rows)}" for name, rows in has.items())
        raise ValueError(f"Every modality needs the same number of rows, with None where one is absent: {sizes}.")
    for i, row in enumerate(zip(*has.values(), strict=True)):
        if not any(row):
            reason = f": its text, {text[i]!r}, has no word" if text and text[i] is not None else ""
            raise ValueError(f"Row {i} of the batch has nothing in any modality{reason}. Leave it out.")


__all__ = ["UmonsProcessor"]
