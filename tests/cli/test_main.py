"""The command `umons`: dispatch, help, exit statuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import pipeline

import modeling_umons
from modeling_umons.cli import main as cli


def umons(*arguments) -> subprocess.CompletedProcess:
    """Run the installed command. A warning is an error."""
    command = Path(sys.executable).with_name("umons")
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([command, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment)


def test_installed_command_prints_json(model, clips, tmp_path):
    """The list has an entry per input, in order; an unreadable file does not stop the others."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip at all" * 50)
    done = umons("predict", clips[0], str(broken), clips[1], "--model", model, "--json")
    assert done.returncode == 1, done.stderr
    first, failed, second = json.loads(done.stdout)
    assert [first["input"], failed["input"], second["input"]] == [clips[0], str(broken), clips[1]]
    assert set(failed) == {"input", "error"}
    assert f"{broken} could not be opened" in failed["error"]
    assert done.stderr == f"umons predict: {failed['error']}\n"
    for entry in (first, second):
        assert list(entry) == ["input", "sentiment", "label", "confidence", "emotions", "modalities", "warnings"]
        assert entry["modalities"] == ["audio"]
    recognize = pipeline("multimodal-emotion-recognition", model=model)
    for entry, clip in zip((first, second), clips, strict=True):
        assert entry["sentiment"] == pytest.approx(recognize(clip)["sentiment"], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "There is nothing to predict: name a file, or pass --text."),
        (["predict", "a.mp4", "b.mp4", "--text", "so"], "--text belongs to one file, but 2 are given"),
        (["predict", "a.mp4", "b.mp4", "--plot", "x.png"], "--plot draws one input, but 2 are given"),
        (["predict", "so", "glad."], "There is no file 'so'. To predict a text, pass --text 'so glad.'."),
        (["timeline"], "the following arguments are required: FILE"),
        (
            ["timeline", "a.mp4", "--output", "a.txt"],
            "a.txt: the suffix is not a format of a timeline. Use one of",
        ),
        (["timeline", "a.mp4", "--words", "w.json", "--transcriber", "m"], "not allowed with argument"),
        ([], "the following arguments are required: COMMAND"),
        (["foretell"], "unknown command 'foretell'."),
        (["trian"], "unknown command 'trian'. Did you mean train?"),
        (["predict", "--texts", "so"], "unrecognized arguments: --texts"),
    ],
)
def test_wrong_usage_exits_2(arguments, message, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as exit:  # argparse
        status = exit.code
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "/no/such/folder/a.csv"], "the folder /no/such/folder does not exist"),
        (["--words", "/no/such/words.json"], "/no/such/words.json"),
    ],
)
def test_missing_files_exit_1(arguments, message, capsys):
    assert cli.main(["timeline", "a.mp4", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("umons timeline: error: ")
    assert message in err


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_fits_terminal(name, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*([name] if name else []), "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: umons {name or 'COMMAND [OPTIONS]'}")
    # The choices of an option of transformers do not wrap.
    assert max(map(len, text.partition("\noptions:")[0].splitlines())) < 120


def test_help_lists_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name, line in cli.COMMANDS.items():
        assert f"  {name}  " in text.replace(name.ljust(8), name)
        assert line in text


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"modeling-umons {modeling_umons.__version__}\n"


def test_module_runs_as_command():
    command = [sys.executable, "-X", "importtime", "-m", "modeling_umons", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("modeling-umons ")
    assert "torch" not in run.stderr


def test_help_imports_nothing_heavy():
    """`umons --help`, and options that are wrong, do not wait for torch."""
    code = (
        "import sys; sys.argv = ['umons', {arguments}]; from modeling_umons.cli.main import main\n"
        "try: status = main()\n"
        "except SystemExit as exit: status = exit.code\n"
        "print(status, *sorted({{'torch', 'transformers', 'datasets', 'av', 'numpy'}} & set(sys.modules)))"
    )
    for arguments, status in {
        "'--help'": 0,
        "'predict', '--help'": 0,
        "'extract'": 2,
        "'serve', '--port=-1'": 2,
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments=arguments)], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == str(status)


def test_missing_extra_is_named():
    # In a process of its own: modules that are imported twice would confuse other tests.
    code = """
import sys
sys.modules["datasets"] = None
from modeling_umons.cli.main import main
sys.exit(main(["evaluate", "--model", "m", "--dataset", "d", "--output", "o"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message = 'umons evaluate: error: the package datasets is not installed: pip install "modeling-umons[evaluate]"\n'
    assert (done.returncode, done.stderr) == (1, message)


def test_interrupt_exits_130(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_umons.data.builders.builder_class", interrupt)
    assert cli.main(["prepare", "--layout", "mosi", "--source", "s", "--output", "o"]) == 130
    assert capsys.readouterr().err == "umons prepare: Interrupted; nothing was written.\n"
