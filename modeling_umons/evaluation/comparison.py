"""Comparison of several systems trained and evaluated on the same rows."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .metrics import headline_metrics, is_label_metric
from .report import to_json
from .report_plots import plot_comparison
from .report_tables import BASELINE_NAMES, cell, foldable_table, plain_text, size_of
from .results import SplitResult
from .seeds import mean_and_std, with_std


# Scores on the test split of CMU-MOSEI as published, with other inputs (GloVe, COVAREP and FACET, or BERT) and other
# rows: not comparable with scores on other data. Those of MMSA are from results/result-stat.md of its repository.
PUBLISHED = (
    ("UMONS, text and audio (Delbrouck 2020)", {"acc7": 0.4390, "acc2_has0": 0.8153, "emotion_acc": 0.8129}),
    ("UMONS, ensemble (Delbrouck 2020)", {"acc7": 0.4536, "acc2_has0": 0.8226, "emotion_acc": 0.8148}),
    (
        "Graph-MFN (Zadeh 2018)",
        {"mae": 0.71, "happy_wa": 0.663, "sad_wa": 0.604, "anger_wa": 0.626, "surprise_wa": 0.537, "disgust_wa": 0.691,
         "fear_wa": 0.620, "happy_f1": 0.663, "sad_f1": 0.669, "anger_f1": 0.728, "surprise_f1": 0.855,
         "disgust_f1": 0.766, "fear_f1": 0.899},
    ),
    (
        "TFN with BERT (MMSA)",
        {"acc2_has0": 0.7850, "acc2_non0": 0.8189, "acc7_rounded": 0.5160, "mae": 0.573, "corr": 0.714},
    ),
    (
        "MFN with BERT (MMSA)",
        {"acc2_has0": 0.7894, "acc2_non0": 0.8286, "acc7_rounded": 0.5134, "mae": 0.573, "corr": 0.718},
    ),
    (
        "Graph-MFN with BERT (MMSA)",
        {"acc2_has0": 0.8128, "acc2_non0": 0.8348, "acc7_rounded": 0.5137, "mae": 0.575, "corr": 0.713},
    ),
    (
        "MulT with BERT (MMSA)",
        {"acc2_has0": 0.8115, "acc2_non0": 0.8463, "acc7_rounded": 0.5284, "mae": 0.559, "corr": 0.733},
    ),
    (
        "MISA with BERT (MMSA)",
        {"acc2_has0": 0.8067, "acc2_non0": 0.8467, "acc7_rounded": 0.5205, "mae": 0.558, "corr": 0.752},
    ),
    (
        "Self-MM with BERT (MMSA)",
        {"acc2_has0": 0.8194, "acc2_non0": 0.8488, "acc7_rounded": 0.5440, "mae": 0.535, "corr": 0.759},
    ),
)  # fmt: skip
ABOUT_PUBLISHED = (
    "Scores on the test split of CMU-MOSEI (4,662 segments), with other features and more training data. They are "
    "comparable with the scores above only if these are of the same rows. Those of MMSA are its own runs, from text, "
    "audio and video (github.com/thuiar/MMSA, results/result-stat.md). Multilogue-Net (Shenoy 2020) reports a "
    "binary accuracy of 0.821 and Graph-MFN of 0.769; neither states how neutral segments were treated."
)


def epoch_seconds(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the median duration of a training epoch from the `log_history` of a Trainer."""
    seconds = [entry["epoch_seconds"] for entry in history if "epoch_seconds" in entry]
    return statistics.median(seconds) if seconds else None


def write_comparison(
    folder: str | Path, reports: Mapping[str, Sequence[Mapping[str, Any]]], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Write comparison.json, comparison.md and comparison.png into `folder`; returns the content of comparison.json.

    Args:
        folder: the folder.
        reports: for each system, the return value of `report.write_report` for each seed.
        recipe: options of the run.

    Raises:
        ValueError: the reports of a seed differ in their task or rows.
    """
    folder = Path(folder)
    first = next(iter(reports.values()))[0]
    shown = _shown_split(first)
    _check_same_rows(reports, shown)
    results = {name: [report["splits"][shown] for report in of_seeds] for name, of_seeds in reports.items()}
    of_first = next(iter(results.values()))
    systems = {
        name: {
            **_size_and_time(reports[name]),
            "metrics": _metrics(of_seeds),
            "sources": {
                source: _metrics([result["sources"][source] for result in of_seeds])
                for source in _common_sources(of_seeds)
            },
        }
        for name, of_seeds in results.items()
    }
    metrics = next(iter(systems.values()))["metrics"]
    published = {name: {m: value for m, value in scores.items() if m in metrics} for name, scores in PUBLISHED}
    comparison = {
        "task": first["task"],
        "split": shown,
        "rows": of_first[0]["rows"],
        "groups": of_first[0]["groups"],
        "seeds": len(of_first),
        # False if rows are held out at random: each seed then has its own.
        "seeds_share_rows": all(_row_fingerprint(result) == _row_fingerprint(of_first[0]) for result in of_first),
        "systems": systems,
        "baselines": _baselines(of_first),
        "baselines_by_source": {
            source: _baselines([result["sources"][source] for result in of_first])
            for source in _common_sources(of_first)
        },
        "recipe": dict(recipe),
        "published_on_other_data": {name: scores for name, scores in published.items() if scores},
    }
    plot_comparison(folder / "comparison.png", comparison, _headlines(comparison)[:6])
    write_atomically(folder / "comparison.md", _markdown(comparison))
    write_atomically(folder / "comparison.json", to_json(comparison))
    return comparison


def _shown_split(report: Mapping[str, Any]) -> str:
    return "test" if "test" in report["splits"] else next(reversed(report["splits"]))


def _row_fingerprint(result: SplitResult) -> str:
    """Return a string that is equal for equal rows: their number and the scores of the constant baseline."""
    return to_json([result["rows"], result["groups"], result["baselines"].get("constant")])


def _check_same_rows(reports: Mapping[str, Sequence[Mapping[str, Any]]], shown: str) -> None:
    first = next(iter(reports))
    for name, of_seeds in reports.items():
        for number, pair in enumerate(zip(reports[first], of_seeds, strict=True), start=1):
            fingerprints = [
                (report["task"], _row_fingerprint(report["splits"][shown]) if shown in report["splits"] else None)
                for report in pair
            ]
            if fingerprints[0] != fingerprints[1]:
                raise ValueError(
                    f"Model number {number} of {first} and of {name} were evaluated on different rows of the split "
                    f"{shown} and cannot be compared. Remove the folder of the older one and train it again."
                )


def _size_and_time(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    about = [report["about"] for report in reports]
    seconds = [facts["seconds_per_epoch"] for facts in about if facts["seconds_per_epoch"] is not None]
    return {
        "parameters": about[0]["parameters"],
        "seconds_per_epoch": statistics.median(seconds) if seconds else None,
    }


def _metrics(results: Sequence[SplitResult]) -> dict[str, Any]:
    """Summarise each metric that all seeds have: mean, standard deviation, values and mean interval."""
    metrics = {}
    for name in results[0]["model"]:
        if all(name in result["model"] for result in results):
            intervals = [result["intervals"][name] for result in results if name in result["intervals"]]
            metrics[name] = mean_and_std([result["model"][name] for result in results])
            metrics[name]["interval"] = np.mean(intervals, axis=0).tolist() if intervals else None
    return metrics


def _common_sources(results: Sequence[SplitResult]) -> list[str]:
    """Return the sources that all seeds have rows of."""
    sources = [result.get("sources", {}) for result in results]
    return [source for source in sources[0] if all(source in of_seed for of_seed in sources)]


def _baselines(results: Sequence[SplitResult]) -> dict[str, dict[str, float]]:
    """Average each baseline over seeds; they differ only if seeds hold out different rows."""
    baselines = {}
    for name in results[0]["baselines"]:
        scores = [result["baselines"].get(name, {}) for result in results]
        common = [metric for metric in scores[0] if all(metric in one for one in scores)]
        baselines[name] = {metric: float(np.mean([one[metric] for one in scores])) for metric in common}
    return {name: scores for name, scores in baselines.items() if scores}


def _headlines(comparison: Mapping[str, Any]) -> list[str]:
    metrics = next(iter(comparison["systems"].values()))["metrics"]
    return [metric for metric in headline_metrics(comparison["task"]) if metric in metrics]


def headline(report: Mapping[str, Any]) -> str:
    """Format the main metrics of a report (the return value of `report.write_report`) on one line."""
    shown = _shown_split(report)
    metrics = report["splits"][shown]["model"]
    chosen = [metric for metric in headline_metrics(report["task"]) if metric in metrics]
    return "  ".join([shown, *(f"{metric} {cell(metrics[metric])}" for metric in chosen)])


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Print the main metrics of all systems: mean and standard deviation over seeds."""
    headlines = _headlines(comparison)
    rows = [
        [name, *(with_std(system["metrics"].get(metric)) for metric in headlines)]
        for name, system in comparison["systems"].items()
    ]
    rows += [
        [BASELINE_NAMES[name], *(cell(scores.get(metric)) for metric in headlines)]
        for name, scores in comparison["baselines"].items()
    ]
    print_table([f"{comparison['split']} ({size_of(comparison)})", *headlines], rows)


def _markdown(comparison: Mapping[str, Any]) -> str:
    systems, headlines, seeds = comparison["systems"], _headlines(comparison), comparison["seeds"]
    own_rows = "" if comparison["seeds_share_rows"] else ", which each seed holds out at random"
    scores = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "those of one seed"
    averaged = ", averaged over seeds" if seeds > 1 else ""
    parts = [
        f"# Comparison: {comparison['task']}",
        "All systems were trained on the same rows with the recipe below and evaluated on the same "
        f"{size_of(comparison)} of the split {comparison['split']}{own_rows}. Scores are {scores}; 95 % bootstrap "
        f"intervals over test rows are below them{averaged}.",
        _table(headlines, {name: system["metrics"] for name, system in systems.items()}, comparison["baselines"]),
        "![Systems with intervals](comparison.png)",
        "## Size and time",
        markdown_table(["system", "parameters", "seconds per epoch"], [_size_row(*item) for item in systems.items()]),
    ]
    for source, baselines in comparison["baselines_by_source"].items():
        of_source = {name: system["sources"][source] for name, system in systems.items()}
        metrics = [metric for metric in headlines if metric in next(iter(of_source.values()))]
        parts += [f"## {source}", _table(metrics, of_source, baselines)]
    all_metrics = next(iter(systems.values()))["metrics"]
    single = [metric for metric in all_metrics if is_label_metric(metric) and metric.endswith(("_f1", "_wa"))]
    if single:
        of_all = {name: system["metrics"] for name, system in systems.items()}
        table = _table(single, of_all, comparison["baselines"])
        parts.append(f"<details><summary>Single labels</summary>\n\n{table}\n\n</details>")
    if published := comparison["published_on_other_data"]:
        parts += ["## Published, on other data", ABOUT_PUBLISHED, published_markdown(published)]
    parts += ["## Recipe", "\n".join(f"- {name}: {plain_text(value)}" for name, value in comparison["recipe"].items())]
    return "\n\n".join(parts) + "\n"


def published_markdown(published: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Return the table of published scores, by default all of them."""
    published = dict(PUBLISHED) if published is None else published
    names = list(dict.fromkeys(metric for scores in published.values() for metric in scores))
    rows = [[metric, *(cell(scores.get(metric)) for scores in published.values())] for metric in names]
    return foldable_table(["metric", *published], rows)


def _size_row(name: str, system: Mapping[str, Any]) -> list[str]:
    seconds = system["seconds_per_epoch"]
    return [name, f"{system['parameters']:,}", "" if seconds is None else f"{seconds:.1f}"]


def _table(
    metrics: list[str], systems: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, float]]
) -> str:
    """Format a row for each system and baseline, a column for each metric."""

    def score(spread: Mapping[str, Any] | None) -> str:
        interval = spread["interval"] if spread else None
        return with_std(spread) + (f"<br>{cell(interval)}" if interval else "")

    rows = [[name, *(score(scores.get(metric)) for metric in metrics)] for name, scores in systems.items()]
    rows += [
        [BASELINE_NAMES[name], *(cell(scores.get(metric)) for metric in metrics)] for name, scores in baselines.items()
    ]
    return markdown_table(["system", *metrics], rows)
