import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, Dataset, DatasetDict
from small_pipelines import write_media

from modeling_umons.data.input_tables import InputOptions, InputTable, read_input_table


ROWS = [{"id": 7, "text": "so glad"}, {"id": 8, "text": None}, {"id": 9, "text": "so sad"}]


def read(path, tmp_path: Path, **options) -> InputTable:
    return read_input_table([str(path)], InputOptions(**options), tmp_path / "work")


def write(path: Path, rows: list[dict]) -> Path:
    """Write a table; cells of CSV and TSV must not need quotes."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        lines = [rows[0], *(["" if value is None else value for value in row.values()] for row in rows)]
        path.write_text("".join(comma.join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_of_all_formats_are_equal(tmp_path, suffix):
    table = read(write(tmp_path / f"rows{suffix}", ROWS), tmp_path)
    assert table.rows.to_list() == ROWS
    assert table.inputs == {"text": "text"}
    assert table.kept == ["id"]
    assert not table.has_files
    capital = (tmp_path / f"rows{suffix}").rename(tmp_path / f"OTHER{suffix.upper()}")
    assert read(capital, tmp_path / "other").rows.to_list() == ROWS


def test_copy_is_pickled_as_a_path(tmp_path):
    rows = [{"id": number, "text": "word " * 20} for number in range(10_000)]
    table = read(write(tmp_path / "rows.jsonl", rows), tmp_path)
    pickled = pickle.dumps(table)
    assert len(pickled) < 10_000
    assert pickle.loads(pickled).rows[9_999]["id"] == 9_999


@pytest.mark.parametrize(
    ("columns", "inputs"),
    [
        (["Sentence", "id"], {"text": "Sentence"}),
        (["wav", "transcript"], {"text": "transcript", "audio": "wav"}),
        (["clip"], {"video": "clip"}),
    ],
)
def test_usual_columns_are_found(tmp_path, columns, inputs):
    path = write(tmp_path / "rows.csv", [dict.fromkeys(columns, "x")])
    assert read(path, tmp_path).inputs == inputs


def test_chosen_columns_replace_usual_ones(tmp_path):
    path = write(tmp_path / "rows.csv", [{"text": "a", "reply": "b", "file": "c.wav", "sound": "d.wav"}])
    table = read(path, tmp_path, text_column="reply", audio_column="sound", keep_columns=("text", "sound"))
    assert table.inputs == {"text": "reply", "audio": "sound"}
    assert table.kept == ["text", "sound"]


def test_numbers_with_leading_zeros_stay_text(tmp_path):
    path = write(tmp_path / "rows.csv", [{"id": "007", "video_id": "12", "text": "a"}])
    assert read(path, tmp_path).rows[0] == {"id": "007", "video_id": 12, "text": "a"}


def test_mixed_json_values_become_text(tmp_path):
    rows = [{"id": 1, "text": "a", "n": 1, "words": []}, {"id": "b", "text": None, "n": 2.5, "words": [1]}]
    table = read(write(tmp_path / "rows.jsonl", rows), tmp_path)
    assert table.rows.to_list() == [{"id": "1", "text": "a", "n": 1.0}, {"id": "b", "text": None, "n": 2.5}]


def test_split_selects_rows(tmp_path):
    rows = [{"id": n, "text": "a", "split": s} for n, s in enumerate(["train", "test", "train"])]
    path = write(tmp_path / "rows.csv", rows)
    assert read(path, tmp_path, split="train").rows["id"] == [0, 2]
    assert read(path, tmp_path, split="test").rows["id"] == [1]
    with pytest.raises(ValueError, match=r"--split tset: .*rows\.csv has the splits train, test\."):
        read(path, tmp_path, split="tset")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "Texts"}, r"--text_column Texts: .* its columns are id, texts\. Did you mean texts\?"),
        ({}, "has no column of texts or files; .* as in --text_column texts"),
        ({"text_column": "texts", "keep_columns": ("idd",)}, "--keep_columns idd: .* Did you mean id"),
        ({"text_column": "texts", "split": "test"}, "--split test: .* has no column `split`"),
    ],
)
def test_unknown_columns_raise(tmp_path, options, message):
    path = write(tmp_path / "rows.csv", [{"id": 1, "texts": "a"}])
    with pytest.raises(ValueError, match=message):
        read(path, tmp_path, **options)


def test_duplicate_identifiers_raise(tmp_path):
    path = write(tmp_path / "rows.csv", [{"id": name, "text": "a"} for name in ("x", "y", "z", "y")])
    with pytest.raises(ValueError, match="rows 1 and 3 have the same id, 'y'"):
        read(path, tmp_path)
    assert read(path, tmp_path, keep_columns=("text",)).kept == ["text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "id,text\n", "has no rows"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.csv", "", "no names of columns"),
        ("rows.csv", "id,text\n1,a,b\n", r"rows\.csv, line 2: the row has another number of cells"),
        ("rows.parquet", "PAR1", "cannot be read as Parquet"),
        ("rows.xlsx", "PK", "is not a table .* and not a clip"),
    ],
)
def test_files_that_are_not_tables_raise(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, tmp_path)


def test_missing_inputs_raise(tmp_path):
    for name in ("nowhere.csv", "nowhere"):
        with pytest.raises(FileNotFoundError, match="there is no such"):
            read(tmp_path / name, tmp_path)


def test_names_without_file_or_data_set_raise(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="data/clips is not a file or folder here, and not a data set that loads: "):
        read("data/clips", tmp_path)


def test_folder_with_the_suffix_of_a_table_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows.parquet").mkdir()
    write(tmp_path / "rows.parquet" / "part-0.parquet", ROWS)
    assert read(tmp_path / "rows.parquet", tmp_path).rows["id"] == [7, 8, 9]


def test_files_are_relative_to_the_table(tmp_path):
    rows = [{"file": "a.wav", "start": "0.5", "end": None}, {"file": str(tmp_path / "b.wav"), "start": "x", "end": 1}]
    table = read(write(tmp_path / "rows.csv", rows), tmp_path)
    (tmp_path / "a.wav").write_bytes(b"x")
    assert table.read_files(0) == {"video": str(tmp_path / "a.wav"), "start": 0.5, "end": None}
    assert table.kept == ["file", "start", "end"]
    with pytest.raises(ValueError, match="start='x' is not a number of seconds"):
        table.read_files(1)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("a.wav", r"a\.wav: there is no such file\.$"),
        ("https://example.org/a.wav", "^https://example.org/a.wav is an address: download the file"),
    ],
)
def test_files_that_are_not_there_raise(tmp_path, file, message):
    table = read(write(tmp_path / "rows.csv", [{"file": file}]), tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        table.read_files(0)


def test_bytes_are_files_but_not_texts(tmp_path):
    path = write(tmp_path / "rows.parquet", [{"id": "a", "text": b"words", "audio": b"RIFF", "other": ""}])
    table = read(path, tmp_path)
    assert table.inputs == {"audio": "audio"}
    assert table.read_files(0) == {"audio": b"RIFF"}
    assert table.name(0) == "a"
    assert len(table.fingerprint()) == 64
    assert read(path, tmp_path, audio_column="other").read_files(0) == {"audio": None}
    with pytest.raises(ValueError, match=r"--text_column text: .*rows\.parquet has no texts in this column"):
        read(path, tmp_path, text_column="text")


def test_folder_with_and_without_table(tmp_path):
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.wav", "sub/a.mp4"):
        (folder / name).write_bytes(b"x")
    table = read(folder, tmp_path)
    assert table.rows["file"] == ["b.wav", "sub/a.mp4"]
    assert table.read_files(1) == {"video": str(folder / "sub" / "a.mp4")}
    write(folder / "metadata.csv", [{"file_name": "b.wav", "text": "so"}])
    assert read(folder, tmp_path).inputs == {"text": "text", "video": "file_name"}


def test_fingerprint_depends_on_values_and_sizes(tmp_path):
    def fingerprint(text="a", **options) -> str:
        path = write(tmp_path / "rows.csv", [{"file": "a.wav", "text": text, "other": text}])
        return read(path, tmp_path, **options).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    assert fingerprint("b") != before
    (tmp_path / "a.wav").write_bytes(b"12")
    assert fingerprint() != before


@pytest.fixture
def audio_rows() -> Dataset:
    samples = np.tile([0.1, -0.1], 4000)
    rows = [{"audio": {"bytes": write_media(samples, container="wav"), "path": "a.wav"}, "id": "a"}]
    return Dataset.from_list(rows).cast_column("audio", Audio(decode=False))


def test_saved_data_set_keeps_encoded_audio(tmp_path, audio_rows):
    DatasetDict(train=audio_rows, test=audio_rows).save_to_disk(tmp_path / "saved")
    table = read(tmp_path / "saved", tmp_path, keep_columns=("id", "split"), split="test")
    assert table.inputs == {"audio": "audio"}
    assert table.read_files(0)["audio"].startswith(b"RIFF")
    assert table.rows["split"] == ["test"]
    assert table.name(0) == "a.wav"


def test_parquet_with_encoded_audio(tmp_path, audio_rows):
    audio_rows.to_parquet(tmp_path / "rows.parquet")
    table = read(tmp_path / "rows.parquet", tmp_path)
    assert table.read_files(0)["audio"].startswith(b"RIFF")
    assert table.kept == ["id"]


READ_FROM_HUB = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from modeling_umons.data.input_tables import InputOptions, read_input_table
work, path, *sources = sys.argv[1:]
HfApi().create_repo("umons/lines", repo_type="dataset")
HfApi().upload_file(path_or_fileobj=path, path_in_repo="test.csv", repo_id="umons/lines", repo_type="dataset")
for source in sources:
    print(read_input_table([source], InputOptions(), Path(work)).rows["text"][:])
"""


def test_data_sets_and_files_of_the_hub(local_hub, tmp_path):
    path = write(tmp_path / "test.csv", ROWS[:1])
    sources = ["umons/lines", "hf://datasets/umons/lines", "hf://datasets/umons/lines/test.csv"]
    done = subprocess.run(
        [sys.executable, "-c", READ_FROM_HUB, tmp_path / "work", path, *sources],
        env=local_hub.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["['so glad']"] * 3, done.stderr


def test_wrong_hub_address_raises(tmp_path):
    with pytest.raises(ValueError, match="is not hf://datasets/USER/NAME"):
        read("hf://umons/lines", tmp_path)
