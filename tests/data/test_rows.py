"""From tables and data sets to what a model reads."""

import gc
import json
import sys
import wave
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, Features, Video, load_dataset

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.data import audio_files
from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.collator import ArrowRows
from modeling_umons.data.rows import (
    check_columns,
    check_learnable,
    find_leaks,
    hold_out,
    load_splits,
    load_table,
    load_training_splits,
    make_collator,
    read_labels,
    repeat_sources,
    report_labels,
    split_by_column,
    undecoded,
    usable_rows,
    with_missing_labels,
)
from modeling_umons.data.schema import make_features
from modeling_umons.models.umons.decoding_umons import DecodingWorker
from modeling_umons.tasks.task import Task, make_task


@pytest.fixture(scope="module")
def processor() -> UmonsProcessor:
    tokenizer = build_tokenizer(["so", "very", "glad", "nan", "null"])
    return UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())


@pytest.fixture(scope="module")
def sample(root):
    return root / "hub" / "sample"


def run(dataset, processor, task="sentiment", modalities=("text", "audio"), audio_column="file_name"):
    task = make_task(task) if isinstance(task, str) else task
    collator = make_collator(processor, UmonsConfig(modalities=list(modalities)), task)
    return usable_rows(dataset, collator, processor, DataArguments(audio_column=audio_column))


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
    table = load_table(write_rows(tmp_path / f"table{suffix}"), "file_name")
    assert table.to_list() == [
        {**ROWS[0], "file_name": str(tmp_path / "a.wav")},
        ROWS[1],  # an empty cell is None; the word "nan" is a word
        {**ROWS[2], "file_name": str(tmp_path / "sub" / "b.wav")},
    ]


def test_absolute_paths_stay(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("file_name,sentiment\n/somewhere/a.wav,1\n", encoding="utf-8")
    assert load_table(path, "file_name")[0]["file_name"] == "/somewhere/a.wav"
    assert load_table(path, "audio")[0]["file_name"] == "/somewhere/a.wav"


def test_words_of_a_jsonl_are_left_as_they_are(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"text": "007", "created_at": "2020-01-01", "sentiment": 1}\n', encoding="utf-8")
    assert load_table(path, "file_name").to_list() == [{"text": "007", "created_at": "2020-01-01", "sentiment": 1}]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("missing.csv", None, OSError, r"missing\.csv: there is no such table"),
        ("table.xlsx", b"", ValueError, r"table\.xlsx: a table ends in \.csv, \.tsv, \.jsonl, \.parquet"),
        ("empty.csv", b"", ValueError, r"empty\.csv is not a table"),
        (
            "ragged.csv",
            b"a,b\n1,2\n1,2,3,4\n",
            ValueError,
            r"ragged\.csv, line 3: the row has another number of cells",
        ),
        ("image.csv", b"\x89PNG\xff\xfe\x00", ValueError, r"image\.csv is not a table"),
        (
            "excel.csv",
            b"text;sentiment\ngood;1,5\n",
            ValueError,
            r"separates columns by ';': save a \.csv",
        ),
        ("table.jsonl", b"{not json}\n", ValueError, r"table\.jsonl, line 1 is not valid JSON"),
        ("table.parquet", b"not parquet", ValueError, r"table\.parquet is not a table"),
        (
            "mixed.jsonl",
            b'{"a": 1}\n{"a": "x"}\n',
            ValueError,
            r"mixed\.jsonl is not a table: the column a has values of several types",
        ),
    ],
)
def test_files_that_are_not_tables_raise(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        load_table(tmp_path / name, "file_name")


def test_split_column():
    names = ["train", "Train", "dev", "valid", "validation", "VAL", "test", "training"]
    splits = split_by_column(Dataset.from_dict({"i": list(range(8)), "split": names}))
    assert {name: split["i"][:] for name, split in splits.items()} == {
        "train": [0, 1, 7],
        "validation": [2, 3, 4, 5],
        "test": [6],
    }
    for wrong in ("held-out", None):
        with pytest.raises(ValueError, match=f"Row 1 of the table is of the split {wrong!r}; use one of train, "):
            split_by_column(Dataset.from_dict({"split": ["train", wrong]}))


def test_no_split_column():
    table = Dataset.from_dict({"i": list(range(20))})
    splits = hold_out(table, 0.25, seed=1)
    assert {name: len(split) for name, split in splits.items()} == {"train": 15, "validation": 5}
    assert sorted([*splits["train"]["i"], *splits["validation"]["i"]]) == list(range(20))
    again, other = hold_out(table, 0.25, seed=1), hold_out(table, 0.25, seed=2)
    assert splits["validation"]["i"][:] == again["validation"]["i"][:] != other["validation"]["i"][:]


def test_rows_are_what_the_processor_makes_of_the_files(sample, processor):
    table = load_table(sample / "metadata.csv", "file_name").select(range(2))
    rows, problems = run(table, processor, "joint")
    assert problems == []
    assert rows.column_names == ["audio_times", "text", "audio_features", "sentiment", *EMOTIONS]
    from modeling_umons.models.umons.media_umons import read_clip

    batch = make_collator(processor, UmonsConfig(), make_task("joint"))(ArrowRows(rows)[:])
    clips = [read_clip(row["file_name"], video=False) for row in table]
    expected = processor(
        text=table["text"][:],
        audio=[clip.audio for clip in clips],
        sampling_rate=clips[0].sampling_rate,
        return_tensors="pt",
    )
    assert batch.keys() == {*expected, "labels"}
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    labels = [[row["sentiment"], *(float(row[e] > 0) for e in EMOTIONS)] for row in table]
    torch.testing.assert_close(batch["labels"], torch.tensor(labels))


def test_rows_with_missing_input_are_kept_or_reported(sample, processor):
    """Files that cannot be read are reported; rows with another input are kept."""
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
    assert rows["sentiment"][:] == [1.0, 1.0, 2.0, 3.0]
    assert rows["text"][:] == ["so glad", "so glad", "...", "nan"]
    assert [row["audio_features"] is None for row in rows] == [False, True, False, True]
    assert problems == [
        "row 1: missing.wav: there is no such file. Pass an existing file or an http(s) URL.",
        "row 2: missing.wav: there is no such file. Pass an existing file or an http(s) URL.",
        "row 3: no label in sentiment",
        "row 5: no input in text, file_name",
    ]
    rows, problems = run(table, processor, modalities=["text"])
    assert len(rows) == 3
    assert problems == [
        "row 2: no input in text",
        "row 3: no label in sentiment",
        "row 4: no input in text",
        "row 5: no input in text",
    ]


def test_unknown_parts_of_labels(processor):
    known = {"text": "so", **dict.fromkeys(EMOTIONS, 1.0)}
    table = Dataset.from_list([{**known, "sentiment": None}, {**known, "sentiment": 1.0, "fear": None}])
    rows, problems = run(table, processor, "joint", modalities=["text"])
    assert (len(rows), problems) == (2, [])
    rows, problems = run(table, processor, "emotion", modalities=["text"])
    assert len(rows) == 1
    assert problems == ["row 1: no label in fear"]


def test_features_that_are_there_stay(processor):
    """No file is opened, and video features serve too."""
    features = make_features()
    row = {"text": None, "audio_features": np.ones((3, 80)), "video_features": None, "sentiment": 1.0}
    table = Dataset.from_list(
        [row, {**row, "audio_features": None, "video_features": np.ones((2, 512))}, {**row, "audio_features": None}],
        features=Features({name: features[name] for name in row}),
    )
    rows, problems = run(table, processor, modalities=["text", "audio", "video"])
    assert len(rows) == 2
    assert problems == ["row 2: no input in text, audio_features, video_features"]
    batch = make_collator(processor, UmonsConfig(modalities=["audio", "video"]), make_task("sentiment"))(
        ArrowRows(rows)[:]
    )
    assert batch["video_features_mask"].tolist() == [[0, 0], [1, 1]]


def test_classes_that_datasets_keeps_as_numbers(tmp_path):
    table = Dataset.from_dict({"text": ["so", "very", "glad"], "mood": [1, None, 0]})
    table = table.cast_column("mood", ClassLabel(names=["calm", "angry"]))
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / f"{split}.parquet")
    data = DataArguments(dataset_name=str(tmp_path), task="classification", label_columns=["mood"])
    assert load_training_splits(data, 0)["train"]["mood"][:] == ["angry", None, "calm"]


def test_sources_that_an_epoch_goes_through_several_times():
    rows = Dataset.from_dict({"text": list("abc"), "source": ["x", "y", "x"]})
    assert repeat_sources(rows, []) is rows
    assert repeat_sources(rows, ["x=3"])["text"][:] == list("aaabccc")
    for repeat, message in (
        ("z=2", "--repeat z=2: no row has this source; the sources are x, y"),
        ("x", "--repeat x: expected the name of a source and a number"),
        ("x=0", "--repeat x=0: expected the name"),
    ):
        with pytest.raises(ValueError, match=message):
            repeat_sources(rows, [repeat])
    with pytest.raises(ValueError, match="--repeat requires a column `source`"):
        repeat_sources(rows.remove_columns("source"), ["x=2"])


def test_wrong_tables_raise(processor):
    table = Dataset.from_dict({"text": ["so"], "sentiment": ["good"]})
    with pytest.raises(ValueError, match="lacks the column file_name; it has text, sentiment"):
        run(table, processor)
    with pytest.raises(ValueError, match=r"lacks the columns happy, sad, .*fear"):
        run(table, processor, "joint", modalities=["text"])
    with pytest.raises(ValueError, match="Row 0 of the table: sentiment is 'good', which is not a number"):
        run(table, processor, modalities=["text"])
    with pytest.raises(ValueError, match="lacks the column video_features"):
        run(table, processor, modalities=["text", "video"])
    task = make_task("classification", "sentiment", ["a", "b"])
    with pytest.raises(
        ValueError, match="Row 0 of the table: sentiment is 'good', which is not a class of the training rows"
    ):
        run(table, processor, task, modalities=["text"])


def test_texts_that_are_numbers(processor):
    rows, problems = run(Dataset.from_dict({"text": [7], "sentiment": [1.0]}), processor, modalities=["text"])
    assert problems == []
    assert rows["text"][:] == ["7"]


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
    assert len(rows[0]["audio_features"]) > 5
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
    table = split_by_column(load_table(sample / "metadata.csv", "file_name"))["validation"].select(range(3))
    expected, _ = run(table, processor, "joint")
    names = ["text", "audio_features", "sentiment"]
    assert rows.select_columns(names).to_list() == expected.select_columns(names).to_list()
    del splits, validation
    gc.collect()  # while the warning is ignored


def test_trained_model_accepts_table_without_some_columns(processor):
    """MOSI's table has texts and sentiments alone."""
    table = Dataset.from_dict({"text": ["so glad", None], "sentiment": [1.0, 2.0]})
    collator = make_collator(processor, UmonsConfig(), make_task("joint"))
    with pytest.raises(ValueError, match="lacks the column"):
        usable_rows(table, collator, processor, DataArguments())
    rows, problems = usable_rows(table, collator, processor, DataArguments(), is_trained=True)
    assert problems == ["row 1: no input in text, audio_features"]
    batch = collator(ArrowRows(rows)[:])
    assert batch["labels"][0, 0] == 1
    assert batch["labels"][0, 1:].isnan().all()
    assert not batch["input_features_mask"].any()
    for lacks_all in (table.remove_columns("text"), table.remove_columns("sentiment")):
        with pytest.raises(ValueError, match="lacks the column"):
            usable_rows(lacks_all, collator, processor, DataArguments(), is_trained=True)


def test_held_out_rows_are_not_trained_on(tmp_path):
    """A table that has all splits in it, and another one for validation."""
    path = write_rows(tmp_path / "table.csv")
    with pytest.raises(ValueError, match=r"table\.csv has a column `split`, so validation and test rows would be"):
        load_training_splits(DataArguments(train_file=str(path), validation_file=str(path)), 0)
    with pytest.raises(ValueError, match="--validation_file and --test_file belong to --train_file"):
        load_training_splits(DataArguments(dataset_name="somewhere", test_file=str(path)), 0)


def test_videos_are_held_out_whole():
    table = Dataset.from_dict({"video_id": [f"v{i // 5}" for i in range(100)], "text": [str(i) for i in range(100)]})
    splits = hold_out(table, 0.2, seed=3)
    assert (len(splits["train"]), len(splits["validation"])) == (80, 20)
    assert not set(splits["train"]["video_id"]) & set(splits["validation"]["video_id"])
    assert hold_out(table, 0.2, seed=4)["validation"]["text"] != splits["validation"]["text"]
    assert hold_out(table, 0.2, seed=3)["validation"]["text"] == splits["validation"]["text"]


def test_hold_out_of_one_row_raises():
    with pytest.raises(ValueError, match=r"The table has 1 row\(s\): training and validation need at least one each."):
        hold_out(Dataset.from_dict({"text": ["so"]}), 0.1, seed=0)


def test_hold_out_is_stratified_by_class(caplog):
    caplog.set_level("INFO")
    labels = ["calm"] * 60 + ["angry "] * 20 + ["angry"] * 20 + ["rare"]
    splits = hold_out(Dataset.from_dict({"label": labels}), 0.1, seed=0, label_column="label")
    assert Counter(map(str.strip, splits["validation"]["label"])) == {"calm": 6, "angry": 4}
    assert len(splits["train"]) == 91
    assert "Held out 10 of 101 training rows as validation, stratified by label, seed 0." in caplog.text


def test_hold_out_is_grouped_by_speaker(caplog):
    caplog.set_level("INFO")
    table = Dataset.from_dict({"speaker": [f"s{i % 5}" for i in range(50)], "video_id": list(map(str, range(50)))})
    splits = hold_out(table, 0.2, seed=0, label_column="video_id")
    assert len(set(splits["validation"]["speaker"])) == 1
    assert not set(splits["train"]["speaker"]) & set(splits["validation"]["speaker"])
    assert "grouped by speaker" in caplog.text


def test_leaks_between_splits_are_reported():
    text = "the same words in both"
    splits = {
        "train": Dataset.from_dict({"video_id": ["a", "b"], "file_name": ["1.wav", "2.wav"], "text": [text, "yes"]}),
        "test": Dataset.from_dict({"video_id": ["b", "c"], "file_name": ["3.wav", "4.wav"], "text": ["Yes", text]}),
    }
    for column, words in (("video_id", 0), ("text", 4)):
        (message,) = find_leaks(splits, column, words)
        assert message.startswith(f"test: 1 rows have a {column} that is also in another split")
    assert list(find_leaks(splits, "file_name")) == []
    assert list(find_leaks({"train": splits["train"]}, "video_id")) == []


def test_videos_in_several_splits_are_refused(tmp_path, caplog):
    path = tmp_path / "table.csv"
    rows = [f"v{i},{i}.wav,the same words in all,{split}" for split in ("train", "test", "dev") for i in range(3)]
    path.write_text("\n".join(["video_id,file_name,text,split", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"3 rows have a video_id that is also in .* Pass --allow_overlap"):
        load_training_splits(DataArguments(train_file=str(path)), 0)
    load_training_splits(DataArguments(train_file=str(path), allow_overlap=True), 0)
    for column in ("text", "file_name"):
        assert f"rows have a {column} that is also in another split" in caplog.text


def test_class_names_that_differ_between_files_raise(tmp_path):
    for split, names in (("train", ["neg", "pos"]), ("test", ["pos", "neg"])):
        table = Dataset.from_dict({"text": ["so", "glad"], "label": [0, 1]})
        table.cast_column("label", ClassLabel(names=names)).to_parquet(tmp_path / f"{split}.parquet")
    data = DataArguments(dataset_name=str(tmp_path), task="classification")
    with pytest.raises(ValueError, match=r"neg, pos in train\.parquet; pos, neg in test\.parquet"):
        load_splits(tmp_path, data)
    assert load_splits(tmp_path, DataArguments(label_columns=["other"]))["test"]["text"][:] == ["so", "glad"]


@pytest.mark.parametrize("name", ["dev", "valid"])
def test_validation_split_by_another_name(tmp_path, name):
    for split in ("train", name):
        path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        Dataset.from_dict({"text": [split] * 3, "sentiment": [1.0, 2.0, 3.0]}).to_parquet(path)
    splits = load_training_splits(DataArguments(dataset_name=str(tmp_path)), 0)
    assert {split: rows["text"][0] for split, rows in splits.items()} == {"train": "train", "validation": name}


def test_folders_of_classes_are_read_without_torchcodec(sample, processor, tmp_path, caplog):
    wav = (sample / "clips" / "000.mp4").read_bytes()
    for split in ("train", "validation"):
        for label in ("angry", "happy"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "1.wav").write_bytes(wav)  # decoded by its content
    (tmp_path / "train" / "angry" / "2.wav").symlink_to("missing.wav")
    (tmp_path / "train" / "angry" / "3.ac3").write_bytes(wav)
    data = DataArguments(dataset_name=str(tmp_path), task="classification", audio_column="audio")
    splits = load_training_splits(data, 0)
    assert splits["validation"]["label"][:] == ["angry", "happy"]
    assert "1 broken link(s) are left out, such as train/angry/2.wav" in caplog.text
    assert "other files are left out: 1 .ac3" in caplog.text
    task = make_task("classification", "label", ["angry", "happy"])
    rows, problems = run(splits["train"], processor, task, ["audio"], "audio")
    assert (len(rows), problems) == (2, [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_file_that_exceeds_limits_of_decoding_is_reported(sample, processor, tmp_path, monkeypatch):
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.arange(100 * 16000, dtype="<i2").tobytes())
    clip = str(sample / "clips" / "000.mp4")
    rows = [{"file_name": file, "sentiment": 1.0} for file in (clip, str(tmp_path / "long.wav"), clip)]
    monkeypatch.setattr(audio_files, "DecodingWorker", partial(DecodingWorker, memory_mb=16))
    audio_files._worker_of.cache_clear()
    rows, problems = run(Dataset.from_list(rows), processor, modalities=["audio"])
    audio_files._worker_of.cache_clear()
    assert len(rows) == 2
    assert [problem.split(":")[0] for problem in problems] == ["row 1"]
    assert "long.wav" in problems[0]


def test_addresses_in_tables_are_refused(processor, tmp_path):
    (tmp_path / "table.csv").write_text("file_name,sentiment\nhttp://127.0.0.1:9/a.wav,1\n", encoding="utf-8")
    table = load_table(tmp_path / "table.csv", "file_name")
    _, problems = run(table, processor, modalities=["audio"])
    assert problems == [
        "row 0: http://127.0.0.1:9/a.wav is an address: download the file, and give its path. Tables download nothing."
    ]


def test_cause_of_loading_error_is_shown(tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n1,2\n1,2,3,4\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot be loaded: An error occurred .* \(ParserError: Error tok"):
        load_splits(tmp_path, DataArguments())


def test_wrong_label_is_reported_with_line_of_file(tmp_path):
    path = tmp_path / "table.csv"
    lines = ["text,sentiment,split", '"two\nlines",1,train', "so,1,dev", "so,95,dev", "so,,dev"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = load_training_splits(DataArguments(train_file=str(path)), 0)
    with pytest.raises(ValueError, match=r"table.csv, line 5: sentiment is 95, which .* pass --label_range 0 100"):
        read_labels(splits["validation"], make_task("sentiment"))
    path.write_text('text,sentiment\nso,1\n\n"two\nlines",95\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"table\.csv, line 4: sentiment is 95"):  # where the row begins
        read_labels(load_splits(path, DataArguments())["train"], make_task("sentiment"))
    path.write_text("\n".join(lines).replace("so,1,dev", "so,1,held-out"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"table\.csv, line 4 is of the split 'held-out'"):
        load_splits(path, DataArguments())


def test_counts_and_variants_of_classes_are_logged(caplog):
    caplog.set_level("INFO")
    train = Dataset.from_dict({"label": ["Sad", "sad ", "sad", None]})
    report_labels({"train": train}, make_task("classification", "label", ["Sad", "sad ", "sad"]))
    assert "train: Sad 1, sad 2" in caplog.text
    assert "The classes Sad, sad differ only in upper and lower case." in caplog.text


def test_rare_classes_are_reported_with_the_nearest_class(caplog):
    train = Dataset.from_dict({"label": ["happy", "happy", "hapy", "sad", "sad"]})
    splits = {"train": train, "validation": Dataset.from_dict({"label": ["happy"]})}
    report_labels(splits, make_task("classification", "label", ["happy", "hapy", "sad"]))
    assert "Class hapy: 1 row; similar: happy" in caplog.text
    assert "Class sad: no validation row" in caplog.text
    assert "Class happy" not in caplog.text


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_validation_share_out_of_range_raises(tmp_path, share):
    (tmp_path / "table.csv").write_text("text,sentiment\nso,1\nglad,2\n", encoding="utf-8")
    data = DataArguments(train_file=str(tmp_path / "table.csv"), validation_share=share)
    with pytest.raises(ValueError, match=r"--validation_share is .* above 0 and below 1"):
        load_training_splits(data, 0)


def test_large_validation_share_keeps_a_training_row():
    rows = {"text": ["a", "b", "c", "d"], "video_id": ["v", "v", "w", "w"]}
    for columns in (["text"], ["text", "video_id"]):
        splits = hold_out(Dataset.from_dict(rows).select_columns(columns), 0.99, seed=0)
        assert len(splits["train"]) > 0


def test_few_validation_rows_are_reported(tmp_path, caplog):
    (tmp_path / "table.csv").write_text("text,sentiment\nso,1\nglad,2\n", encoding="utf-8")
    load_training_splits(DataArguments(train_file=str(tmp_path / "table.csv")), 0)
    assert "Only 1 validation row(s)" in caplog.text
    assert "--validation_share (0.1)" in caplog.text


def test_label_without_a_value_cannot_be_learnt():
    rows = Dataset.from_dict({"sentiment": [1.0], **{name: [None if name == "fear" else 0.0] for name in EMOTIONS}})
    with pytest.raises(ValueError, match=r"No training row has a value of fear.*--task sentiment"):
        check_learnable(rows, make_task("joint"))


def test_narrow_scale_of_sentiments_is_refused():
    splits = {"train": Dataset.from_dict({"sentiment": [-0.5, 1.0, 0.2]})}
    with pytest.raises(ValueError, match=r"All values of sentiment are in \[-1, 1\].* pass --label_range -1 1.* -3 3"):
        report_labels(splits, make_task("sentiment"))
    report_labels(splits, make_task("sentiment", label_range=[-3, 3]))


def test_all_missing_columns_are_reported_at_once_with_options():
    table = Dataset.from_dict({"file": ["a.wav"], "emotion": ["sad"]})
    inputs = {"text": "text", "audio": "audio_features"}
    with pytest.raises(ValueError, match="--modalities audio; --task classification --label_columns emotion"):
        check_columns(table, make_task("joint"), inputs, DataArguments())
    data, task = DataArguments(audio_column="fil"), Task("classification", (), None, ("emotoin",))
    with pytest.raises(ValueError, match="--audio_column file; --label_columns emotion"):
        check_columns(table, task, {"audio": "audio_features"}, data)
    with pytest.raises(ValueError, match="Possible options: --label_columns emotion file"):
        check_columns(table, make_task("regression", ["emotions", "fil"]), {}, DataArguments())
    check_columns(table, None, inputs, DataArguments(audio_column="file"), is_trained=True)
    table = Dataset.from_dict({"review": ["so"], "stars": [5]})
    expected = (
        r"lacks the columns text, sentiment, .*; it has review, stars\. Possible options: --text_column review; "
    )
    with pytest.raises(ValueError, match=expected + "--task sentiment --label_columns stars"):
        check_columns(table, make_task("joint"), {"text": "text"}, DataArguments())


def test_held_out_rows_are_named_as_before():
    splits = hold_out(Dataset.from_dict({"sentiment": [0.0] * 9 + [95.0]}), 0.5, seed=0)
    wrong = next(rows for rows in splits.values() if 95.0 in rows["sentiment"][:])
    with pytest.raises(ValueError, match=r"^train, row 9: sentiment is 95\.0, which"):
        read_labels(wrong, make_task("sentiment"))


def test_missing_column_neutral_is_unknown():
    task = make_task("joint-neutral")
    rows = Dataset.from_dict({"text": ["fine"], "sentiment": [1.0], **{name: [0.0] for name in EMOTIONS}})
    labels, is_known = task.label_array(with_missing_labels(rows, task).with_format("arrow")[:])
    assert is_known.tolist() == [True]
    assert np.isnan(labels[0, -1])
    assert not np.isnan(labels[0, :-1]).any()
