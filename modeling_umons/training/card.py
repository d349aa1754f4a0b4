"""The model card that stands beside a trained model, filled from the template model_card.md."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration_umons import UmonsConfig
from .report_tables import is_of_one_emotion, splits_markdown


TAGS = ("emotion", "sentiment", "multimodal", "umons")
TASK = "multimodal-emotion-recognition"

# What the Hub calls the metrics, by how ours end, the first that fits.
HUB_METRICS = {
    "mae": "mae", "corr": "pearsonr", "balanced_accuracy": "balanced_accuracy", "wa": "balanced_accuracy",
    "auroc": "roc_auc", "ap": "average_precision", "f1": "f1", "acc": "accuracy",
}  # fmt: skip


def write_model_card(
    output: Path,
    template: Path,
    config: UmonsConfig,
    source: str,
    rows: Mapping[str, int],
    recipe: Mapping[str, Any],
    results: Mapping[str, dict[str, Any]],
    license: str | None = None,
    about_data: str = "",
    limits: str = "",
):
    """
    Writes README.md into `output`: what the model is, what it was trained and tested on, and how well it does. What the
    whole test split got stands in the metadata too, where the Hub reads it.

    Args:
        output: the folder of the model, whose name the model gets.
        template: the text with places to fill.
        config: the model's.
        source: the table or data set that it was trained on; of a file or folder, the name is told and not the place.
        rows: how many of each split there were.
        recipe: the options of the run.
        results: what `report.measure` gave.
        license: as the Hub names it; left out where nobody has said.
        about_data, limits: paragraphs in Markdown, on the data and on what the model is not for.
    """
    output = Path(output)
    source = _name_of(source)
    data = ModelCardData(
        language="en",
        library_name="transformers",
        license=license,
        tags=list(TAGS),
    )
    name = output.resolve().name
    if "test" in results:
        data.model_name, data.eval_results = name, _eval_results(source, results["test"])
    card = ModelCard.from_template(
        data,
        template_path=str(template),
        model_name=name,
        modalities=" and ".join(config.modalities),
        example='{"text": "what a wonderful day"}' if "text" in config.modalities else '"clip.wav"',
        answer=f"{len(config.id2label)} label(s): {', '.join(config.id2label.values())}.",
        data=f"{source}: " + ", ".join(f"{count} {name} rows" for name, count in rows.items()) + ".",
        about_data=about_data,
        limits=limits,
        recipe="\n".join(f"- {name}: {_plain(value)}" for name, value in recipe.items()),
        results="\n\n".join(splits_markdown(results, "###")) or "Not evaluated.",
    )
    card.save(output / "README.md")


def _eval_results(source: str, figures: Mapping[str, Any]) -> list[EvalResult]:
    """The test split's figures, but those of single emotions. Tuned ones are not the model's own answers."""
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=source,
            dataset_name=source,
            dataset_split="test",
            metric_type=_hub_metric(metric),
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for metric, value in figures["model"].items()
        if not is_of_one_emotion(metric)
    ]


def _hub_metric(metric: str) -> str:
    parts = metric.split("_")
    for ours, hub in HUB_METRICS.items():
        if ours in (metric, *parts) or (ours == "acc" and any(part.startswith("acc") for part in parts)):
            return hub
    return metric


def _name_of(source: str) -> str:
    """A repository's full name, but of a path its end alone."""
    is_repository = not Path(source).exists() and not PurePath(source).is_absolute()
    return source if is_repository else Path(source).resolve().name


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    # A path tells more of a machine than of a model.
    return PurePath(value).name if isinstance(value, (str, PurePath)) and PurePath(value).is_absolute() else str(value)
