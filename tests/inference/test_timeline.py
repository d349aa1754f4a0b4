"""Timelines: tables, captions that FFmpeg reads, plots, and atomic writing."""

import csv
import errno
import json

import av
import pytest

from modeling_umons import EMOTIONS
from modeling_umons.inference.rttm import read_rttm
from modeling_umons.inference.timeline import check_paths, write_timeline
from modeling_umons.inference.timeline_formats import describe, format_time


def segment(start, end, sentiment=0.5, text=None, **scores):
    scores = dict.fromkeys(EMOTIONS, 0.1) | scores
    ranked = [{"label": name, "score": score} for name, score in sorted(scores.items(), key=lambda item: -item[1])]
    result = {"sentiment": sentiment, "emotions": ranked, "modalities": ["audio"], "timestamp": (start, end)}
    return result if text is None else result | {"text": text}


HEAD = ["start", "end", "speaker", "modalities", "warnings", "label", "confidence", "sentiment"]
SEGMENTS = [
    segment(0.0, 5.0, -1.25, "so <b>glad</b> & well --> {\\an8}", sad=0.75),
    {"modalities": [], "timestamp": (5.0, 10.0)},
    segment(10.0, 12.5, 2.0, "two\n\n3\n00:00:01,000 --> 00:00:02,000\nlines", happy=0.9),
    segment(12.5, 12.5004, text="too short to read"),
    segment(3599.9996, 3605.25, 1.0, "", fear=0.5),
    segment(90000.0, 90001.0, text="Größe 很好"),
]


def captions(path) -> list[tuple[float, float, str]]:
    """Read (start, end, text) with FFmpeg."""
    with av.open(str(path)) as container:
        (stream,) = container.streams
        found = []
        for packet in container.demux(stream):
            if packet.size:
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), bytes(packet).decode()))
    return found


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_captions_are_valid(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_timeline(SEGMENTS, path)
    found = captions(path)
    times = [
        (0, 5),
        (10, 12.5),
        (3600, 3605.25),
        (90000, 90001),
    ]  # not of the empty segment, nor of half a millisecond
    assert [time for caption in found for time in caption[:2]] == pytest.approx([t for pair in times for t in pair])
    texts = [caption[2] for caption in found]
    written = (
        "so &lt;b&gt;glad&lt;/b&gt; &amp; well --&gt; {\\an8}"
        if suffix == ".vtt"
        else "so \u2039b\u203aglad\u2039/b\u203a & well → (\\an8)"
    )
    assert texts[0].splitlines() == ["[sad 0.75, sentiment -1.25]", written]
    assert texts[1].splitlines()[0] == "[happy 0.90, sentiment +2.00]"
    assert texts[1].splitlines()[1].startswith("two 3 00:00:01,000")
    assert len(texts[1].splitlines()) == 2
    assert texts[2].strip() == "[fear 0.50, sentiment +1.00]"
    assert "Größe 很好" in texts[3]
    lines = path.read_text(encoding="utf-8").splitlines()
    separator = {".srt": ",", ".vtt": "."}[suffix]
    assert f"00:59:59{separator}999" not in path.read_text(encoding="utf-8")
    assert f"25:00:00{separator}000 --> 25:00:01{separator}000" in lines
    assert sum("-->" in line for line in lines) == len(times)
    assert (lines[0] == "WEBVTT") == (suffix == ".vtt")


def test_table_has_a_row_for_each_segment(tmp_path):
    write_timeline(SEGMENTS, tmp_path / "clip.csv")
    with open(tmp_path / "clip.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*HEAD, *EMOTIONS, "text"]
    assert len(rows) == len(SEGMENTS)
    assert (rows[0]["start"], rows[0]["sentiment"], rows[0]["sad"]) == ("0.0", "-1.250000", "0.750000")
    assert [rows[k]["text"] for k in (0, 2)] == [SEGMENTS[k]["text"] for k in (0, 2)]
    assert {value for name, value in rows[1].items() if name not in ("start", "end")} == {""}


def test_table_renames_columns_and_escapes_formulas(tmp_path):
    scores = {"text": 0.5, "score_text": 0.25, "start": 0.125, "=1+1": 0.0625}
    words = ["=HYPERLINK(0)", "+1", "-1", "@here", "\tso", "so = glad", ""]
    ranked = [{"label": name, "score": score} for name, score in scores.items()]
    segments = [
        {"labels": ranked, "modalities": ["text"], "timestamp": (k, k + 1), "text": w} for k, w in enumerate(words)
    ]
    write_timeline(segments, tmp_path / "clip.csv", labels=list(scores))
    with open(tmp_path / "clip.csv", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    names = ["score_text", "score_score_text", "score_start", "'=1+1"]
    assert head == [*HEAD, *names, "text"]
    assert [row[-1] for row in rows] == ["'=HYPERLINK(0)", "'+1", "'-1", "'@here", "'\tso", "so = glad", ""]
    assert [float(score) for score in rows[1][8:12]] == list(scores.values())
    assert rows[1][0] == "1"


def test_captions_escape_names_of_scores(tmp_path):
    name = "calm\n\n00:00:01.000 --> 00:00:02.000\n<b>"
    segments = [{"labels": [{"label": name, "score": 1.0}], "modalities": ["text"], "timestamp": (0, 1)}]
    write_timeline(segments, tmp_path / "clip.srt", tmp_path / "clip.vtt")
    ((_, _, text),) = captions(tmp_path / "clip.srt")
    assert text.strip() == "[calm 00:00:01.000 → 00:00:02.000 \u2039b\u203a 1.00]"
    ((_, _, text),) = captions(tmp_path / "clip.vtt")
    assert text.strip() == "[calm 00:00:01.000 --&gt; 00:00:02.000 &lt;b&gt; 1.00]"


def test_json_equals_the_predictions(tmp_path):
    write_timeline(SEGMENTS, tmp_path / "clip.json")
    assert json.loads((tmp_path / "clip.json").read_text(encoding="utf-8")) == json.loads(json.dumps(SEGMENTS))
    write_timeline([], tmp_path / "clip.json", tmp_path / "clip.csv", tmp_path / "clip.vtt")
    assert json.loads((tmp_path / "clip.json").read_text()) == []
    assert (tmp_path / "clip.csv").read_text() == ",".join([*HEAD, "text"]) + "\n"
    assert (tmp_path / "clip.vtt").read_text() == "WEBVTT\n\n"


DIALOGUE = [
    {**segment(0.0, 2.0, 1.0, "so glad"), "speaker": "Ann B", "label": "happy", "confidence": 0.75, "words": [
        {"word": "so", "timestamp": (0.0, 0.5)}, {"word": "glad", "timestamp": (0.4, 2.0)}]},
    {**segment(1.0, 3.0, -1.0, "well"), "speaker": "C", "label": "neutral"},
    {**segment(1.5, 2.5), "speaker": "C"},
    {"modalities": [], "timestamp": (4.0, 5.0), "speaker": None, "warnings": [{"code": "silent", "message": "."}]},
]  # fmt: skip


def test_parquet_equals_the_table(tmp_path):
    pandas = pytest.importorskip("pandas")
    write_timeline(DIALOGUE, tmp_path / "clip.csv", tmp_path / "clip.parquet")
    table, expected = pandas.read_parquet(tmp_path / "clip.parquet"), pandas.read_csv(tmp_path / "clip.csv")
    assert sorted(table.columns) == sorted(expected.columns)
    for name in ("start", "end", "sentiment", "confidence", *EMOTIONS):
        assert table[name].tolist() == pytest.approx(expected[name].tolist(), nan_ok=True, abs=1e-6)
    assert table["speaker"].fillna("").tolist() == ["Ann B", "C", "C", ""]
    assert [list(codes) for codes in table["warnings"]] == [[], [], [], ["silent"]]


def test_rttm_has_the_turns_of_speakers(tmp_path):
    write_timeline(DIALOGUE, tmp_path / "clip.rttm", title="my talk.mp4")
    turns = read_rttm(tmp_path / "clip.rttm", "my talk.mp4")
    assert [(turn["speaker"], turn["timestamp"]) for turn in turns] == [
        ("Ann_B", (0, 2)), ("C", (1, 3)), ("C", (1.5, 2.5)),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"clip\.rttm: the segments have no speakers"):
        write_timeline(SEGMENTS, tmp_path / "clip.rttm")


def test_elan_has_tiers_for_each_speaker(tmp_path):
    """Read by pympi: annotations of a tier do not overlap."""
    elan = pytest.importorskip("pympi.Elan")
    media = tmp_path / "media" / "my talk.wav"
    write_timeline(DIALOGUE, tmp_path / "clip.eaf", media=media)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.eaf"]
    document = elan.Eaf(str(tmp_path / "clip.eaf"), suppress_version_warning=True)
    found = {tier: document.get_annotation_data_for_tier(tier) for tier in document.get_tier_names()}
    assert [(start, end, text) for start, end, text, *_ in found["text@Ann B"]] == [(0, 2000, "so glad")]
    assert [row[:3] for row in found["word@Ann B"]] == [(0, 500, "so"), (500, 2000, "glad")]
    assert found["label@Ann B"][0][2] == "happy 0.75"
    assert {tier for tier in found if "@C" in tier} == {
        "text@C",
        "label@C",
        "sentiment@C",
        "label 2@C",
        "sentiment 2@C",
    }
    assert found["sentiment@C"][0][:3] == (1000, 3000, "-1.00")
    (linked,) = document.get_linked_files()
    assert linked["RELATIVE_MEDIA_URL"] == "./media/my talk.wav"
    assert linked["MEDIA_URL"] == media.as_uri()
    assert linked["MIME_TYPE"] == "audio/x-wav"


def test_captions_name_the_speaker(tmp_path):
    write_timeline(DIALOGUE, tmp_path / "clip.vtt")
    assert captions(tmp_path / "clip.vtt")[0][2].splitlines()[1] == "Ann B: so glad"


def test_predictions_of_other_models(tmp_path):
    classes = [
        {"labels": [{"label": "calm", "score": 1.0}], "modalities": ["text"], "timestamp": (0, 1)},
        {"labels": [{"label": "angry", "score": 0.6}, {"label": "calm", "score": 0.4}], "modalities": ["text"],
         "timestamp": (1, 2)},
    ]  # fmt: skip
    regression = [{"sentiment": 1.5, "modalities": ["text"], "timestamp": (0, 1)}]
    for name, segments, head, caption in (
        (
            "classes",
            classes,
            [*HEAD, "angry", "calm", "text"],
            "[calm 1.00]",
        ),
        (
            "regression",
            regression,
            [*HEAD, "text"],
            "[sentiment +1.50]",
        ),
    ):
        paths = [tmp_path / f"{name}{suffix}" for suffix in (".csv", ".vtt", ".png")]
        write_timeline(segments, *paths)
        assert paths[0].read_text().splitlines()[0] == ",".join(head)
        assert captions(paths[1])[0][2] == caption
        assert paths[2].stat().st_size > 2000


def test_segments_are_written_as_they_come(tmp_path):
    """With `labels`, no segments are collected first."""
    seen = []

    def stream():
        for k in range(20000):
            if k == 19999:
                (part,) = tmp_path.glob(".*.csv")
                seen.append(part.stat().st_size)
            yield segment(float(k), k + 1.0)

    write_timeline(stream(), tmp_path / "clip.csv", labels=list(EMOTIONS))
    assert seen[0] > 0.9 * (tmp_path / "clip.csv").stat().st_size


def test_files_are_written_atomically(tmp_path):
    paths = [tmp_path / f"clip{suffix}" for suffix in (".csv", ".json", ".srt", ".vtt", ".png")]
    paths[0].write_text("old")

    def broken():
        yield SEGMENTS[0]
        raise OSError("the file ends in the middle")

    with pytest.raises(OSError, match="in the middle"):
        write_timeline(broken(), *paths, labels=list(EMOTIONS))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.csv"]
    assert paths[0].read_text() == "old"
    write_timeline(SEGMENTS, *paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_long_names_and_links_are_written(tmp_path):
    longest = tmp_path / ("a" * 251 + ".csv")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "clip.json").write_text("old")
    for name, target in (("link.json", "far/clip.json"), ("new.vtt", "far/new.vtt")):
        (tmp_path / name).symlink_to(target)
    write_timeline(SEGMENTS, longest, tmp_path / "link.json", tmp_path / "new.vtt")
    assert longest.stat().st_size > 100
    assert (tmp_path / "link.json").is_symlink()
    assert len(json.loads((tmp_path / "far" / "clip.json").read_text(encoding="utf-8"))) == len(SEGMENTS)
    assert (tmp_path / "far" / "new.vtt").read_text(encoding="utf-8").startswith("WEBVTT")
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["clip.json", "new.vtt"]


@pytest.mark.parametrize("suffix", [".csv", ".png"])
def test_unwritable_paths_raise_first(tmp_path, suffix, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def segments():
        pytest.fail("segments were predicted")
        yield

    monkeypatch.setattr("builtins.open", refuse)  # root may write into any folder
    with pytest.raises(PermissionError, match=rf"Permission denied: '{tmp_path}/clip{suffix}'"):
        write_timeline(segments(), tmp_path / f"clip{suffix}", labels=[])
    monkeypatch.undo()
    with pytest.raises(OSError, match=f"too long: '{tmp_path}/aaa"):
        write_timeline(segments(), tmp_path / ("a" * 252 + suffix), labels=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([{"modalities": ["text"], "sentiment": 1.0}], "Segment 1 has no `timestamp`. Call the pipeline with"),
        ([segment(5, 6), segment(3, 4)], "Segment 2 is from 3 s to 4 s, but the previous one begins at 5 s"),
        ([segment(5, 4)], "Segment 1 is from 5 s to 4 s"),
        ([segment(-1, 4)], "Segment 1 is from -1 s"),
        ([segment(0, 1, calm=0.3)], r"Segment 1 has scores of \['calm'\], which are not in `labels`"),
    ],
)
def test_invalid_segments_raise(tmp_path, segments, message):
    with pytest.raises(ValueError, match=message):
        write_timeline(segments, tmp_path / "clip.csv", labels=list(EMOTIONS))
    assert list(tmp_path.iterdir()) == []


def test_invalid_paths_raise(tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    for names, error, message in (
        (
            ["clip.txt"],
            ValueError,
            r"clip\.txt: the suffix is not a format .* one of \.csv, \.json, \.parquet, \.srt, \.vtt, \.rttm, ",
        ),
        (["clip"], ValueError, "the suffix is not a format"),
        (["clip.csv", "../" + tmp_path.name + "/clip.csv"], ValueError, "is given twice"),
        (["folder.csv"], OSError, r"folder\.csv is a folder, not a file"),
        (["nowhere/clip.csv"], OSError, "nowhere does not exist"),
    ):
        with pytest.raises(error, match=message):
            check_paths([tmp_path / name for name in names])
    monkeypatch.setattr("modeling_umons.inference.timeline.find_spec", lambda name: None)
    for name, message in (("clip.SVG", r"umons\[plot\]"), ("clip.eaf", r"pympi: pip install .*\[transcribe\]")):
        with pytest.raises(ImportError, match=message):
            check_paths([tmp_path / name])


def test_times_and_scores_are_formatted():
    assert format_time(0) == "00:00:00.000"
    assert format_time(59.9996) == "00:01:00.000"
    assert format_time(360000.5, ",") == "100:00:00,500"
    assert format_time(59.96, digits=1) == "00:01:00.0"
    assert describe(SEGMENTS[0], num_scores=2) == "sad 0.75, happy 0.10, sentiment -1.25"
    assert describe(SEGMENTS[1]) == ""
