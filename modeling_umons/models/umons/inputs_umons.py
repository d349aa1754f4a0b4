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
"""What a UMONS model is given: checked, and with a mask for each modality."""

import torch
from torch import nn
from transformers.utils import logging

from .configuration_umons import UmonsConfig


logger = logging.get_logger(__name__)

INPUT_NAMES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}


def prepare_inputs(
    config: UmonsConfig, inputs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]], dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.BoolTensor]]:
    """
    Checks what a model of this configuration is given.

    Args:
        config: says what fits.
        inputs: by modality, the values, (B, T) int64 or (B, T, feature size), and their mask (B, T); `None` for absent.
        dtype: what features are cast to.

    Returns:
        values and boolean masks (B, T) of the modalities that are there, in the order of `config.modalities`.

    Raises:
        ValueError: with the input's name, what is wrong with it and what would be right.
    """
    values, masks = {}, {}
    for modality, (value, mask) in inputs.items():
        if value is None:
            continue
        if modality not in config.modalities:
            logger.warning_once(f"The {modality} given is ignored: this model has {config.modalities} only.")
            continue
        _check_values(config, modality, value)
        if mask is None:
            mask = value != (config.pad_token_id or 0) if modality == "text" else (value != 0).any(dim=-1)
        elif mask.shape != value.shape[:2]:
            raise ValueError(
                f"The mask of the {modality} has shape {tuple(mask.shape)}, but its first two axes must be those of "
                f"the {modality} itself, {tuple(value.shape[:2])}."
            )
        values[modality] = value if modality == "text" else value.to(dtype)
        masks[modality] = mask.to(device=value.device, dtype=torch.bool)

    _check_rows(config, masks)
    # CODEPATH: published checkpoints see padding, so their sequences have the full length; no other model does
    if config.legacy_masking:
        for modality, value in values.items():
            missing = config.length_limit(modality) - value.shape[1]
            padding = (0, missing) if modality == "text" else (0, 0, 0, missing)
            fill = config.pad_token_id or 0 if modality == "text" else 0.0
            values[modality] = nn.functional.pad(value, padding, value=fill)
            masks[modality] = nn.functional.pad(masks[modality], (0, missing), value=False)
    return values, masks


def _check_values(config: UmonsConfig, modality: str, value: torch.Tensor):
    sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
    name = INPUT_NAMES[modality]
    expected = ("batch", "time") if modality == "text" else ("batch", "time", sizes[modality])
    if value.ndim != len(expected) or (modality != "text" and value.shape[-1] != sizes[modality]):
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}, but this model wants ({', '.join(map(str, expected))})."
        )
    check_length(config, modality, name, value.shape[1])
    if not _may_look_at_values(value):
        return
    if modality == "text":
        outside = value[(value < 0) | (value >= config.vocab_size)]
        if len(outside):
            raise ValueError(
                f"`input_ids` holds the word id {outside[0].item()}, but ids must be 0 to {config.vocab_size - 1} "
                "(`vocab_size` - 1): was another tokenizer used?"
            )
    elif not torch.isfinite(value).all():
        rows = (~torch.isfinite(value)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"`{name}` holds NaN or infinite values in row(s) {rows}: leave them out or repair them.")


def check_length(config: UmonsConfig, modality: str, name: str, length: int):
    """Raises ValueError for a sequence, of the input `name`, that is longer than the model takes, or empty."""
    limit = config.length_limit(modality)
    if not 1 <= length <= limit:
        raise ValueError(
            f"`{name}` has {length} steps, but this model takes 1 to {limit} (`max_{modality}_length`): cut "
            "longer sequences, as the processor does, or leave the modality out."
        )


def check_sound(config: UmonsConfig, sound: torch.Tensor, mask: torch.Tensor | None):
    """Raises ValueError for `input_values` that the model's audio encoder cannot take."""
    if config.audio_encoder is None or "audio" not in config.modalities:
        raise ValueError(
            "`input_values` is given, but this model has no audio encoder: pass `input_features`, as its processor gives "
            "them, or configure one with `UmonsConfig(audio_encoder=...)`."
        )
    if sound.ndim not in (2, 3):
        raise ValueError(
            f"`input_values` has shape {tuple(sound.shape)}, but this model wants (batch, samples), or (batch, mel bins, "
            f"frames): what the feature extractor of its audio encoder ({config.audio_encoder.model_type}) gives."
        )
    if mask is not None and (
        mask.ndim != 2 or mask.shape[0] != sound.shape[0] or mask.shape[1] not in sound.shape[1:]
    ):
        raise ValueError(
            f"`input_values_mask` has shape {tuple(mask.shape)}, but it must be (batch, samples or frames) of "
            f"`input_values`, which has shape {tuple(sound.shape)}."
        )
    if _may_look_at_values(sound) and not torch.isfinite(sound).all():
        raise ValueError("`input_values` holds NaN or infinite values: leave such sound out or repair it.")


def check_clips(config: UmonsConfig, clips: torch.Tensor, mask: torch.Tensor | None):
    """Raises ValueError for `pixel_values_videos` that the model's video tower or encoder cannot take."""
    if config.video_tower is None and config.video_encoder is None:
        raise ValueError(
            "`pixel_values_videos` is given, but this model has no video tower: pass `video_features`, or configure one "
            "with `UmonsConfig(video_tower={})`."
        )
    if clips.ndim != 6 or clips.shape[3] != 3:
        raise ValueError(
            f"`pixel_values_videos` has shape {tuple(clips.shape)}, but this model wants (batch, clips, 16, 3, 112, 112)"
            f"{'' if config.video_encoder is None else ', with the frames and size of its video encoder'}."
        )
    if not 1 <= clips.shape[1] <= config.max_video_length:
        raise ValueError(
            f"`pixel_values_videos` has {clips.shape[1]} clips, but this model takes 1 to {config.max_video_length} "
            "(`max_video_length`): cut longer videos, as the processor does."
        )
    if mask is not None and mask.shape != clips.shape[:2]:
        raise ValueError(
            f"`video_features_mask` has shape {tuple(mask.shape)}, but it must have that of the clips, {tuple(clips.shape[:2])}."
        )
    if _may_look_at_values(clips) and not torch.isfinite(clips).all():
        raise ValueError("`pixel_values_videos` holds NaN or infinite values: leave such videos out or repair them.")


def _check_rows(config: UmonsConfig, masks: dict[str, torch.BoolTensor]):
    if not masks:
        raise ValueError(
            "No input: pass at least one of `input_ids`, `input_features`, `video_features` that the model has; its "
            f"modalities are {config.modalities}."
        )
    first, *others = masks.values()
    # Compared, not put into a set: hashing a size would compile a graph for each size of batch.
    if any(mask.shape[0] != first.shape[0] for mask in others):
        sizes = ", ".join(f"{modality} {len(mask)}" for modality, mask in masks.items())
        raise ValueError(f"The modalities of a batch must have the same number of rows, but they have: {sizes}.")
    if _may_look_at_values(*masks.values()):
        empty = ~torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        if empty.any():
            raise ValueError(
                f"Row(s) {empty.nonzero().flatten().tolist()} of the batch are padding in every modality "
                f"({', '.join(masks)}): each row needs something to look at."
            )


def _may_look_at_values(*tensors: torch.Tensor) -> bool:
    """Whether the values can decide what happens: not in a graph that is being compiled or exported."""
    return not torch.compiler.is_compiling() and not any(tensor.is_meta for tensor in tensors)
