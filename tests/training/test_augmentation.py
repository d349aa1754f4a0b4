"""Tests of the augmentation of batches."""

import pytest
import torch

from modeling_umons.training.augmentation import Augmentation


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Batch of 2,000 rows: a third with text only, a third with audio only, a third with both."""
    torch.manual_seed(0)
    kind = torch.arange(2000) % 3
    text = (torch.arange(10) < 8)[None] & (kind != 1)[:, None]
    sound = (torch.arange(20) < 16)[None] & (kind != 0)[:, None]
    return {
        "input_ids": torch.where(text, torch.randint(2, 50, (2000, 10)), 0),
        "attention_mask": text.long(),
        "input_features": torch.rand(2000, 20, 8) * sound[..., None],
        "input_features_mask": sound.long(),
        "labels": torch.rand(2000),
    }


def test_augmentation_is_off_by_default(batch):
    same = Augmentation()(batch)
    assert same.keys() == batch.keys()
    assert all(torch.equal(same[name], batch[name]) for name in batch)


def test_modality_dropout_keeps_one_modality(batch):
    before = {name: tensor.clone() for name, tensor in batch.items()}
    after = Augmentation(modality_dropout=0.6)(batch)
    both = batch["attention_mask"].any(1) & batch["input_features_mask"].any(1)
    has_text, has_sound = after["attention_mask"].any(1), after["input_features_mask"].any(1)
    assert (has_text | has_sound).all()
    assert torch.equal(after["attention_mask"][~both], batch["attention_mask"][~both])
    assert torch.equal(after["input_features_mask"][~both], batch["input_features_mask"][~both])
    lost_text, lost_sound = (~has_text & both).sum() / both.sum(), (~has_sound & both).sum() / both.sum()
    assert 0.25 < lost_text < 0.35
    assert 0.25 < lost_sound < 0.35
    assert all(torch.equal(batch[name], before[name]) for name in batch)  # the batch itself is unchanged


def test_word_dropout_replaces_words(batch):
    after = Augmentation(word_dropout=0.25, unk_token_id=1)(batch)
    changed = after["input_ids"] != batch["input_ids"]
    assert (after["input_ids"][changed] == 1).all()
    words = batch["attention_mask"].bool()
    assert not changed[~words].any()
    assert 0.23 < changed.sum() / words.sum() < 0.27


def test_stripes_are_within_row(batch):
    after = Augmentation(time_mask=0.5)(batch)["input_features"]
    frames = batch["input_features_mask"].bool()
    changed = (after != batch["input_features"]).all(dim=2)
    assert not changed[~frames].any()
    assert torch.equal(changed, (after != batch["input_features"]).any(dim=2))  # whole frames
    assert changed.sum(dim=1).max() <= 2 * 8 + 2
    assert 0.25 < changed[frames].float().mean() < 0.55
    heard = batch["input_features_mask"].any(1)
    mean = (batch["input_features"].sum(dim=(1, 2)) / (16 * 8))[:, None, None].expand_as(after)
    torch.testing.assert_close(after[heard][changed[heard]], mean[heard][changed[heard]])

    after = Augmentation(bin_mask=0.5)(batch)["input_features"]
    changed = (after != batch["input_features"])[heard][:, :16]
    assert torch.equal(changed.all(dim=1), changed.any(dim=1))  # the same bins in all frames
    assert torch.equal(after[~frames], batch["input_features"][~frames])


def test_augmentation_draws_from_torch_generator(batch):
    augment = Augmentation(0.5, 0.2, 1, 0.3, 0.3)
    torch.manual_seed(3)
    first, second = augment(batch), augment(batch)
    torch.manual_seed(3)
    again = augment(batch)
    assert all(torch.equal(first[name], again[name]) for name in batch)
    assert not torch.equal(first["input_features"], second["input_features"])


def test_mixup_mixes_rows_and_masks():
    batch = {
        "input_features": torch.eye(4)[:, None, :].repeat(1, 3, 1),
        "input_features_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]]),
        "labels": torch.arange(4),
    }
    augment, mixed = Augmentation(mixup=0.4), 0
    torch.manual_seed(0)
    for _ in range(200):
        after, others, share = augment.mix(batch)
        if share == 1:
            assert after is batch
            continue
        mixed += 1
        rows = torch.eye(4) * share + torch.eye(4)[others] * (1 - share)
        torch.testing.assert_close(after["input_features"][:, 0], rows)
        mask = batch["input_features_mask"]
        assert torch.equal(after["input_features_mask"], torch.maximum(mask, mask[others]))
    assert 70 < mixed < 130
    with pytest.raises(ValueError, match="--mixup requires a model without text"):
        augment.mix({**batch, "input_ids": torch.ones(4, 2)})
