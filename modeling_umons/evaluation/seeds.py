"""Summary of models that differ only in their seed: mean, standard deviation and ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..tasks.task import Task
from ..utils.files import write_atomically
from .ensemble import choose_ensemble
from .report import to_json
from .report_plots import plot_seeds
from .report_tables import BASELINE_NAMES, cell, foldable_table, plain_text
from .results import SplitResult, measure
from .splits import Split


def combine(
    task: Task,
    members: Mapping[str, Mapping[str, Split]],
    average: str = "logits",
    choose_on: str | None = "validation",
) -> tuple[dict[str, Split], str]:
    """
    Average the logits of several models.

    Args:
        task: the task.
        members: splits with logits of each model, by name.
        average: "logits" or "probabilities".
        choose_on: split on which the number of models is chosen; all are averaged if it is missing.

    Returns:
        the splits with the logits of the ensemble, and its description.

    Raises:
        ValueError: the models have different rows.
    """
    first_name, first = next(iter(members.items()))
    for name, split in first.items():
        for member, others in members.items():
            if name not in others or not split.has_same_rows(others[name]):
                raise ValueError(f"{member} and {first_name} have different rows in the split {name}.")

    def logits_of(name: str) -> dict[str, np.ndarray]:
        return {member: splits[name].logits for member, splits in members.items()}

    truth = first[choose_on].truth if choose_on in first else None
    ensemble = choose_ensemble(task, logits_of(choose_on if truth is not None else next(iter(first))), truth, average)
    combined = {name: replace(split, logits=ensemble.logits(task, logits_of(name))) for name, split in first.items()}
    return combined, ensemble.describe()


def summarize_seeds(
    folder: str | Path,
    task: Task,
    reports: Mapping[int, Mapping[str, Any]],
    members: Mapping[int, Mapping[str, Split]] | None = None,
    train: Split | None = None,
    tune: bool = False,
) -> dict[str, Any]:
    """
    Write seeds.json, report.md and seeds.png into `folder`: mean and standard deviation (n - 1) of each metric over
    seeds, and the results of the seeds' ensemble. Returns the content of seeds.json.

    Args:
        folder: the folder.
        task: the task.
        reports: return value of `write_report` for each seed.
        members: splits with logits of each seed, for the ensemble; without them there is none.
        train: training rows, for the baselines of the ensemble.
        tune: tune thresholds of the ensemble, see `measure`.
    """
    folder = Path(folder)
    ensemble = {"about": "There is no ensemble; `umons evaluate` makes one of the seeds' folders.", "splits": {}}
    if members:
        try:
            combined, about = combine(task, {f"seed {seed}": splits for seed, splits in members.items()})
            ensemble = {"about": about, "splits": measure(task, train, combined, tune)}
        except ValueError as error:
            ensemble["about"] = f"There is no ensemble: {error}"
    splits = _spread_of_splits([report["splits"] for report in reports.values()])
    summary = {"task": task.name, "seeds": list(reports), "splits": splits, "ensemble": ensemble}
    shown = "test" if "test" in splits else next(reversed(splits), None)
    if shown is not None:
        results = {seed: report["splits"][shown] for seed, report in reports.items()}
        plot_seeds(folder / "seeds.png", task, shown, results, ensemble["splits"].get(shown))
    write_atomically(folder / "seeds.json", to_json(summary))
    write_atomically(folder / "report.md", _seeds_markdown(summary, shown))
    return summary


def mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1; `None` for a single value) and the values."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def with_std(spread: Mapping[str, Any] | None) -> str:
    """Format the result of `mean_and_std`; `None` is empty."""
    if spread is None:
        return ""
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")


def _spread_of_splits(reports: Sequence[Mapping[str, SplitResult]]) -> dict[str, Any]:
    """Summarise the splits, or sources, that all reports have."""
    common = [name for name in reports[0] if all(name in report for report in reports)]
    return {name: _spread([report[name] for report in reports]) for name in common}


def _spread(results: Sequence[SplitResult]) -> dict[str, Any]:
    def of_common_metrics(scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        common = [metric for metric in scores[0] if all(metric in one for one in scores)]
        return {metric: mean_and_std([one[metric] for one in scores]) for metric in common}

    spread: dict[str, Any] = {"rows": [result["rows"] for result in results]}
    for key in ("model", "model_tuned"):
        if all(key in result for result in results):
            spread[key] = of_common_metrics([result[key] for result in results])
    for key in ("baselines", "baselines_tuned"):
        if all(key in result for result in results):
            names = [name for name in results[0][key] if all(name in result[key] for result in results)]
            spread[key] = {name: of_common_metrics([result[key][name] for result in results]) for name in names}
    if all(result.get("sources") for result in results):
        spread["sources"] = _spread_of_splits([result["sources"] for result in results])
    return spread


def _seeds_markdown(summary: Mapping[str, Any], shown: str | None) -> str:
    seeds, ensemble = summary["seeds"], summary["ensemble"]
    parts = [
        f"# {len(seeds)} seeds: {summary['task']}",
        f"Mean and standard deviation over models that differ only in their seed ({plain_text(seeds)}). The intervals "
        "of the ensemble describe the choice of test rows, not the randomness of training.",
    ]
    for name, spread in summary["splits"].items():
        parts += [f"## {name}", _spread_markdown(spread, ensemble["splits"].get(name))]
        for source, part in spread.get("sources", {}).items():
            of_source = ensemble["splits"].get(name, {}).get("sources", {}).get(source)
            parts += [f"### {name}, {source}", _spread_markdown(part, of_source)]
    parts += ["## Ensemble", ensemble["about"]]
    notes = dict.fromkeys(note for result in ensemble["splits"].values() for note in result["notes"])
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if shown is not None:
        parts += ["## Plot", f"![Seeds on {shown}](seeds.png)"]
    return "\n\n".join(parts) + "\n"


def _spread_markdown(spread: Mapping[str, Any], ensemble: SplitResult | None) -> str:
    columns = {"model": {metric: with_std(values) for metric, values in spread["model"].items()}}
    if "model_tuned" in spread:
        columns["model, tuned"] = {metric: with_std(values) for metric, values in spread["model_tuned"].items()}
    if ensemble is not None:
        columns["ensemble"] = {metric: cell(value) for metric, value in ensemble["model"].items()}
        columns["95 % interval"] = {metric: cell(value) for metric, value in ensemble["intervals"].items()}
    for name, scores in spread["baselines"].items():
        columns[BASELINE_NAMES[name]] = {metric: cell(values["mean"]) for metric, values in scores.items()}
    rows = [[metric, *(column.get(metric, "") for column in columns.values())] for metric in spread["model"]]
    return foldable_table(["metric", *columns], rows)
