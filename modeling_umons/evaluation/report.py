"""Reports of a model: report.json, report.md and plots."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..tasks.task import Task
from ..utils.files import write_atomically
from ..utils.tables import print_table
from .legend import HINT
from .metrics import is_label_metric
from .report_plots import write_plots
from .report_tables import groups_markdown, plain_text, size_of, splits_markdown, table_rows
from .results import SplitResult
from .splits import Split


def print_results(results: Mapping[str, SplitResult]) -> None:
    """Print the results of each split without the metrics of single emotions."""
    for name, result in results.items():
        overall = [metric for metric in result["model"] if not is_label_metric(metric)]
        head, rows = table_rows(result, overall)
        head[0] = f"{name} ({size_of(result)})"
        print_table(head, rows)
        for column, found in result.get("by_column", {}).items():
            print("\n\n".join(["", f"By {column}:", *groups_markdown(column, found)]))
    print(HINT)


def to_json(content: Any) -> str:
    """Convert results and options to JSON: NaN and infinity become null, paths become strings."""

    def plain(value):
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return value if value is None or isinstance(value, (bool, int, str)) else str(value)

    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(
    folder: str | Path,
    task: Task,
    results: Mapping[str, SplitResult],
    splits: Mapping[str, Split],
    history: list[dict[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    json_name: str = "report.json",
    shown: str = "test",
) -> dict[str, Any]:
    """
    Write report.json, report.md and plots into `folder`; returns the content of report.json.

    Args:
        folder: the folder.
        task: the task.
        results: results of `measure`.
        splits: rows and logits that were passed to `measure`.
        history: `log_history` of a Trainer, for training curves.
        recipe: options of the run.
        about: other facts, by name.
        json_name: another name for report.json; report.md has the same stem.
        shown: split of the plots; the last split if it is not in `results`.
    """
    folder = Path(folder)
    shown = shown if shown in results else next(reversed(results), None)
    plots = write_plots(folder, task, shown, splits.get(shown), results.get(shown), history)
    report = {
        "task": task.name,
        "labels": list(task.labels),
        "about": dict(about or {}),
        "splits": dict(results),
        "recipe": dict(recipe or {}),
        "history": list(history or []),
        "plots": [file for file, _ in plots],
    }
    write_atomically(folder / Path(json_name).with_suffix(".md").name, report_markdown(report, plots))
    write_atomically(folder / json_name, to_json(report))  # last: its presence marks a complete report
    return report


def report_markdown(report: Mapping[str, Any], plots: list[tuple[str, str]]) -> str:
    """Format a report as Markdown; `plots` are file names with captions."""
    parts = [f"# Report: {report['task']}"]
    if report["about"]:
        parts.append("\n".join(f"- {name}: {plain_text(value)}" for name, value in report["about"].items()))
    parts += [*splits_markdown(report["splits"]), HINT]
    if report["recipe"]:
        parts += ["## Recipe", "\n".join(f"- {name}: {plain_text(value)}" for name, value in report["recipe"].items())]
    for number, (file, caption) in enumerate(plots):
        parts += [*(["## Plots"] if number == 0 else []), f"![{Path(file).stem}]({file})", caption]
    return "\n\n".join(parts) + "\n"
