"""From a source to Parquet: the same rows, whole or not at all, and a report that is right."""

import csv
import json
import re
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from modeling_umons.data import MeldBuilder, MoseiBuilder, MosiBuilder, content_hash, prepare, prepare_dataset
from modeling_umons.data.prepare import format_report
from modeling_umons.data.row_hash import ContentHash
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.tasks.labels import SENTIMENT_7
from modeling_umons.utils import workers


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def builder(tiny_source, tmp_path):
    return MoseiBuilder(layout="labels", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def small_files(monkeypatch):
    """Files of 12 rows in groups of 4."""
    monkeypatch.setattr(prepare, "ROWS_PER_TABLE", 4)
    monkeypatch.setattr(prepare, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(prepare, "ROWS_PER_FILE", 12)


def names(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("config_name", ["all", "emotion", "sentiment-7", "sentiment-2", "sentiment"])
def test_every_configuration_has_the_rows_of_the_builder(tiny_source, small_files, tmp_path, config_name):
    cache = str(tmp_path / "cache")
    builder = MoseiBuilder(config_name=config_name, layout="labels", data_dir=str(tmp_path), cache_dir=cache)
    output = tmp_path / "out"
    prepare_dataset(builder, output)
    streamed = builder.as_streaming_dataset()
    from_parquet = load_dataset(str(output), config_name, streaming=True)
    in_cache = load_dataset(str(output), config_name, cache_dir=cache)
    assert list(from_parquet) == list(in_cache) == ["train", "test"]
    for split in streamed:
        rows = list(streamed[split])
        assert list(from_parquet[split]) == rows
        assert list(in_cache[split]) == rows
        assert from_parquet[split].features == in_cache[split].features == builder.info.features


def test_files(builder, small_files, tmp_path):
    prepare_dataset(builder, tmp_path / "out")
    assert names(tmp_path / "out") == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00003.parquet",
        "data/train-00001-of-00003.parquet",
        "data/train-00002-of-00003.parquet",
        "left_out.csv",
        "report.json",
    ]
    file = pq.ParquetFile(tmp_path / "out" / "data" / "train-00002-of-00003.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 1]
    assert not list(tmp_path.glob(".out*"))
    default = load_dataset(str(tmp_path / "out"), split="test", streaming=True)
    assert "emotions" not in default.features
    assert len(list(default)) == 7


def test_report(builder, tiny_source, tmp_path):
    tiny_source.bad |= {"train_1[0]": ValueError("no words"), "train_1[2]": KeyError("data")}
    report = prepare_dataset(builder, tmp_path / "out")
    assert report["failures"] == [("train", "train_1[0]", "no words"), ("train", "train_1[2]", "KeyError: 'data'")]
    on_disk = json.loads((tmp_path / "out" / "report.json").read_text())
    assert on_disk == {name: value for name, value in report.items() if name != "failures"}
    with open(tmp_path / "out" / "failures.csv", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == report["failures"]
    with open(tmp_path / "out" / "left_out.csv", newline="") as file:
        assert next(iter(csv.DictReader(file))) == {"segment_id": "stray[0]", "reason": "its video is in no split"}

    rows = list(MoseiBuilder(**{**builder.config_kwargs, "on_bad_rows": "skip"}).as_streaming_dataset(split="train"))
    train = report["splits"]["train"]
    assert train["segments"] == len(rows) == 31
    assert train["not_read"] == 2
    assert train["videos"] == 11
    timed = [row for row in rows if row["start"] is not None]
    assert train["hours"] == pytest.approx(9 * len(timed) / 3600, abs=1e-4)
    assert train["segments_without_times"] == 31 - len(timed)
    assert train["missing"] == {
        "text": sum(row["text"] is None for row in rows),
        "audio_features": sum(row["audio_features"] is None for row in rows),
        "video_features": sum(row["video_features"] is None for row in rows),
        "sentiment": sum(row["sentiment"] is None for row in rows),
        "emotions": sum(row["happy"] is None for row in rows),
    }
    assert train["emotions"]["sad"] == sum((row["sad"] or 0) > 0 for row in rows)
    sentiments = [row["sentiment"] for row in rows if row["sentiment"] is not None]
    assert sum(train["sentiment_7"].values()) == len(sentiments)
    assert train["sentiment_7"]["0"] == sentiments.count(0)
    assert train["sentiment_7"]["-2"] == sum(-2 <= value < -1 for value in sentiments)
    assert train["official"] == {"segments": 16327, "videos": 2249}
    assert train["difference"] == {"segments": 31 - 16327, "videos": 11 - 2249}
    test = report["splits"]["test"]
    assert test["difference"]["sentiment_7"]["-3"] == test["sentiment_7"]["-3"] - 156
    assert report["num_left_out"] == 6
    assert report["videos_in_several_splits"] == 0
    assert list(report["splits"]) == ["train", "validation", "test"]
    validation = report["splits"]["validation"]  # the source has none, the official counts have
    assert (validation["segments"], validation["hours"], validation["not_read"]) == (0, 0, 0)
    assert validation["difference"] == {"segments": -1871, "videos": -300}


def test_report_as_text(builder, tiny_source, tmp_path):
    tiny_source.bad |= {f"train_{i}[0]": ValueError("no words") for i in range(11)}
    tiny_source.bad |= {f"train_{i}[1]": ValueError("no words") for i in range(11)}
    report = prepare_dataset(builder, tmp_path / "out")
    text = format_report(report, report["failures"])
    lines = [re.sub(r"\s+", " ", line) for line in text.splitlines()]
    assert "| train | 11 | 16,327 | -16,316 | 11 | 2,249 | -2,238 | 0.02 (3 unknown) |" in lines
    assert "| test, official | 156 | 489 | 705 | 1,025 | 1,512 | 665 | 110 |" in lines
    assert "22 segments could not be read: failures.csv." in lines
    assert "- train, train_0[0]: no words" in lines
    assert sum("no words" in line for line in lines) == 20
    assert "6 segments of the source are in no split: left_out.csv." in lines
    assert lines[-1] == f"Content (all rows in their order): sha256 {report['sha256']}"
    assert text in (tmp_path / "out" / "README.md").read_text()


def test_card(builder, tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\nlicense: other\ntags: [speech]\n---\n\n# Title\n\n<!-- report -->\n\nEnd.\n")
    report = prepare_dataset(builder, tmp_path / "out", card=template)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data["license"] == "other"
    assert card.data["tags"] == ["speech"]
    assert card.data["size_categories"] == ["n<1K"]
    configs = {config["config_name"]: config for config in card.data["configs"]}
    assert list(configs) == ["all", "emotion", "sentiment-7", "sentiment-2", "sentiment"]
    assert [config.get("default", False) for config in configs.values()] == [True, False, False, False, False]
    assert configs["emotion"]["columns"][-1] == "emotions"
    assert [files["split"] for files in configs["emotion"]["data_files"]] == ["train", "test"]
    assert "&id" not in (tmp_path / "out" / "README.md").read_text()
    assert card.text.index("# Title") < card.text.index(report["sha256"]) < card.text.index("End.")

    template.write_text("---\nlicense: other\n---\n\n# Title\n")
    with pytest.raises(ValueError, match="no line <!-- report -->"):
        prepare_dataset(builder, tmp_path / "other", card=template)
    assert not (tmp_path / "other").exists()


def test_several_processes(mosi_folder, tmp_path):
    builder = MosiBuilder(data_dir=str(mosi_folder), cache_dir=str(tmp_path / "cache"))
    alone = prepare_dataset(builder, tmp_path / "alone")
    together = prepare_dataset(builder, tmp_path / "together", num_proc=2)
    assert together == alone
    assert [failure[:2] for failure in alone["failures"]] == [("train", "video1_1"), ("test", "video8_x")]
    assert names(tmp_path / "together") == names(tmp_path / "alone")
    for name in names(tmp_path / "alone"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_dead_worker_raises(builder, monkeypatch, tmp_path):
    class DeadPool:
        def __init__(self, *arguments):
            pass

        def submit(self, *arguments) -> Future:
            future = Future()
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
            return future

        def shutdown(self, **options):
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", DeadPool)
    with pytest.raises(OSError, match="A worker process died, perhaps for lack of memory: use a smaller --num_proc"):
        prepare_dataset(builder, tmp_path / "out", num_proc=2)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_second_run_keeps_equal_output(builder, tmp_path):
    first = prepare_dataset(builder, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")}
    assert prepare_dataset(builder, tmp_path / "out") == first
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")} == before
    assert not list(tmp_path.glob(".out*"))


def test_output_with_other_files_raises_and_keeps_them(builder, tiny_source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files than a prepared data set"):
        prepare_dataset(builder, tmp_path / "mine")
    assert names(tmp_path / "mine") == ["thesis.txt"]
    with pytest.raises(ValueError, match=r"thesis\.txt is a file"):
        prepare_dataset(builder, tmp_path / "mine" / "thesis.txt")
    prepare_dataset(builder, tmp_path / "out")
    before = content_hash(tmp_path / "out")
    tiny_source.bad["train_1[0]"] = ValueError("no words")
    with pytest.raises(ValueError, match="holds other rows than the source"):
        prepare_dataset(builder, tmp_path / "out")
    assert content_hash(tmp_path / "out") == before
    assert not list(tmp_path.glob(".*.part"))
    (tmp_path / "empty").mkdir()
    assert prepare_dataset(builder, tmp_path / "empty")["splits"]["train"]["segments"] == 32


def test_damaged_output_raises_with_its_name(builder, tmp_path):
    prepare_dataset(builder, tmp_path / "out")
    path = tmp_path / "out" / "data" / "test-00000-of-00001.parquet"
    data = path.read_bytes()
    for broken in (b"", b"no Parquet at all", data[: len(data) // 2], data[:4] + bytes(2000) + data[2004:]):
        path.write_bytes(broken)
        with pytest.raises(OSError, match=r"test-00000-of-00001\.parquet is damaged or not Parquet"):
            prepare_dataset(builder, tmp_path / "out")
        assert path.read_bytes() == broken


def test_output_link_is_followed(builder, monkeypatch, tmp_path):
    link, target = tmp_path / "link", tmp_path / "disk" / "target"
    link.symlink_to(target)
    report = prepare_dataset(builder, link)
    assert link.is_symlink()
    assert content_hash(target) == report["sha256"]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ValueError, match="circle is a link to itself"):
        prepare_dataset(builder, tmp_path / "circle")
    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: path.name == "mount")
    with pytest.raises(ValueError, match="mount is a mount point, which cannot be replaced"):
        prepare_dataset(builder, tmp_path / "mount")


def test_interrupted_run_leaves_no_files(builder, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_make_report", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(builder, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_unreadable_split_is_reported(builder, tiny_source, tmp_path):
    tiny_source.bad |= {f"test_{i // 3}[{i % 3}]": ValueError("no words") for i in range(7)}
    report = prepare_dataset(builder, tmp_path / "out")
    assert len(report["failures"]) == 7
    assert list(load_dataset(str(tmp_path / "out"), streaming=True)) == ["train"]
    test = report["splits"]["test"]
    assert (test["segments"], test["not_read"], test["missing"]["emotions"]) == (0, 7, 0)
    assert re.search(r"\| test +\| +0 \| +4,662 \| +-4,662 \|", format_report(report, report["failures"]))
    assert content_hash(tmp_path / "out") == report["sha256"]
    assert prepare_dataset(builder, tmp_path / "out") == report


def test_unreadable_source_raises(builder, tiny_source, monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_source, "segments", {"test": ["a[0]", "a[1]"]})
    tiny_source.bad |= {"a[0]": ValueError("no words"), "a[1]": ValueError("no words")}
    with pytest.raises(OSError, match=re.escape("no segment can be read; the first: a[0]: no words")):
        prepare_dataset(builder, tmp_path / "out")
    monkeypatch.setattr(tiny_source, "segments", {"test": []})
    with pytest.raises(ValueError, match="there is no segment in it"):
        prepare_dataset(builder, tmp_path / "out")
    with pytest.raises(ValueError, match="--num_proc is 0"):
        prepare_dataset(builder, tmp_path / "out", num_proc=0)
    assert not (tmp_path / "out").exists()


def rows_of_all_kinds() -> pa.Table:
    random = np.random.default_rng(0)
    rows = [
        {
            "segment_id": f"é[{i}]" if i % 5 else None,
            "segment": i,
            "words": None if i % 4 == 0 else [{"word": "a" * (i % 3), "start": 0.1, "end": None}] * (i % 3),
            "audio_features": None if i % 3 == 0 else random.normal(size=(i % 4, 3)).astype(np.float32),
            "sentiment": None if i % 7 == 0 else float(i),
        }
        for i in range(40)
    ]
    return to_table(rows, make_features(audio_size=3, video_size=2))


def hash_of(table: pa.Table, size: int = 40) -> str:
    digest = ContentHash(table.schema)
    for start in range(0, len(table), size):
        for batch in table.slice(start, size).to_batches():
            digest.update(batch)
    return digest.hexdigest()


def test_content_hash_knows_rows_and_nothing_else(tmp_path):
    table = rows_of_all_kinds()
    expected = hash_of(table)
    assert [hash_of(table, size) for size in (1, 3, 7)] == [expected] * 3
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", row_group_size=11)
    assert hash_of(pq.read_table(tmp_path / "a.parquet"), 5) == expected
    # The order, a value, null for an empty list or text, and words in another segment, all tell.
    rows = table.to_pylist()
    others = [rows[1:] + rows[:1], rows[:-1]]
    for i, change in (
        (1, {"sentiment": 1.5}),
        (0, {"segment_id": ""}),
        (0, {"words": []}),
        (3, {"words": None}),
        (1, {"audio_features": [[0.0, 0.0, 0.0]]}),
        (1, {"text": "x"}),
    ):
        others.append([row | change if j == i else row for j, row in enumerate(rows)])
    hashes = {hash_of(pa.Table.from_pylist(other, schema=table.schema)) for other in others}
    assert len(hashes) == len(others)
    assert expected not in hashes
    assert hash_of(table.rename_columns([f"{name}_" for name in table.column_names])) != expected


def test_content_hash_of_a_folder(builder, small_files, monkeypatch, tmp_path):
    report = prepare_dataset(builder, tmp_path / "a")
    monkeypatch.setattr(prepare, "ROWS_PER_FILE", 8)
    assert prepare_dataset(builder, tmp_path / "b")["sha256"] == report["sha256"]
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") == report["sha256"]
    assert names(tmp_path / "a") != names(tmp_path / "b")


@pytest.mark.shared
def test_official_counts(shared, root, tmp_path):
    builder = MoseiBuilder(layout="labels", data_dir=str(shared / "data" / "mosei"), cache_dir=str(tmp_path / "cache"))
    report = prepare_dataset(builder, tmp_path / "out", card=root / "hub" / "mosei" / "README.md")
    assert {split: record["difference"]["segments"] for split, record in report["splits"].items()} == {
        "train": 0,
        "validation": 0,
        "test": 0,
    }
    test = report["splits"]["test"]["difference"]
    assert test["videos"] == 0
    assert set(test["sentiment_7"].values()) == set(test["emotions"].values()) == {0}
    assert report["splits"]["validation"]["missing"]["text"] == 0


@pytest.mark.shared
def test_classes_that_a_source_has_of_its_own(shared, tmp_path):
    builder = MeldBuilder(data_dir=str(shared / "data" / "meld"), cache_dir=str(tmp_path / "cache"))
    report = prepare_dataset(builder, tmp_path / "out")
    assert report["splits"]["test"]["classes"]["polarity"] == {"negative": 833, "neutral": 1256, "positive": 521}
    assert "Segments of each class of `emotion`:" in format_report(report, [])
    assert report["splits"]["test"]["sentiment_7"] == dict.fromkeys(SENTIMENT_7, 0)


def test_changed_folder_is_reloaded(mosi_folder, tmp_path):
    """`datasets` looks into its cache by the card, not by the files."""
    table = mosi_folder / "mosi.csv"
    load = partial(load_dataset, str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "cache"))
    prepare_dataset(MosiBuilder(data_dir=str(mosi_folder)), tmp_path / "out")
    first = load()["text"][:]
    shutil.rmtree(tmp_path / "out")
    table.write_text(table.read_text(encoding="utf-8").replace(first[0] + "\n", "SOMETHING ELSE\n"), encoding="utf-8")
    prepare_dataset(MosiBuilder(data_dir=str(mosi_folder)), tmp_path / "out")
    assert load()["text"][:] == ["SOMETHING ELSE" if text == first[0] else text for text in first]
