"""Plots of training curves, predictions and comparisons. Requires matplotlib."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.plots import COLORS, NEUTRAL
from ..tasks.labels import SENTIMENT_7
from ..tasks.task import Task
from ..utils.files import write_atomically
from .calibration import NUM_BINS, calibration_curve
from .metrics import headline_metrics, sentiment_bins
from .missing_modalities import describe_curves
from .results import SplitResult
from .splits import Split


BLUE, ORANGE, LIGHT = "#0072B2", "#E69F00", "#BBBBBB"
CURVE_COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
BASELINES = {"tfidf": ("TF-IDF", ORANGE, "--"), "constant": ("constant", LIGHT, ":")}  # label, colour and line style
WIDTH = 8.4  # inches, for two columns with readable text in a README
MIN_BIN_ROWS = 5  # smaller bins are not drawn
MAX_LABELS = 12
MAX_DOTS = 1500  # more are drawn as a density


def write_plots(
    folder: Path,
    task: Task,
    name: str | None,
    split: Split | None,
    result: SplitResult | None,
    history: list[dict[str, Any]] | None = None,
) -> list[tuple[str, str]]:
    """
    Draw the plots that apply to the task for the split called `name`; plots of an earlier report are removed.

    Returns:
        File name and caption of each plot.
    """
    drawings = {"training.png": (_has_curves(history), lambda: _draw_training(history), "Loss and learning rate.")}
    has_rows = split is not None and result is not None
    sentiment, emotions = _parts(task, split) if has_rows else (None, None)
    classes = has_rows and task.problem_type == "single_label_classification"
    drawings |= {
        "sentiment.png": (
            sentiment is not None,
            lambda: _draw_sentiment(*sentiment, result["model"]),
            f"True and predicted sentiment on {name}, and their distributions.",
        ),
        "numbers.png": (
            has_rows and task.name == "regression",
            lambda: _draw_numbers(task.labels, split, result["model"]),
            f"True and predicted values of each label on {name}. The line is equality.",
        ),
        "confusion.png": (
            sentiment is not None or classes,
            lambda: _draw_confusion(task, split, sentiment),
            f"Confusion matrix on {name}, coloured by the share of each true class, and class frequencies."
            + (" Sentiments are in the seven bins of acc7." if sentiment else ""),
        ),
        "precision_recall.png": (
            emotions is not None,
            lambda: _draw_precision_recall(*emotions, result),
            f"Precision-recall curve of each emotion on {name}. Dashed: base rate.",
        ),
        "calibration.png": (
            emotions is not None or classes,
            lambda: _draw_emotion_calibration(*emotions) if emotions else _draw_class_calibration(split),
            f"Calibration on {name}: observed frequency by predicted probability (bins of at least {MIN_BIN_ROWS} "
            "rows), and expected calibration error (ECE).",
        ),
    }
    curves = result.get("missing_modalities") if result is not None else None
    caption = f"Metrics on {name} when a random share of rows loses a modality at evaluation. "
    caption += describe_curves(curves) if curves else ""
    drawings["missing_modalities.png"] = (bool(curves), lambda: _draw_missing_modalities(curves), caption)
    explained = result.get("explanations") if result is not None else None
    drawings["explanations.png"] = (
        bool(explained),
        lambda: _draw_explanations(explained),
        f"Mean score of texts of {name} without a share of their words, and of these words only. Words are chosen by "
        "their contribution, at random, or one by one as the best next word.",
    )
    plots = []
    for file, (is_wanted, draw, caption) in drawings.items():
        (folder / file).unlink(missing_ok=True)
        if is_wanted:
            save_figure(draw(), folder / file)
            plots.append((file, caption))
    return plots


def plot_seeds(
    path: Path,
    task: Task,
    name: str,
    results: Mapping[int, SplitResult],
    ensemble: SplitResult | None = None,
) -> None:
    """
    Draw the main metrics of each seed and of the ensemble with intervals, the mean over seeds, and the baselines.
    """
    metrics = [
        metric
        for metric in headline_metrics(task.name)
        if all(metric in result["model"] for result in results.values())
    ]
    if not metrics:
        path.unlink(missing_ok=True)
        return
    rows = -(-len(metrics) // 2)
    models = [(str(seed), result, NEUTRAL) for seed, result in results.items()]
    if ensemble is not None:
        models.append(("ens.", ensemble, BLUE))
    figure = make_figure(1.9 * rows + 0.7)
    axes = figure.subplots(rows, 2, squeeze=False).flat
    for axis, metric in zip(axes, metrics, strict=False):
        for place, (_, result, color) in enumerate(models):
            _draw_interval(axis, place, result, metric, color)
        values = [result["model"][metric] for result in results.values()]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        axis.axhline(np.mean(values), color=NEUTRAL, linewidth=1, label="mean of seeds")
        _draw_baselines(axis, list(results.values()), metric)
        axis.set_title(f"{_title(metric)} {np.mean(values):.3f}{spread}", loc="left", fontsize=10)
        axis.set_xticks(range(len(models)), [label for label, *_ in models])
        axis.set_xlim(-0.6, len(models) - 0.4)
    for axis in list(axes)[len(metrics) :]:
        axis.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(f"{name}: seeds with 95 % intervals", fontsize=10, parse_math=False)
    save_figure(figure, path)


def plot_cells(path: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """Draw the scores of combinations of modalities, a panel for each task: seeds, ensemble and published score."""
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    has_names = any(cell["ablation"] or cell["model"] != "umons" for cell in cells)
    figure = make_figure(4.5 if has_names else 3)  # names are vertical
    for axis, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        of_task = [cell for cell in cells if cell["task"] == task]
        metric = of_task[0]["metric"]
        for place, cell in enumerate(of_task):
            values = cell.get("test", cell.get("validation", {})).get(metric, {}).get("values", [])
            axis.plot([place] * len(values), values, "o", color=NEUTRAL, markersize=3, label="single seeds")
            if interval := cell.get("ensemble_intervals", {}).get(metric):
                axis.plot([place, place], interval, color=BLUE, linewidth=2, alpha=0.5)
            if metric in cell.get("ensemble", {}):
                axis.plot(place, cell["ensemble"][metric], "D", color=BLUE, markersize=5, label="ensemble")
            if cell["published"]:
                axis.plot(place, cell["published"]["ensemble"], "x", color=ORANGE, label="published ensemble")
        names = [cell["ablation"] or cell["model"] for cell in of_task]
        labels = [f"{cell['combination']} {'' if name == 'umons' else name}".strip()
                  for cell, name in zip(of_task, names, strict=True)]  # fmt: skip
        axis.set_xticks(range(len(of_task)), labels, rotation=90 if has_names else 0, fontsize=8)
        axis.set_title(f"{task}: {metric}", loc="left", fontsize=10)
        axis.margins(x=0.2)
    handles = {}
    for axis in figure.axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", frameon=False, ncols=3)
    save_figure(figure, path)


def _title(metric: str) -> str:
    return f"{metric} (lower is better)" if metric == "mae" else metric


def _draw_interval(axis, place: int, result: SplitResult, metric: str, color: str):
    value = result["model"].get(metric)
    if value is None:
        return
    if interval := result["intervals"].get(metric):
        axis.plot([place, place], interval, color=color, linewidth=2)
    axis.plot(place, value, "o", color=color, markersize=6)


def _draw_baselines(axis, results: list[SplitResult], metric: str):
    for name, (label, color, style) in BASELINES.items():
        scores = [result["baselines"].get(name, {}) for result in results]
        values = [score[metric] for score in scores if metric in score]
        if values:
            axis.axhline(np.mean(values), color=color, linestyle=style, linewidth=1.5, label=label)


def plot_comparison(path: Path, comparison: Mapping[str, Any], metrics: list[str]) -> None:
    """Draw each metric of each system: seeds as dots, their mean with its interval, and the baselines as lines."""
    systems = comparison["systems"]
    names = list(systems)
    rows = -(-len(metrics) // 2)
    figure = make_figure((0.9 + 0.22 * len(names)) * rows + 0.6)
    axes = list(figure.subplots(rows, 2, squeeze=False, sharey=True).flat)
    for axis, metric in zip(axes, metrics, strict=False):
        for place, name in enumerate(names):
            scores = systems[name]["metrics"].get(metric)
            if scores is None:
                continue
            if scores["interval"] is not None:
                axis.plot(scores["interval"], [place, place], color=BLUE, linewidth=2, alpha=0.5)
            axis.plot(scores["values"], [place] * len(scores["values"]), "o", color=NEUTRAL, markersize=3)
            axis.plot(scores["mean"], place, "D", color=BLUE, markersize=5)
        for name, (label, color, style) in BASELINES.items():
            value = comparison["baselines"].get(name, {}).get(metric)
            if value is not None:
                axis.axvline(value, color=color, linestyle=style, linewidth=1.5, label=label)
        axis.set_title(_title(metric), loc="left", fontsize=10)
        axis.set_yticks(range(len(names)), names, parse_math=False)
        axis.set_ylim(len(names) - 0.4, -0.6)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save_figure(figure, path)


# --- parts


def make_figure(height: float):
    from matplotlib.figure import Figure  # the object, not pyplot: nothing global, no window

    return Figure(figsize=(WIDTH, height), layout="constrained")


def save_figure(figure, path: Path):
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


def _parts(task: Task, split: Split):
    """
    Return truth and prediction of the sentiment, and truth, logits and names of the emotions; `None` for parts not in
    the task.
    """
    sentiment = emotions = None
    if task.name in ("sentiment", "joint"):
        truth, prediction = (values.reshape(len(split), -1)[:, 0] for values in (split.truth, split.logits))
        known = ~np.isnan(truth)
        sentiment = (truth[known], prediction[known]) if known.any() else None
    if task.emotions:
        truth, logits = (values[:, -len(task.emotions) :] for values in (split.truth, split.logits))
        # The most frequent ones, in their order: more would be too small to read.
        shown = np.sort(np.argsort(-np.nansum(truth > 0, axis=0), kind="stable")[:MAX_LABELS])
        names = [task.emotions[i] for i in shown]
        emotions = (truth[:, shown], logits[:, shown], names) if not np.isnan(truth).all() else None
    return sentiment, emotions


def _has_curves(history: list[dict[str, Any]] | None) -> bool:
    return any("loss" in entry or "eval_loss" in entry for entry in history or [])


def _draw_training(history: list[dict[str, Any]]):
    figure = make_figure(3)
    losses, rates = figure.subplots(1, 2)
    for name, label, color in (("loss", "training", NEUTRAL), ("eval_loss", "validation", BLUE)):
        _draw_curve(losses, history, name, label, color)
    losses.set(xlabel="epoch", title="loss")
    losses.legend(frameon=False)
    _draw_curve(rates, history, "learning_rate", "", NEUTRAL)
    rates.set(xlabel="epoch", title="learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    return figure


def _draw_curve(axis, history: list[dict[str, Any]], name: str, label: str, color: str):
    points = [(entry["epoch"], entry[name]) for entry in history if name in entry and "epoch" in entry]
    if points:
        axis.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) < 30 else None, ms=3)


def _draw_missing_modalities(curves: Mapping[str, Any]):
    metrics = list(dict.fromkeys(metric for curve in curves["without"].values() for metric in curve["metrics"]))
    figure = make_figure(3)
    for axis, metric in zip(figure.subplots(1, 2, squeeze=False)[0], [*metrics, None, None], strict=False):
        if metric is None:
            axis.set_visible(False)
            continue
        for (modality, curve), color in zip(curves["without"].items(), (BLUE, ORANGE, NEUTRAL), strict=False):
            if metric in curve["metrics"]:
                shares = [100 * share for share in curves["shares"]]
                axis.plot(shares, curve["metrics"][metric], "o-", color=color, ms=4, label=f"without {modality}")
        axis.set(xlabel="rows without it, %", xticks=shares)
        axis.set_title(_title(metric), loc="left", fontsize=10)
        axis.legend(frameon=False)
    return figure


def _draw_explanations(found: Mapping[str, Any]):
    figure = make_figure(3)
    for axis, kind in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
        for (order, values), color in zip(found[kind].items(), (BLUE, NEUTRAL, ORANGE), strict=True):
            axis.plot([100 * share for share in found["shares"]], values, "o-", color=color, ms=3, label=order)
        axis.axhline(0, color=LIGHT, linewidth=1)
        axis.set(xlabel="words removed, %" if kind == "deletion" else "words kept, %")
        axis.set_title(f"{kind}, {found['score']}", loc="left", fontsize=10)
        axis.legend(frameon=False)
    return figure


def _draw_numbers(labels: Sequence[str], split: Split, model: Mapping[str, float]):
    columns = min(3, len(labels))
    rows = math.ceil(len(labels) / columns)
    figure = make_figure(2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(labels) :]:
        axis.set_visible(False)
    truth, prediction = (values.reshape(len(split), -1).T for values in (split.truth, split.logits))
    for axis, label, true, predicted in zip(axes, labels, truth, prediction, strict=False):
        known = np.flatnonzero(~np.isnan(true))[:MAX_DOTS]
        if len(known):
            ends = [true[known].min(), true[known].max()]
            axis.plot(ends, ends, color=ORANGE, linewidth=1)
            axis.scatter(true[known], predicted[known], s=10, color=BLUE, alpha=0.4, linewidths=0)
        ccc = model.get(f"{label}_ccc", model.get("ccc"))
        axis.set_title(label if ccc is None else f"{label}: CCC {ccc:.2f}", loc="left", fontsize=10, parse_math=False)
        axis.set(xlabel="true", ylabel="predicted")
    return figure


def _draw_sentiment(truth: np.ndarray, prediction: np.ndarray, model: Mapping[str, float]):
    figure = make_figure(4)
    dots, spread = figure.subplots(1, 2)
    shown = np.clip(prediction, -4, 4)
    is_cloud = len(truth) > MAX_DOTS
    dots.plot([-3, 3], [-3, 3], color=ORANGE if is_cloud else LIGHT, linewidth=1, zorder=3 if is_cloud else 0)
    if not is_cloud:
        dots.scatter(truth, shown, s=12, color=BLUE, alpha=0.4, linewidths=0)
    else:
        density = dots.hexbin(truth, shown, gridsize=30, extent=(-3.2, 3.2, -4, 4), cmap="Blues", bins="log", mincnt=1)
        figure.colorbar(density, ax=dots).ax.set_title("segments", fontsize=9)
    dots.set(xlim=(-3.3, 3.3), ylim=(-4.2, 4.2), xlabel="truth", ylabel="prediction")
    dots.set_title(f"mae {model['mae']:.3f}, corr {model['corr']:.3f}", loc="left", fontsize=10)
    edges = np.linspace(-3.25, 3.25, 14)
    spread.hist(truth, edges, color=LIGHT, label="truth")
    spread.hist(
        np.clip(prediction, -3.25, 3.25), edges, histtype="step", color=BLUE, linewidth=1.8, label="prediction"
    )
    spread.set(xlabel="sentiment", ylabel="segments")
    spread.set_ylim(top=1.25 * spread.get_ylim()[1])  # room for the legend
    spread.legend(frameon=False, ncols=2, loc="upper center")
    return figure


def _draw_confusion(task: Task, split: Split, sentiment):
    if sentiment is None:
        labels, truth, prediction = task.labels, split.truth, split.logits.argmax(axis=-1)
    else:
        labels, (truth, prediction) = SENTIMENT_7, map(sentiment_bins, sentiment)
    size = len(labels)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (truth.astype(int), prediction.astype(int)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = make_figure(max(3.6, 1.6 + 0.36 * size))
    matrix, bars = figure.subplots(1, 2, width_ratios=[1.25, 1])
    matrix.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if size <= 12:
        for row, column in np.ndindex(size, size):
            color = "white" if share[row, column] > 0.55 else "black"
            matrix.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    slant = {"rotation": 45, "ha": "right"} if max(map(len, labels)) > 4 else {}
    matrix.set_xticks(range(size), labels, parse_math=False, **slant)
    matrix.set_yticks(range(size), labels, parse_math=False)
    matrix.set(xlabel="prediction", ylabel="truth")
    places = np.arange(size)
    bars.barh(places - 0.2, counts.sum(axis=1), 0.38, color=LIGHT, label="true")
    bars.barh(places + 0.2, counts.sum(axis=0), 0.38, color=BLUE, label="predicted")
    bars.set_yticks(places, labels, parse_math=False)
    bars.invert_yaxis()
    bars.set_xlabel("segments")
    figure.legend(loc="outside upper right", frameon=False, ncols=2)
    return figure


def _color(label: str, number: int) -> str:
    """Return the colour of an emotion, or the next one of matplotlib's cycle for another label."""
    return COLORS.get(label, f"C{number % 10}")


def _draw_precision_recall(truth: np.ndarray, logits: np.ndarray, emotions: Sequence[str], result: SplitResult):
    rows = math.ceil(len(emotions) / 2)
    figure = make_figure(2.4 * rows)
    axes = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(emotions) :]:
        axis.set_axis_off()
    tfidf = result["baselines"].get("tfidf", {})
    for i, (emotion, axis) in enumerate(zip(emotions, axes.flat, strict=False)):
        known = ~np.isnan(truth[:, i])
        present = truth[known, i] > 0
        title = emotion
        if present.any() and not present.all():
            recall, precision = _precision_recall(present, logits[known, i])
            axis.step(recall, precision, where="pre", color=_color(emotion, i), linewidth=1.8)
            axis.axhline(present.mean(), color=NEUTRAL, linestyle="--", linewidth=1)
            title += f": AP {result['model'][f'{emotion}_ap']:.2f}, base rate {present.mean():.2f}"
            if f"{emotion}_ap" in tfidf:
                title += f", TF-IDF {tfidf[f'{emotion}_ap']:.2f}"
        else:
            axis.text(0.5, 0.5, "in all rows or in none", ha="center", color=NEUTRAL)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set(xlim=(0, 1), ylim=(0, 1.03))
    for axis in axes[-1]:
        axis.set_xlabel("recall")
    for axis in axes[:, 0]:
        axis.set_ylabel("precision")
    return figure


def _precision_recall(present: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute recall and precision at each distinct threshold, the highest first."""
    order = np.argsort(-logits, kind="stable")
    steps = np.flatnonzero(np.r_[np.diff(logits[order]) != 0, True])
    hits = np.cumsum(present[order])[steps]
    return np.r_[0, hits / present.sum()], np.r_[hits[0] / (steps[0] + 1), hits / (steps + 1)]


def _draw_emotion_calibration(truth: np.ndarray, logits: np.ndarray, emotions: Sequence[str]):
    figure = make_figure(3.8)
    lines, bars = _calibration_axes(figure)
    errors = {}
    for i, emotion in enumerate(emotions):
        known = ~np.isnan(truth[:, i])
        if known.any():
            probability = np.exp(-np.logaddexp(0, -logits[known, i].astype(float)))
            predicted, observed, counts, errors[emotion] = calibration_curve(probability, truth[known, i] > 0)
            enough = counts >= MIN_BIN_ROWS
            lines.plot(predicted[enough], observed[enough], "o-", color=_color(emotion, i), label=emotion, ms=4)
    lines.legend(frameon=False, fontsize=8, loc="upper left")
    colors = [_color(emotion, emotions.index(emotion)) for emotion in errors]
    drawn = bars.barh(list(errors), list(errors.values()), color=colors)
    bars.bar_label(drawn, fmt="%.3f", padding=3, fontsize=9)
    bars.invert_yaxis()
    bars.set(xlabel="ECE", xlim=(0, max(0.1, 1.2 * max(errors.values()))))
    return figure


def _draw_class_calibration(split: Split):
    logits = split.logits.astype(float)
    confidence = np.exp(logits.max(axis=-1) - np.logaddexp.reduce(logits, axis=-1))
    is_right = logits.argmax(axis=-1) == split.truth
    figure = make_figure(3.8)
    line, bars = _calibration_axes(figure)
    predicted, observed, counts, error = calibration_curve(confidence, is_right)
    enough = counts >= MIN_BIN_ROWS
    line.plot(predicted[enough], observed[enough], "o-", color=BLUE, ms=4)
    line.set_xlabel("confidence")
    line.set_ylabel("accuracy")
    line.set_title(f"ECE {error:.3f}", loc="left", fontsize=10)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    bars.hist([confidence[is_right], confidence[~is_right]], edges, stacked=True, color=[BLUE, LIGHT], rwidth=0.9)
    bars.set(xlabel="confidence", ylabel="segments")
    bars.legend(["right", "wrong"], frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    return figure


def _calibration_axes(figure):
    line, bars = figure.subplots(1, 2)
    line.plot([0, 1], [0, 1], color=LIGHT, linewidth=1, zorder=0)
    line.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="predicted probability", ylabel="observed frequency")
    return line, bars
