"""Changes to a batch of training that make the model rely on less: words, frames, bins and whole modalities go missing.

They are drawn from torch's own generator in the training step, not where batches are loaded ahead of it: a run that goes
on from a checkpoint draws what the run before it would have drawn.
"""

from dataclasses import dataclass

import torch


# The features of a batch, or the sound itself, and their masks.
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
    Args:
        modality_dropout: the probability that a row loses one of its modalities, if it has two or more.
        word_dropout: the probability that a word becomes the unknown one.
        unk_token_id: its id.
        time_mask, bin_mask: the largest share of a row's frames, and of the mel bins, that a stripe takes; there are two
            stripes of each (SpecAugment, Park et al., 2019, without its warping). Masked values become their row's mean.
        mixup: alpha of the distribution Beta(alpha, alpha) of the shares in which rows are mixed, in half of the batches
            (Zhang et al., 2018). It is for features: words cannot be mixed.
    """

    modality_dropout: float = 0.0
    word_dropout: float = 0.0
    unk_token_id: int = 1
    time_mask: float = 0.0
    bin_mask: float = 0.0
    mixup: float = 0.0

    def __post_init__(self):
        if self.mixup < 0:
            raise ValueError(f"--mixup is {self.mixup}; it must be 0 or more.")
        for name in ("modality_dropout", "word_dropout", "time_mask", "bin_mask"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be between 0 and 1.")

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch, as the model takes it, with new tensors where something changes. Of conversations, each utterance
        is a row."""
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
                "--time_mask and --bin_mask mask features, but the model hears sound itself: leave them out, its encoder has "
                "masks of its own (`mask_time_prob` in its configuration)."
            )
        if masks_stripes and name in batch:
            batch[name] = self._mask_stripes(batch[name], batch[f"{name}_mask"])
        if self.modality_dropout:
            batch.update(self._drop_modalities(batch))
        return batch

    def mix(self, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor, float]:
        """
        The batch with each row mixed with another, the numbers (B,) of the others, and the share of the rows themselves:
        the loss is mixed in the same way. A share of 1 leaves all as it is.

        Raises:
            ValueError: the batch has words, or is of conversations.
        """
        if not self.mixup:
            return batch, torch.arange(0), 1.0
        if "input_ids" in batch:
            raise ValueError(
                "--mixup mixes features, but the model reads text: leave it out, or train on audio or video."
            )
        if "utterance_mask" in batch:
            raise ValueError(
                "--mixup mixes rows, but the model reads conversations, of which no two mix: leave it out."
            )
        if torch.rand(()) < 0.5:
            return batch, torch.arange(0), 1.0
        batch = dict(batch)
        share = torch.distributions.Beta(self.mixup, self.mixup).sample().item()
        others = torch.randperm(len(batch["labels"])).to(batch["labels"].device)
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
    """(B, size) bool: in each row one stripe within its length, as wide as chance wants but at most `share` of it."""
    width = torch.rand(len(lengths), device=lengths.device) * share * lengths
    start = torch.rand(len(lengths), device=lengths.device) * (lengths - width)
    position = torch.arange(size, device=lengths.device)
    return (position >= start[:, None].floor()) & (position < (start.floor() + width.round())[:, None])
