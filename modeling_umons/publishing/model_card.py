"""The model card that stands beside a trained model, filled from the template model_card.md."""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..evaluation.report_tables import is_of_one_emotion, splits_markdown
from ..models.umons.configuration_umons import UmonsConfig


TAGS = ("emotion-recognition", "sentiment-analysis", "multimodal", "umons")
TASK_NAME = "Multimodal emotion recognition"
# The tasks of the Hub that the model is found under. It has none of several modalities; the first that fits is the model's.
HUB_TASKS = {"text": "text-classification", "audio": "audio-classification", "video": "video-classification"}

# What the Hub calls the metrics, by how ours end, the first that fits.
HUB_METRICS = {
    "mae": "mae", "corr": "pearsonr", "balanced_accuracy": "balanced_accuracy", "wa": "balanced_accuracy",
    "auroc": "roc_auc", "ap": "average_precision", "f1": "f1", "acc": "accuracy",
}  # fmt: skip

# Data sets by the names that the column `source` and folders have for them.
DATASETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI", "meld": "MELD", "ravdess": "RAVDESS"}

SYSTEMS = {
    "umons": "the UMONS co-attention transformer (TBJE)",
    "tfn": "the Tensor Fusion Network (TFN)",
    "mfn": "the Memory Fusion Network (MFN)",
    "graph_mfn": "the Dynamic Fusion Graph (Graph-MFN)",
    "multilogue_net": "Multilogue-Net",
}

# The papers of those that are not UMONS', whose own stands in the template.
PAPERS = {
    "tfn": """@inproceedings{zadeh-etal-2017-tensor,
    title = "Tensor Fusion Network for Multimodal Sentiment Analysis",
    author = "Zadeh, Amir and Chen, Minghai and Poria, Soujanya and Cambria, Erik and Morency, Louis-Philippe",
    booktitle = "Proceedings of the 2017 Conference on Empirical Methods in Natural Language Processing",
    year = "2017",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/D17-1115",
}""",
    "mfn": """@inproceedings{zadeh-etal-2018-memory,
    title = "Memory Fusion Network for Multi-view Sequential Learning",
    author = "Zadeh, Amir and Liang, Paul Pu and Mazumder, Navonil and Poria, Soujanya and Cambria, Erik and Morency, Louis-Philippe",
    booktitle = "Proceedings of the Thirty-Second AAAI Conference on Artificial Intelligence",
    year = "2018",
}""",
    "graph_mfn": """@inproceedings{zadeh-etal-2018-multimodal,
    title = "Multimodal Language Analysis in the Wild: {CMU}-{MOSEI} Dataset and Interpretable Dynamic Fusion Graph",
    author = "Zadeh, AmirAli Bagher and Liang, Paul Pu and Poria, Soujanya and Cambria, Erik and Morency, Louis-Philippe",
    booktitle = "Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics (Volume 1: Long Papers)",
    year = "2018",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/P18-1208",
}""",
    "multilogue_net": """@inproceedings{shenoy-sardana-2020-multilogue,
    title = "Multilogue-Net: A Context-Aware {RNN} for Multi-modal Emotion Detection and Sentiment Analysis in Conversation",
    author = "Shenoy, Aman and Sardana, Ashish",
    booktitle = "Second Grand-Challenge and Workshop on Multimodal Language (Challenge-HML)",
    year = "2020",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/2020.challengehml-1.3",
}""",
}


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
    test split got stands in the metadata too, where the Hub reads it: of each data set, where the rows are of several.

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
    is_on_hub, source = _is_repository(source), _name_of(source)
    name = output.resolve().name
    tasks = [task for modality, task in HUB_TASKS.items() if modality in config.modalities]
    data = ModelCardData(
        language="en",
        library_name="transformers",
        license=license,
        pipeline_tag=tasks[0],
        tags=[*TAGS, *tasks[1:]],
        datasets=[source] if is_on_hub else None,
        base_model=_base_model(recipe),
    )
    if "test" in results:
        data.model_name, data.eval_results = name, _eval_results(tasks[0], source, results["test"])
        data.metrics = sorted({result.metric_type for result in data.eval_results})
    card = ModelCard.from_template(
        data,
        template_path=str(template),
        model_name=name,
        modalities=" and ".join(config.modalities),
        system=SYSTEMS.get(config.model_type, config.model_type),
        example='{"text": "what a wonderful day"}' if "text" in config.modalities else '"clip.wav"',
        answer=f"{len(config.id2label)} label(s): {', '.join(config.id2label.values())}.",
        data=f"{source}: " + ", ".join(f"{count} {name} rows" for name, count in rows.items()) + ".",
        about_data=about_data,
        limits=limits,
        recipe="\n".join(f"- {name}: {_plain(value)}" for name, value in recipe.items()),
        results="\n\n".join(splits_markdown(results, "###")) or "Not evaluated.",
    )
    if paper := PAPERS.get(config.model_type):
        heading, above = "## Citation\n", card.text.partition("## Citation\n")[0]
        card.text = f"{above}{heading}\n```bibtex\n{paper}\n```\n"
    card.save(output / "README.md")


def renew_model_card(folder: str | Path, template: str | Path) -> None:
    """
    Writes the card of a trained model anew, when the template has changed: figures and recipe are those of its report,
    what people said of it and how many rows there were is what its card says now.

        renew_model_card("hub/umons-mini", "model_card.md")

    Raises OSError where the folder has no report or no card, ValueError where the card was not made by this.
    """
    folder = Path(folder)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    card = ModelCard.load(folder / "README.md")
    about_data, limits = _section(card.text, "Data"), _section(card.text, "Limits")
    source, _, rows = about_data[0].rpartition(": ")
    write_model_card(
        folder,
        Path(template),
        UmonsConfig.from_pretrained(folder),
        source,
        {name: int(count) for count, name in re.findall(r"(\d+) (\w+) rows", rows)},
        report["recipe"],
        report["splits"],
        license=card.data.license,
        about_data="\n\n".join(about_data[1:]),
        limits="\n\n".join(limits[1:]),  # the first one is the template's
    )


def _section(text: str, heading: str) -> list[str]:
    """The paragraphs below a heading."""
    match = re.search(rf"^## {heading}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"The card has no section {heading!r}: it was not made from the template.")
    return match[1].strip().split("\n\n")


def _eval_results(task: str, source: str, figures: Mapping[str, Any]) -> list[EvalResult]:
    """
    The figures of a split, of each data set in it, but those of single emotions. Tuned ones are not the model's own answers.
    A data set within a mixture says so in its name: its test rows need not be those that others mean.
    """
    is_mixed = "sources" in figures
    return [
        EvalResult(
            task_type=task,
            task_name=TASK_NAME,
            dataset_type=_slug(DATASETS.get(name, name)),
            dataset_name=f"{DATASETS.get(name, name)} (test rows of {source})"
            if is_mixed
            else DATASETS.get(name, name),
            dataset_config=source if is_mixed else None,
            dataset_split="test",
            metric_type=_hub_metric(metric),
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for name, part in figures.get("sources", {source: figures}).items()
        for metric, value in part["model"].items()
        if not is_of_one_emotion(metric)
    ]


def _slug(name: str) -> str:
    """A name as the Hub has names of data sets; that of a repository stays."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else re.sub(r"[^\w.]+", "-", name.lower()).strip("-")


def _hub_metric(metric: str) -> str:
    parts = metric.split("_")
    for ours, hub in HUB_METRICS.items():
        if ours in (metric, *parts) or (ours == "acc" and any(part.startswith("acc") for part in parts)):
            return hub
    return metric


def _is_repository(source: str) -> bool:
    """Whether it can only be a repository of the Hub: user/name, and no file here."""
    return bool(re.fullmatch(r"[\w-]+/[\w.-]+", source)) and not Path(source).suffix and not Path(source).exists()


def _name_of(source: str) -> str:
    """A repository's full name, but of a path its end alone."""
    is_repository = not Path(source).exists() and not PurePath(source).is_absolute()
    return source if is_repository else Path(source).resolve().name


def _base_model(recipe: Mapping[str, Any]) -> str | None:
    """The repository of the model that training went on from."""
    model = recipe.get("model_name_or_path")
    return model if model and _is_repository(str(model)) else None


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    # A path tells more of a machine than of a model.
    return PurePath(value).name if isinstance(value, (str, PurePath)) and PurePath(value).is_absolute() else str(value)
