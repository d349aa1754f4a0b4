import csv
import json
import os
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Audio, Dataset, DatasetDict, load_dataset
from small_pipelines import write_media

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    build_tokenizer,
)
from modeling_umons.data.clip_tables import COLUMNS, ClipTable, plan_shards, read_clip_table, typed_columns
from modeling_umons.data.extraction import ExtractionSettings, RowExtractor, extract_features
from modeling_umons.data.schema import make_features
from modeling_umons.data.sharding import Engine
from modeling_umons.models.umons.configuration_umons import UmonsVideoTowerConfig
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.models.umons.modeling_tbje import UmonsVideoTower
from modeling_umons.models.umons.video_processing_umons import UmonsVideoProcessor


AUDIO = ExtractionSettings(("text", "audio"), shard_size=2)
SHARD = "data/train-00000-of-00001.parquet"


def write_wav(path: Path, seconds: float = 1.0, pitch: float = 220.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 22050)) / 22050)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((samples * 2**15).astype("<i2").tobytes())
    return path


def write_clip(path: Path, seconds: int = 1, sound: bool = True) -> Path:
    """Noise that changes from frame to frame, with a tone that rises."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=15)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=22050, layout="mono") if sound else None
        for number in range(15 * seconds):
            picture = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 15)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound:
            time = np.arange(22050 * seconds) / 22050
            samples = 0.5 * np.sin(2 * np.pi * (200 + 50 * time) * time)
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 22050
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list({key: None for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_shards(output: Path) -> list[dict]:
    return [row for path in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def direct(path: Path, start: float | None = None, end: float | None = None) -> np.ndarray:
    clip = read_clip(path, start=start, end=end, video=False)
    return UmonsFeatureExtractor()(clip.audio, sampling_rate=clip.sampling_rate)["input_features"][0]


@pytest.fixture
def sounds(tmp_path) -> Path:
    """Five sounds, one in a subfolder, and files that are none."""
    folder = tmp_path / "sounds"
    for number, name in enumerate(["b.wav", "a.wav", "c/d.wav", "e.wav", "f.wav"]):
        write_wav(folder / name, 0.5, 200 + 50 * number)
    (folder / "notes.txt").write_text("nothing to hear")
    write_wav(folder / ".trash" / "old.wav")
    return folder


@pytest.fixture(scope="module")
def tower_weights(tmp_path_factory) -> str:
    """Random ones, in torchvision's format."""
    from torchvision.models.video import r2plus1d_18

    path = tmp_path_factory.mktemp("tower") / "r2plus1d_18.pt"
    torch.manual_seed(0)
    torch.save(r2plus1d_18().state_dict(), path)
    return str(path)


# --- inputs


def test_folder_in_order_of_names(sounds):
    clips = read_clip_table(sounds)
    assert [row["file"] for row in clips.rows] == ["a.wav", "b.wav", "c/d.wav", "e.wav", "f.wav"]
    assert [row["segment_id"] for row in clips.rows] == ["a[0]", "b[0]", "c/d[0]", "e[0]", "f[0]"]
    assert clips.rows[2]["size"] == (sounds / "c" / "d.wav").stat().st_size
    assert clips.source(2) == str(sounds / "c" / "d.wav")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_all_kinds_give_the_same_columns(tmp_path, kind):
    words = [{"word": "so", "start": 0.1, "end": 0.2}]
    rows = [
        {"file_name": "a.wav", "start": 0.5, "end": 1.5, "text": "null", "words": words, "sentiment": -1.5,
         "emotions": [0, 1, 2, 3, 0.5, 0], "video_id": "007", "other": "x"},
        {"file_name": "a.wav", "start": None, "end": None, "text": None, "words": None, "sentiment": None,
         "emotions": None, "video_id": "007", "other": "y"},
    ]  # fmt: skip
    path = tmp_path / f"metadata.{kind}"
    if kind == "csv":
        write_table(path, [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows])
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)

    first, second = (typed_columns(row, with_text=True) for row in read_clip_table(tmp_path).rows)
    assert first == {
        "segment_id": "007[0]", "video_id": "007", "segment": 0, "start": 0.5, "end": 1.5, "text": "null",
        "words": words, "sentiment": -1.5, "happy": 0, "sad": 1, "anger": 2, "surprise": 3, "disgust": 0.5, "fear": 0,
    }  # fmt: skip
    assert second == {**dict.fromkeys(first), "segment_id": "007[1]", "video_id": "007", "segment": 1}


def test_names_of_segments_and_emotion_columns_are_kept(tmp_path):
    row = {"file_name": "a.wav", "segment_id": "x[7]", "video_id": "x", "segment": 7, "happy": 2, "fear": ""}
    path = write_table(tmp_path / "clips.csv", [row])
    columns = typed_columns(read_clip_table(path).rows[0], with_text=True)
    assert [columns[name] for name in ("segment_id", "video_id", "segment")] == ["x[7]", "x", 7]
    assert [columns[name] for name in EMOTIONS] == [2, None, None, None, None, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start": "soon"}, "start='soon' is not a number"),
        ({"emotions": "[1, 2]"}, "must be 6 numbers: happy, sad"),
        ({"emotions": "happy"}, "is not JSON"),
        ({"words": [{"text": "so"}]}, "words must be a list of"),
        ({"sentiment": "3.5"}, r"sentiment='3.5' is outside of \[-3, 3\]"),
        ({"happy": -1}, r"happy=-1 is outside of \[0, 3\]"),
        ({"emotions": "[0, 4, 0, 0, 0, 0]"}, r"sad=4 is outside of \[0, 3\]"),
        ({"start": "inf"}, "start='inf' is not a finite number"),
        ({"sentiment": "nan"}, "sentiment='nan' is not a finite number"),
        ({"segment": 1.5}, "segment=1.5 is not a whole number"),
        ({"segment": -1}, "segment=-1 is outside of"),
    ],
)
def test_values_of_other_type_raise(row, message):
    with pytest.raises(ValueError, match=message):
        typed_columns(row, with_text=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.csv", "path,text\na.wav,so\n", "no column `file_name`; its columns are path, text"),
        ("clips.jsonl", "[1]\n", r"clips\.jsonl, line 1 is not a JSON object"),
        (
            "clips.csv",
            "file_name,text\na.wav,so\nb.wav,well, so\n",
            r"clips\.csv, line 3: the row has another number of cells",
        ),
        ("clips.csv", 'file_name,text\na.wav,"so\n', r"clips\.csv is not a table \(unexpected end of data"),
        ("clips.jsonl", '{"file_name": "a.wav"}\n\n{"file', r"clips\.jsonl, line 3 is not valid JSON"),
        ("clips.jsonl", '{"file_name": 3}\n', r"clips\.jsonl, line 1: file_name is 3, which is not text"),
        (
            "clips.jsonl",
            '{"file_name": "a.wav", "video_id": ["a"]}\n',
            r"line 1: video_id is \['a'\], which is not text",
        ),
        ("clips.parquet", "PAR", "cannot be read as Parquet"),
        ("clips.xls", "file_name", r"ends in \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)
def test_files_that_are_not_clip_tables_raise(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_clip_table(tmp_path / name)


def test_compressed_table_above_limit_raises(tmp_path):
    """A text of 1 MB that 1500 rows share; columns that nobody needs may be of any size."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1500), ["x" * 2**20])
    table = pa.table({"file_name": ["a.wav"] * 1500, "text": text})
    path = tmp_path / "metadata.parquet"
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**14
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match=r"metadata\.parquet, row group 0, takes 15\d{8} bytes or more"):
        read_clip_table(tmp_path)
    assert pa.default_memory_pool().max_memory() < before + 2**27
    pq.write_table(table.rename_columns(["file_name", "other"]), path, compression="zstd", store_schema=False)
    assert len(read_clip_table(tmp_path).rows) == 1500


def test_folders_of_splits(tmp_path):
    for name in ("train/x.wav", "dev/c/x.wav"):
        write_wav(tmp_path / name, 0.1)
    rows = read_clip_table(tmp_path).rows
    assert [(row["file"], row["split"]) for row in rows] == [("dev/c/x.wav", "validation"), ("train/x.wav", "train")]
    write_wav(tmp_path / "train" / "y.wav", 0.1)
    write_table(tmp_path / "train" / "metadata.csv", [{"file_name": "x.wav", "text": "so"}])
    clips = read_clip_table(tmp_path)
    assert [(row["segment_id"], row["split"], row.get("text")) for row in clips.rows] == [
        ("dev/c/x[0]", "validation", None),
        ("train/x[0]", "train", "so"),
    ]
    assert clips.source(1) == str(tmp_path / "train" / "x.wav")
    assert clips.unlisted == ["train/y.wav"]
    write_table(tmp_path / "dev" / "c" / "metadata.csv", [{"file_name": "x.wav"}])
    with pytest.raises(ValueError, match=r"dev/c/metadata\.csv is neither\. Move or remove it"):
        read_clip_table(tmp_path)


def test_other_files_and_broken_links_are_counted(tmp_path, caplog):
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, 0.1)
    for name in ("a.txt", "b.txt", "c.docx", ".hidden", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "d.wav").symlink_to(tmp_path / "nowhere.wav")
    assert [row["file"] for row in read_clip_table(tmp_path).rows] == ["a.wav", "b.wav"]
    assert caplog.messages == [
        f"{tmp_path}: 1 broken link(s) are left out, such as d.wav.",
        f"{tmp_path}: files that are not clips are left out: 2 .txt, 1 .docx.",
    ]


def test_folders_that_are_not_all_splits(tmp_path):
    for name in ("train/x.wav", "mine/x.wav"):
        write_wav(tmp_path / name, 0.1)
    assert [row.get("split") for row in read_clip_table(tmp_path).rows] == [None, None]


def test_empty_inputs_raise(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_clip_table(tmp_path / "nowhere")
    with pytest.raises(OSError, match="contains no clips, no table"):
        read_clip_table(tmp_path / "empty")
    (tmp_path / "clips.jsonl").touch()
    with pytest.raises(OSError, match="has no rows"):
        read_clip_table(tmp_path / "clips.jsonl")


def test_data_set_saved_to_disk_with_sound_inside(sounds, tmp_path):
    part = {"audio": [str(sounds / "a.wav")], "sentiment": [1.0]}
    dataset = DatasetDict({name: Dataset.from_dict(part) for name in ("train", "test")}).cast_column("audio", Audio())
    dataset.save_to_disk(tmp_path / "saved")
    clips = read_clip_table(tmp_path / "saved")
    assert [row["split"] for row in clips.rows] == ["train", "test"]
    assert clips.rows[0]["size"] == (sounds / "a.wav").stat().st_size
    extract_features(tmp_path / "saved", tmp_path / "out", AUDIO)
    for split in ("train", "test"):
        (row,) = load_dataset(str(tmp_path / "out"), split=split, cache_dir=str(tmp_path / "cache"))
        np.testing.assert_array_equal(np.float32(row["audio_features"]), direct(sounds / "a.wav"))
        assert row["sentiment"] == 1.0


def test_data_set_that_load_dataset_loads(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "loaded").mkdir()
    files = pa.table({"file_name": [str(sounds / "a.wav"), str(sounds / "b.wav")], "text": ["one", "two"]})
    pq.write_table(files, tmp_path / "loaded" / "test-00000-of-00001.parquet")
    rows = read_clip_table(tmp_path / "loaded").rows
    assert [(row["split"], row["text"], row["path"]) for row in rows] == [
        ("test", "one", str(sounds / "a.wav")),
        ("test", "two", str(sounds / "b.wav")),
    ]


def test_fingerprint_depends_on_labels_and_sizes_but_not_on_paths(sounds, tmp_path):
    def fingerprint(folder, **extra):
        write_table(folder / "metadata.csv", [{"file_name": "a.wav", **extra}])
        return read_clip_table(folder).fingerprint()

    before = fingerprint(sounds)
    assert fingerprint(sounds, sentiment=1) != before
    moved = sounds.rename(tmp_path / "moved")
    assert fingerprint(moved) == before
    write_wav(moved / "a.wav", 0.6)
    assert fingerprint(moved) != before


# --- shards


def test_plan_by_split_in_the_order_of_the_input():
    rows = [{"split": name} for name in ("test", None, "test", "train", "test")]
    assert [(shard.name, shard.rows) for shard in plan_shards(ClipTable(rows), 2)] == [
        ("data/test-00000-of-00002.parquet", [0, 2]),
        ("data/test-00001-of-00002.parquet", [4]),
        ("data/train-00000-of-00001.parquet", [1, 3]),
    ]


def test_split_with_a_path_raises(tmp_path):
    (tmp_path / "clips.csv").write_text("file_name,split\na.wav,../up\n")
    with pytest.raises(ValueError, match=r"clips\.csv, line 2: split is '\.\./up'; use letters"):
        read_clip_table(tmp_path / "clips.csv")


def test_columns_and_types(sounds, tmp_path):
    extract_features(sounds, tmp_path / "out", AUDIO)
    schema = pq.read_schema(tmp_path / "out" / "data" / "train-00000-of-00003.parquet")
    assert schema.names == [
        "segment_id", "video_id", "segment", "start", "end", "text", "words", "audio_features", "video_features",
        "audio_times", "video_times", "sentiment", *EMOTIONS,
    ]  # fmt: skip
    assert set(schema.names) >= set(COLUMNS) - {"emotions"}
    assert schema.field("audio_features").type.value_type == pa.list_(pa.float32(), 80)
    assert schema.field("video_features").type.value_type == pa.list_(pa.float32(), 512)
    row = read_shards(tmp_path / "out")[2]
    assert row["segment_id"] == "c/d[0]"
    assert all(row[name] is None for name in ("start", "end", "text", "words", "video_features", "sentiment", "fear"))
    np.testing.assert_array_equal(np.float32(row["audio_features"]), direct(sounds / "c" / "d.wav"))


def test_times_are_those_of_the_recording(tmp_path):
    """The segment begins at 2 s of the recording, and its sound after 0.5 s of silence, which is trimmed."""
    sound = np.zeros(4 * 22050, np.float32)
    sound[round(2.5 * 22050) : 3 * 22050] = 0.5 * np.sin(np.arange(11025) / 10)
    (tmp_path / "one.wav").write_bytes(write_media(sound, container="wav"))
    write_table(tmp_path / "metadata.csv", [{"file_name": "one.wav", "start": 2.0, "end": 4.0}])
    extract_features(tmp_path, tmp_path / "out", AUDIO)
    (row,) = read_shards(tmp_path / "out")
    times = np.array(row["audio_times"])
    assert times[0] == pytest.approx(2.5, abs=2048 / 22050)  # silence is trimmed in windows of 2048 samples
    np.testing.assert_allclose(np.diff(times), 16 * 275 / 22050)
    assert len(times) == len(row["audio_features"])


def test_segments_that_begin_shortly_before_the_file_begin_at_0(sounds, tmp_path):
    """As 223 segments of the official table of CMU-MOSEI do."""
    starts = ["-0.4", "-0.001", "0", "-0.6"]
    write_table(sounds / "metadata.csv", [{"file_name": "a.wav", "start": start, "end": 0.4} for start in starts])
    report = extract_features(sounds, tmp_path / "out", AUDIO)
    rows = read_shards(tmp_path / "out")
    assert [row["start"] for row in rows] == [-0.4, -0.001, 0.0]
    assert rows[0]["audio_features"] == rows[1]["audio_features"] == rows[2]["audio_features"]
    assert [(row, "start=-0.6" in problem) for row, _, problem in report.failures] == [(3, True)]


def test_load_dataset_streams_the_splits_in_order(sounds, tmp_path):
    names = ["f.wav", "b.wav", "a.wav", "e.wav"]
    rows = [{"file_name": n, "split": s} for n, s in zip(names, ["train", "valid", "train", "train"], strict=True)]
    write_table(sounds / "metadata.csv", rows)
    report = extract_features(sounds, tmp_path / "out", AUDIO)
    assert (report.num_rows, report.num_left_out, report.failures) == (4, 0, [])
    for split, expected in {"train": ["f", "a", "e"], "valid": ["b"]}.items():
        stream = load_dataset(str(tmp_path / "out"), split=split, streaming=True)
        assert stream.features == make_features()
        assert [row["video_id"] for row in stream] == expected  # to its end: a stream given up can hang at exit


def test_two_processes_equal_one(sounds, tmp_path):
    one = extract_features(sounds, tmp_path / "one", AUDIO, Engine(num_proc=1))
    two = extract_features(sounds, tmp_path / "two", AUDIO, Engine(num_proc=2))
    assert one == two
    names = sorted(path.name for path in (tmp_path / "one" / "data").iterdir())
    assert names == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    for name in names:
        files = [tmp_path / folder / "data" / name for folder in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_ranks_share_the_shards_and_the_first_reports(sounds, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert extract_features(sounds, tmp_path / "out", AUDIO) is None
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["train-00001-of-00003.parquet"]
    monkeypatch.setenv("RANK", "0")
    assert extract_features(sounds, tmp_path / "out", AUDIO).num_rows == 5
    assert [row["video_id"] for row in read_shards(tmp_path / "out")] == ["a", "b", "c/d", "e", "f"]


# --- going on


def test_finished_shards_are_left_alone(sounds, tmp_path):
    extract_features(sounds, tmp_path / "out", AUDIO)
    missing, *others = sorted((tmp_path / "out" / "data").iterdir())
    content, times = missing.read_bytes(), [path.stat().st_mtime_ns for path in others]
    missing.rename(missing.with_name(f".{missing.stem}.x.part.parquet"))  # as a run that is killed leaves it
    assert extract_features(sounds, tmp_path / "out", AUDIO).num_rows == 5
    assert missing.read_bytes() == content
    assert [path.stat().st_mtime_ns for path in others] == times
    assert sorted((tmp_path / "out" / "data").iterdir()) == [missing, *others]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_length": 2}, r"feature_extractor\.max_length was 60, is 2"),
        ({"shard_size": 3}, "shard_size was 2, is 3"),
        ({"modalities": ("audio",)}, "modalities was"),
    ],
)
def test_other_settings_are_refused(sounds, tmp_path, change, message):
    extract_features(sounds, tmp_path / "out", AUDIO)
    options = {"modalities": AUDIO.modalities, "shard_size": 2, **change}
    with pytest.raises(ValueError, match=message):
        extract_features(sounds, tmp_path / "out", ExtractionSettings(**options))


def test_changed_input_raises(sounds, tmp_path):
    extract_features(sounds, tmp_path / "out", AUDIO)
    write_wav(sounds / "g.wav")
    with pytest.raises(ValueError, match=r"input was 5 rows, .* is 6 rows"):
        extract_features(sounds, tmp_path / "out", AUDIO)


def test_folder_with_other_files_raises(sounds, tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "train.csv").write_text("a\n")
    with pytest.raises(ValueError, match="holds other files than features"):
        extract_features(sounds, tmp_path / "out", AUDIO)


# --- failures


def test_bad_files_fail_only_their_rows(sounds, tmp_path):
    (sounds / "text.mp4").write_text("not a clip")
    (sounds / "empty.wav").touch()
    clip = write_clip(tmp_path / "whole.mp4").read_bytes()  # its index is at the end
    (sounds / "truncated.mp4").write_bytes(clip[: len(clip) // 2])
    report = extract_features(sounds, tmp_path / "out", AUDIO)
    assert (report.num_rows, report.num_left_out) == (5, 3)
    with open(tmp_path / "out" / "failures.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["file"]) for row in rows] == [
        ("4", "empty.wav"),
        ("6", "text.mp4"),
        ("7", "truncated.mp4"),
    ]
    assert all("could not be opened as a video or audio file" in row["reason"] for row in rows)
    assert [row["video_id"] for row in read_shards(tmp_path / "out")] == ["a", "b", "c/d", "e", "f"]
    # the same again from what the shards remember
    assert extract_features(sounds, tmp_path / "out", AUDIO) == report


def test_rows_without_file_or_with_wrong_range_fail(sounds):
    rows = [
        {"file_name": "a.wav", "start": 0.1, "end": 0.4},
        {"file_name": ""},
        {"file_name": "missing.wav"},
        {"file_name": "a.wav", "start": 3, "end": 4},
        {"file_name": "a.wav", "start": "x"},
    ]
    write_table(sounds / "metadata.csv", rows)
    output = sounds.parent / "out"
    report = extract_features(sounds, output, AUDIO)
    assert [row for row, _, _ in report.failures] == [1, 2, 3, 4]
    for (_, _, reason), part in zip(
        report.failures, ["names no file", "there is no such file", "lies outside", "is not a number"], strict=True
    ):
        assert part in reason
    (row,) = read_shards(output)
    np.testing.assert_array_equal(np.float32(row["audio_features"]), direct(sounds / "a.wav", 0.1, 0.4))


def test_shard_without_rows_loads(sounds, tmp_path):
    for name in ("a.wav", "b.wav"):
        (sounds / name).write_text("broken")
    extract_features(sounds, tmp_path / "out", AUDIO)
    stream = load_dataset(str(tmp_path / "out"), split="train", streaming=True)
    assert [row["video_id"] for row in stream] == ["c/d", "e", "f"]


def test_unexpected_error_is_reported_with_its_class(sounds, tmp_path, monkeypatch):
    def break_down(self, audio):
        raise RuntimeError("of all things")

    monkeypatch.setattr(RowExtractor, "_extract_audio", break_down)
    report = extract_features(sounds, tmp_path / "out", AUDIO)
    assert report.num_rows == 0
    assert report.failures[0] == (0, "a.wav", "RuntimeError: of all things")


# --- video


def test_ranges_of_a_clip_in_sound_and_pictures(tmp_path, tower_weights):
    clip = write_clip(tmp_path / "clip.mp4", seconds=3)
    write_clip(tmp_path / "mute.mp4", sound=False)
    rows = [
        {"file_name": "clip.mp4", "start": 0, "end": 1.2, "text": "one"},
        {"file_name": "clip.mp4", "start": 1.2, "end": 2.9, "text": "two"},
        {"file_name": "mute.mp4", "start": "", "end": "", "text": "three"},
    ]
    path = write_table(tmp_path / "clips.csv", rows)
    settings = ExtractionSettings(("audio", "video"), tower_weights=tower_weights)
    report = extract_features(path, tmp_path / "out", settings)
    assert (report.num_rows, report.num_left_out) == (3, 0)
    assert report.failures == [(2, "mute.mp4", "audio_features is null: the clip lacks this stream")]

    first, second, mute = read_shards(tmp_path / "out")
    assert [row["segment_id"] for row in (first, second, mute)] == ["clip[0]", "clip[1]", "mute[0]"]
    assert first["text"] is None  # not among the modalities
    assert mute["audio_features"] is None
    assert len(mute["video_features"]) == 1
    np.testing.assert_array_equal(np.float32(second["audio_features"]), direct(clip, 1.2, 2.9))

    tower = UmonsVideoTower(UmonsVideoTowerConfig()).eval()
    tower.load_torchvision_weights(tower_weights)
    frames = read_clip(clip, start=1.2, end=2.9, frame_rate=15.0, audio=False).frames
    with torch.no_grad():
        expected = tower(UmonsVideoProcessor()([frames], return_tensors="pt")["pixel_values_videos"][0])
    assert np.shape(second["video_features"]) == (2, 512)  # frames 0 to 15 and 8 to 23 of 25
    np.testing.assert_allclose(np.float32(second["video_features"]), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_max_length_cuts_both(tmp_path, tower_weights):
    write_clip(tmp_path / "clip.mp4", seconds=2)
    settings = ExtractionSettings(("audio", "video"), max_length=1, tower_weights=tower_weights)
    extract_features(tmp_path, tmp_path / "out", settings)
    (row,) = read_shards(tmp_path / "out")
    assert (len(row["audio_features"]), len(row["video_features"])) == (1, 1)


def test_bfloat16_is_near(tmp_path, tower_weights):
    write_clip(tmp_path / "clip.mp4")
    for dtype in ("float32", "bfloat16"):
        settings = ExtractionSettings(("video",), tower_weights=tower_weights, dtype=dtype)
        extract_features(tmp_path, tmp_path / dtype, settings)
    exact, rounded = (np.float32(read_shards(tmp_path / d)[0]["video_features"]) for d in ("float32", "bfloat16"))
    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()


def test_tower_of_a_model(tmp_path, tower_weights):
    """Its weights, not others, and its extractors."""
    write_clip(tmp_path / "clip.mp4", seconds=2)
    config = UmonsConfig(
        modalities=["audio", "video"], vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, video_tower={},
    )  # fmt: skip
    model = UmonsForSequenceClassification(config)
    model.base_model.video_tower.load_torchvision_weights(tower_weights)
    model.save_pretrained(tmp_path / "model")
    parts = (build_tokenizer([]), UmonsFeatureExtractor(max_length=3), UmonsVideoProcessor(max_clips=1))
    UmonsProcessor(*parts).save_pretrained(tmp_path / "model")
    of_model = ExtractionSettings(("audio", "video"), model=str(tmp_path / "model"))
    of_file = ExtractionSettings(("audio", "video"), tower_weights=tower_weights)
    extract_features(tmp_path, tmp_path / "of_model", of_model)
    extract_features(tmp_path, tmp_path / "of_file", of_file)
    one, other = (read_shards(tmp_path / name)[0] for name in ("of_model", "of_file"))
    assert (len(one["video_features"]), len(other["video_features"])) == (1, 2)
    np.testing.assert_allclose(one["video_features"], other["video_features"][:1], rtol=1e-4, atol=1e-5)
    assert (len(one["audio_features"]), len(other["audio_features"])) == (3, 11)  # one frame in 0.1995 s
    np.testing.assert_allclose(one["audio_features"], other["audio_features"][:3], atol=1e-6)


def test_model_without_tower_raises(tmp_path):
    write_clip(tmp_path / "clip.mp4")
    config = UmonsConfig(vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    UmonsForSequenceClassification(config).save_pretrained(tmp_path / "model")
    settings = ExtractionSettings(("video",), model=str(tmp_path / "model"))
    with pytest.raises(ValueError, match="has no video tower: pass --tower_weights too"):
        extract_features(tmp_path, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text",)}, "nothing to extract"),
        ({"modalities": ("video",)}, "need a video tower"),
        ({"modalities": ("audio",), "tower_weights": "x.pt"}, "video is not among"),
        ({"shard_size": 0}, "--shard_size is 0"),
        ({"max_length": 0}, "--max_length is 0"),
    ],
)
def test_contradicting_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        ExtractionSettings(**options)


# --- real recordings


@pytest.mark.shared
def test_ravdess_equals_the_feature_extractor(shared, tmp_path):
    files = sorted((shared / "data" / "ravdess").rglob("*.flac"))[::60]
    assert len(files) == 20
    for file in files:
        os.symlink(file, tmp_path / file.name)
    extract_features(tmp_path, tmp_path / "out", ExtractionSettings(("audio",), shard_size=8))
    rows = read_shards(tmp_path / "out")
    assert [row["video_id"] for row in rows] == sorted(file.stem for file in files)
    for row in rows:
        expected = direct(tmp_path / f"{row['video_id']}.flac")
        np.testing.assert_array_equal(np.float32(row["audio_features"]), expected)
