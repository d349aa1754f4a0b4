"""Augmentation of training batches: dropout of words and modalities, SpecAugment and mixup.

Random numbers are drawn in the training step, from PyTorch's generator, so that resumed runs are reproducible.
Waveforms are augmented by the collator, in worker processes, by the number of the row and the epoch.
"""

from dataclasses import dataclass

import torch
from transformers.trainer_callback import TrainerCallback

from ..data.collator import DrawnRows


# Features and waveforms of a batch, and their masks.
FEATURES = {
    "input_features": "input_features_mask",
    "input_values": "input_values_mask",
    "audio_embeds": "audio_embeds_mask",
    "video_features": "video_features_mask",
    "video_embeds": "video_embeds_mask",
}
MASKS = ("attention_mask", *FEATURES.values())


@dataclass(frozen=True)
class Augmentation:
    """
    Augmentation of a batch; see [`AugmentationArguments`] for the valid ranges.

    Args:
        modality_dropout: probability that a row with two or more modalities loses one of them.
        word_dropout: probability that a word is replaced by the unknown token.
        unk_token_id: id of the unknown token.
        time_mask: maximum share of a row's frames in a masked stripe; two stripes are masked with the mean of the row
            (SpecAugment, Park et al., 2019, without warping).
        bin_mask: maximum share of mel bins in a masked stripe; as `time_mask`.
        mixup: alpha of the distribution Beta(alpha, alpha) of mixing weights, in half of the batches (Zhang et al.,
            2018). Only for models without text.
    """

    modality_dropout: float = 0.0
    word_dropout: float = 0.0
    unk_token_id: int = 1
    time_mask: float = 0.0
    bin_mask: float = 0.0
    mixup: float = 0.0

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Return the batch with augmented tensors. The utterances of conversations are augmented as single rows. Raises
        ValueError for stripes in waveforms.
        """
        if (mask := batch.get("utterance_mask")) is not None:
            names = [name for name in ("input_ids", *MASKS, *FEATURES) if name in batch]
            changed = self({name: batch[name].flatten(0, 1) for name in names})
            return batch | {name: values.unflatten(0, mask.shape) for name, values in changed.items()}
        batch = dict(batch)
        if self.word_dropout and "input_ids" in batch:
            dropped = torch.rand(batch["input_ids"].shape, device=batch["input_ids"].device) < self.word_dropout
            dropped &= batch["attention_mask"].bool()
            batch["input_ids"] = batch["input_ids"].masked_fill(dropped, self.unk_token_id)
        name = "audio_embeds" if "audio_embeds" in batch else "input_features"
        masks_stripes = bool(self.time_mask or self.bin_mask)
        # Time is the last axis of spectrograms, the input of an encoder.
        is_spectrogram = name in batch and batch[name].shape[1] != batch[f"{name}_mask"].shape[1]
        if masks_stripes and ("input_values" in batch or is_spectrogram):
            raise ValueError(
                "--time_mask and --bin_mask apply to extracted features, but the encoder processes waveforms or "
                "spectrograms. Remove them; it has its own masks (`mask_time_prob` in its configuration)."
            )
        if masks_stripes and name in batch:
            batch[name] = self._mask_stripes(batch[name], batch[f"{name}_mask"])
        if self.modality_dropout:
            batch.update(self._drop_modalities(batch))
        return batch

    def mix(self, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor, float]:
        """
        Mix each row of the batch with another one.

        Returns:
            the batch, the indices (B,) of the other rows, and the weight of the rows themselves, with which the loss
            is mixed too. With the weight 1 the batch is unchanged.

        Raises:
            ValueError: the batch contains words or conversations.
        """
        if not self.mixup:
            return batch, torch.arange(0), 1.0
        if "input_ids" in batch:
            raise ValueError("--mixup requires a model without text; remove it, or train on audio or video.")
        if "utterance_mask" in batch:
            raise ValueError("--mixup does not support models of conversations; remove it.")
        if torch.rand(()) < 0.5:
            return batch, torch.arange(0), 1.0
        batch = dict(batch)
        share = torch.distributions.Beta(self.mixup, self.mixup).sample().item()
        others = torch.randperm(len(batch["labels"])).to(batch["labels"].device, non_blocking=True)
        for name, mask in FEATURES.items():
            if name in batch:
                batch[name] = share * batch[name] + (1 - share) * batch[name][others]
                batch[mask] = batch[mask] | batch[mask][others]
        return batch, others, share

    def _mask_stripes(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        frames = mask.sum(dim=1)
        bins = torch.full_like(frames, features.shape[2])
        mean = (features * mask[..., None]).sum(dim=(1, 2)) / (frames * features.shape[2]).clamp(min=1)
        for _ in range(2):
            in_time = _stripe(frames, features.shape[1], self.time_mask)[:, :, None] & mask[..., None].bool()
            in_bins = _stripe(bins, features.shape[2], self.bin_mask)[:, None, :] & mask[..., None].bool()
            features = torch.where(in_time | in_bins, mean[:, None, None], features)
        return features

    def _drop_modalities(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = [name for name in MASKS if name in batch]
        present = torch.stack([batch[name].any(dim=1) for name in names], dim=1)  # (B, M)
        loses_one = torch.rand(len(present), device=present.device) < self.modality_dropout
        loses_one &= present.sum(dim=1) > 1
        lost = torch.where(present, torch.rand(present.shape, device=present.device), -1.0).argmax(dim=1)
        return {name: batch[name] * ~(loses_one & (lost == i))[:, None] for i, name in enumerate(names)}


def _stripe(lengths: torch.Tensor, size: int, share: float) -> torch.Tensor:
    """Draw a stripe in each row, at most `share` of its length wide. (B, size) bool."""
    width = torch.rand(len(lengths), device=lengths.device) * share * lengths
    start = torch.rand(len(lengths), device=lengths.device) * (lengths - width)
    position = torch.arange(size, device=lengths.device)
    return (position >= start[:, None].floor()) & (position < (start.floor() + width.round())[:, None])


class DrawByEpoch(TrainerCallback):
    """Draw the augmentation of waveforms, which the collator applies, again in each epoch."""

    def __init__(self, rows: DrawnRows):
        self.rows = rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        # `state.epoch` is a fraction when resuming within an epoch, and inexact at its end.
        self.rows.set_epoch(int(state.epoch + 1e-6))
