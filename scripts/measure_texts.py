r"""Measure baselines and trained models on the texts of the official validation split of CMU-MOSEI.

    umons prepare --layout labels --source MOSEI --output runs/mosei
    umons train compare-mosei
    python scripts/train_plain_minilm.py runs/mosei --output runs/plain_minilm
    python scripts/measure_texts.py runs/mosei --runs runs/compare-mosei/* runs/plain_minilm \
        --saved docs/results.json --output docs/results_text.json

Computes the constant, TF-IDF and frozen MiniLM with ridge regression, and reads the scores of runs (folders with a
report, or with a folder for each seed) and of saved models (the output of measure_models.py). Prints the table.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from transformers import AutoModel, AutoTokenizer

from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.rows import load_splits
from modeling_umons.evaluation.results import measure
from modeling_umons.evaluation.scoring import labelled
from modeling_umons.evaluation.seeds import mean_and_std
from modeling_umons.evaluation.splits import Split
from modeling_umons.evaluation.tfidf_baseline import TfidfBaseline
from modeling_umons.tasks.task import Task, make_task
from modeling_umons.training.encoders import find_encoder
from modeling_umons.utils.files import write_atomically
from modeling_umons.utils.tables import markdown_table


METRICS = ("mae", "corr", "acc2_has0", "acc2_non0", "acc7_rounded", "emotion_auroc")
RIDGE_ALPHAS = np.logspace(-1, 4, 11)


def embed(texts: list[str], batch_size: int = 64) -> np.ndarray:
    """Return the mean over words of the last hidden states of MiniLM, (N, 384) float32."""
    folder = find_encoder("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(text) for text in texts])
    vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer([texts[row] for row in rows], padding=True, truncation=True, max_length=128,
                          return_tensors="pt")  # fmt: skip
        with torch.inference_mode():
            states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        vectors[rows] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return vectors


def ridge_logits(train: Split, validation: Split) -> np.ndarray:
    """Fit ridge regression on frozen MiniLM, its alphas by leave-one-out on the training rows; returns the logits."""
    targets = np.column_stack([train.truth[:, 0], np.where(train.truth[:, 1:] > 0, 1.0, -1.0)])
    model = RidgeCV(RIDGE_ALPHAS, alpha_per_target=True).fit(embed(list(train.texts)), targets)
    return model.predict(embed(list(validation.texts)))


def load_texts(task: Task, dataset: str) -> dict[str, Split]:
    """Load the training and validation rows that have a text."""
    splits = {}
    for name, rows in load_splits(dataset, DataArguments()).items():
        if name != "test":
            rows = labelled(task, rows, DataArguments(), name)
            splits[name] = Split.of(task, rows.filter(lambda row: bool(row["text"])))
    return splits


def measure_baselines(dataset: str) -> dict[str, dict]:
    """Return the scores of the baselines, {name: {metric: [score, low, high]}}."""
    task = make_task("joint")
    train, validation = load_texts(task, dataset).values()
    tfidf = TfidfBaseline(task, train.texts, train.truth, validation.texts, validation.truth)
    scores = {}
    for name, logits in (
        ("TF-IDF, tuned on validation", tfidf.logits(validation.texts)),
        ("MiniLM, frozen, ridge regression", ridge_logits(train, validation)),
    ):
        split = Split(validation.truth, logits, validation.texts, groups=validation.groups)
        result = measure(task, train, {"validation": split})["validation"]
        scores[name] = {metric: [result["model"][metric], *result["intervals"].get(metric, ())] for metric in METRICS}
    constant = {metric: [value] for metric, value in result["baselines"]["constant"].items() if metric in METRICS}
    return {"constant": constant} | scores


def read_run(folder: Path) -> dict[str, dict]:
    """Return the scores of the seeds of a run on validation, each with the mean of its intervals."""
    paths = sorted(folder.glob("seed-*/report/report.json")) or [folder / "report" / "report.json"]
    results = [json.loads(path.read_text(encoding="utf-8"))["splits"]["validation"] for path in paths]
    return {
        metric: mean_and_std([result["model"][metric] for result in results])
        | {"interval": np.mean([result["intervals"][metric] for result in results], axis=0).tolist()}
        for metric in METRICS
    }


def format_score(score: list[float] | dict | None) -> str:
    """Format a score with its interval, and the standard deviation over seeds."""
    if score is None:
        return ""
    if isinstance(score, dict):
        std = "" if score["std"] is None else f" ± {score['std']:.3f}"
        return f"{score['mean']:.3f}{std} ({score['interval'][0]:.3f} to {score['interval'][1]:.3f})"
    return f"{score[0]:.3f}" + (f" ({score[1]:.3f} to {score[2]:.3f})" if len(score) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder of `umons prepare`")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="folders of `umons train`")
    parser.add_argument("--saved", type=Path, help="JSON file of measure_models.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    report = measure_baselines(arguments.dataset)
    report |= {folder.name: read_run(folder) for folder in arguments.runs if folder.is_dir()}
    if arguments.saved is not None:
        saved = json.loads(arguments.saved.read_text(encoding="utf-8"))
        report |= {name: {metric: scores["texts"]["mosei"][metric] for metric in METRICS}
                   for name, scores in saved.items()}  # fmt: skip
    write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")
    rows = [[name, *(format_score(scores.get(metric)) for metric in METRICS)] for name, scores in report.items()]
    print(markdown_table(["model", *METRICS], rows))


if __name__ == "__main__":
    main()
