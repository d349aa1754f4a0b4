"""Figures as tables in Markdown, for reports and model cards."""

from collections.abc import Mapping
from typing import Any

from ..models.umons.configuration_umons import EMOTIONS
from ..utils.tables import markdown_table


# What `report.measure` says of a split.
Figures = dict[str, Any]


def is_of_one_emotion(metric: str) -> bool:
    """Whether it is of one emotion, such as `anger_f1`, and not of all."""
    return metric.startswith(tuple(f"{emotion}_" for emotion in EMOTIONS))


def table_rows(figures: Figures, metrics: list[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of figures: a row for each of the metrics, all of them by default."""
    columns = [
        ("model", figures["model"]),
        ("95 % interval", figures["intervals"]),
        ("constant", figures["constant"]),
        ("TF-IDF", figures["rivals"].get("tfidf", {})),
    ]
    if "model_tuned" in figures:
        columns += [
            ("model, tuned", figures["model_tuned"]),
            ("95 % interval, tuned", figures["intervals_tuned"]),
            ("TF-IDF, tuned", figures["rivals"].get("tfidf_tuned", {})),
        ]
    columns = [column for column in columns if column[1]]
    rows = [[metric, *(cell(values.get(metric)) for _, values in columns)] for metric in metrics or figures["model"]]
    return ["metric", *(name for name, _ in columns)], rows


def cell(value: float | list[float] | None) -> str:
    """A figure, or an interval, in three digits; empty for none."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else f"{value[0]:.3f} to {value[1]:.3f}"


def figures_markdown(figures: Figures) -> str:
    """The table of all figures; those of single emotions fold away."""
    overall = [metric for metric in figures["model"] if not is_of_one_emotion(metric)]
    single = [metric for metric in figures["model"] if is_of_one_emotion(metric)]
    text = markdown_table(*table_rows(figures, overall))
    if single:
        table = markdown_table(*table_rows(figures, single))
        text += f"\n\n<details><summary>Each emotion</summary>\n\n{table}\n\n</details>"
    return text


def size_of(figures: Figures) -> str:
    """How many rows and videos there are."""
    groups = figures["groups"]
    return f"{figures['rows']} rows" + ("" if groups is None else f" in {groups} groups")


def splits_markdown(splits: Mapping[str, Figures], level: str = "##") -> list[str]:
    """Paragraphs: the tables of all splits and sources, and how they were made. `level` is that of the headings."""
    parts, notes = [], {}
    for name, figures in splits.items():
        parts += [f"{level} {name} ({size_of(figures)})", figures_markdown(figures)]
        if members := figures.get("members"):
            metrics = [metric for metric in figures["model"] if not is_of_one_emotion(metric)]
            rows = [[metric, *(cell(of.get(metric)) for of in members.values())] for metric in metrics]
            parts += ["Each model alone:", markdown_table(["metric", *members], rows)]
        for source, part in figures.get("sources", {}).items():
            parts += [f"{level}# {name}, {source} ({size_of(part)})", figures_markdown(part)]
        if "thresholds" in figures:
            thresholds = ", ".join(f"{label} {value:.3f}" for label, value in figures["thresholds"].items())
            parts.append(f"Thresholds of logits: {thresholds}.")
        for note in figures["notes"]:
            notes.setdefault(note, []).append(name)
    if notes:
        everywhere = len(splits)
        lines = [
            f"- {note}" if len(names) == everywhere else f"- {', '.join(names)}: {note}"
            for note, names in notes.items()
        ]
        constant = (
            "- The constant predictor always says the same: for each metric what does best in it on the training rows."
        )
        has_constant = any(figures["constant"] for figures in splits.values())
        parts += [f"{level} How the figures were made", "\n".join([*lines, *([constant] if has_constant else [])])]
    return parts


def plain_text(value: Any) -> str:
    """An option as it is read, and a list without brackets."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
