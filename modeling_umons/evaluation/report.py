"""How well a model does, with what is needed to believe it: intervals, a constant predictor and a rival from the words.

Figures of a split are a dictionary, as `measure` gives it and report.json holds it:

    rows, groups        how many segments there are, and videos (`None` where they are not known)
    model               {metric: value}
    intervals           {metric: [low, high]}, 95 %; empty where there is nothing to resample
    constant            {metric: value} of the best predictors that always say the same
    rivals              {"tfidf": {metric: value}}; empty where there is none
    notes               sentences on how all this was made, and why something is not there
    sources             {name: the same of its rows}, where the rows are of several sources
    missing             what `missing.missing_curves` gives, of the split that is shown

and where thresholds of emotions were chosen on validation, on the other splits also `thresholds` {emotion: logit},
`model_tuned`, `intervals_tuned`, and "tfidf_tuned" among the rivals, which has thresholds of its own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.labels import SENTIMENT_2, SENTIMENT_7
from ..tasks.task import Task, make_task
from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .bootstrap import bootstrap_intervals
from .ensemble import choose_ensemble
from .metrics import constant_metrics, task_metrics, tune_thresholds
from .report_tables import (
    Figures,
    cell,
    is_of_one_emotion,
    plain_text,
    size_of,
    splits_markdown,
    table_rows,
)
from .splits import Split
from .tfidf_baseline import TfidfRival


def task_of(config, label_column: str = "label") -> Task:
    """
    The task that a model's configuration was trained for; classes that are no sentiments are in `label_column`. Raises
    ValueError for labels that no task has.
    """
    labels = tuple(config.id2label[i] for i in range(len(config.id2label)))
    kind = config.problem_type
    if kind == "single_label_classification":
        named = {SENTIMENT_7: "sentiment-7", SENTIMENT_2: "sentiment-2"}
        return make_task(named[labels]) if labels in named else Task("classification", labels, kind, label_column)
    for name in ("joint", "emotion", "sentiment"):
        task = make_task(name)
        same_labels = labels == task.labels or (name == "sentiment" and len(labels) == 1)
        is_joint = bool(getattr(config, "joint_sentiment", False))
        if same_labels and is_joint == (name == "joint") and kind in (task.problem_type, None):
            return task
    raise ValueError(
        f"The model has the labels {', '.join(map(str, labels))} and the problem type {kind}, which are of no task: known "
        f"are classes, a sentiment, and the emotions {', '.join(EMOTIONS)} with or without the sentiment before them."
    )


def measure(
    task: Task,
    train: Split | None,
    splits: Mapping[str, Split],
    tune: bool = False,
    num_bootstrap: int = 1000,
) -> dict[str, Figures]:
    """
    The figures (see above) of each of `splits` that has logits.

    Args:
        task: what was predicted.
        train: the training rows, for the constant predictor and the rival; without them, there are none.
        splits: held-out rows with logits. One called validation is what the rival's regularisation and, with `tune`,
            the emotions' thresholds are chosen on; it serves the rival without logits, too.
        tune: also measure at thresholds of emotions that are chosen on validation.
        num_bootstrap: how many samples intervals are made from.

    Raises:
        ValueError: logits are not finite.
    """
    validation = splits.get("validation")
    notes = []
    rival = None
    if train is None:
        notes.append("There were no training rows, so no constant predictor and no TF-IDF stands beside the figures.")
    else:
        rival, note = _train_rival(task, train, validation)
        notes.append(note)
    if tune and not (task.name in ("emotion", "joint") and validation is not None and validation.logits is not None):
        tune = False
        notes.append("No thresholds were chosen: that takes emotions, and a validation split.")
    model_thresholds = rival_thresholds = None
    if tune:
        model_thresholds = _choose_thresholds(task, validation.truth, validation.logits)

    results = {}
    for name, split in splits.items():
        if split.logits is None:
            continue
        rival_logits = None
        if rival is not None and split.texts is not None:
            rival_logits = rival.logits(split.texts)
            if tune and validation.texts is not None:
                rival_thresholds = _choose_thresholds(task, validation.truth, rival.logits(validation.texts))
        tuned = (model_thresholds, rival_thresholds) if name != "validation" else (None, None)
        part = _Part(task, None if train is None else train.truth, num_bootstrap, *tuned)
        figures = part.measure(split, rival_logits)
        figures["notes"] += notes
        if rival is not None and split.texts is None:
            figures["notes"].append("The rows have no text, so no TF-IDF stands beside the figures.")
        sources = sorted({source for source in split.sources or () if source is not None})
        if len(sources) > 1:
            figures["sources"] = {}
            for source in sources:
                rows = np.flatnonzero([value == source for value in split.sources])
                logits = None if rival_logits is None else rival_logits[rows]
                figures["sources"][source] = part.measure(split.take(rows), logits)
        results[name] = figures
    return results


def _train_rival(task: Task, train: Split, validation: Split | None) -> tuple[TfidfRival | None, str]:
    """The rival, or none; and what is to be said of it."""
    held_out = ()
    if validation is not None and validation.texts is not None:
        held_out = (validation.texts, validation.truth)
    try:
        rival = TfidfRival(task, train.texts or [None] * len(train), train.truth, *held_out)
    except ValueError as error:
        return None, str(error)
    return rival, rival.describe()


def _choose_thresholds(task: Task, truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return tune_thresholds(truth[:, -len(EMOTIONS) :], logits[:, -len(EMOTIONS) :])


def _thresholded(metrics: Figures) -> Figures:
    """Those that thresholds of emotions make a difference to."""
    return {
        name: value
        for name, value in metrics.items()
        if (name.startswith("emotion_") or is_of_one_emotion(name)) and not name.endswith(("_auroc", "_ap"))
    }


@dataclass(frozen=True)
class _Part:
    """How the rows of a split, or of one source in it, are measured."""

    task: Task
    train_truth: np.ndarray | None
    num_bootstrap: int
    thresholds: np.ndarray | None = None
    rival_thresholds: np.ndarray | None = None

    def measure(self, split: Split, rival_logits: np.ndarray | None) -> Figures:
        task, truth = self.task, split.truth
        model = task_metrics(task, truth, split.logits)
        intervals, note, groups = self._intervals(split)
        figures = {
            "rows": len(split),
            "groups": groups,
            "model": model,
            "intervals": intervals,
            "constant": {},
            "rivals": {},
            "notes": [note],
        }
        if self.train_truth is not None:
            figures["constant"] = constant_metrics(task, self.train_truth, truth)
        if rival_logits is not None:
            figures["rivals"]["tfidf"] = task_metrics(task, truth, rival_logits)
        if self.thresholds is not None:
            emotions = task.labels[-len(EMOTIONS) :]
            figures["thresholds"] = dict(zip(emotions, self.thresholds.tolist(), strict=True))
            figures["model_tuned"] = _thresholded(task_metrics(task, truth, split.logits, self.thresholds))
            figures["intervals_tuned"] = _thresholded(self._intervals(split, self.thresholds)[0])
            figures["notes"].append(
                "Tuned figures are at thresholds of the emotions' logits that were chosen on validation for the best macro "
                "F1 of each; TF-IDF has its own, chosen in the same way."
            )
            if rival_logits is not None and self.rival_thresholds is not None:
                tuned = task_metrics(task, truth, rival_logits, self.rival_thresholds)
                figures["rivals"]["tfidf_tuned"] = _thresholded(tuned)
        return figures

    def _intervals(self, split: Split, thresholds=None) -> tuple[dict[str, list[float]], str, int | None]:
        """The intervals, a sentence on how they were made, and how many groups there are."""
        groups, number = None, None
        if split.groups is not None:
            # A row whose group is not known is one of its own.
            groups = [("row", i) if group is None else group for i, group in enumerate(split.groups)]
            number = len(set(groups))
        units = len(split) if number is None else number
        if units < 2:
            return {}, "There are no intervals: that takes two segments, or two videos, at least.", number
        intervals = bootstrap_intervals(
            self.task, split.truth, split.logits, groups, self.num_bootstrap, thresholds=thresholds
        )
        drawn = (
            "each segment is drawn on its own, as no column `video_id` says which belong together"
            if groups is None
            else "whole groups (videos, dialogues or speakers) are drawn, as what belongs together is alike; of few groups they say little"
        )
        note = f"95 % intervals are from {self.num_bootstrap} bootstrap samples: {drawn}."
        return {name: list(interval) for name, interval in intervals.items()}, note, number


def print_results(results: Mapping[str, Figures]) -> None:
    """The figures of each split on the screen, but those of single emotions."""
    for name, figures in results.items():
        overall = [metric for metric in figures["model"] if not is_of_one_emotion(metric)]
        head, rows = table_rows(figures, overall)
        head[0] = f"{name} ({size_of(figures)})"
        print_table(head, rows)


# --- files


def to_json(content: Any) -> str:
    """JSON of figures and options: numbers that JSON has no word for are null, and paths are strings."""

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
    results: Mapping[str, Figures],
    splits: Mapping[str, Split],
    history: list[dict[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    json_name: str = "report.json",
    shown: str = "test",
) -> dict[str, Any]:
    """
    Writes report.json, report.md and pictures into `folder`, and returns what report.json holds. Pictures are of the
    split `shown`, or of the last one where it is not there.

    Args:
        results: what `measure` gave.
        splits: the rows and logits that it was given.
        history: the `log_history` of a Trainer, for the curves of training.
        recipe, about: options of the run, and whatever else is to be said, by name.
        json_name: report.json under another name.
    """
    from .report_plots import write_plots

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
    write_atomically(folder / Path(json_name).with_suffix(".md").name, _report_markdown(report, plots))
    write_atomically(folder / json_name, to_json(report))  # the last one: where it is, all is
    return report


def _report_markdown(report: Mapping[str, Any], plots: list[tuple[str, str]]) -> str:
    parts = [f"# Report: {report['task']}"]
    if report["about"]:
        parts.append("\n".join(f"- {name}: {plain_text(value)}" for name, value in report["about"].items()))
    parts += splits_markdown(report["splits"])
    if report["recipe"]:
        parts += ["## Recipe", "\n".join(f"- {name}: {plain_text(value)}" for name, value in report["recipe"].items())]
    for number, (file, caption) in enumerate(plots):
        parts += [*(["## Pictures"] if number == 0 else []), f"![{Path(file).stem}]({file})", caption]
    return "\n\n".join(parts) + "\n"


# --- several models


def combine(
    task: Task,
    members: Mapping[str, Mapping[str, Split]],
    average: str = "logits",
    choose_on: str | None = "validation",
) -> tuple[dict[str, Split], str]:
    """
    The splits with the logits of the models' ensemble, from those of each of the `members`; and a sentence on how many
    of them it took, which is chosen on the split `choose_on`; all, where there is none. Raises ValueError where the
    models' rows are not the same.
    """
    first = next(iter(members.values()))
    for name, split in first.items():
        for member, others in members.items():
            if name not in others or not split.is_of_the_rows_of(others[name]):
                raise ValueError(f"The rows of {name} of {member} are not those of {next(iter(members))}.")
    truth = first[choose_on].truth if choose_on in first else None
    some = choose_on if truth is not None else next(iter(first))
    ensemble = choose_ensemble(
        task, {member: splits[some].logits for member, splits in members.items()}, truth, average
    )
    combined = {
        name: replace(
            split, logits=ensemble.logits(task, {member: splits[name].logits for member, splits in members.items()})
        )
        for name, split in first.items()
    }
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
    Writes seeds.json, report.md and seeds.png into `folder`: the mean and the standard deviation (n - 1) over seeds of
    each figure, and what the seeds' models get as an ensemble. Returns what seeds.json holds.

    Args:
        reports: of each seed, what `write_report` returned.
        members: of each seed, the splits that it was measured on, for the ensemble; without them, there is none.
        train, tune: as `measure` has them, for the ensemble's rivals and thresholds.
    """
    from .report_plots import plot_seeds

    folder = Path(folder)
    summary = {
        "task": task.name,
        "seeds": list(reports),
        "splits": _spread_of_splits([report["splits"] for report in reports.values()]),
        "ensemble": {
            "about": "No ensemble was made; scripts/evaluate.py makes one of the seeds' folders.",
            "splits": {},
        },
    }
    if members:
        try:
            named = {f"seed {seed}": splits for seed, splits in members.items()}
            combined, about = combine(task, named)
            summary["ensemble"] = {"about": about, "splits": measure(task, train, combined, tune)}
        except ValueError as error:
            summary["ensemble"]["about"] = f"No ensemble was made: {error}"
    shown = "test" if "test" in summary["splits"] else next(reversed(summary["splits"]), None)
    if shown is not None:
        figures = {seed: report["splits"][shown] for seed, report in reports.items()}
        plot_seeds(folder / "seeds.png", task, shown, figures, summary["ensemble"]["splits"].get(shown))
    write_atomically(folder / "seeds.json", to_json(summary))
    write_atomically(folder / "report.md", _seeds_markdown(summary, shown))
    return summary


def _spread_of_splits(reports: list[Mapping[str, Figures]]) -> dict[str, Any]:
    """Of the splits, or sources, that all have."""
    common = [name for name in reports[0] if all(name in report for report in reports)]
    return {name: _spread([report[name] for report in reports]) for name in common}


def _spread(figures: list[Figures]) -> dict[str, Any]:
    spread: dict[str, Any] = {"rows": [one["rows"] for one in figures]}
    parts = ["model", "constant", "model_tuned"]
    values = {part: [one[part] for one in figures] for part in parts if all(part in one for one in figures)}
    for rival in ("tfidf", "tfidf_tuned"):
        if all(rival in one["rivals"] for one in figures):
            values[rival] = [one["rivals"][rival] for one in figures]
    for part, all_of in values.items():
        spread[part] = {}
        for metric in all_of[0]:
            if all(metric in one for one in all_of):
                numbers = [one[metric] for one in all_of]
                std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
                spread[part][metric] = {"mean": float(np.mean(numbers)), "std": std, "values": numbers}
    if all(one.get("sources") for one in figures):
        spread["sources"] = _spread_of_splits([one["sources"] for one in figures])
    return spread


def _seeds_markdown(summary: Mapping[str, Any], shown: str | None) -> str:
    seeds = summary["seeds"]
    parts = [
        f"# {len(seeds)} seeds: {summary['task']}",
        f"Mean and standard deviation over models that differ in their seed alone ({plain_text(seeds)}). Intervals of the "
        "ensemble are about the choice of rows, not about training again.",
    ]
    ensemble = summary["ensemble"]
    for name, spread in summary["splits"].items():
        parts += [f"## {name}", _spread_markdown(spread, ensemble["splits"].get(name))]
        for source, part in spread.get("sources", {}).items():
            of_source = ensemble["splits"].get(name, {}).get("sources", {}).get(source)
            parts += [f"### {name}, {source}", _spread_markdown(part, of_source)]
    parts += ["## Ensemble", ensemble["about"]]
    notes = dict.fromkeys(note for figures in ensemble["splits"].values() for note in figures["notes"])
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if shown is not None:
        parts += ["## Picture", f"![Each seed on {shown}](seeds.png)"]
    return "\n\n".join(parts) + "\n"


def _spread_markdown(spread: Mapping[str, Any], ensemble: Figures | None) -> str:
    """Each metric: mean and deviation of the models, the ensemble with its interval, and the rivals."""

    def several(values: Mapping[str, Any] | None) -> str:
        if values is None:
            return ""
        return f"{values['mean']:.3f}" + ("" if values["std"] is None else f" ± {values['std']:.3f}")

    columns = {"model": {metric: several(values) for metric, values in spread["model"].items()}}
    if "model_tuned" in spread:
        columns["model, tuned"] = {metric: several(values) for metric, values in spread["model_tuned"].items()}
    if ensemble is not None:
        columns["ensemble"] = {metric: cell(value) for metric, value in ensemble["model"].items()}
        columns["95 % interval"] = {metric: cell(value) for metric, value in ensemble["intervals"].items()}
    for title, part in (("constant", "constant"), ("TF-IDF", "tfidf")):
        if spread.get(part):
            columns[title] = {metric: f"{values['mean']:.3f}" for metric, values in spread[part].items()}
    rows = [[metric, *(column.get(metric, "") for column in columns.values())] for metric in spread["model"]]
    overall = [row for row in rows if not is_of_one_emotion(row[0])]
    single = [row for row in rows if is_of_one_emotion(row[0])]
    text = markdown_table(["metric", *columns], overall)
    if single:
        text += f"\n\n<details><summary>Each emotion</summary>\n\n{markdown_table(['metric', *columns], single)}\n\n</details>"
    return text
