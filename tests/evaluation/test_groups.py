"""Metrics by group of rows: of columns, of numbers in quarters, and of what is measured in texts and files."""

import math
import wave

import numpy as np
import pytest
from datasets import Dataset

from modeling_umons.data.arguments import DataArguments
from modeling_umons.evaluation.groups import measure_groups, read_groupings
from modeling_umons.evaluation.report_tables import groups_markdown
from modeling_umons.evaluation.splits import Split
from modeling_umons.tasks.task import make_task


def test_values_and_quarters_are_groups():
    numbers = [float(i) for i in range(40)]
    texts = ["so glad"] * 20 + ["oh no no"] * 19 + [None]
    rows = Dataset.from_dict({"text": texts, "gender": ["f", "m"] * 20, "age": [*numbers[:-1], None]})
    groupings = read_groupings(rows, ["gender", "age", "length"], DataArguments())
    assert groupings["gender"][:2] == ("f", "m")
    assert groupings["age"][0] == "0 to 9.5"
    assert groupings["age"][-2:] == ("28.5 to 38", "unknown")
    assert set(groupings["length"]) == {"2", "3", "unknown"}
    with pytest.raises(ValueError, match=r"--group_by gendre: there is no such column. Did you mean gender\? Columns"):
        read_groupings(rows, ["gendre"], DataArguments())
    with pytest.raises(ValueError, match="--group_by level needs audio files: name the column with --audio_column"):
        read_groupings(rows, ["level"], DataArguments())


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (range(2000, 2012), ["2000 to 2003", "2003 to 2006", "2006 to 2008", "2008 to 2011"]),
        (
            [1 + i / 10000 for i in range(13)],
            ["1 to 1.0003", "1.0003 to 1.0006", "1.0006 to 1.0009", "1.0009 to 1.0012"],
        ),
        ([*range(12), math.inf, math.nan], ["0 to 2.75", "2.75 to 5.5", "5.5 to 8.25", "8.25 to 11", "unknown"]),
        (range(0, 130_000, 10_000), ["0 to 30000", "30000 to 60000", "60000 to 90000", "90000 to 120000"]),
    ],
)
def test_names_of_quarters_differ(values, names):
    rows = Dataset.from_dict({"number": [float(value) for value in values]})
    assert list(dict.fromkeys(read_groupings(rows, ["number"], DataArguments())["number"])) == names


def test_level_and_duration_are_measured(tmp_path):
    files = []
    for i in range(12):
        samples = 10 ** (-i / 20) * np.sin(2 * np.pi * 200 * np.arange(1600 * (i + 1)) / 16000)
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        files.append(str(tmp_path / f"{i}.wav"))
    rows = Dataset.from_dict({"file_name": [*files, str(tmp_path / "missing.wav")]})
    groupings = read_groupings(rows, ["level", "duration"], DataArguments())
    assert groupings["level"][0].endswith("to -3.01")
    assert groupings["duration"][0].startswith("0.1 to")
    assert groupings["level"][-1] == groupings["duration"][-1] == "unknown"


def make_split(groupings) -> Split:
    """Return 45 rows whose sentiments are predicted badly for the speaker "b"; "c" has too few rows."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(45, 7))
    truth[:, 1:] = truth[:, 1:] > 0
    truth[:, 6] = 0  # an emotion that does not occur
    noise = np.where(np.arange(45) < 20, 0.1, 5.0)[:, None]
    logits = truth + noise * random.normal(size=truth.shape)
    return Split(truth, logits, groups=tuple(f"video {i // 5}" for i in range(45)), groupings=groupings)


def test_worst_group_is_named_first():
    split = make_split({"speaker": ("a",) * 20 + ("b",) * 20 + ("c",) * 5})
    found = measure_groups(make_task("joint"), split, split.groupings, num_bootstrap=50)["speaker"]
    assert list(found["groups"]) == ["b", "a"]
    assert found["worst"] == {"mae": "b", "corr": "b", "acc2_non0": "b", "emotion_auroc": "b"}
    assert found["left_out"] == 5
    for group in found["groups"].values():
        assert group["rows"] == 20
        for metric, (low, high) in group["intervals"].items():
            assert low <= group["model"][metric] <= high
    text = "\n".join(groups_markdown("speaker", found))
    assert "| speaker | rows | mae | corr | acc2_non0 | emotion_auroc |" in text
    assert "Worst: b (mae), b (corr)" in text
    assert "5 rows are in groups of fewer than 10 rows" in text
    taken = split.take(np.arange(30, 45)).groupings["speaker"]
    assert taken == ("b",) * 10 + ("c",) * 5
