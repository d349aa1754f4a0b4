"""Batches from Arrow tables, against padding row by row in plain numpy."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, build_tokenizer
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.tasks.task import make_task, with_listed_labels


FEATURES = make_features(audio_size=4, video_size=3)
SIZES = {"audio_size": 4, "video_size": 3}
WORDS = ["good", "bad", "film", "plot"]


def make_rows(num_rows: int) -> list[dict]:
    """Sequences of many lengths; some rows lack a modality, and row 7 has features of no frame."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_rows):
        rows.append(
            {
                "segment_id": f"v_{i}",
                "text": " ".join(rng.choice(WORDS, i % 5)) if i % 6 != 1 else None,
                "audio_features": rng.random((i % 7, 4), dtype=np.float32) if i % 3 else None,
                "video_features": rng.random((1 + i % 4, 3), dtype=np.float32) if i % 4 else None,
                "sentiment": float(i % 7 - 3),
            }
        )
    return rows


ROWS = make_rows(23)
TABLE = to_table(ROWS, FEATURES)


def collator(**options) -> UtteranceCollator:
    options = {"tokenizer": build_tokenizer(WORDS), "task": make_task("sentiment"), **SIZES, **options}
    return UtteranceCollator(options.pop("modalities", ["text", "audio", "video"]), **options)


def expect(rows: list[dict], name: str, size: int, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    values = [np.zeros((0, size)) if row[name] is None else row[name][:limit] for row in rows]
    length = max(1, *map(len, values))
    padded = np.stack([np.pad(value, ((0, length - len(value)), (0, 0))) for value in values])
    return padded, np.array([[1] * len(value) + [0] * (length - len(value)) for value in values])


def assert_batch(batch: dict[str, torch.Tensor], rows: list[dict], limit: int | None = None):
    for name, key, size in (("audio_features", "input_features", 4), ("video_features", "video_features", 3)):
        values, mask = expect(rows, name, size, limit)
        np.testing.assert_array_equal(batch[key].numpy(), values.astype(np.float32))
        np.testing.assert_array_equal(batch[f"{key}_mask"].numpy(), mask)
    ids = [[2 + WORDS.index(word) for word in (row["text"] or "").split()][:limit] for row in rows]
    assert [
        row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ] == ids
    assert batch["labels"].tolist() == [row["sentiment"] for row in rows]


CUTS = {
    "whole": (TABLE, range(23)),
    "slice": (TABLE.slice(5, 9), range(5, 14)),
    "chunks": (pa.concat_tables([TABLE.slice(20), TABLE.slice(0, 0), TABLE.slice(2, 4)]), [20, 21, 22, 2, 3, 4, 5]),
    "single rows": (pa.concat_tables([TABLE.slice(i, 1) for i in (8, 3, 3, 0)]), [8, 3, 3, 0]),
    "taken": (TABLE.take([17, 1, 4]), [17, 1, 4]),
    "one row of nothing": (TABLE.slice(0, 1), [0]),
}


@pytest.mark.parametrize("name", CUTS)
def test_batches_are_those_of_padding_row_by_row(name):
    table, rows = CUTS[name]
    batch = collator()(table)
    assert {key: value.dtype for key, value in batch.items()} == {
        "input_ids": torch.int64, "attention_mask": torch.int64, "input_features": torch.float32,
        "input_features_mask": torch.int64, "video_features": torch.float32, "video_features_mask": torch.int64,
        "labels": torch.float32,
    }  # fmt: skip
    assert_batch(batch, [ROWS[i] for i in rows])


def test_long_rows_are_cut():
    batch = collator(max_lengths=dict.fromkeys(("text", "audio", "video"), 2))(TABLE)
    assert batch["input_features"].shape == (23, 2, 4)
    assert_batch(batch, ROWS, limit=2)


def test_every_modality_is_in_every_batch():
    table = to_table(
        [{"segment_id": "v", "sentiment": 1.0}, {"segment_id": "w", "text": "", "sentiment": 0.0}], FEATURES
    )
    batch = collator()(table)
    assert batch["input_ids"].shape == (2, 1)
    assert batch["input_features"].shape == (2, 1, 4)
    assert batch["video_features"].shape == (2, 1, 3)
    assert not any(batch[name].any() for name in batch if name.endswith("mask"))


def test_null_rows_with_values_behind_them():
    """Arrow allows a null row to span values, which are nobody's."""
    frames = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 4)
    column = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), frames, mask=pa.array([True, False]))
    batch = UtteranceCollator(["audio"], **SIZES)(pa.table({"audio_features": column}))
    assert batch["input_features"].tolist() == [[[0, 0, 0, 0]], [[8, 9, 10, 11]]]
    assert batch["input_features_mask"].tolist() == [[0], [1]]
    # ... and lists may begin anywhere in what is behind them.
    column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), frames.slice(1))
    assert UtteranceCollator(["audio"], **SIZES)(pa.table({"audio_features": column}))["input_features"].tolist() == [
        [[4, 5, 6, 7]]
    ]


def test_batch_is_a_copy():
    """Changes of a batch do not reach the data set."""
    batch = collator()(TABLE)
    for value in batch.values():
        value.zero_()
    assert_batch(collator()(TABLE), ROWS)


def test_ids_instead_of_texts():
    table = pa.table({"input_ids": pa.array([[5, 6, 7], None, [8]], pa.list_(pa.int64()))})
    batch = UtteranceCollator(["text"], max_lengths={"text": 2})(table)
    assert batch["input_ids"].tolist() == [[5, 6], [0, 0], [8, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 0], [1, 0]]
    assert "labels" not in batch


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([3, 0]), torch.tensor([3, 0])),
        (pa.array([0.5, -1.0], pa.float32()), torch.tensor([0.5, -1.0])),
        (pa.array([[1, 0], [0, 1]], pa.list_(pa.float32())), torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
        (pa.array([[1, None], [0, 1]], pa.list_(pa.float64())), torch.tensor([[1.0, torch.nan], [0.0, 1.0]])),
        (pa.array([[1, 0], [0, 1]], pa.list_(pa.float32(), 2)), torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
    ],
)
def test_label_column_is_used(column, expected):
    table = pa.table({"input_ids": pa.array([[1], [1]]), "labels": column})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 1)])
    for some in (table, chunked):
        labels = UtteranceCollator(["text"])(some)["labels"]
        assert labels.dtype == expected.dtype
        torch.testing.assert_close(labels, expected, equal_nan=True)
    assert UtteranceCollator(["text"])(table.slice(1))["labels"].shape == expected[1:].shape


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (TABLE, {"audio_size": 74}, "column audio_features have the size 4, but those of the model have 74"),
        (TABLE, {"video_size": 512}, "column video_features have the size 3, but those of the model have 512"),
        (TABLE.drop(["video_features"]), {}, "no column 'video_features'; its columns are segment_id"),
        (TABLE, {"tokenizer": None}, "no column 'input_ids'"),
        (TABLE, {"task": make_task("emotion")}, r"Row\(s\) \[0, 1, .* no label in happy, sad"),
        (pa.table({"labels": [1, None], "input_ids": [[1]] * 2}), {"tokenizer": None}, r"Row\(s\) \[1\] .* in labels"),
        (pa.table({"audio_features": [[1.0]]}), {}, "is of the type list<.*double>, expected a list of lists of 4"),
        (pa.table({"input_ids": [["a"]]}), {"tokenizer": None}, "input_ids is of the type list<.*string>, expected"),
        (pa.table({"text": [1]}), {}, "text is of the type int64, expected string"),
        (
            pa.table({"audio_features": pa.array([[[1.0, None, 1.0, 1.0]]], pa.list_(pa.list_(pa.float32(), 4)))}),
            {}, "audio_features has null inside a sequence",
        ),
    ],
)  # fmt: skip
def test_mismatched_tables_raise(table, options, message):
    modalities = [m for m, name in {"text": "text", "audio": "audio_features"}.items() if name in table.column_names]
    modalities = ["text"] if "input_ids" in table.column_names else modalities
    modalities = ["text", "audio", "video"] if len(modalities) == 2 else modalities
    with pytest.raises(ValueError, match=message):
        collator(modalities=modalities, **options)(table)


def test_features_that_are_not_finite_raise():
    rows = [{**row} for row in ROWS[10:13]]
    rows[1]["audio_features"] = np.array([[0.0, np.inf, 0.0, 0.0]], np.float32)
    with pytest.raises(ValueError, match=r"audio_features has NaN or infinite values in row\(s\) \[1\] of the batch"):
        collator()(to_table(rows, FEATURES))


def test_unknown_modalities_raise():
    for modalities in ([], ["smell"]):
        with pytest.raises(ValueError, match=r"expected any of text, audio, video"):
            UtteranceCollator(modalities)


def test_usable_rows():
    rows = [
        {"text": "good", "sentiment": 1.0},
        {"text": "?!", "sentiment": 1.0},  # no word is left of it
        {"text": None, "audio_features": np.ones((1, 4)), "sentiment": 1.0},
        {"text": None, "audio_features": np.ones((0, 4)), "sentiment": 1.0},
        {"text": "good"},
    ]
    table = to_table([row | {"segment_id": "v"} for row in rows], FEATURES)
    asked = []

    def read(columns: list[str]) -> pa.Table:
        asked.extend(columns)
        return table.select(columns)

    assert collator().usable_rows(read).tolist() == [True, False, True, False, False]
    assert asked == ["text", "audio_features", "video_features", "sentiment"]
    assert collator(task=None).usable_rows(read).tolist() == [True, False, True, False, True]
    table, asked[:] = table.slice(0, 1), []
    assert collator().usable_rows(read).tolist() == [True]
    assert asked == ["text", "sentiment"]  # no features: every row has a text


def test_model_accepts_batch():
    config = UmonsConfig(
        modalities=["text", "audio", "video"], vocab_size=6, word_embedding_size=4, hidden_size=8, intermediate_size=8,
        num_hidden_layers=1, num_attention_heads=2, audio_feature_size=4, video_feature_size=3, num_labels=1,
        problem_type="regression",
    )  # fmt: skip
    usable = np.flatnonzero(collator().usable_rows(TABLE.select))
    assert 0 < len(usable) < 23
    batch = collator()(TABLE.take(usable))
    model = UmonsForSequenceClassification(config).eval()
    assert torch.isfinite(model(**batch).loss)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """In two files, so that its table has chunks."""
    path = tmp_path_factory.mktemp("rows")
    data = Dataset(TABLE)
    data.save_to_disk(path, num_shards=2)
    return Dataset.load_from_disk(path)


def test_arrow_rows(dataset):
    rows = ArrowRows(dataset)
    assert len(rows) == 23
    assert rows[2].column("segment_id").to_pylist() == ["v_2"]
    assert rows[-1].column("segment_id").to_pylist() == ["v_22"]
    assert_batch(collator()(rows[3:9]), ROWS[3:9])
    assert_batch(collator()(rows.__getitems__([20, 3, 12])), [ROWS[20], ROWS[3], ROWS[12]])
    picked = ArrowRows(dataset.select([22, 5, 6, 0]).shuffle(seed=1))
    names = [picked[i].column("segment_id")[0].as_py() for i in range(4)]
    assert sorted(names) == ["v_0", "v_22", "v_5", "v_6"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_arrow_rows_in_a_shuffling_loader(dataset, num_workers):
    generator = torch.Generator().manual_seed(0)
    rows = ArrowRows(dataset)
    loader = DataLoader(rows, 5, shuffle=True, collate_fn=collator(), num_workers=num_workers, generator=generator)
    batches = list(loader)
    assert [len(batch["labels"]) for batch in batches] == [5, 5, 5, 5, 3]
    sums = sorted(batch["input_features"][i].sum().item() for batch in batches for i in range(len(batch["labels"])))
    expected = sorted(0.0 if row["audio_features"] is None else row["audio_features"].sum() for row in ROWS)
    assert sums == pytest.approx(expected, abs=1e-5)


def test_word_times():
    """
    Times of words count from the beginning of the segment; NaN if the words differ from the text, and in padding.
    """
    words = [{"word": word, "start": 10 + i, "end": 10.5 + i} for i, word in enumerate(["Good", "film,", "bad"])]
    rows = [
        {"segment_id": "a", "text": "Good film, bad", "words": words, "start": 10.0},
        {"segment_id": "b", "text": "bad plot", "words": words, "start": 10.0},
        {"segment_id": "c", "text": "good", "words": [{"word": "good", "start": None, "end": None}], "start": None},
        {"segment_id": "d", "text": "plot good", "words": None, "start": None},
        {"segment_id": "e", "text": "good film", "words": [*words[:1], {**words[1], "end": None}], "start": None},
    ]
    batch = collator(task=None, modalities=["text"], reads_word_times=True)(to_table(rows, FEATURES))
    expected = torch.full((5, 3, 2), torch.nan)
    expected[0] = torch.tensor([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]])
    expected[4, 0] = torch.tensor([10.0, 10.5])
    torch.testing.assert_close(batch["word_times"], expected, equal_nan=True)
    assert "word_times" not in collator(task=None)(TABLE)
    cut = collator(task=None, modalities=["text"], reads_word_times=True, max_lengths={"text": 2})
    torch.testing.assert_close(cut(to_table(rows[:1], FEATURES))["word_times"], expected[:1, :2])


def test_times_of_frames_count_from_the_beginning_of_the_segment():
    words = [{"word": "good", "start": 10.0, "end": 10.5}]
    features = {"audio_features": np.ones((3, 4), np.float32), "audio_times": np.array([10.25, 10.5, 11.0])}
    rows = [
        {"segment_id": "a", "text": "good", "words": words, "start": 10.0, **features},
        {"segment_id": "b", "text": "good", "words": words, "start": None, "audio_features": np.ones((2, 4))},
    ]
    batch = collator(task=None, reads_word_times=True)(to_table(rows, FEATURES))
    expected = torch.tensor([[0.25, 0.5, 1.0], [torch.nan] * 3])
    torch.testing.assert_close(batch["audio_times"], expected, equal_nan=True)
    assert batch["video_times"].isnan().all()
    cut = collator(task=None, reads_word_times=True, max_lengths={"audio": 2})(to_table(rows, FEATURES))
    torch.testing.assert_close(cut["audio_times"], expected[:, :2], equal_nan=True)
    assert "audio_times" not in collator(task=None)(to_table(rows, FEATURES))


def test_cut_frames_are_reported_once(caplog):
    rows = TABLE
    collate = collator(max_lengths={"audio": 1})
    for _ in range(2):
        collate(rows)
    assert caplog.text.count("audio_features has rows of more than 1 steps") == 1


def test_task_reads_its_own_column_labels():
    task = with_listed_labels(make_task("multi_label", ["labels"]), ["joy,love", "fear"])
    table = pa.table({"text": ["so", "glad"], "labels": ["joy,love", "fear"]})
    batch = UtteranceCollator(["text"], build_tokenizer(["so", "glad"]), task)(table)
    assert batch["labels"].tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
