"""Model card of a trained model, filled from the template `model_card.md`."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import cached_file

from ..evaluation.report_tables import calibration_markdown, explanations_markdown, groups_markdown, table_rows
from ..models.umons.configuration_umons import UmonsConfig
from ..utils.hub_files import find_model
from ..utils.tables import markdown_table


TAGS = ("emotion-recognition", "sentiment-analysis", "multimodal", "umons")
TASK = "multimodal-emotion-recognition"
# Tasks of the Hub by modality, for its search.
HUB_TASKS = {"text": "text-classification", "audio": "audio-classification", "video": "video-classification"}
REQUIREMENTS = {"audio": "`av` for audio", "video": "`av` and `torchvision` for video"}

# Metrics in the card's table and metadata, with their names on the Hub; the report has all metrics.
CARD_METRICS = {
    "mae": "mae", "corr": "pearsonr", "acc2_non0": "accuracy", "emotion_wa": "balanced_accuracy",
    "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "ccc": "ccc", "f1_macro": "f1", "f1_micro": "f1",
    "auroc_macro": "roc_auc",
}  # fmt: skip

# Data sets by their names in the column `source` and in folders.
DATASETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI", "meld": "MELD", "ravdess": "RAVDESS"}
DATA_LICENCES = {
    "mosi": "CMU-MOSI: for research",
    "mosei": "CMU-MOSEI: for research",
    "meld": "MELD: GPL-3.0",
    "ravdess": "RAVDESS: CC BY-NC-SA 4.0",
    "goemotions": "GoEmotions: Apache-2.0",
    "emodb": "EMO-DB: free for research",
}
LINE_LENGTH = 119

SYSTEMS = {
    "umons": "the UMONS co-attention transformer (TBJE)",
    "tfn": "the Tensor Fusion Network (TFN)",
    "mfn": "the Memory Fusion Network (MFN)",
    "graph_mfn": "the Dynamic Fusion Graph (Graph-MFN)",
    "multilogue_net": "Multilogue-Net",
    "mult": "the Multimodal Transformer (MulT)",
}

# Papers in BibTeX, by model type.
PAPERS = {
    "umons": """@inproceedings{delbrouck-etal-2020-transformer,
    title = "A Transformer-based joint-encoding for Emotion Recognition and Sentiment Analysis",
    author = "Delbrouck, Jean-Benoit and Tits, No{\\'e} and Brousmiche, Mathilde and Dupont, St{\\'e}phane",
    booktitle = "Second Grand-Challenge and Workshop on Multimodal Language (Challenge-HML)",
    year = "2020",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/2020.challengehml-1.1",
}""",
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
    author = "Zadeh, Amir and Liang, Paul Pu and Mazumder, Navonil and Poria, Soujanya and Cambria, Erik and
              Morency, Louis-Philippe",
    booktitle = "Proceedings of the Thirty-Second AAAI Conference on Artificial Intelligence",
    year = "2018",
}""",
    "graph_mfn": """@inproceedings{zadeh-etal-2018-multimodal,
    title = "Multimodal Language Analysis in the Wild: {CMU}-{MOSEI} Dataset and Interpretable Dynamic Fusion Graph",
    author = "Zadeh, AmirAli Bagher and Liang, Paul Pu and Poria, Soujanya and Cambria, Erik and
              Morency, Louis-Philippe",
    booktitle = "Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics
                 (Volume 1: Long Papers)",
    year = "2018",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/P18-1208",
}""",
    "multilogue_net": """@inproceedings{shenoy-sardana-2020-multilogue,
    title = "Multilogue-Net: A Context-Aware {RNN} for Multi-modal Emotion Detection and Sentiment Analysis in
             Conversation",
    author = "Shenoy, Aman and Sardana, Ashish",
    booktitle = "Second Grand-Challenge and Workshop on Multimodal Language (Challenge-HML)",
    year = "2020",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/2020.challengehml-1.3",
}""",
    "mult": """@inproceedings{tsai-etal-2019-multimodal,
    title = "Multimodal Transformer for Unaligned Multimodal Language Sequences",
    author = "Tsai, Yao-Hung Hubert and Bai, Shaojie and Liang, Paul Pu and Kolter, J. Zico and
              Morency, Louis-Philippe and Salakhutdinov, Ruslan",
    booktitle = "Proceedings of the 57th Annual Meeting of the Association for Computational Linguistics",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/P19-1656",
}""",
}


def read_template() -> str:
    """Return the text of `model_card.md`."""
    return files(__package__).joinpath("model_card.md").read_text(encoding="utf-8")


def write_model_card(
    output: str | Path,
    config: UmonsConfig,
    source: str,
    rows: Mapping[str, int],
    recipe: Mapping[str, Any],
    results: Mapping[str, dict[str, Any]],
    license: str | None = None,
    about_data: str = "",
    limits: str = "",
) -> None:
    """
    Write the README.md of a trained model, with the test results in its metadata, by data set if there are several.

    Args:
        output: folder of the model; its name is the model's.
        config: configuration of the model.
        source: table or data set of the training; of a path, only the name is published.
        rows: number of rows of each split.
        recipe: options of the run.
        results: from `measure`.
        license: name of the licence on the Hub; by default that in the card of the base model, if there is one.
        about_data, limits: paragraphs in Markdown about the data, and about uses that the model is not for.
    """
    output = Path(output)
    base = recipe.get("model_name_or_path")
    base_license = None if base is None or license else read_license(base)
    license = license or base_license
    is_on_hub, source = _is_repository(source), _public_name(source)
    name, tag, modalities = output.resolve().name, choose_pipeline_tag(config), config.modalities
    split = "test" if "test" in results else next(iter(results), None)
    parts = {} if split is None else results[split].get("sources") or {source: results[split]}
    tasks = [HUB_TASKS[modality] for modality in modalities]
    data = ModelCardData(
        language="en",
        library_name="transformers",
        license=license,
        pipeline_tag=tag,
        tags=[*TAGS, *(task for task in tasks if task != tag)],
        datasets=[source]
        if is_on_hub
        else sorted(_slug(DATASETS[part]) for part in parts if part in DATASETS) or None,
        base_model=None if base is None else _public_name(base),
        widget=[{"text": "what a wonderful day"}] if "text" in modalities else None,
    )
    if "test" in results:
        data.model_name, data.eval_results = name, _eval_results(tag, source, parts)
        data.metrics = sorted({result.metric_type for result in data.eval_results})
    count = ", ".join(f"{number:,} {name} rows" for name, number in rows.items())
    card = ModelCard.from_template(
        data,
        template_str=read_template(),
        model_name=name,
        modalities=" and ".join(modalities),
        system=SYSTEMS.get(config.model_type, config.model_type),
        requirements=_requirements(modalities),
        example=_example(config),
        labels=_describe_labels(config),
        data=_paragraphs(f"`{source}`: {count}.", about_data),
        results="\n\n".join([_results_markdown(split, parts), *_describe_trust(results.get(split) or {})]),
        limits=_paragraphs(limits),
        licence=_describe_licence(license, base_license and _public_name(base)),
        data_licences=_paragraphs(_describe_data_licences(parts)),
        citation=f"```bibtex\n{PAPERS.get(config.model_type, PAPERS['umons'])}\n```",
    )
    card.text = re.sub(r"\n{3,}", "\n\n", card.text)
    card.save(output / "README.md")


def read_license(model: str) -> str | None:
    """Return the licence in the card of a folder or Hub repository; `None` without one."""
    try:
        path = cached_file(find_model(model), "README.md")
        return ModelCard.load(path).data.license if path is not None else None
    except (OSError, ValueError, yaml.YAMLError):  # no card, or one without valid metadata
        return None


def _describe_licence(license: str | None, base: str | None) -> str:
    """Return a sentence with the licence, and the base model that it is taken from."""
    if license is None:
        return "The licence has not been set."
    return f"{license}, the licence of the base model {base}." if base else license


def _describe_data_licences(sources: Iterable[str]) -> str:
    """Return a sentence with the licences of the known data sets, which may restrict the use of the model."""
    known = [DATA_LICENCES[source] for source in sources if source in DATA_LICENCES]
    return f"Licences of the data, which may restrict the use of the model: {'; '.join(known)}." if known else ""


def choose_pipeline_tag(config: UmonsConfig) -> str:
    """
    Return the `pipeline_tag` of a model, which the Hub uses in its example of use.

    The text-classification pipeline of transformers is right for classes, for emotions and for a sentiment, but not
    for a sentiment and emotions at once: it would treat the regressed sentiment as one of the classes.
    """
    is_stock = "text" in config.modalities and not getattr(config, "joint_sentiment", False)
    return HUB_TASKS["text"] if is_stock else TASK


def _describe_labels(config: UmonsConfig) -> str:
    """Return the labels of a model, numbers with their range."""
    ranges = getattr(config, "label_ranges", None) or [None] * config.num_labels
    return ", ".join(
        label if limits is None else f"{label} ({limits[0]:g} to {limits[1]:g})"
        for label, limits in zip(config.id2label.values(), ranges, strict=True)
    )


def _example(config) -> str:
    """Return an input of the pipeline, as code."""
    if "text" not in config.modalities:
        return '"clip.wav"'
    # CODEPATH: models of conversations also take the previous utterances
    context = ', "history": ["we have two days off"]' if getattr(config, "context_size", 0) else ""
    return f'{{"text": "what a wonderful day"{context}}}'


def _requirements(modalities: list[str]) -> str:
    return "; ".join(["`torch` and `transformers`", *(REQUIREMENTS[m] for m in modalities if m in REQUIREMENTS)])


def _paragraphs(*texts: str) -> str:
    """Wrap paragraphs."""
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n\n") if paragraph]
    fill = {"width": LINE_LENGTH, "break_long_words": False, "break_on_hyphens": False}
    return "\n\n".join(textwrap.fill(paragraph, **fill) for paragraph in paragraphs)


def _results_markdown(split: str | None, parts: Mapping[str, dict[str, Any]]) -> str:
    """Return one table of a split: a row for each metric of each data set."""
    if split is None:
        return "Not evaluated."
    rows = []
    for source, result in parts.items():
        metrics = [metric for metric in CARD_METRICS if metric in result["model"]]
        header, cells = table_rows(result, metrics)
        for row in cells:
            values = {name: value for name, value in zip(header, row, strict=True) if not name.endswith("tuned")}
            rows.append({"data": f"{DATASETS.get(source, source)} ({result['rows']:,})", **values})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = markdown_table(columns, [[row.get(column, "") for column in columns] for row in rows])
    return (
        f"Results on the {split} split, with the number of rows in parentheses. "
        "The baselines are trained on the same rows.\n"
        "All metrics, notes on them, the options of the run and plots are in [the report](report/report.md).\n\n"
        f"{table}"
    )


def _describe_trust(result: Mapping[str, Any]) -> list[str]:
    """Return paragraphs with calibration, tests of explanations and results by group; the curves are in the report."""
    paragraphs = []
    if "calibration" in result:
        paragraphs += calibration_markdown({**result["calibration"], "risk_coverage": {}})
    if "explanations" in result:
        paragraphs += explanations_markdown(result["explanations"])[:1]
    for column, found in result.get("by_column", {}).items():
        paragraphs += [f"By {column}:", *groups_markdown(column, found)]
    return paragraphs


def _eval_results(task: str, source: str, parts: Mapping[str, dict[str, Any]]) -> list[EvalResult]:
    """Return the chief test results of each data set. The name of one in a mixture says that its rows may differ."""
    is_mixed = list(parts) != [source]
    results = []
    for name, result in parts.items():
        dataset = DATASETS.get(name, name)
        for metric, hub_name in CARD_METRICS.items():
            if metric in result["model"]:
                results.append(
                    EvalResult(
                        task_type=task,
                        dataset_type=_slug(dataset),
                        dataset_name=f"{dataset} (test rows of {source})" if is_mixed else dataset,
                        dataset_split="test",
                        metric_type=hub_name,
                        metric_name=metric,
                        metric_value=round(result["model"][metric], 4),
                    )
                )
    return results


def _slug(name: str) -> str:
    """Return a name in the form of the Hub's names of data sets; that of a repository stays."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else re.sub(r"[^\w.]+", "-", name.lower()).strip("-")


def _is_repository(source: str) -> bool:
    """Tell whether `source` can only be a repository of the Hub: user/name, and no local file."""
    return bool(re.fullmatch(r"[\w-]+/[\w.-]+", source)) and not Path(source).suffix and not Path(source).exists()


def _public_name(source: str) -> str:
    """Return the full name of a repository, and the last part of a path."""
    is_repository = not Path(source).exists() and not PurePath(source).is_absolute()
    return source if is_repository else Path(source).resolve().name
