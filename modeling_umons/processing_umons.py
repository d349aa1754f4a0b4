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

import numpy as np
import torch
from transformers.audio_utils import AudioInput
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import TextInput
from transformers.utils import auto_docstring
from transformers.video_utils import VideoInput


@auto_docstring(
    custom_intro="""
    Text, sound and pictures in, the inputs of [`UmonsModel`] out: a word-level tokenizer, [`UmonsFeatureExtractor`] and
    [`UmonsVideoProcessor`] in one. Sequences are cut to what the model takes and padded to the longest of the batch.
    """
)
class UmonsProcessor(ProcessorMixin):
    text_kwargs = {"padding": True, "truncation": True}
    _auto_class = "AutoProcessor"  # saving copies the code, so that the folder loads without this package

    def __init__(self, tokenizer, feature_extractor, video_processor):
        super().__init__(tokenizer, feature_extractor, video_processor)
        # Saving sets it, and loading leaves it out: there from the start, a processor equals what was saved of it.
        self.auto_map = {self._auto_class: "processing_umons.UmonsProcessor"}

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
            How it is said, as [`UmonsFeatureExtractor`] takes it. Pass `sampling_rate` (Hz) with it.
        videos (`VideoInput` or a list of them and `None`, *optional*):
            What is seen, as [`UmonsVideoProcessor`] takes it.

        Returns:
            [`BatchFeature`]: of text `input_ids` and `attention_mask`, `(B, T_text)` int64; of audio `input_features`
            `(B, T_audio, 80)` float32 and `input_features_mask` `(B, T_audio)` int64; of videos `pixel_values_videos`
            `(B, T_video, 16, 3, 112, 112)` float32 and `video_features_mask` `(B, T_video)` int64.

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
        _put_back_absent(data, self.feature_extractor.model_input_names, has_audio)
        _put_back_absent(data, self.video_processor.model_input_names, has_video)

        # Which rows have what. For text, ids tell as well as the mask, which can be switched off.
        has = {
            "text": _find_present(data, "input_ids", self.tokenizer.pad_token_id),
            "audio": _find_present(data, "input_features_mask") or has_audio,
            "videos": _find_present(data, "video_features_mask") or has_video,
        }
        has = {name: rows for name, rows in has.items() if rows is not None}
        _check_rows(has, text)
        if not any(has.get("text", [True])):
            for name in self.tokenizer.model_input_names:
                data.pop(name, None)
        return data


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


def _find_present(data: BatchFeature, name: str, padding: int = 0) -> list[bool] | None:
    """For each row whether anything in `data[name]` is no padding."""
    return [bool((torch.as_tensor(row) != padding).any()) for row in data[name]] if name in data else None


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
