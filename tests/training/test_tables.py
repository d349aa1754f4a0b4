"""From tables and data sets to what a model reads."""

import gc
import json
import math

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, Video, load_dataset

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.training.tables import Collator, extract, read_table, split_table, undecoded
from modeling_umons.training.tasks import make_task


@pytest.fixture(scope="module")
def processor() -> UmonsProcessor:
    tokenizer = build_tokenizer(["so", "very", "glad", "nan", "null"])
    return UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())


@pytest.fixture(scope="module")
def sample(root):
    return root / "hub" / "sample"


def run(dataset, processor, task="sentiment", modalities=("text", "audio"), audio_column="file_name", **options):
    task = make_task(task, **options) if isinstance(task, str) else task
    return extract(dataset, processor, task, list(modalities), "text", audio_column, None)


ROWS = [
    {"file_name": "a.wav", "text": "so glad", "sentiment": 1.5, "mood": 1, "split": "train"},
    {"file_name": None, "text": "nan", "sentiment": None, "mood": None, "split": "dev"},
    {"file_name": "sub/b.wav", "text": None, "sentiment": -2.0, "mood": 3, "split": "test"},
]


def write_rows(path):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif path.suffix == ".parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [ROWS[0].keys(), *([("" if cell is None else str(cell)) for cell in row.values()] for row in ROWS)]
        path.write_text("\n".join(map(separator.join, lines)) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_of_every_format(tmp_path, suffix):
    table = read_table(write_rows(tmp_path / f"table{suffix}"), "file_name")
    assert table.to_list() == [
        {**ROWS[0], "file_name": str(tmp_path / "a.wav")},
        ROWS[1],  # an empty cell is None; the word "nan" is a word
        {**ROWS[2], "file_name": str(tmp_path / "sub" / "b.wav")},
    ]


def test_absolute_paths_stay(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("file_name,sentiment\n/somewhere/a.wav,1\n", encoding="utf-8")
    assert read_table(path, "file_name")[0]["file_name"] == "/somewhere/a.wav"
    assert read_table(path, "audio")[0]["file_name"] == "/somewhere/a.wav"


def test_words_of_a_jsonl_are_left_as_they_are(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"text": "007", "created_at": "2020-01-01", "sentiment": 1}\n', encoding="utf-8")
    assert read_table(path, "file_name").to_list() == [{"text": "007", "created_at": "2020-01-01", "sentiment": 1}]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("missing.csv", None, OSError, r"missing\.csv: there is no such table"),
        ("table.xlsx", b"", ValueError, r"table\.xlsx: a table ends in \.csv, \.tsv, \.parquet, \.jsonl"),
        ("empty.csv", b"", ValueError, r"empty\.csv cannot be read as a table"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", ValueError, r"ragged\.csv cannot be read as a table"),
        ("image.csv", b"\x89PNG\xff\xfe\x00", ValueError, r"image\.csv cannot be read as a table"),
        ("table.jsonl", b"{not json}\n", ValueError, r"table\.jsonl cannot be read as a table"),
        ("table.parquet", b"not parquet", ValueError, r"table\.parquet cannot be read as a table"),
        ("mixed.jsonl", b'{"a": 1}\n{"a": "x"}\n', ValueError, r"mixed\.jsonl cannot be read as a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_table(tmp_path / name, "file_name")


def test_split_column():
    names = ["train", "Train", "dev", "valid", "validation", "VAL", "test", "training"]
    splits = split_table(Dataset.from_dict({"i": list(range(8)), "split": names}), 0.5, seed=0)
    assert {name: split["i"][:] for name, split in splits.items()} == {
        "train": [0, 1, 7],
        "validation": [2, 3, 4, 5],
        "test": [6],
    }
    for wrong in ("held-out", None):
        with pytest.raises(ValueError, match=f"Row 1 of the table is of split {wrong!r}; known are train, "):
            split_table(Dataset.from_dict({"split": ["train", wrong]}), 0.5, seed=0)


def test_no_split_column():
    table = Dataset.from_dict({"i": list(range(20))})
    splits = split_table(table, 0.25, seed=1)
    assert {name: len(split) for name, split in splits.items()} == {"train": 15, "validation": 5}
    assert sorted([*splits["train"]["i"], *splits["validation"]["i"]]) == list(range(20))
    again, other = split_table(table, 0.25, seed=1), split_table(table, 0.25, seed=2)
    assert splits["validation"]["i"][:] == again["validation"]["i"][:] != other["validation"]["i"][:]


def test_extracts_what_the_processor_would(sample, processor):
    table = read_table(sample / "metadata.csv", "file_name").select(range(2))
    rows, problems = run(table, processor, "joint")
    assert problems == []
    assert rows.column_names == ["input_ids", "input_features", "labels"]
    from modeling_umons.media import read_clip

    for row, source in zip(rows, table, strict=True):
        clip = read_clip(source["file_name"], video=False)
        expected = processor(text=[source["text"]], audio=[clip.audio], sampling_rate=clip.sampling_rate)
        assert row["input_ids"] == list(expected["input_ids"][0])
        np.testing.assert_array_equal(np.array(row["input_features"], np.float32), expected["input_features"][0])
        assert row["labels"] == pytest.approx([source["sentiment"], *(float(source[e] > 0) for e in EMOTIONS)])


def test_rows_that_lack_something(sample, processor):
    """What cannot be read is named and counted; a row of which something is left is kept."""
    clip = str(sample / "clips" / "000.mp4")
    table = Dataset.from_list(
        [
            {"text": "so glad", "file_name": clip, "sentiment": 1.0},
            {"text": "so glad", "file_name": "missing.wav", "sentiment": 1.0},
            {"text": None, "file_name": "missing.wav", "sentiment": 1.0},
            {"text": "very glad", "file_name": clip, "sentiment": None},
            {"text": "...", "file_name": clip, "sentiment": 2.0},
            {"text": "...", "file_name": None, "sentiment": 2.0},
            {"text": "nan", "file_name": None, "sentiment": 3.0},
        ]
    )
    rows, problems = run(table, processor)
    assert rows["labels"][:] == [1.0, 1.0, 2.0, 3.0]
    assert [row["input_ids"] for row in rows] == [[2, 4], [2, 4], None, [5]]
    assert [row["input_features"] is None for row in rows] == [False, True, False, True]
    assert problems == [
        "row 1: missing.wav: there is no such file. Pass an existing file or an http(s) URL.",
        "row 2: missing.wav: there is no such file. Pass an existing file or an http(s) URL.",
        "row 3: no label in sentiment",
        "row 5: nothing in text, file_name",
    ]
    rows, problems = run(table, processor, modalities=["text"])
    assert len(rows) == 3
    assert problems == [
        "row 2: nothing in text",
        "row 3: no label in sentiment",
        "row 4: nothing in text",
        "row 5: nothing in text",
    ]


def test_unknown_parts_of_labels(processor):
    known = {"text": "so", **dict.fromkeys(EMOTIONS, 1.0)}
    table = Dataset.from_list([{**known, "sentiment": None}, {**known, "sentiment": 1.0, "fear": None}])
    rows, problems = run(table, processor, "joint", modalities=["text"])
    assert problems == []
    labels = rows["labels"][:]
    assert math.isnan(labels[0][0])
    assert math.isnan(labels[1][6])
    rows, problems = run(table, processor, "emotion", modalities=["text"])
    assert rows["labels"][:] == [[1.0] * 6]
    assert problems == ["row 1: no label in fear"]


def test_wrong_tables(processor):
    table = Dataset.from_dict({"text": ["so"], "sentiment": ["good"]})
    with pytest.raises(ValueError, match=r"no column \['file_name'\]; its columns are \['text', 'sentiment'\]"):
        run(table, processor)
    with pytest.raises(ValueError, match=r"no column \['happy', 'sad', .*'fear'\]"):
        run(table, processor, "joint", modalities=["text"])
    with pytest.raises(ValueError, match="Row 0 of the table: sentiment is 'good', which is no number"):
        run(table, processor, modalities=["text"])
    with pytest.raises(ValueError, match=r"Training reads text and audio, but the model's modalities are .*'video'"):
        run(table, processor, modalities=["text", "video"])
    task = make_task("classification", "sentiment", ["a", "b"])
    with pytest.raises(ValueError, match="Row 0 of the table: sentiment is 'good', a class that no training row has"):
        run(table, processor, task, modalities=["text"])


def test_texts_that_are_numbers(processor):
    rows, problems = run(Dataset.from_dict({"text": [7], "sentiment": [1.0]}), processor, modalities=["text"])
    assert problems == []
    assert rows[0]["input_ids"] == [processor.tokenizer.unk_token_id]


@pytest.mark.parametrize("feature", [Audio, Video])
def test_columns_of_sounds_and_videos(sample, processor, feature):
    path = str(sample / "clips" / "000.mp4")
    clip = {"path": path, "bytes": None}
    inside = {"path": None, "bytes": (sample / "clips" / "000.mp4").read_bytes()}
    table = Dataset.from_dict({"text": ["so"] * 2, "sentiment": [1.0] * 2, "clip": [clip, inside]})
    table = undecoded(table.cast_column("clip", feature()), "clip")
    rows, problems = run(table, processor, audio_column="clip")
    assert problems == []
    assert rows[0] == rows[1]
    assert len(rows[0]["input_features"]) > 5
    plain = Dataset.from_dict({"text": ["so"]})
    assert undecoded(plain, "text") is plain
    assert undecoded(plain, "clip") is plain


# The loader peeks at the table's first rows and leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file .*set.csv:ResourceWarning")
def test_the_sample_as_a_data_set(sample, processor, tmp_path):
    splits = load_dataset(str(sample), cache_dir=str(tmp_path))
    validation = undecoded(splits["validation"], "video").select(range(3))
    rows, problems = run(validation, processor, "joint", audio_column="video")
    assert problems == []
    table = split_table(read_table(sample / "metadata.csv", "file_name"), 0.5, 0)["validation"].select(range(3))
    expected, _ = run(table, processor, "joint")
    assert rows.to_list() == expected.to_list()
    del splits, validation
    gc.collect()  # while the warning is ignored


# --- batches


def frames(length: int, size: int = 80) -> list[list[float]]:
    return (np.arange(length * size).reshape(length, size) / 100 + 0.5).astype(np.float32).tolist()


def test_batches_are_padded_and_masked():
    batch = Collator(["text", "audio"], 80)(
        [
            {"input_ids": [2, 3, 4], "input_features": frames(2), "labels": 1.5},
            {"input_ids": [5], "input_features": None, "labels": 0.0},
            {"input_ids": None, "input_features": frames(5), "labels": -1.0},
        ]
    )
    assert batch["input_ids"].tolist() == [[2, 3, 4], [5, 0, 0], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert batch["input_features"].shape == (3, 5, 80)
    assert batch["input_features"].dtype == torch.float32
    assert batch["input_features"][2].tolist() == frames(5)
    assert batch["input_features"][0, :2].tolist() == frames(2)
    assert not batch["input_features"][0, 2:].any()
    assert not batch["input_features"][1].any()
    assert batch["input_features_mask"].tolist() == [[1, 1, 0, 0, 0], [0] * 5, [1] * 5]
    assert {batch[name].dtype for name in batch if name.endswith("mask") or name == "input_ids"} == {torch.int64}
    assert batch["labels"].tolist() == [1.5, 0.0, -1.0]
    assert batch["labels"].dtype == torch.float32


def test_a_modality_that_no_row_has_is_there_as_padding():
    """A distributed run needs the same parameters in every process."""
    batch = Collator(["text", "audio"], 80)([{"input_ids": [2], "input_features": None, "labels": 3}] * 2)
    assert batch["input_features"].shape == (2, 1, 80)
    assert not batch["input_features_mask"].any()
    assert batch["labels"].dtype == torch.int64
    alone = Collator(["text"], 80)([{"input_ids": [2], "input_features": None, "labels": 3}])
    assert set(alone) == {"input_ids", "attention_mask", "labels"}


@pytest.mark.parametrize("task", ["joint", "emotion", "sentiment", "sentiment-7"])
def test_a_model_learns_from_a_batch(task):
    task = make_task(task)
    torch.manual_seed(0)
    model = UmonsForSequenceClassification(
        UmonsConfig(
            vocab_size=6,
            word_embedding_size=8,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            **task.config_options(),
        )
    )
    row = {"sentiment": -1.0, "happy": 0, "sad": 2, "anger": 1, "surprise": 0, "disgust": 0, "fear": 0}
    other = {**row, "sentiment": None, "sad": 0} if task.name == "joint" else {**row, "sad": 0}
    batch = Collator(["text", "audio"], 80)(
        [
            {"input_ids": [2, 3], "input_features": frames(2), "labels": task.label(row)},
            {"input_ids": [4], "input_features": None, "labels": task.label(other)},
        ]
    )
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_row_pads_to_the_same_answer_in_any_batch():
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=6, word_embedding_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=2
    )
    model, collate = UmonsForSequenceClassification(config).eval(), Collator(["text", "audio"], 80)
    rows = [
        {"input_ids": [2, 3], "input_features": frames(2), "labels": 0},
        {"input_ids": [4, 4, 4, 4], "input_features": frames(6), "labels": 0},
        {"input_ids": [5], "input_features": None, "labels": 0},
    ]
    with torch.no_grad():
        together = model(**collate(rows)).logits
        for row, logits in zip(rows, together, strict=True):
            torch.testing.assert_close(model(**collate([row])).logits[0], logits, rtol=0, atol=1e-5)
