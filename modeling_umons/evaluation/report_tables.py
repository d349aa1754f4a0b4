"""Tables of results in Markdown, for reports and model cards."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.tables import markdown_table
from .groups import MIN_ROWS
from .metrics import is_label_metric
from .results import SplitResult


BASELINE_NAMES = {"constant": "constant", "tfidf": "TF-IDF"}
ABOUT_CONSTANT = (
    "The constant baseline predicts the same for all rows: for each metric, "
    "what scores best in it on the training rows."
)


def table_rows(result: SplitResult, metrics: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table of results, a row for each metric (default: all)."""
    columns = {"model": result["model"], "95 % interval": result["intervals"]}
    columns |= {BASELINE_NAMES[name]: values for name, values in result["baselines"].items()}
    if "model_tuned" in result:
        columns |= {"model, tuned": result["model_tuned"], "95 % interval, tuned": result["intervals_tuned"]}
        columns |= {
            f"{BASELINE_NAMES[name]}, tuned": values for name, values in result.get("baselines_tuned", {}).items()
        }
    columns = {title: values for title, values in columns.items() if values}
    rows = [
        [metric, *(cell(values.get(metric)) for values in columns.values())] for metric in metrics or result["model"]
    ]
    return ["metric", *columns], rows


def cell(value: float | Sequence[float] | None) -> str:
    """Format a score or an interval with three digits; `None` is empty."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else f"{value[0]:.3f} to {value[1]:.3f}"


def foldable_table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table; the metrics of single labels are in a collapsed section below it."""
    text = markdown_table(head, [row for row in rows if not is_label_metric(row[0])])
    if single := [row for row in rows if is_label_metric(row[0])]:
        table = markdown_table(head, single)
        text += f"\n\n<details><summary>Single labels</summary>\n\n{table}\n\n</details>"
    return text


def size_of(result: Mapping[str, Any]) -> str:
    """Return the number of rows and groups as text."""
    groups = result["groups"]
    return f"{result['rows']} rows" + ("" if groups is None else f" in {groups} groups")


def splits_markdown(splits: Mapping[str, SplitResult], level: str = "##") -> list[str]:
    """Return paragraphs with the tables of all splits and sources and the notes; `level` is the level of headings."""
    parts, notes = [], {}
    for name, result in splits.items():
        parts += [f"{level} {name} ({size_of(result)})", foldable_table(*table_rows(result))]
        if members := result.get("members"):
            metrics = [metric for metric in result["model"] if not is_label_metric(metric)]
            rows = [[metric, *(cell(scores.get(metric)) for scores in members.values())] for metric in metrics]
            parts += ["Single models:", markdown_table(["metric", *members], rows)]
        for source, part in result.get("sources", {}).items():
            parts += [f"{level}# {name}, {source} ({size_of(part)})", foldable_table(*table_rows(part))]
        for column, found in result.get("by_column", {}).items():
            parts += [f"{level}# {name}, by {column}", *groups_markdown(column, found)]
        if calibration := calibration_markdown(result.get("calibration")):
            parts += [f"{level}# {name}, calibration", *calibration]
        if "explanations" in result:
            parts += [f"{level}# {name}, explanations", *explanations_markdown(result["explanations"])]
        if "thresholds" in result:
            thresholds = ", ".join(f"{label} {value:.3f}" for label, value in result["thresholds"].items())
            parts.append(f"Thresholds of logits: {thresholds}.")
        for note in result["notes"]:
            notes.setdefault(note, []).append(name)
    if notes:
        lines = [
            f"- {note}" if len(names) == len(splits) else f"- {', '.join(names)}: {note}"
            for note, names in notes.items()
        ]
        if any("constant" in result["baselines"] for result in splits.values()):
            lines.append(f"- {ABOUT_CONSTANT}")
        parts += [f"{level} Notes", "\n".join(lines)]
    return parts


def groups_markdown(column: str, found: Mapping[str, Any]) -> list[str]:
    """Return paragraphs with the metrics of each group of a column, the worst first."""
    groups, parts = found["groups"], []
    if groups:
        metrics = list(dict.fromkeys(metric for group in groups.values() for metric in group["model"]))
        rows = [
            [name, str(group["rows"]), *(_with_interval(group, metric) for metric in metrics)]
            for name, group in groups.items()
        ]
        parts.append(markdown_table([column, "rows", *metrics], rows))
    if found["worst"]:
        worst = ", ".join(f"{name} ({metric})" for metric, name in found["worst"].items())
        parts.append(f"Worst: {worst}. The worst of several groups is partly chance: compare the intervals.")
    if found["left_out"]:
        parts.append(f"{found['left_out']} rows are in groups of fewer than {MIN_ROWS} rows, which are left out.")
    return parts


def _with_interval(group: Mapping[str, Any], metric: str) -> str:
    interval = group["intervals"].get(metric)
    return cell(group["model"].get(metric)) + (f" ({cell(interval)})" if interval else "")


def calibration_markdown(calibration: Mapping[str, Any] | None) -> list[str]:
    """Return paragraphs with calibration errors, the coverage of intervals and the risk-coverage curves, if any."""
    parts: list[str] = []
    if calibration is None:
        return parts
    if calibration["ece"]:
        errors = ", ".join(f"{label} {value:.3f}" for label, value in calibration["ece"].items())
        parts.append(f"Expected calibration error: {errors}.")
    if "coverage" in calibration:
        parts.append(
            f"The 90 % interval of the sentiment contains {100 * calibration['coverage']:.1f} % of the annotated "
            f"sentiments of {calibration['interval_rows']} rows; its mean width is "
            f"{calibration['interval_width']:.2f}."
        )
    curves = {name: values for name, values in calibration["risk_coverage"].items() if name != "shares"}
    if curves:
        rows = [
            [f"{100 * share:.0f} %", *(cell(values[i]) for values in curves.values())]
            for i, share in enumerate(calibration["risk_coverage"]["shares"])
        ]
        parts.append(markdown_table(["surest rows", *curves], rows))
    return parts


def explanations_markdown(found: Mapping[str, Any]) -> list[str]:
    """Return paragraphs with the effects of the top words, and the deletion and insertion curves."""
    top, curves = found["top_word"], {"deletion": found["deletion"], "insertion": found["insertion"]}
    score = "sentiment" if found["score"] == "sentiment" else "score of the label"
    rows = [
        [f"{100 * share:.0f} %", *(cell(values[i]) for orders in curves.values() for values in orders.values())]
        for i, share in enumerate(found["shares"])
    ]
    head = ["words", *(f"{kind}, {order}" for kind, orders in curves.items() for order in orders)]
    return [
        f"Removing the word with the largest contribution changes the {score} of {found['texts']} texts by "
        f"{top['explanation']:.3f} on average, the best single word by {top['best']:.3f}, a random one by "
        f"{top['random']:.3f}. The first two are the same word in {100 * found['agreement']:.0f} % of the texts.",
        markdown_table(head, rows),
    ]


def plain_text(value: Any) -> str:
    """Format an option; lists have no brackets."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
