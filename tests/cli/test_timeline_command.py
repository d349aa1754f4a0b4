"""`umons timeline`."""

import json
import os

import av
import numpy as np
import pytest

from modeling_umons.cli import command, timeline
from modeling_umons.cli.output import SIGPIPE_EXIT_CODE
from modeling_umons.models.umons.media_umons import read_clip


@pytest.fixture(scope="module")
def talk(clips, tmp_path_factory) -> str:
    """Audio file: a clip, four seconds of silence, and another clip."""
    voices = [read_clip(clip, video=False).audio for clip in clips]
    sound = np.concatenate([voices[0], np.zeros(4 * 22050, np.float32), voices[1]])
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=22050, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.round(sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 22050
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return str(path)


def test_timeline_prints_table_and_writes_files(model, talk, tmp_path, capsys):
    words = [{"word": "glad", "timestamp": [0.5, 0.9]}, {"word": "so", "timestamp": [0.1, 0.4]}]
    (tmp_path / "words.json").write_text(json.dumps(words))
    paths = [tmp_path / f"talk{suffix}" for suffix in (".csv", ".json", ".srt", ".vtt", ".png", ".svg")]
    options = ["--model", model, "--chunk_length_s", "1", "--words", str(tmp_path / "words.json")]
    assert timeline.main([talk, *options, "--output", *map(str, paths)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *lines = out.splitlines()
    assert head.split() == ["time", "sentiment", "strongest", "emotions", "words"]
    segments = json.loads(paths[1].read_text(encoding="utf-8"))
    assert len(lines) == len(segments)
    assert lines[0].startswith("00:00:00.0-00:00:01.0")
    assert lines[0].endswith("so glad")
    assert [line.endswith("(no input)") for line in lines] == [not entry["modalities"] for entry in segments]
    assert sum(line.endswith("(no input)") for line in lines) >= 3
    for line, entry in zip(lines, segments, strict=True):
        if entry["modalities"]:
            assert f" {entry['sentiment']:+.2f}  {entry['emotions'][0]['label']} " in line
    assert segments[0]["words"][0] == {"word": "so", "timestamp": [0.1, 0.4]}
    assert all(path.stat().st_size > 100 for path in paths)
    assert "so glad" in paths[3].read_text()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_closed_pipe_keeps_output_files(model, talk, tmp_path, monkeypatch, options):
    """As with `| head`: output files are complete; without any, the command exits."""
    output = tmp_path / "talk.csv"
    command = [talk, "--model", model, "--chunk_length_s", "1", *options]
    for files, status in ((["--output", str(output)], 0), ([], SIGPIPE_EXIT_CODE)):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            try:
                ended = timeline.main([*command, *files])
            except SystemExit as exit:
                ended = exit.code
            monkeypatch.undo()
        assert ended == status
    assert len(output.read_text().splitlines()) > 8


def test_timeline_prints_json(model, talk, tmp_path, capsys):
    assert timeline.main([talk, "--model", model, "--json", "--output", str(tmp_path / "talk.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "talk.json").read_text())
    assert printed[1]["timestamp"] == [5.0, 10.0]


def test_timeline_uses_transcriber(monkeypatch, model, talk, capsys):
    class Transcriber:
        def __call__(self, sound, return_timestamps):
            return {"text": "so glad", "chunks": [{"text": " so glad", "timestamp": (0.2, 0.6)}]}

    monkeypatch.setattr(
        "modeling_umons.inference.loading.load_transcriber", lambda name: {"some/asr": Transcriber()}[name]
    )
    assert timeline.main([talk, "--model", model, "--transcriber", "some/asr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"] == "so glad"


def test_timeline_of_utterances(model, talk, tmp_path, capsys):
    pytest.importorskip("faster_whisper")
    paths = [tmp_path / f"talk{suffix}" for suffix in (".json", ".eaf", ".parquet")]
    options = ["--model", model, "--granularity", "utterance", "--output", *map(str, paths)]
    assert timeline.main([talk, *options]) == 0
    first, second = json.loads(paths[0].read_text())
    assert first["timestamp"][1] + 3 < second["timestamp"][0]
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert all(path.stat().st_size > 500 for path in paths)
    assert timeline.main([talk, "--model", model, "--granularity", "word"]) == 2
    assert "--granularity word requires words: pass --transcriber whisper" in capsys.readouterr().err


def test_timeline_refuses_a_folder_and_missing_packages(tmp_path, monkeypatch, capsys):
    """The command does not load the model first, which is missing."""
    missing = ["--model", str(tmp_path / "none")]
    assert timeline.main([str(tmp_path), *missing]) == 2
    assert f"{tmp_path} is a folder: name a file in it" in capsys.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    for options, extra in (
        (["--granularity", "utterance"], "transcribe"),
        (["--transcriber", "whisper"], "transcribe"),
        (["--speakers"], "speakers"),
    ):
        assert timeline.main(["a.mp4", *options, *missing]) == 1
        assert f'needs faster_whisper: pip install "modeling-umons[{extra}]"' in capsys.readouterr().err


def test_timeline_of_unreadable_input_fails(model, tmp_path, capsys):
    output = tmp_path / "a.csv"
    assert timeline.main([str(tmp_path / "a.mp4"), "--model", model, "--output", str(output)]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    for content, message in (("{}", "is not a list of words, but a dict"), ("so glad", "is not valid JSON")):
        (tmp_path / "words.json").write_text(content)
        assert timeline.main(["a.mp4", "--words", str(tmp_path / "words.json")]) == 2
        assert message in capsys.readouterr().err
    assert timeline.main(["a.mp4", "--model", model, "--transcriber", str(tmp_path)]) == 1
    assert f"umons timeline: error: --transcriber {tmp_path}: " in capsys.readouterr().err


@pytest.fixture
def turns_file(tmp_path) -> str:
    path = tmp_path / "talk.rttm"
    path.write_text(
        "SPEAKER talk 1 0.0 1.0 <NA> <NA> Ann <NA> <NA>\nSPEAKER talk 1 1.0 0.5 <NA> <NA> Bob <NA> <NA>\n"
        "SPEAKER talk 1 1.5 0.5 <NA> <NA> Ann <NA> <NA>\n",
        encoding="utf-8",
    )
    return str(path)


def test_speakers_of_a_file_have_turns_and_means(model, talk, turns_file, tmp_path, capsys):
    paths = [tmp_path / "out.json", tmp_path / "out.rttm", tmp_path / "speakers.json"]
    options = ["--model", model, "--speakers", turns_file, "--speaker_table", str(paths[2])]
    assert timeline.main([talk, *options, "--output", *map(str, paths[:2])]) == 0
    segments = json.loads(paths[0].read_text(encoding="utf-8"))
    assert [(one["speaker"], one["timestamp"]) for one in segments] == [
        ("Ann", [0.0, 1.0]),
        ("Bob", [1.0, 1.5]),
        ("Ann", [1.5, 2.0]),
    ]
    assert [line.split()[7] for line in paths[1].read_text(encoding="utf-8").splitlines()] == ["Ann", "Bob", "Ann"]
    ann, bob = json.loads(paths[2].read_text(encoding="utf-8"))
    assert (ann["speaker"], ann["num_segments"], ann["seconds"]) == ("Ann", 2, 1.5)
    assert ann["sentiment"] == pytest.approx((2 * segments[0]["sentiment"] + segments[2]["sentiment"]) / 3)
    table = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert table[0].split("|")[1:5] == [" speaker ", " segments ", " seconds ", " sentiment "]
    assert [cell.strip() for cell in table[3].split("|")[1:5]] == ["Bob", "1", "0.5", f"{bob['sentiment']:+.2f}"]


def test_speakers_of_windows(model, talk, turns_file, capsys):
    options = [
        "--model",
        model,
        "--speakers",
        turns_file,
        "--granularity",
        "window",
        "--chunk_length_s",
        "1",
        "--json",
    ]
    assert timeline.main([talk, *options]) == 0
    speakers = [segment["speaker"] for segment in json.loads(capsys.readouterr().out)]
    assert speakers[0] == "Ann"
    assert speakers[1] in ("Ann", "Bob")
    assert set(speakers[2:]) == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speakers", "0"], "--speakers 0: pass a positive number"),
        (["--speakers", "no.rttm"], "--speakers no.rttm is neither a positive number nor a readable .rttm file"),
        (["--speakers", "-1"], "--speakers -1 is neither a positive number"),
        (["--speakers", "2", "--speaker_table", "none/table.json"], "none does not exist"),
        (["--speakers", "2", "--speaker_table", "."], ". is a folder"),
        (["--speaker_table", "table.json"], "require --speakers"),
        (["--granularity", "turn"], "--speakers"),
    ],
)
def test_invalid_speakers_are_named(model, talk, capsys, options, message):
    assert timeline.main([talk, "--model", model, *options]) in (1, 2)
    assert message in capsys.readouterr().err


def test_speaker_encoder_with_given_turns_raises(model, talk, turns_file, capsys):
    assert timeline.main([talk, "--model", model, "--speakers", turns_file, "--speaker_encoder", "campplus"]) == 2
    assert "--speaker_encoder finds speakers, but --speakers" in capsys.readouterr().err
