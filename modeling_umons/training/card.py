"""The model card that stands beside a trained model, filled from the template model_card.md."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..configuration_umons import UmonsConfig


RECIPE = ("learning_rate", "lr_scheduler_type", "per_device_train_batch_size", "num_train_epochs", "seed")


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each measure, in it for each split the model's figure and the constant predictor's."""
    splits = list(results)
    if not splits:
        return "Not evaluated."
    head = [f"{name} ({results[name]['rows']} rows) | constant" for name in splits]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (1 + 2 * len(splits)) + "|"]
    for metric in results[splits[0]]["model"]:
        cells = [results[name][who].get(metric) for name in splits for who in ("model", "constant")]
        lines.append(f"| {metric} | " + " | ".join("" if cell is None else f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def write_model_card(
    output: Path,
    template: Path,
    config: UmonsConfig,
    source: str,
    rows: dict[str, int],
    run,
    results: dict[str, dict[str, Any]],
):
    """Writes README.md into `output`: what the model is, what it was trained and tested on, and how well it does."""
    card = ModelCard.from_template(
        ModelCardData(
            language="en", library_name="transformers", tags=["emotion", "sentiment", "multimodal", "umons"]
        ),
        template_path=str(template),
        model_name=output.name,
        modalities=" and ".join(config.modalities),
        example='{"text": "what a wonderful day"}' if "text" in config.modalities else '"clip.wav"',
        answer=f"{len(config.id2label)} label(s): {', '.join(config.id2label.values())}.",
        data=f"{source}: " + ", ".join(f"{count} {name} rows" for name, count in rows.items()) + ".",
        recipe="\n".join(f"- {name}: {_plain(getattr(run, name))}" for name in RECIPE),
        results=results_table(results),
    )
    card.save(output / "README.md")


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
