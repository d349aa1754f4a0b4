"""Several systems on the same rows with the same budget, in one table, beside what their papers say of other data."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .report import to_json
from .report_tables import cell, is_of_one_emotion, plain_text, size_of


# Test figures on all of CMU-MOSEI, as published. Their inputs are others (GloVe, COVAREP and FACET, or BERT), and so are
# their rows: none of them may be compared with a figure on other data.
PUBLISHED = (
    ("UMONS, text and audio (Delbrouck 2020)", {"acc7": 0.4390, "acc2_has0": 0.8153, "emotion_acc": 0.8129}),
    ("UMONS, ensemble (Delbrouck 2020)", {"acc7": 0.4536, "acc2_has0": 0.8226, "emotion_acc": 0.8148}),
    (
        "Graph-MFN (Zadeh 2018)",
        {"mae": 0.71, "happy_wa": 0.663, "sad_wa": 0.604, "anger_wa": 0.626, "surprise_wa": 0.537, "disgust_wa": 0.691,
         "fear_wa": 0.620, "happy_f1": 0.663, "sad_f1": 0.669, "anger_f1": 0.728, "surprise_f1": 0.855,
         "disgust_f1": 0.766, "fear_f1": 0.899},
    ),
    ("TFN with BERT (MMSA)", {"acc2_has0": 0.7850, "acc2_non0": 0.8189, "acc7_rounded": 0.5160, "mae": 0.573, "corr": 0.714}),
    ("MFN with BERT (MMSA)", {"acc2_has0": 0.7894, "acc2_non0": 0.8286, "acc7_rounded": 0.5134, "mae": 0.573, "corr": 0.718}),
    (
        "Graph-MFN with BERT (MMSA)",
        {"acc2_has0": 0.8128, "acc2_non0": 0.8348, "acc7_rounded": 0.5137, "mae": 0.575, "corr": 0.713},
    ),
)  # fmt: skip
ABOUT_PUBLISHED = (
    "On the test split of CMU-MOSEI (4,662 segments), with other features and more training data than above: not to be "
    "compared with the figures above unless these are of the same rows. Multilogue-Net (Shenoy 2020) reports an accuracy of "
    "two classes of 0.821, and Graph-MFN one of 0.769, without saying what became of neutral segments."
)


def epoch_seconds(history: Sequence[Mapping[str, Any]]) -> float | None:
    """The median time of an epoch of training, from the `log_history` of a Trainer."""
    seconds = [entry["epoch_seconds"] for entry in history if "epoch_seconds" in entry]
    return statistics.median(seconds) if seconds else None


def write_comparison(
    folder: str | Path, reports: Mapping[str, Sequence[Mapping[str, Any]]], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Writes comparison.json, comparison.md and comparison.png into `folder`, and returns what comparison.json holds.

    Args:
        reports: of each system, what `report.write_report` returned for each of its seeds.
        recipe: the options of the run.

    Raises:
        ValueError: the reports of a seed are not all of the same task and rows.
    """
    folder = Path(folder)
    first = next(iter(reports.values()))[0]
    shown = _shown_split(first)
    _check_same_rows(reports, shown)
    figures = {name: [report["splits"][shown] for report in of_seeds] for name, of_seeds in reports.items()}
    one = figures[next(iter(figures))]
    comparison = {
        "task": first["task"],
        "split": shown,
        "rows": one[0]["rows"],
        "groups": one[0]["groups"],
        "seeds": len(one),
        # A split that a table has is the same for all seeds; one that is held out is each seed's own.
        "seeds share rows": all(_trace_of_rows(of_seed) == _trace_of_rows(one[0]) for of_seed in one),
        "systems": {
            name: {**_about(reports[name]), "metrics": _metrics(of_seeds), "sources": _sources(of_seeds)}
            for name, of_seeds in figures.items()
        },
        "rivals": _rivals(one),
        "rivals of sources": {
            source: _rivals([of_seed["sources"][source] for of_seed in one]) for source in _common_sources(one)
        },
        "recipe": dict(recipe),
    }
    metrics = set(next(iter(comparison["systems"].values()))["metrics"])
    published = {name: {metric: v for metric, v in of.items() if metric in metrics} for name, of in PUBLISHED}
    comparison["published on other data"] = {name: of for name, of in published.items() if of}
    _plot(folder / "comparison.png", comparison)
    write_atomically(folder / "comparison.md", _markdown(comparison))
    write_atomically(folder / "comparison.json", to_json(comparison))
    return comparison


def _shown_split(report: Mapping[str, Any]) -> str:
    return "test" if "test" in report["splits"] else next(reversed(report["splits"]))


def _trace_of_rows(figures: Mapping[str, Any]) -> str:
    """What is the same for the same rows, and hardly for others: how many they are, and what constants get on them."""
    return to_json([figures["rows"], figures["groups"], figures["constant"]])


def _check_same_rows(reports: Mapping[str, Sequence[Mapping[str, Any]]], shown: str) -> None:
    first = next(iter(reports))
    for name, of_seeds in reports.items():
        for place, (one, other) in enumerate(zip(reports[first], of_seeds, strict=True), start=1):
            traces = [
                (r["task"], _trace_of_rows(r["splits"][shown]) if shown in r["splits"] else None) for r in (one, other)
            ]
            if traces[0] != traces[1]:
                raise ValueError(
                    f"The models number {place} of {first} and {name} were not measured on the same rows of {shown}, so that "
                    "nothing compares them: remove the folder of the one that is older, and train it anew."
                )


def _about(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    about = [report["about"] for report in reports]
    seconds = [of["seconds per epoch"] for of in about if of["seconds per epoch"] is not None]
    return {
        "parameters": about[0]["parameters"],
        "seconds per epoch": statistics.median(seconds) if seconds else None,
    }


def _metrics(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each metric that all seeds have: mean, standard deviation and values over seeds, and the mean interval."""
    metrics = {}
    for name in figures[0]["model"]:
        if not all(name in one["model"] for one in figures):
            continue
        values = [one["model"][name] for one in figures]
        intervals = [one["intervals"][name] for one in figures if name in one["intervals"]]
        metrics[name] = {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "interval": np.mean(intervals, axis=0).tolist() if intervals else None,
            "values": values,
        }
    return metrics


def _sources(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {source: _metrics([one["sources"][source] for one in figures]) for source in _common_sources(figures)}


def _common_sources(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sources of which all seeds have rows."""
    named = [one.get("sources", {}) for one in figures]
    return [source for source in named[0] if all(source in sources for sources in named)]


def _rivals(figures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The constant predictor and TF-IDF, of which each seed's report has the same unless it held out other rows."""
    named = {
        "constant": [one["constant"] for one in figures],
        "TF-IDF": [one["rivals"].get("tfidf", {}) for one in figures],
    }
    rivals = {
        name: {metric: float(np.mean([of[metric] for of in all_of])) for metric in all_of[0] if all(metric in of for of in all_of)}
        for name, all_of in named.items()
    }  # fmt: skip
    return {name: values for name, values in rivals.items() if values}


# --- to read


def _headlines(task: str, metrics: Mapping[str, Any]) -> list[str]:
    from .report_plots import CLASS_HEADLINES, HEADLINES

    return [metric for metric in HEADLINES.get(task, CLASS_HEADLINES) if metric in metrics]


def _headlines_of(comparison: Mapping[str, Any]) -> list[str]:
    return _headlines(comparison["task"], next(iter(comparison["systems"].values()))["metrics"])


def headline(report: Mapping[str, Any]) -> str:
    """The chief figures of a report (what `report.write_report` returned) in a line."""
    shown = _shown_split(report)
    metrics = report["splits"][shown]["model"]
    chief = [f"{metric} {cell(metrics[metric])}" for metric in _headlines(report["task"], metrics)]
    return "  ".join([shown, *chief])


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """The chief figures of all systems on the screen: means over seeds, with their standard deviation."""
    headlines, systems = _headlines_of(comparison), comparison["systems"]
    rows = [[name, *(_with_spread(of["metrics"].get(m)) for m in headlines)] for name, of in systems.items()]
    rows += [[name, *(cell(of.get(m)) for m in headlines)] for name, of in comparison["rivals"].items()]
    print_table([f"{comparison['split']} ({size_of(comparison)})", *headlines], rows)


def _with_spread(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return ""
    return f"{of['mean']:.3f}" if of["std"] is None else f"{of['mean']:.3f} ± {of['std']:.3f}"


def _markdown(comparison: Mapping[str, Any]) -> str:
    systems, headlines = comparison["systems"], _headlines_of(comparison)
    seeds = comparison["seeds"]
    over = f"the mean over {seeds} seeds ± their standard deviation" if seeds > 1 else "of one seed"
    parts = [
        f"# Comparison: {comparison['task']}",
        f"All systems were trained on the same rows, for as long as the recipe below says, and measured on the same {size_of(comparison)} of "
        f"the split {comparison['split']}{'' if comparison['seeds share rows'] else ', each seed on such rows of its own'}. "
        f"Figures are {over}; below them the 95 % bootstrap interval over test rows"
        f"{', averaged over seeds' if seeds > 1 else ''}.",
        _table(headlines, {name: system["metrics"] for name, system in systems.items()}, comparison["rivals"]),
        "![Every system with its interval](comparison.png)",
        "## Size and time",
        markdown_table(
            ["system", "parameters", "seconds per epoch"],
            [
                [name, f"{system['parameters']:,}", "" if system["seconds per epoch"] is None else f"{system['seconds per epoch']:.1f}"]
                for name, system in systems.items()
            ],
        ),
    ]  # fmt: skip
    for source, rivals in comparison["rivals of sources"].items():
        of_source = {name: system["sources"][source] for name, system in systems.items()}
        metrics = [metric for metric in headlines if metric in next(iter(of_source.values()))]
        parts += [f"## {source}", _table(metrics, of_source, rivals)]
    all_metrics = next(iter(systems.values()))["metrics"]
    single = [metric for metric in all_metrics if is_of_one_emotion(metric) and metric.endswith(("_f1", "_wa"))]
    if single:
        table = _table(single, {name: system["metrics"] for name, system in systems.items()}, comparison["rivals"])
        parts.append(f"<details><summary>Each emotion</summary>\n\n{table}\n\n</details>")
    if published := comparison["published on other data"]:
        names = list(dict.fromkeys(metric for of in published.values() for metric in of))
        rows = [[system, *(cell(of.get(metric)) for metric in names)] for system, of in published.items()]
        parts += ["## Published, on other data", ABOUT_PUBLISHED, markdown_table(["system", *names], rows)]
    parts += ["## Recipe", "\n".join(f"- {name}: {plain_text(value)}" for name, value in comparison["recipe"].items())]
    return "\n\n".join(parts) + "\n"


def _table(
    metrics: list[str], systems: Mapping[str, Mapping[str, Any]], rivals: Mapping[str, Mapping[str, float]]
) -> str:
    """A row for each system and rival, a column for each metric."""

    def figure(of: Mapping[str, Any] | None) -> str:
        interval = of["interval"] if of else None
        return _with_spread(of) + (f"<br>{interval[0]:.3f} to {interval[1]:.3f}" if interval else "")

    rows = [[name, *(figure(of.get(metric)) for metric in metrics)] for name, of in systems.items()]
    rows += [[name, *(cell(of.get(metric)) for metric in metrics)] for name, of in rivals.items()]
    return markdown_table(["system", *metrics], rows)


def _plot(path: Path, comparison: Mapping[str, Any]):
    """An axis for each headline figure: seeds as dots, their mean and interval as a bar, rivals as lines."""
    from .report_plots import BLUE, LIGHT, NEUTRAL, ORANGE, _figure, _save

    systems, metrics = comparison["systems"], _headlines_of(comparison)[:6]
    names = list(systems)
    rows = -(-len(metrics) // 2)
    figure = _figure((0.9 + 0.22 * len(names)) * rows + 0.6)
    axes = list(figure.subplots(rows, 2, squeeze=False, sharey=True).flat)
    for axis, metric in zip(axes, metrics, strict=False):
        for place, name in enumerate(names):
            of = systems[name]["metrics"].get(metric)
            if of is None:
                continue
            if of["interval"] is not None:
                axis.plot(of["interval"], [place, place], color=BLUE, linewidth=2, alpha=0.5)
            axis.plot(of["values"], [place] * len(of["values"]), "o", color=NEUTRAL, markersize=3)
            axis.plot(of["mean"], place, "D", color=BLUE, markersize=5)
        for name, color, style in (("TF-IDF", ORANGE, "--"), ("constant", LIGHT, ":")):
            if metric in comparison["rivals"].get(name, {}):
                axis.axvline(
                    comparison["rivals"][name][metric], color=color, linestyle=style, linewidth=1.5, label=name
                )
        axis.set_title(metric + (" (less is better)" if metric == "mae" else ""), loc="left", fontsize=10)
        axis.set_yticks(range(len(names)), names, parse_math=False)
        axis.set_ylim(len(names) - 0.4, -0.6)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    _save(figure, path)
