"""Results table of the paper: combinations of modalities by task, next to the published scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.paper import TASK_METRICS
from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .report import to_json
from .report_plots import plot_cells
from .report_tables import cell as format_score
from .seeds import mean_and_std, with_std


EMOTION_METRICS = ("acc", "f1", "wa")

UMONS = "Delbrouck et al., A Transformer-based joint-encoding for Emotion Recognition and Sentiment Analysis, 2020"
# Scores on the test split of CMU-MOSEI (4,662 segments), by task and combination.
PUBLISHED = {
    ("sentiment-2", "L+A"): {"test": 0.8153, "ensemble": 0.8226, "source": UMONS},
    ("sentiment-7", "L+A"): {"test": 0.4390, "ensemble": 0.4536, "source": UMONS},
    ("emotion", "L+A"): {"test": 0.8129, "ensemble": 0.8148, "source": UMONS},
}
NOTES = (
    "Validation and test are mean ± standard deviation over seeds; the ensemble averages as many of the models as "
    "score best together on validation. Intervals are 95 % bootstrap intervals of the ensemble over videos.",
    "Published scores are those of the official test split of 4,662 segments. They are comparable with the others "
    "only if these are of the same rows. The best score of two classes in the paper is 0.8248, from L+A.",
)


def read_cell(
    folder: Path, task: str, combination: str, seeds: Sequence[Path], evaluation: Path | None
) -> dict[str, Any]:
    """
    Summarise the runs of a cell of the table.

    Args:
        folder: folder of the table, to which paths are relative.
        task: task of the cell.
        combination: its modalities, such as "L+A".
        seeds: folder of the run of each seed.
        evaluation: report of their ensemble on the test split; `None` without a test split.
    """
    reports = [json.loads((seed / "report" / "report.json").read_text(encoding="utf-8")) for seed in seeds]
    metric = TASK_METRICS[task]
    cell: dict[str, Any] = {
        "task": task,
        "combination": combination,
        "metric": metric,
        "seeds": len(seeds),
        "runs": [seed.relative_to(folder).as_posix() for seed in seeds],
        "parameters": reports[0]["about"]["parameters"],
        "epochs": float(np.mean([max(entry.get("epoch", 0.0) for entry in r["history"]) for r in reports])),
        "training_seconds": sum(entry.get("epoch_seconds", 0.0) for r in reports for entry in r["history"]),
        "published": PUBLISHED.get((task, combination)),
    }
    for split in ("validation", "test"):
        results = [report["splits"][split] for report in reports if split in report["splits"]]
        if results:
            names = [name for name in results[0]["model"] if all(name in result["model"] for result in results)]
            cell[split] = {name: mean_and_std([result["model"][name] for result in results]) for name in names}
            cell[f"{split}_rows"] = results[0]["rows"]
            cell[f"{split}_baselines"] = results[0]["baselines"]
    if evaluation is not None:
        report = json.loads(evaluation.read_text(encoding="utf-8"))
        cell["ensemble"] = report["splits"]["test"]["model"]
        cell["ensemble_intervals"] = report["splits"]["test"]["intervals"]
        cell["about_ensemble"] = report["about"].get("ensemble", "A single model.")
    return cell


def write_reproduction(folder: Path, cells: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> None:
    """Write reproduction.json, reproduction.md and reproduction.png; `left_out` are cells without data, and why."""
    plot_cells(folder / "reproduction.png", cells)
    write_atomically(folder / "reproduction.md", _markdown(cells, left_out))
    write_atomically(folder / "reproduction.json", to_json({"cells": cells, "left_out": left_out, "notes": NOTES}))


def print_reproduction(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of the cells."""
    print_table(*_table(cells))


def _table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["task", "modalities", "metric", "validation", "test", "ensemble", "95 % interval", "constant", "TF-IDF",
              "published", "its ensemble", "parameters", "seconds"]  # fmt: skip
    rows = []
    for cell in cells:
        metric, published = cell["metric"], cell["published"] or {}
        baselines = cell.get("test_baselines", cell.get("validation_baselines", {}))
        rows.append(
            [
                cell["task"],
                cell["combination"],
                metric,
                *(with_std(cell.get(split, {}).get(metric)) for split in ("validation", "test")),
                format_score(cell.get("ensemble", {}).get(metric)),
                format_score(cell.get("ensemble_intervals", {}).get(metric)),
                *(format_score(baselines.get(name, {}).get(metric)) for name in ("constant", "tfidf")),
                *(format_score(published.get(name)) for name in ("test", "ensemble")),
                f"{cell['parameters']:,}",
                f"{cell['training_seconds']:.0f}",
            ]
        )
    return header, rows


def _markdown(cells: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> str:
    rows = {name: cell[f"{name}_rows"] for cell in cells for name in ("validation", "test") if name in cell}
    sizes = ", ".join(f"{count:,} {name} rows" for name, count in rows.items())
    parts = [
        "# Reproduction of the paper's table",
        f"L, A and V are text, audio and video; {cells[0]['seeds']} seeds; {sizes}. Seconds are those of training, of "
        "all seeds together.",
        markdown_table(*_table(cells)),
        "![Test scores by combination](reproduction.png)",
        "\n".join(f"- {note}" for note in NOTES),
    ]
    if emotions := [cell for cell in cells if cell["task"] == "emotion"]:
        about = "Accuracy, weighted F1 and weighted accuracy of the ensemble on test, or else the means of seeds."
        parts += ["## Single emotions", markdown_table(*_emotion_table(emotions)), about]
    if left_out:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in left_out)]
    sources = dict.fromkeys(cell["published"]["source"] for cell in cells if cell["published"])
    parts += ["## Sources of the published scores", "\n".join(f"- {source}" for source in sources)] if sources else []
    if any("about_ensemble" in cell for cell in cells):
        lines = [f"- {cell['task']}, {cell['combination']}: {cell['about_ensemble']}" for cell in cells
                 if "about_ensemble" in cell]  # fmt: skip
        parts += ["## Ensembles", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _emotion_table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["modalities", *(f"{emotion} {name}" for emotion in EMOTIONS for name in EMOTION_METRICS)]
    rows = []
    for cell in cells:
        means = {name: values["mean"] for name, values in cell.get("test", cell.get("validation", {})).items()}
        scores = cell.get("ensemble", means)
        rows.append([cell["combination"], *(format_score(scores.get(f"{emotion}_{name}"))
                                            for emotion in EMOTIONS for name in EMOTION_METRICS)])  # fmt: skip
    return header, rows
