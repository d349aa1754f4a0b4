# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Processor class for UMONS."""

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils import auto_docstring


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

    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs) -> BatchFeature:
        """
        A row may lack a modality: give `None` in its place, and its mask is zero. A text without a word lacks too.

        Args:
            text (`str` or `list[str | None]`, *optional*):
                What is said.
            videos (frames or a list of them, *optional*):
                What is seen, as [`UmonsVideoProcessor`] takes it.
            audio (waveform or a list of them, *optional*):
                How it is said, as [`UmonsFeatureExtractor`] takes it. Say `sampling_rate=` in Hz.
            kwargs:
                Options of the parts, `return_tensors="pt"` among them.

        Returns:
            [`BatchFeature`]: of text `input_ids` (B, T_text) int64 and `attention_mask`; of audio `input_features`
            (B, T_audio, 80) float32 and `input_features_mask`; of video `pixel_values_videos`
            (B, clips, 16, 3, 112, 112) float32 and `video_features_mask`. A modality that no row has is left out.

        Raises:
            ValueError: a row has nothing in any modality; or a part refuses its input.
        """
        if isinstance(text, (list, tuple)):
            text = ["" if row is None else row for row in text]  # no words, as far as the tokenizer is concerned
        present_audio, audio_rows = _leave_out_absent(audio)
        present_videos, video_rows = _leave_out_absent(videos)
        data = super().__call__(images=images, text=text, videos=present_videos, audio=present_audio, **kwargs)
        _put_back_absent(data, self.feature_extractor.model_input_names, audio_rows)
        _put_back_absent(data, self.video_processor.model_input_names, video_rows)
        return _drop_empty_text(data, text, self.tokenizer.model_input_names)


def _leave_out_absent(values):
    """The rows that are there, and for each row of the batch whether it is (None: nothing was absent)."""
    if not isinstance(values, (list, tuple)) or all(row is not None for row in values):
        return values, None
    return [row for row in values if row is not None] or None, [row is not None for row in values]


def _put_back_absent(data: BatchFeature, names: list[str], is_present: list[bool] | None):
    """All-zero rows, masks included, where something was absent."""
    for name in names if is_present is not None else ():
        if name in data:
            values = torch.as_tensor(data[name])
            rows = values.new_zeros(len(is_present), *values.shape[1:])
            rows[torch.tensor(is_present)] = values
            data[name] = rows if isinstance(data[name], torch.Tensor) else rows.numpy()


def _drop_empty_text(data: BatchFeature, text, text_names: list[str]) -> BatchFeature:
    """Takes text out of a batch that has no word in any row, and refuses a row that then has nothing at all."""
    masks = {name: data[name] for name in ("attention_mask", "input_features_mask", "video_features_mask") if name in data}
    # The tokenizer gives a single text without a batch axis when it is not asked for tensors.
    masks = {name: mask if len(mask) and hasattr(mask[0], "__len__") else [mask] for name, mask in masks.items()}
    if len({len(mask) for mask in masks.values()}) > 1:
        sizes = ", ".join(f"`{name}` {len(mask)}" for name, mask in masks.items())
        raise ValueError(f"Every modality must have the same number of rows, with None where one is absent: {sizes}.")

    has_any = {name: [bool(any(row)) for row in mask] for name, mask in masks.items()}
    for i, present in enumerate(zip(*has_any.values(), strict=True)):
        if not any(present):
            said = [text] if isinstance(text, str) else text
            reason = f": its text, {said[i]!r}, has no word" if said is not None else ""
            raise ValueError(f"Row {i} of the batch has nothing in any modality{reason}. Leave it out.")
    if not any(has_any.get("attention_mask", [True])):
        for name in text_names:
            data.pop(name, None)
    return data


__all__ = ["UmonsProcessor"]
