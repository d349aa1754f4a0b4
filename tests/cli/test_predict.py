"""`umons predict`."""

import json

import numpy as np
import pytest

from modeling_umons import EMOTIONS
from modeling_umons.cli import command, predict
from modeling_umons.utils.hub_files import hub_path


def test_predict_text_prints_all_scores(model, capsys):
    assert predict.main(["--text", "so very glad", "--model", model]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err.startswith("The model has no 90 % intervals for these modalities")
    assert lines[0] == "so very glad  (text)"
    assert lines[1].startswith("  sentiment ")
    assert lines[1].split()[1][0] in "+-"
    assert lines[2].split()[0] == "label"
    assert lines[2].split()[1] in (*EMOTIONS, "neutral")
    assert sorted(line.split()[0] for line in lines[3:]) == sorted(EMOTIONS)
    scores = [float(line.split()[1]) for line in lines[3:]]
    assert scores == sorted(scores, reverse=True)
    for line, score in zip(lines[3:], scores, strict=True):
        assert line.count("█") == pytest.approx(20 * score, abs=0.7)


def test_predict_continues_after_unreadable_file(model, clips, tmp_path, capsys):
    missing = str(tmp_path / "missing.mp4")
    assert predict.main([clips[0], missing, clips[1], "--model", model]) == 1
    out, err = capsys.readouterr()
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [f"{clip}  (audio)" for clip in clips]
    first, note = err.splitlines()
    assert first == f"umons predict: {missing}: there is no such file. Pass an existing file or an http(s) URL."
    assert note.startswith("The model has no 90 % intervals for these modalities")  # once


def test_predict_joins_file_and_text(model, clips, capsys):
    assert predict.main([clips[0], "--text", "so very glad", "--model", model, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["input"] == clips[0]
    assert entry["modalities"] == ["text", "audio"]


def test_folder_without_output_is_refused(tmp_path, capsys):
    assert predict.main([str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder: pass --output predictions.csv" in capsys.readouterr().err


def test_second_text_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        predict.main(["--text", "so glad", "--text", "so sad"])
    assert exit.value.code == 2
    assert "--text is given twice: run the command for each." in capsys.readouterr().err


def test_predict_json_contains_errors(model, capsys):
    assert predict.main(["--text", "...", "--model", model, "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["input"] == "..."
    assert "no word in its text" in entry["error"]


def test_plot_writes_png(model, clips, tmp_path, capsys):
    from PIL import Image

    picture = tmp_path / "plot.png"
    arguments = [clips[0], "--text", "so very glad", "--model", model, "--json", "--plot", str(picture)]
    assert predict.main(arguments) == 0
    assert "attention" not in json.loads(capsys.readouterr().out)[0]
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 10
    assert not (pixels == pixels[0]).all()


def test_plot_height_grows_with_modalities(model, clips, tmp_path):
    from PIL import Image

    heights = []
    for name, arguments in {"words": ["--text", "so glad"], "both": [clips[0], "--text", "so glad"]}.items():
        assert predict.main([*arguments, "--model", model, "--plot", str(tmp_path / f"{name}.png")]) == 0
        with Image.open(tmp_path / f"{name}.png") as image:
            heights.append(image.size[1])
    assert heights[0] < heights[1]


def test_plot_is_skipped_for_failed_input(model, tmp_path):
    picture = tmp_path / "plot.png"
    assert predict.main(["missing.mp4", "--model", model, "--plot", str(picture)]) == 1
    assert not picture.exists()


def test_unwritable_plot_keeps_printed_result(model, tmp_path, capsys):
    arguments = ["--text", "so glad", "--model", model, "--plot", str(tmp_path / "nowhere" / "plot.png")]
    assert predict.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out.startswith("so glad  (text)")
    assert "nowhere" in err


def test_folder_without_model_raises(tmp_path, capsys):
    assert predict.main(["--text", "so", "--model", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"umons predict: error: --model {tmp_path}: ")
    assert "not a local folder" not in err


def test_predict_uses_umons_base_by_default_in_a_checkout(capsys):
    results = []
    for options in ([], ["--model", "umons-base"], ["--model", str(hub_path("umons-base"))]):
        assert predict.main(["--text", "so glad", "--json", *options]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1] == results[2]
    assert results[0][0]["sentiment"] > 0


def test_plot_without_matplotlib_names_extra(monkeypatch, model, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert predict.main(["--text", "so glad", "--model", model, "--plot", "plot.png"]) == 1
    assert 'pip install "modeling-umons[plot]"' in capsys.readouterr().err


def test_format_result_shows_the_interval():
    result = {"input": "a", "modalities": ["text"], "sentiment": 1.0, "sentiment_interval": (-0.5, 2.5)}
    assert predict.format_result(result).splitlines()[1] == "  sentiment +1.00  (90 %: -0.50 to +2.50)"


def test_explain_prints_contributions(model, capsys):
    assert predict.main(["--text", "so very glad", "--model", model, "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("  contributions to the sentiment:")
    assert lines[start + 1].split()[0] == "text"
    assert sorted(line.split()[0] for line in lines[start + 2 : start + 5]) == ["glad", "so", "very"]


def test_format_result_of_classes():
    result = {"input": "x.wav", "labels": [{"label": "angry", "score": 0.75}], "modalities": ["audio"]}
    assert predict.format_result(result) == "x.wav  (audio)\n  angry          0.75  ███████████████"
