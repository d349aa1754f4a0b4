"""Tests of the comparison of several systems, from handwritten reports."""

import copy
import json
import math
import re
import statistics

import pytest
from PIL import Image

from modeling_umons.evaluation.comparison import epoch_seconds, headline, print_comparison, write_comparison


RECIPE = {"train_file": "rows.csv", "learning_rates": ["tfn=0.005", "mfn=0.0005"]}
CONSTANT = {"mae": 1.0, "corr": math.nan, "acc7": 0.25}


def make_result(mae: float, corr: float = 0.5, rows: int = 20, **more) -> dict:
    return {
        "rows": rows,
        "groups": 4,
        "model": {"mae": mae, "corr": corr, "acc7": 0.5, "unknown_metric": 1.0},
        "intervals": {"mae": [mae - 0.2, mae + 0.4]},
        "baselines": {"constant": dict(CONSTANT), "tfidf": {"mae": 0.75, "acc7": 0.375}},
        "notes": [],
        **more,
    }


def report_of(*args, task: str = "sentiment", seconds: float | None = 2.0, **more) -> dict:
    test = make_result(*args, **more)
    about = {"model": "any", "parameters": 12345, "seconds_per_epoch": seconds}
    return {"task": task, "about": about, "splits": {"validation": make_result(9.0), "test": test}, "history": []}


def two_systems(**more) -> dict[str, list[dict]]:
    reports = {
        "umons": [report_of(0.6, 0.5, **more), report_of(0.8, 0.7, **more)],
        "tfn": [report_of(0.9, **more), report_of(0.9, **{"seconds": 4.0, **more})],
    }
    # Independent copies: tests modify them.
    return {name: [copy.deepcopy(report) for report in of_seeds] for name, of_seeds in reports.items()}


def tables_of(markdown: str) -> list[list[list[str]]]:
    """Parse Markdown tables to lists of rows of cells, without the rule below the header."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", markdown, re.MULTILINE)
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks
    ]
    for table in tables:
        assert all(re.fullmatch("-+:?", cell) for cell in table[1])
    return [[table[0], *table[2:]] for table in tables]


def test_comparison_has_means_deviations_and_intervals(tmp_path):
    comparison = write_comparison(tmp_path, two_systems(), RECIPE)
    assert {name: comparison[name] for name in ("task", "split", "rows", "groups", "seeds", "seeds_share_rows")} == {
        "task": "sentiment", "split": "test", "rows": 20, "groups": 4, "seeds": 2, "seeds_share_rows": True,
    }  # fmt: skip
    mae = comparison["systems"]["umons"]["metrics"]["mae"]
    assert mae["mean"] == pytest.approx(0.7)
    assert mae["std"] == pytest.approx(statistics.stdev([0.6, 0.8]))
    assert mae["interval"] == pytest.approx([0.5, 1.1])  # mean of the seeds' intervals
    assert mae["values"] == [0.6, 0.8]
    assert comparison["systems"]["umons"]["metrics"]["corr"]["interval"] is None
    assert comparison["systems"]["tfn"]["parameters"] == 12345
    assert comparison["systems"]["tfn"]["seconds_per_epoch"] == 3.0
    assert comparison["baselines"]["tfidf"] == {"mae": 0.75, "acc7": 0.375}
    assert comparison["baselines"]["constant"]["acc7"] == 0.25

    def refuse(word):
        raise AssertionError(f"{word} is not valid JSON")

    written = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert written["systems"] == comparison["systems"]
    assert written["baselines"]["constant"]["corr"] is None
    assert written["recipe"] == RECIPE
    with Image.open(tmp_path / "comparison.png") as image:
        assert min(image.size) > 200


def test_comparison_markdown_has_tables(tmp_path):
    write_comparison(tmp_path, two_systems(), RECIPE)
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    tables = tables_of(text)
    assert all(len({len(row) for row in table}) == 1 for table in tables)
    scores, sizes, _ = tables
    assert scores[0] == ["system", "mae", "corr", "acc7"]  # main metrics only
    assert [row[0] for row in scores[1:]] == ["umons", "tfn", "constant", "TF-IDF"]
    assert scores[1][1] == "0.700 ± 0.141<br>0.500 to 1.100"
    assert scores[1][2] == "0.600 ± 0.141"
    assert scores[4][1:] == ["0.750", "", "0.375"]
    assert sizes[1:] == [["umons", "12,345", "2.0"], ["tfn", "12,345", "3.0"]]
    assert "evaluated on the same 20 rows in 4 groups of the split test." in text
    assert "mean ± standard deviation over 2 seeds" in text
    assert "are below them, averaged over seeds." in text
    assert "- learning_rates: tfn=0.005, mfn=0.0005" in text
    for target in re.findall(r"\]\((.+?)\)", text):
        assert (tmp_path / target).is_file()


def test_comparison_of_one_seed_has_no_deviation(tmp_path):
    reports = {name: of_seeds[:1] for name, of_seeds in two_systems(seconds=None).items()}
    comparison = write_comparison(tmp_path, reports, {})
    assert comparison["systems"]["umons"]["metrics"]["mae"]["std"] is None
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "±" not in text
    assert "Scores are those of one seed" in text
    assert tables_of(text)[1][1] == ["umons", "12,345", ""]


def test_metrics_missing_for_a_seed_are_left_out(tmp_path):
    reports = two_systems()
    del reports["umons"][1]["splits"]["test"]["model"]["acc7"]
    del reports["umons"][1]["splits"]["test"]["intervals"]["mae"]
    comparison = write_comparison(tmp_path, reports, {})
    assert "acc7" not in comparison["systems"]["umons"]["metrics"]
    assert comparison["systems"]["umons"]["metrics"]["mae"]["interval"] == pytest.approx([0.4, 1.0])


@pytest.mark.parametrize(
    ("task", "metrics", "systems", "columns"),
    [
        ("sentiment", ("mae", "corr"), 7, {"mae", "corr"}),
        ("emotion", ("emotion_acc", "happy_wa"), 3, {"emotion_acc", "happy_wa"}),
        ("classification", ("accuracy", "f1_macro"), 0, set()),
    ],
)  # fmt: skip
def test_published_scores_are_in_a_separate_table(tmp_path, task, metrics, systems, columns):
    reports = two_systems(task=task)
    for of_seeds in reports.values():
        for report in of_seeds:
            report["splits"]["test"]["model"] = dict.fromkeys(metrics, 0.5)
    comparison = write_comparison(tmp_path, reports, {})
    published = comparison["published_on_other_data"]
    assert len(published) == systems
    assert {metric for of in published.values() for metric in of} == columns
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert ("## Published, on other data" in text) == bool(systems)
    assert ("CMU-MOSEI (4,662 segments), with other features" in text) == bool(systems)


def test_common_sources_have_tables(tmp_path):
    reports = two_systems(sources={"MOSI": make_result(0.5, rows=5), "MOSEI": make_result(1.5, rows=15)})
    reports["umons"][1]["splits"]["test"]["sources"].pop("MOSEI")  # held out at random: this seed has no row of it
    reports["tfn"][1]["splits"]["test"]["sources"].pop("MOSEI")
    comparison = write_comparison(tmp_path, reports, {})
    assert list(comparison["baselines_by_source"]) == ["MOSI"]
    assert comparison["systems"]["tfn"]["sources"]["MOSI"]["mae"]["mean"] == 0.5
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "## MOSI" in text
    assert "## MOSEI" not in text


def test_comparison_rejects_different_rows(tmp_path):
    reports = two_systems()
    reports["tfn"][1]["splits"]["test"]["baselines"]["constant"]["mae"] = 1.1  # the same number of different rows
    with pytest.raises(
        ValueError, match="number 2 of umons and of tfn were evaluated on different rows of the split test"
    ):
        write_comparison(tmp_path, reports, {})
    assert not list(tmp_path.iterdir())
    reports = two_systems()
    reports["tfn"][0]["task"] = "joint"
    with pytest.raises(ValueError, match="number 1 of umons and of tfn"):
        write_comparison(tmp_path, reports, {})


def test_seeds_may_hold_out_different_rows(tmp_path):
    reports = two_systems()
    for of_seeds in reports.values():
        of_seeds[1]["splits"]["test"]["baselines"]["constant"]["mae"] = 1.1
    comparison = write_comparison(tmp_path, reports, {})
    assert not comparison["seeds_share_rows"]
    assert comparison["baselines"]["constant"]["mae"] == pytest.approx(1.05)
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "of the split test, which each seed holds out at random." in text


def test_comparison_without_test_split_shows_validation(tmp_path):
    reports = two_systems()
    for of_seeds in reports.values():
        for report in of_seeds:
            del report["splits"]["test"]
    assert write_comparison(tmp_path, reports, {})["split"] == "validation"


def test_print_comparison_prints_main_metrics(tmp_path, capsys):
    reports = two_systems()
    assert headline(reports["umons"][0]) == "test  mae 0.600  corr 0.500  acc7 0.500"
    print_comparison(write_comparison(tmp_path, reports, {}))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line]
    lines = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert lines[0] == ["test (20 rows in 4 groups)", "mae", "corr", "acc7"]
    assert lines[1] == ["umons", "0.700 ± 0.141", "0.600 ± 0.141", "0.500 ± 0.000"]
    assert [line[0] for line in lines[1:]] == ["umons", "tfn", "constant", "TF-IDF"]


def test_epoch_seconds_is_the_median():
    history = [{"epoch_seconds": 3.0}, {"loss": 1.0}, {"epoch_seconds": 1.0}, {"epoch_seconds": 2.0}]
    assert epoch_seconds(history) == 2.0
    assert epoch_seconds([{"loss": 1.0}]) is None
