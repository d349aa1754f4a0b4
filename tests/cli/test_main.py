"""The command `umons`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import pipeline

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
    cli,
)
from modeling_umons.models.umons.media_umons import read_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """The folder of a small joint model."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=5, word_embedding_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        joint_sentiment=True,
    )  # fmt: skip
    UmonsForSequenceClassification(config).save_pretrained(folder)
    tokenizer = build_tokenizer(["so", "very", "glad"])
    UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(root) -> list[str]:
    return [str(root / "hub" / "sample" / "clips" / f"{i:03d}.mp4") for i in (0, 7)]


def umons(*arguments) -> subprocess.CompletedProcess:
    """Runs the installed command; a warning is an error there too."""
    command = Path(sys.executable).with_name("umons")
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([command, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment)


def test_the_installed_command(model, clips, tmp_path):
    """A list in JSON with an entry for each input, in order; the file that cannot be read stops nothing."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip at all" * 50)
    done = umons("predict", clips[0], str(broken), clips[1], "--model", model, "--json")
    assert done.returncode == 1, done.stderr
    first, failed, second = json.loads(done.stdout)
    assert [first["input"], failed["input"], second["input"]] == [clips[0], str(broken), clips[1]]
    assert set(failed) == {"input", "error"}
    assert f"{broken} could not be opened" in failed["error"]
    assert done.stderr == f"umons: {failed['error']}\n"
    for entry in (first, second):
        assert list(entry) == ["input", "sentiment", "emotions", "modalities"]
        assert entry["modalities"] == ["audio"]
    recognize = pipeline("multimodal-emotion-recognition", model=model)
    for entry, clip in zip((first, second), clips, strict=True):
        assert entry["sentiment"] == pytest.approx(recognize(clip)["sentiment"], abs=1e-5)


def test_text_alone(model, capsys):
    assert cli.main(["predict", "--text", "so very glad", "--model", model]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == "so very glad  (text)"
    assert lines[1].startswith("  sentiment ")
    assert lines[1].split()[1][0] in "+-"
    assert sorted(line.split()[0] for line in lines[2:]) == sorted(EMOTIONS)
    scores = [float(line.split()[1]) for line in lines[2:]]
    assert scores == sorted(scores, reverse=True)
    for line, score in zip(lines[2:], scores, strict=True):
        assert line.count("█") == pytest.approx(20 * score, abs=0.7)


def test_a_table_for_each_file(model, clips, tmp_path, capsys):
    missing = str(tmp_path / "missing.mp4")
    assert cli.main(["predict", clips[0], missing, clips[1], "--model", model]) == 1
    out, err = capsys.readouterr()
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [f"{clip}  (audio)" for clip in clips]
    assert err == f"umons: {missing}: there is no such file. Pass an existing file or an http(s) URL.\n"


def test_a_file_and_its_text(model, clips, capsys):
    assert cli.main(["predict", clips[0], "--text", "so very glad", "--model", model, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["input"] == clips[0]
    assert entry["modalities"] == ["text", "audio"]


def test_every_input_fails(model, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert cli.main(["predict", str(tmp_path / "folder"), "--model", model, "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert "is a folder: pass a video or audio file in it" in entry["error"]
    assert cli.main(["predict", "--text", "...", "--model", model, "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["input"] == "..."
    assert "no word in its text" in entry["error"]


def test_plot_draws_a_picture(model, clips, tmp_path, capsys):
    from PIL import Image

    picture = tmp_path / "plot.png"
    arguments = ["predict", clips[0], "--text", "so very glad", "--model", model, "--json", "--plot", str(picture)]
    assert cli.main(arguments) == 0
    assert "attention" not in json.loads(capsys.readouterr().out)[0]
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 10
    assert not (pixels == pixels[0]).all()


def test_plot_of_one_modality_is_lower(model, clips, tmp_path):
    from PIL import Image

    heights = []
    for name, arguments in {"words": ["--text", "so glad"], "both": [clips[0], "--text", "so glad"]}.items():
        assert cli.main(["predict", *arguments, "--model", model, "--plot", str(tmp_path / f"{name}.png")]) == 0
        with Image.open(tmp_path / f"{name}.png") as image:
            heights.append(image.size[1])
    assert heights[0] < heights[1]


def test_nothing_is_drawn_of_an_input_that_failed(model, tmp_path):
    picture = tmp_path / "plot.png"
    assert cli.main(["predict", "missing.mp4", "--model", model, "--plot", str(picture)]) == 1
    assert not picture.exists()


def test_a_picture_that_cannot_be_written_costs_no_result(model, tmp_path, capsys):
    arguments = ["predict", "--text", "so glad", "--model", model, "--plot", str(tmp_path / "nowhere" / "plot.png")]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out.startswith("so glad  (text)")
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "There is nothing to predict: name a file, or pass --text."),
        (["predict", "a.mp4", "b.mp4", "--text", "so"], "--text belongs to one file, but 2 are given"),
        (["predict", "a.mp4", "b.mp4", "--plot", "x.png"], "--plot draws one input, but 2 are given"),
        (["predict", "--text", "so", "--model", "/no/such/model"], "/no/such/model, which is no folder here: "),
        (["timeline"], "the following arguments are required: FILE"),
        (
            ["timeline", "a.mp4", "--output", "a.txt"],
            "a.txt: its suffix says no format of a timeline. Give the file one of",
        ),
        (["timeline", "a.mp4", "--output", "/no/such/folder/a.csv"], "there is no folder /no/such/folder"),
        (["timeline", "a.mp4", "--words", "/no/such/words.json"], "/no/such/words.json"),
        (["timeline", "a.mp4", "--words", "w.json", "--transcriber", "m"], "not allowed with argument"),
        ([], "the following arguments are required: command"),
        (["foretell"], "invalid choice: 'foretell'"),
        (["predict", "--texts", "so"], "unrecognized arguments: --texts"),
    ],
)
def test_wrong_usage_exits_2_with_words(arguments, message, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as exit:  # argparse
        status = exit.code
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_a_folder_that_is_no_model(tmp_path, capsys):
    assert cli.main(["predict", "--text", "so", "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"umons: --model {tmp_path}: ")
    assert "no folder" not in err


def test_no_default_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "DEFAULT_MODEL", tmp_path / "nowhere")
    assert cli.main(["predict", "--text", "so glad"]) == 2
    err = capsys.readouterr().err
    assert "No --model is given, and the default model, hub/umons-mini, stands in the checkout" in err
    assert "pass --model with a folder or a Hub repository" in err


def test_default_model(monkeypatch, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "umons-mini")
    monkeypatch.setattr(cli, "DEFAULT_MODEL", tmp_path / "umons-mini")
    assert cli.main(["predict", "--text", "so glad"]) == 0
    assert capsys.readouterr().out.startswith("so glad  (text)")


def test_plot_without_matplotlib(monkeypatch, model, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["predict", "--text", "so glad", "--model", model, "--plot", "plot.png"]) == 2
    assert "pip install 'modeling-umons[serve]'" in capsys.readouterr().err


def test_help_reads_well(capsys):
    texts = {}
    for arguments in (["--help"], ["predict", "--help"], ["timeline", "--help"]):
        with pytest.raises(SystemExit) as exit:
            cli.main(arguments)
        assert exit.value.code == 0
        texts[arguments[0]] = capsys.readouterr().out
    assert "usage: umons [-h] {predict,timeline" in texts["--help"]
    assert "predict sentiment and emotions" in texts["--help"]
    for words in ("FILE", "--text", "--model", "hub/umons-mini", "--json", "--plot", "exit status is then 1"):
        assert words in texts["predict"]
    for words in (
        "FILE",
        "--chunk_length_s",
        "--output",
        "--transcriber",
        "--words",
        "--json",
        ".csv or .json",
        "captions",
    ):
        assert words in texts["timeline"]
    assert max(len(line) for text in texts.values() for line in text.splitlines()) < 110


@pytest.fixture(scope="module")
def talk(clips, tmp_path_factory) -> str:
    """A sound file: a clip, four seconds of silence, and another clip."""
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


def test_timeline_prints_a_table_and_writes_files(model, talk, tmp_path, capsys):
    words = [{"word": "glad", "timestamp": [0.5, 0.9]}, {"word": "so", "timestamp": [0.1, 0.4]}]
    (tmp_path / "words.json").write_text(json.dumps(words))
    paths = [tmp_path / f"talk{suffix}" for suffix in (".csv", ".json", ".srt", ".vtt", ".png", ".svg")]
    options = ["--model", model, "--chunk_length_s", "1", "--words", str(tmp_path / "words.json")]
    assert cli.main(["timeline", talk, *options, "--output", *map(str, paths)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *lines = out.splitlines()
    assert head.split() == ["time", "sentiment", "strongest", "emotions", "words"]
    segments = json.loads(paths[1].read_text(encoding="utf-8"))
    assert len(lines) == len(segments)
    assert lines[0].startswith("00:00:00.0-00:00:01.0")
    assert lines[0].endswith("so glad")
    assert [line.endswith("(nothing here)") for line in lines] == [not entry["modalities"] for entry in segments]
    assert sum(line.endswith("(nothing here)") for line in lines) >= 3
    for line, entry in zip(lines, segments, strict=True):
        if entry["modalities"]:
            assert f" {entry['sentiment']:+.2f}  {entry['emotions'][0]['label']} " in line
    assert segments[0]["words"][0] == {"word": "so", "timestamp": [0.1, 0.4]}
    assert all(path.stat().st_size > 100 for path in paths)
    assert "so glad" in paths[3].read_text()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_nobody_reads_to_the_end(model, talk, tmp_path, monkeypatch, options):
    """As with `| head`: files are written to their end, and without any the command ends."""
    output = tmp_path / "talk.csv"
    command = ["timeline", talk, "--model", model, "--chunk_length_s", "1", *options]
    for files, status in ((["--output", str(output)], 0), ([], cli.NOBODY_READS)):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            try:
                ended = cli.main([*command, *files])
            except SystemExit as exit:
                ended = exit.code
            monkeypatch.undo()
        assert ended == status
    assert len(output.read_text().splitlines()) > 8


def test_timeline_prints_json(model, talk, tmp_path, capsys):
    assert cli.main(["timeline", talk, "--model", model, "--json", "--output", str(tmp_path / "talk.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "talk.json").read_text())
    assert printed[1]["timestamp"] == [5.0, 10.0]


def test_timeline_with_a_transcriber(monkeypatch, model, talk, capsys):
    class Transcriber:
        def __call__(self, sound, return_timestamps):
            return {"text": "so glad", "chunks": [{"text": " so glad", "timestamp": (0.2, 0.6)}]}

    monkeypatch.setattr(cli, "load_transcriber", lambda name: {"some/asr": Transcriber()}[name])
    assert cli.main(["timeline", talk, "--model", model, "--transcriber", "some/asr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"] == "so glad"


def test_timeline_of_what_cannot_be_read(model, tmp_path, capsys):
    output = tmp_path / "a.csv"
    assert cli.main(["timeline", str(tmp_path / "a.mp4"), "--model", model, "--output", str(output)]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    for content, message in (("{}", "holds no list of words, but a dict"), ("so glad", "is no JSON file")):
        (tmp_path / "words.json").write_text(content)
        assert cli.main(["timeline", "a.mp4", "--words", str(tmp_path / "words.json")]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["timeline", "a.mp4", "--model", model, "--transcriber", str(tmp_path)]) == 2
    assert f"umons: --transcriber {tmp_path}: " in capsys.readouterr().err


def test_a_model_of_classes_is_shown_too():
    result = {"input": "x.wav", "labels": [{"label": "angry", "score": 0.75}], "modalities": ["audio"]}
    assert cli.format_result(result) == "x.wav  (audio)\n  angry          0.75  ███████████████"
