"""Results table of the paper: combinations of modalities by task, next to the published scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.paper import TASK_METRICS, Cell
from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .comparison import ABOUT_PUBLISHED, published_markdown
from .comparison import PUBLISHED as PUBLISHED_SYSTEMS
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
    "Validation and test are mean ± standard deviation over seeds. The ensemble averages as many of the models as "
    "score best together on validation, and is scored on test. Intervals are 95 % bootstrap intervals of the ensemble "
    "over videos.",
    "Published scores are those of the official test split of 4,662 segments. They are comparable with the others "
    "only if these are of the same rows. The best score of two classes in the paper is 0.8248, from L+A.",
)
ABOUT_VALIDATION = (
    "Without test inputs, the ensemble of all seeds and the baselines are scored on validation. The epoch of each "
    "model and the settings of TF-IDF were chosen on the same rows: both scores are optimistic."
)


def read_cell(folder: Path, cell: Cell, seeds: Sequence[Path], evaluation: Path | None) -> dict[str, Any]:
    """
    Summarise the runs of a cell of the table.

    Args:
        folder: folder of the table, to which paths are relative.
        cell: the cell.
        seeds: folder of the run of each seed.
        evaluation: report of their ensemble on the test split or, without one, on validation.
    """
    reports = [json.loads((seed / "report" / "report.json").read_text(encoding="utf-8")) for seed in seeds]
    row: dict[str, Any] = {
        **cell._asdict(),
        "metric": TASK_METRICS[cell.task],
        "seeds": len(seeds),
        "runs": [seed.relative_to(folder).as_posix() for seed in seeds],
        "parameters": reports[0]["about"]["parameters"],
        "epochs": float(np.mean([max(entry.get("epoch", 0.0) for entry in r["history"]) for r in reports])),
        "training_seconds": sum(entry.get("epoch_seconds", 0.0) for r in reports for entry in r["history"]),
        "published": PUBLISHED.get((cell.task, cell.combination)) if cell.system == "umons" else None,
    }
    for split in ("validation", "test"):
        results = [report["splits"][split] for report in reports if split in report["splits"]]
        if results:
            names = [name for name in results[0]["model"] if all(name in result["model"] for result in results)]
            row[split] = {name: mean_and_std([result["model"][name] for result in results]) for name in names}
            row[f"{split}_rows"] = results[0]["rows"]
            row[f"{split}_baselines"] = results[0]["baselines"]
    if evaluation is not None:
        report = json.loads(evaluation.read_text(encoding="utf-8"))
        split = report["about"]["split"]
        row["ensemble_split"] = split
        row["ensemble"] = report["splits"][split]["model"]
        row["ensemble_intervals"] = report["splits"][split]["intervals"]
        about = report["about"].get("ensemble", "A single model.")
        row["about_ensemble"] = about.replace(f"{folder / cell.folder}/", "")
    return row


def write_reproduction(
    folder: Path, cells: Sequence[Mapping[str, Any]], left_out: Sequence[str], options: Sequence[str]
) -> None:
    """
    Write reproduction.json, reproduction.md and reproduction.png.

    Args:
        folder: folder of the table.
        cells: rows of the table, see `read_cell`.
        left_out: cells and scores without data, and why.
        options: options of all runs.
    """
    content = {
        "cells": cells,
        "left_out": left_out,
        "options": options,
        "notes": NOTES,
        "published_systems": dict(PUBLISHED_SYSTEMS),
    }
    plot_cells(folder / "reproduction.png", cells)
    write_atomically(folder / "reproduction.md", _markdown(cells, left_out, options))
    write_atomically(folder / "reproduction.json", to_json(content))


def print_reproduction(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of the cells."""
    print_table(*_table(cells))


def _table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["task", "modalities", "model", "metric", "validation", "test", "ensemble", "95 % interval", "constant",
              "TF-IDF", "published", "its ensemble", "parameters", "seconds"]  # fmt: skip
    rows = []
    for cell in cells:
        metric, published = cell["metric"], cell["published"] or {}
        baselines = cell.get("test_baselines", cell.get("validation_baselines", {}))
        rows.append(
            [
                cell["task"],
                cell["combination"],
                _system(cell),
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


def _system(cell: Mapping[str, Any]) -> str:
    return Cell(cell["task"], cell["combination"], cell["model"], cell["ablation"]).system


def _markdown(cells: Sequence[Mapping[str, Any]], left_out: Sequence[str], options: Sequence[str]) -> str:
    rows = {name: cell[f"{name}_rows"] for cell in cells for name in ("validation", "test") if name in cell}
    sizes = ", ".join(f"{count:,} {name} rows" for name, count in rows.items())
    number = cells[0]["seeds"]
    seeds, notes = "1 seed" if number == 1 else f"{number} seeds", list(NOTES)
    if any(cell.get("ensemble_split") == "validation" for cell in cells):
        notes.append(ABOUT_VALIDATION)
    parts = [
        "# Reproduction of the paper's table",
        f"L, A and V are text, audio and video; {seeds}; {sizes}. Seconds are those of training, of all seeds "
        f"together. {_describe(options)}",
        markdown_table(*_table(cells)),
        "![Scores by combination](reproduction.png)",
        "\n".join(f"- {note}" for note in notes),
    ]
    if emotions := [cell for cell in cells if cell["task"] == "emotion"]:
        about = "Accuracy, weighted F1 and weighted accuracy of the ensemble, or else the means of seeds."
        parts += ["## Single emotions", markdown_table(*_emotion_table(emotions)), about]
    if left_out:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in left_out)]
    parts += ["## Published scores", ABOUT_PUBLISHED, published_markdown()]
    sources = dict.fromkeys(cell["published"]["source"] for cell in cells if cell["published"])
    parts += ["## Sources of the published scores", "\n".join(f"- {source}" for source in sources)] if sources else []
    about = {}
    for cell in cells:
        if "about_ensemble" in cell:
            about.setdefault(cell["about_ensemble"], []).append(
                f"{cell['task']} {cell['combination']} {_system(cell)}"
            )
    if about:
        lines = [f"- {'; '.join(names)}: {text}" for text, names in about.items()]
        parts += ["## Ensembles", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _describe(options: Sequence[str]) -> str:
    if not options:
        return "All options are those of the paper's recipe."
    return f"Options that differ from the paper's recipe: `{' '.join(options)}`."


def _emotion_table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["modalities", "model", *(f"{emotion} {name}" for emotion in EMOTIONS for name in EMOTION_METRICS)]
    rows = []
    for cell in cells:
        means = {name: values["mean"] for name, values in cell.get("test", cell.get("validation", {})).items()}
        scores = cell.get("ensemble", means)
        rows.append([cell["combination"], _system(cell), *(format_score(scores.get(f"{emotion}_{name}"))
                                            for emotion in EMOTIONS for name in EMOTION_METRICS)])  # fmt: skip
    return header, rows
