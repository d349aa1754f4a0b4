"""The order of rows in batches of about one length."""

import numpy as np
import pyarrow as pa
import pytest
from accelerate.data_loader import BatchSamplerShard, skip_first_batches
from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader

from modeling_umons.data.collator import ArrowRows
from modeling_umons.data.sampling import EvenBatches, LengthGroups, combine_lengths, row_lengths
from modeling_umons.data.schema import make_features, to_table


COLUMNS = {"text": "text", "audio": "audio_features", "video": "video_features"}
BATCH = 8


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 60, 1003)


@pytest.fixture
def sampler(lengths) -> LengthGroups:
    return LengthGroups(BATCH, lengths.tolist(), seed=3)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Rows of 4 characters and a frame, 8 and two, and so on; the third has no sound and the fourth no text."""
    rows = [
        {"segment_id": str(i), "text": "word" * i, "audio_features": np.zeros((i, 80), dtype=np.float32)}
        for i in range(1, 7)
    ]
    rows[2]["audio_features"] = None
    rows[3]["text"] = None
    return Dataset(to_table(rows, make_features()))


def test_every_row_once_in_each_epoch(sampler, lengths):
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(len(lengths)))
        assert len(sampler) == len(orders[-1])
    assert orders[0] != orders[1] != orders[2]


def test_batches_change_between_epochs(sampler):
    """Batches are not the same ones in another order."""
    batches = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        batches.append({frozenset(order[i : i + BATCH]) for i in range(0, len(order), BATCH)})
    assert not batches[0] & batches[1]


def test_resumed_epoch_has_the_same_batches(lengths):
    """As `Trainer` does it: a new sampler, the epoch set, so many batches left out."""

    def loader(epoch: int) -> DataLoader:
        sampler = LengthGroups(BATCH, lengths.tolist(), seed=3)
        sampler.set_epoch(epoch)
        return DataLoader(range(len(lengths)), BATCH, sampler=sampler)

    whole = [batch.tolist() for batch in loader(2)]
    rest = [batch.tolist() for batch in skip_first_batches(loader(2), 70)]
    assert rest == whole[70:]
    assert len(rest) > 50


def test_processes_share_the_rows(sampler, lengths):
    batches = BatchSampler(sampler, BATCH, drop_last=False)
    shares = [list(BatchSamplerShard(batches, 2, rank, even_batches=False)) for rank in range(2)]
    rows = [{row for batch in share for row in batch} for share in shares]
    assert not rows[0] & rows[1]
    assert sorted(rows[0] | rows[1]) == list(range(len(lengths)))
    for share in shares:
        assert np.mean([np.ptp(lengths[batch]) for batch in share]) < 4  # of rows in any order it is 45


def test_lengths_of_rows(dataset):
    text = {"text": "text"}
    assert row_lengths(ArrowRows(dataset), text) == [1, 2, 3, 0, 5, 6]
    assert row_lengths(ArrowRows(dataset), {"audio": "audio_features"}) == [1, 2, 0, 4, 5, 6]
    assert row_lengths(ArrowRows(dataset), text, {"text": 2}) == [1, 2, 2, 0, 2, 2]
    assert row_lengths(ArrowRows(dataset), {"video": "video_features"}) == [0] * 6
    nothing = Dataset(pa.table({"audio_features": pa.nulls(2)}))
    assert row_lengths(ArrowRows(nothing), {"audio": "audio_features"}) == [0, 0]


def test_lengths_of_chosen_rows(dataset):
    """The choice is a list of numbers beside the table."""
    chosen = dataset.select([5, 0, 0, 3])
    whole = np.array(row_lengths(ArrowRows(dataset), COLUMNS))
    assert row_lengths(ArrowRows(chosen), {"text": "text"}) == [6, 1, 1, 0]
    assert (
        np.argsort(row_lengths(ArrowRows(chosen), COLUMNS), kind="stable").tolist()
        == np.argsort(whole[[5, 0, 0, 3]], kind="stable").tolist()
    )


def test_sorted_rows_are_alike_in_both_modalities():
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 60, 3200)
    words = (frames * rng.uniform(0.4, 0.8, len(frames))).astype(int)

    def padded(order: np.ndarray) -> float:
        return np.mean([words[rows].max() + frames[rows].max() for rows in order.reshape(-1, 32)])

    ours = padded(np.argsort(combine_lengths([words, frames]), kind="stable"))
    assert ours < 1.1 * (words + frames).mean()
    for one in (words, frames):
        assert ours < padded(np.argsort(one, kind="stable"))
    assert padded(np.arange(len(frames))) > 1.8 * ours


@pytest.mark.parametrize(
    ("num_rows", "steps"),
    [(16, [[4, 4], [4, 4]]), (19, [[4, 4], [4, 4], [2, 1]]), (17, [[4, 4], [5, 4]]), (3, [[2, 1]])],
)
def test_even_batches_have_each_row_once(num_rows, steps):
    """Two processes in batches of 4, also after a resumption; one row that is left joins the step before."""
    batches = EvenBatches(range(num_rows), 4, 2)
    assert [len(batch) for batch in batches] == [size for step in steps for size in step]
    assert [row for batch in batches for row in batch] == list(range(num_rows))
    shards = [BatchSamplerShard(batches, 2, rank, even_batches=False) for rank in range(2)]
    for shard in shards:
        shard.batch_size = None
        assert len(shard) == len(steps)
    assert [[len(batch) for batch in step] for step in zip(*shards, strict=True)] == steps


def test_even_batches_refuse_fewer_rows_than_processes():
    with pytest.raises(ValueError, match="4 processes cannot share 3 training rows"):
        EvenBatches(range(3), 4, 4)


def test_length_of_text_includes_history():
    history = [[{"speaker": None, "text": "word" * 5}] * 2, [], [{"speaker": "Ross", "text": "word"}]]
    rows = ArrowRows(Dataset.from_dict({"text": ["word"] * 3, "history": history}))
    assert row_lengths(rows, {"text": "text"}) == [11, 1, 2]
