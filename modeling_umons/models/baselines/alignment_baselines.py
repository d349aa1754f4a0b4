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
"""Alignment: every modality of a row in as many steps as its guide has, for the systems that read them side by side."""

import torch
from torch import nn

from .configuration_baselines import MemoryFusionConfig
from .modeling_baselines import true_steps_first


def guide_lengths(masks: dict[str, torch.BoolTensor]) -> torch.LongTensor:
    """Masks (B, T_m), in canonical order -> (B,), the number of true steps of the first modality that a row has."""
    lengths = torch.stack([mask.sum(dim=1) for mask in masks.values()])
    first = (lengths > 0).int().argmax(dim=0)  # of equals the first
    return lengths.gather(0, first[None])[0]


def adaptive_weights(mask: torch.BoolTensor, lengths: torch.LongTensor, num_steps: int) -> torch.Tensor:
    """
    What each step takes of each frame in adaptive average pooling, row by row from the frames that are no padding.

    Args:
        mask: (B, T), True for frames.
        lengths: (B,), the number of steps that a row's frames are pooled to.
        num_steps: S, at least the largest of them.

    Returns:
        float32 (B, S, T); a step's weights sum to 1, or are zero after a row's last step and where it has no frames. A
        row pooled to as many steps as it has frames stays what it is, moved to the front.
    """
    steps = torch.arange(num_steps, device=mask.device)
    num_frames, goal = mask.sum(dim=1)[:, None], lengths.clamp(min=1)[:, None]
    start = steps * num_frames // goal
    end = ((steps + 1) * num_frames + goal - 1) // goal  # rounded up
    place = (mask.cumsum(dim=1) - 1)[:, None]
    is_taken = (place >= start[..., None]) & (place < end[..., None]) & mask[:, None]
    return _mean_of(is_taken & (steps < lengths[:, None])[..., None])


def word_weights(
    mask: torch.BoolTensor, word_times: torch.Tensor, frame_duration: float, first_middle: float | torch.Tensor
) -> torch.Tensor:
    """
    What each word takes of each frame: the mean of the frames whose middle is at or after the word's start and before
    its end; where there is none, the frame whose middle is nearest to the word's middle (of equals the first).

    Args:
        mask: (B, T), True for frames.
        word_times: float (B, S, 2), start and end in seconds.
        frame_duration: seconds from a frame to the next.
        first_middle: the middle of the first frame, in seconds, or (B, 1) of each row.

    Returns:
        float32 (B, S, T); a word's weights sum to 1, or are zero where the row has no frames. Nothing to be used where
        times are NaN.
    """
    middles = (first_middle + (mask.cumsum(dim=1) - 1) * frame_duration)[:, None]  # (B, 1, T)
    start, end = word_times.float()[..., None].unbind(dim=2)  # (B, S, 1) each
    is_taken = (middles >= start) & (middles < end) & mask[:, None]
    distance = (middles - (start + end) / 2).abs().masked_fill(~mask[:, None], torch.inf)
    is_nearest = nn.functional.one_hot(distance.argmin(dim=-1), mask.shape[1]).bool() & mask[:, None]
    return _mean_of(torch.where(is_taken.any(dim=-1, keepdim=True), is_taken, is_nearest))


def check_word_times(
    word_times: torch.Tensor, audio_offsets: torch.Tensor | None, input_ids: torch.Tensor | None, look_at_values: bool
):
    """Raises ValueError for times that do not fit the words, or that run backwards or to infinity."""
    if input_ids is None:
        raise ValueError("`word_times` is given without the words: pass `input_ids` too, or leave both out.")
    if word_times.shape != (*input_ids.shape, 2):
        raise ValueError(
            f"`word_times` has shape {tuple(word_times.shape)}, but `input_ids` wants {(*input_ids.shape, 2)}: the start "
            "and the end of each word, in seconds."
        )
    if audio_offsets is not None and audio_offsets.shape != input_ids.shape[:1]:
        raise ValueError(
            f"`audio_offsets` has shape {tuple(audio_offsets.shape)}, but `input_ids` wants {tuple(input_ids.shape[:1])}: "
            "the seconds cut off before each row's first audio frame."
        )
    if look_at_values and (word_times.isinf().any() or (word_times[..., 0] > word_times[..., 1]).any()):
        raise ValueError(
            "`word_times` holds infinite times, or words that end before they start: give (start, end) in seconds from "
            "the beginning of the segment, and NaN where they are unknown."
        )


def align(
    config: MemoryFusionConfig,
    sequences: dict[str, torch.Tensor],
    masks: dict[str, torch.BoolTensor],
    lengths: torch.LongTensor,
    num_steps: int,
    word_times: torch.Tensor | None = None,
    audio_offsets: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """
    Brings every modality to the steps of the guide, as `config.alignment` says.

    Args:
        config: its alignment, and how far frames are apart.
        sequences: (B, T_m, D_m) by modality.
        masks: (B, T_m) by modality.
        lengths: (B,), what `guide_lengths` gives of the masks.
        num_steps: S, at least the largest of them.
        word_times: (B, T_text, 2), NaN where unknown.
        audio_offsets: (B,), seconds cut off before the first audio frame.

    Returns:
        (B, S, D_m) by modality, zero after a row's last step.
    """
    weights = {modality: adaptive_weights(mask, lengths, num_steps) for modality, mask in masks.items()}
    # CODEPATH: models of words whose times are known; "adaptive" is for those whose words have none
    if config.alignment == "words" and word_times is not None:
        times, is_word = true_steps_first(word_times, masks["text"])
        times = times.masked_fill(~is_word[..., None], torch.nan)[:, :num_steps]
        times = nn.functional.pad(times, (0, 0, 0, num_steps - times.shape[1]), value=torch.nan)
        is_known = ~times.isnan().any(dim=-1, keepdim=True)
        for modality, mask in masks.items():
            if modality != "text":
                first_middle = getattr(config, f"{modality}_first_middle")
                if modality == "audio" and audio_offsets is not None:
                    first_middle = first_middle + audio_offsets[:, None].float()
                duration = getattr(config, f"{modality}_frame_duration")
                by_word = word_weights(mask, times, duration, first_middle)
                weights[modality] = torch.where(is_known, by_word, weights[modality])
    return {modality: weights[modality].to(value.dtype) @ value for modality, value in sequences.items()}


def _mean_of(is_taken: torch.BoolTensor) -> torch.Tensor:
    """Booleans (B, S, T) -> weights with which a product is the mean of what is True."""
    return is_taken / is_taken.sum(dim=-1, keepdim=True).clamp(min=1)


__all__ = ["adaptive_weights", "align", "check_word_times", "guide_lengths", "word_weights"]
