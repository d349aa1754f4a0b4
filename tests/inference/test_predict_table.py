"""Batch prediction of tables."""

import csv
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pipelines import RATE, WORDS, make_pipeline, write_media

from modeling_umons import EMOTIONS
from modeling_umons.data.input_tables import InputOptions
from modeling_umons.data.sharding import Engine
from modeling_umons.inference import tables
from modeling_umons.inference.loading import load_pipeline
from modeling_umons.inference.tables import PredictionSettings, RowPredictor, predict_table


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Folder of a small joint model."""
    folder = tmp_path_factory.mktemp("model")
    make_pipeline(joint_sentiment=True).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recognize(model):
    return load_pipeline(model)


@pytest.fixture
def texts(tmp_path) -> list[dict]:
    """Rows of texts of many lengths, and their table texts.csv."""
    rng = np.random.default_rng(0)
    rows = [{"id": f"r{i}", "text": " ".join(rng.choice(WORDS, rng.integers(1, 30)))} for i in range(50)]
    with open(tmp_path / "texts.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def settings(model: str, **options) -> PredictionSettings:
    return PredictionSettings(model, options=options, batch_size=4, shard_size=8)


def write_wav(path, seconds: float = 2.0) -> None:
    time = np.arange(round(seconds * RATE)) / RATE
    path.write_bytes(
        write_media(0.5 * np.sin(2 * np.pi * 220 * time) * (0.5 + 0.5 * np.sin(5 * time)), container="wav")
    )


def test_predictions_equal_the_pipeline_in_the_order_of_the_input(model, recognize, texts, tmp_path):
    report = predict_table([str(tmp_path / "texts.csv")], tmp_path / "out.parquet", settings(model))
    assert (report.num_rows, report.num_failed, report.failures) == (50, 0, [])
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["row"], row["id"]) for row in rows] == [(i, f"r{i}") for i in range(50)]
    for row, text in zip(rows, texts, strict=True):
        result = recognize({"text": text["text"]})
        assert row["sentiment"] == pytest.approx(result["sentiment"], abs=1e-5)
        assert row["label"] == result["label"]
        assert {name: row[name] for name in EMOTIONS} == pytest.approx(
            {entry["label"]: entry["score"] for entry in result["emotions"]}, abs=1e-5
        )
        assert row["modalities"] == ["text"]
        assert row["error"] is None
    assert not (tmp_path / "out.parquet.parts").exists()
    assert not (tmp_path / "out.failures.csv").exists()


def test_formats_and_processes_agree(model, texts, tmp_path):
    source = str(tmp_path / "texts.csv")
    for name, engine in (("a.parquet", None), ("b.csv", None), ("c.jsonl", Engine(num_proc=2))):
        predict_table([source], tmp_path / name, settings(model), engine=engine)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()] == rows
    with open(tmp_path / "b.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0]) == list(rows[0])
    assert [float(cell["happy"]) for cell in cells] == pytest.approx([row["happy"] for row in rows], abs=1e-6)
    assert cells[0]["modalities"] == "text"


def test_failures_have_rows_in_both_tables(model, tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_text("not a clip")
    rows = [{"file": "a.wav", "text": "so glad"}, {"file": "b.wav", "text": "so"}, {"file": None, "text": "very well"},
            {"file": None, "text": None}, {"file": "https://example.org/a.wav", "text": None}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    report = predict_table([str(tmp_path / "rows.parquet")], tmp_path / "out.parquet", settings(model))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["modalities"] for row in rows] == [["text", "audio"], [], ["text"], [], []]
    assert [row["file"] for row in rows] == ["a.wav", "b.wav", None, None, "https://example.org/a.wav"]
    assert [row for row, _, _ in report.failures] == [1, 3, 4]
    assert "could not be opened" in rows[1]["error"]
    assert rows[3]["error"] == "The row has nothing in `text` and `file`."
    assert "https://example.org/a.wav is an address" in rows[4]["error"]
    with open(tmp_path / "out.failures.csv", newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["1", "3", "4"]


def test_range_of_a_file_equals_the_cut_file(model, recognize, tmp_path):
    write_wav(tmp_path / "a.wav", 3.0)
    (tmp_path / "rows.csv").write_text("file,start,end\na.wav,1,2\na.wav,,\na.wav,5,6\na.wav,,2\na.wav,0,2\n")
    predict_table([str(tmp_path / "rows.csv")], tmp_path / "out.parquet", settings(model))
    cut, whole, outside, without_start, from_zero = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (cut["start"], cut["end"]) == (1, 2)
    clip = RowPredictor.decoder.func(None).read_clip(str(tmp_path / "a.wav"), start=1.0, end=2.0, video=False)
    expected = recognize({"audio": clip.audio, "sampling_rate": clip.sampling_rate})
    assert cut["sentiment"] == pytest.approx(expected["sentiment"], abs=1e-4)
    assert whole["sentiment"] != cut["sentiment"]
    assert "lies outside" in outside["error"]
    assert without_start["sentiment"] == from_zero["sentiment"] != whole["sentiment"]


def test_segments_have_rows_with_times(model, recognize, tmp_path):
    write_wav(tmp_path / "a.wav", 2.0)
    (tmp_path / "rows.csv").write_text("id,file,start,end\nx,a.wav,,\ny,missing.wav,,\nz,a.wav,0.5,2\n")
    report = predict_table([str(tmp_path / "rows.csv")], tmp_path / "out.parquet", settings(model, chunk_length_s=1.0))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["id"], row["segment_index"], row["start"], row["end"]) for row in rows] == [
        ("x", 0, 0, 1), ("x", 1, 1, 2), ("y", 0, None, None), ("z", 0, 0.5, 1.5), ("z", 1, 1.5, 2),
    ]  # fmt: skip
    expected = recognize({"audio": str(tmp_path / "a.wav")}, chunk_length_s=1.0)
    assert [row["sentiment"] for row in rows[:2]] == pytest.approx([r["sentiment"] for r in expected], abs=1e-5)
    assert report.num_failed == 1


def test_hop_without_length_makes_segments(model, tmp_path):
    write_wav(tmp_path / "a.wav", 2.0)
    predict_table([str(tmp_path / "a.wav")], tmp_path / "out.jsonl", settings(model, hop_length_s=1.0))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["segment_index"], row["start"]) for row in rows] == [(0, 0), (1, 1)]


def test_dates_are_texts_in_json(model, tmp_path):
    pq.write_table(pa.table({"text": ["so"], "day": pa.array([0], pa.date32())}), tmp_path / "rows.parquet")
    options = InputOptions(keep_columns=("day",))
    predict_table([str(tmp_path / "rows.parquet")], tmp_path / "out.jsonl", settings(model), options)
    assert json.loads((tmp_path / "out.jsonl").read_text())["day"] == "1970-01-01"


def test_unexpected_error_fails_only_its_row(model, texts, tmp_path, monkeypatch):
    make_input = RowPredictor._make_input

    def break_some(self, row, text):
        if row == 3:
            raise RuntimeError("of all things")
        return {"text": object()} if row == 5 else make_input(self, row, text)

    monkeypatch.setattr(RowPredictor, "_make_input", break_some)
    report = predict_table([str(tmp_path / "texts.csv")], tmp_path / "out.parquet", settings(model))
    assert [(row, name) for row, name, _ in report.failures] == [(3, "r3"), (5, "r5")]
    assert report.failures[0][2] == "RuntimeError: of all things"


def interrupt(monkeypatch, num_parts: int) -> None:
    """Fail after some parts, as a run that is killed."""
    call, done = RowPredictor.__call__, []

    def stop(self, rows, on_rows):
        if len(done) == num_parts:
            raise KeyboardInterrupt
        done.append(rows)
        return call(self, rows, on_rows)

    monkeypatch.setattr(RowPredictor, "__call__", stop)


def test_interrupted_run_resumes(model, texts, tmp_path, monkeypatch):
    source, output = str(tmp_path / "texts.csv"), tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            predict_table([source], output, settings(model))
    parts = sorted(output.with_name("out.parquet.parts").glob("part-*"))
    assert [part.name for part in parts] == [f"part-00000{i}-of-000007.parquet" for i in range(3)]
    assert not output.exists()
    computed, call = [], RowPredictor.__call__
    with monkeypatch.context() as patch:
        patch.setattr(RowPredictor, "__call__", lambda self, rows, add: computed.extend(rows) or call(self, rows, add))
        predict_table([source], output, settings(model))
    assert computed == list(range(24, 50))
    assert pq.read_table(output)["row"].to_pylist() == list(range(50))


def change_model(tmp_path, model) -> dict:
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    return {}


def change_input(tmp_path, model) -> dict:
    with open(tmp_path / "texts.csv", "a") as file:
        file.write("last,so\n")
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda *_: {"settings": {"overflow": "truncate"}}, r"options\.overflow was None, is truncate"),
        (lambda *_: {"inputs": InputOptions(text_column="id")}, r"columns\.text was text, is id"),
        (change_model, "model was sha256 .*, is sha256"),
        (change_input, "input was 50 rows, .* is 51 rows"),
    ],
)
def test_other_settings_are_refused(model, texts, tmp_path, monkeypatch, change, message):
    shutil.copytree(model, tmp_path / "model")
    source, output, folder = str(tmp_path / "texts.csv"), tmp_path / "out.parquet", str(tmp_path / "model")
    with monkeypatch.context() as patch:
        interrupt(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            predict_table([source], output, settings(folder))
    changed = change(tmp_path, model)
    with pytest.raises(ValueError, match=f"{message}.*: resume it with the same settings, or delete that folder"):
        predict_table([source], output, settings(folder, **changed.get("settings", {})), changed.get("inputs"))


def test_run_that_is_killed_while_it_cleans_up_resumes(model, texts, tmp_path, monkeypatch):
    source, output = str(tmp_path / "texts.csv"), tmp_path / "out.parquet"

    def stop(work):
        (work / "part-000002-of-000007.parquet").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tables, "_remove_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_table([source], output, settings(model))
    content = output.read_bytes()
    predict_table([source], output, settings(model))
    assert output.read_bytes() == content
    assert not output.with_name("out.parquet.parts").exists()


def test_folder_of_parts_with_other_files_is_refused(model, texts, tmp_path):
    (tmp_path / "out.csv.parts").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "out.csv.parts" / "mine.parquet")
    with pytest.raises(ValueError, match="holds other files than predictions: delete that folder"):
        predict_table([str(tmp_path / "texts.csv")], tmp_path / "out.csv", settings(model))


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("out.xlsx", ValueError, r"the suffix must be one of \.parquet, \.csv, \.jsonl"),
        ("texts.csv", ValueError, "would replace the input"),
        ("nowhere/out.csv", FileNotFoundError, "Create its folder first"),
        ("folder.csv", IsADirectoryError, r"--output .*folder\.csv is a folder"),
    ],
)
def test_unusable_outputs_raise(model, texts, tmp_path, output, error, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=message):
        predict_table([str(tmp_path / "texts.csv")], tmp_path / output, settings(model))


def test_several_launched_processes_are_refused(model, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match=r"starts its own processes \(--num_proc, --engine ray\): start it without a launcher"
    ):
        predict_table([str(tmp_path / "texts.csv")], tmp_path / "out.csv", settings(model))
    assert not (tmp_path / "out.csv.parts").exists()


def test_kept_column_with_the_name_of_a_result_raises(model, tmp_path):
    (tmp_path / "rows.csv").write_text("text,sentiment\nso,1\n")
    source, options = str(tmp_path / "rows.csv"), InputOptions(keep_columns=("text",))
    predict_table([source], tmp_path / "out.csv", settings(model), options)
    assert "0,so," in (tmp_path / "out.csv").read_text()
    options = InputOptions(keep_columns=("sentiment",))
    with pytest.raises(ValueError, match="--keep_columns sentiment: the output has its own column sentiment"):
        predict_table([source], tmp_path / "out.csv", settings(model), options)
    assert not (tmp_path / "out.csv.parts").exists()  # the copy of the table


def test_full_disk_raises_and_resumes(model, texts, tmp_path):
    """A limit of the size of files fails the writes as a full disk does."""
    source, output = str(tmp_path / "texts.csv"), tmp_path / "out.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))  # more than a part, less than the output
        with pytest.raises(OSError, match=r"out\.jsonl cannot be written: File too large\. The same command resumes"):
            predict_table([source], output, settings(model))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not output.exists()
    assert not list(tmp_path.glob(".*.part*"))
    predict_table([source], output, settings(model))
    assert len(output.read_text().splitlines()) == 50


def test_model_with_context_gets_the_previous_rows(model, tmp_path):
    config = json.loads(Path(model, "config.json").read_text())
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"context_size": 2}))
    lines = ["a,1,so glad", "a,0,very well", "b,0,so glad"]
    (tmp_path / "rows.csv").write_text("\n".join(["video_id,segment,text", *lines]))
    predict_table([str(tmp_path / "rows.csv")], tmp_path / "out.parquet", settings(str(tmp_path / "model")))
    second, first, other = pq.read_table(tmp_path / "out.parquet").to_pylist()
    recognize = load_pipeline(str(tmp_path / "model"))
    expected = recognize({"text": "so glad", "history": ["very well"]})["sentiment"]
    assert second["sentiment"] == pytest.approx(expected, abs=1e-5)
    assert abs(second["sentiment"] - other["sentiment"]) > 1e-4
    assert first["sentiment"] == pytest.approx(recognize({"text": "very well"})["sentiment"], abs=1e-5)


def test_input_without_segments_has_a_row(model, tmp_path, monkeypatch):
    monkeypatch.setattr(RowPredictor, "_make_input", lambda self, row, text: {"text": "so"})
    (tmp_path / "rows.csv").write_text("id,text\nx,so\n")
    call = tables.load_pipeline

    class Silent:
        def __init__(self, recognize):
            self.recognize = recognize

        def __getattr__(self, name):
            return getattr(self.recognize, name)

        def __call__(self, inputs, **options):
            return ([] for _ in inputs)

    monkeypatch.setattr(tables, "load_pipeline", lambda *arguments, **options: Silent(call(*arguments, **options)))
    predict_table([str(tmp_path / "rows.csv")], tmp_path / "out.parquet", settings(model, granularity="utterance"))
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["id"], row["modalities"], row["sentiment"], row["error"]) == ("x", [], None, None)
