#!/usr/bin/env python
"""Train a UMONS model on a table of utterances or on a data set of `datasets`.

    accelerate launch scripts/train.py scripts/recipes/sample.yaml --num_train_epochs 5
    accelerate launch scripts/train.py --train_file clips/metadata.csv --task joint --output_dir runs/clips

A table (.csv, .tsv, .jsonl, .parquet) has a column of texts, one of sound or video files beside the table, or both, and
labels: `sentiment` in [-3, 3] and the emotions `happy sad anger surprise disgust fear`, or one column of classes. A
column `split` (train, validation, test) divides it; without one, and without --validation_file, a share is held out.
Options stand in a recipe (YAML, the first argument) or on the command line, which has the last word.

The best epoch by validation is kept. The output folder loads with `pipeline` and the Auto classes; results.json in it
says how well the model does, beside a predictor that always says the same.
"""

import json
import logging
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetsError
from transformers import HfArgumentParser, Trainer, TrainingArguments, pipeline, set_seed
from transformers.utils.logging import disable_progress_bar

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
    train_vocabulary,
)
from modeling_umons.tokenization_umons import build_embedding_matrix, load_word_vectors
from modeling_umons.training.card import write_model_card
from modeling_umons.training.metrics import constant_metrics, task_metrics
from modeling_umons.training.progress import show_progress
from modeling_umons.training.tables import Collator, extract, read_table, split_table, undecoded
from modeling_umons.training.tasks import TASKS, Task, make_task


logger = logging.getLogger("train")

CARD_TEMPLATE = Path(__file__).resolve().parent.parent / "model_card.md"


@dataclass
class DataArguments:
    """What to train on."""

    train_file: str | None = field(default=None, metadata={"help": "A table with training rows, or with all splits."})
    validation_file: str | None = field(default=None, metadata={"help": "A table with validation rows."})
    test_file: str | None = field(default=None, metadata={"help": "A table with test rows."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Instead of tables: a folder or Hub repository that `load_dataset` takes."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    task: str = field(default="joint", metadata={"help": f"What to predict: {', '.join(TASKS)}."})
    text_column: str = field(default="text", metadata={"help": "The column of texts."})
    audio_column: str = field(default="file_name", metadata={"help": "The column of sound or video files."})
    label_column: str = field(default="label", metadata={"help": "The column of classes, for --task classification."})
    validation_share: float = field(default=0.1, metadata={"help": "What to hold out where nothing else says."})
    preprocessing_num_proc: int | None = field(default=None, metadata={"help": "Processes that read the files."})


@dataclass
class ModelArguments:
    """What to train. The sizes are those of a new model; the defaults are the paper's."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A model to go on from, instead of a new one."}
    )
    modalities: list[str] = field(
        default_factory=lambda: ["text", "audio"], metadata={"help": "Any of text and audio."}
    )
    word_vectors: str | None = field(default=None, metadata={"help": "A GloVe text file the word vectors start from."})
    min_word_count: int = field(default=1, metadata={"help": "Words seen less often in training are unknown."})
    word_embedding_size: int = field(default=300, metadata={"help": "Size of word vectors."})
    hidden_size: int = field(default=512, metadata={"help": "Size of every sequence inside the model."})
    intermediate_size: int = field(default=1024, metadata={"help": "Size inside feed-forward networks and glimpses."})
    num_hidden_layers: int = field(default=4, metadata={"help": "Number of co-attention blocks."})
    num_attention_heads: int = field(default=4, metadata={"help": "Number of attention heads."})
    hidden_dropout_prob: float = field(default=0.1, metadata={"help": "Dropout, of attention probabilities too."})


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments. The defaults are the paper's: Adam at 1e-4, batches of 32, no clipping."""

    output_dir: str = field(default="runs/umons", metadata={"help": "The folder to write."})
    learning_rate: float = field(default=1e-4, metadata={"help": "The learning rate of Adam."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "The schedule of the learning rate."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Where to clip gradients; 0 does not."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Batch size, per process."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Batch size in evaluation, per process."})
    num_train_epochs: float = field(default=10, metadata={"help": "Passes over the training rows."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save; as often as evaluation."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep, besides the best."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch by validation."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator wants all columns."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.accelerator.is_available, metadata={"help": "Only of use with an accelerator."}
    )


def parse_arguments(arguments: list[str]) -> tuple[DataArguments, ModelArguments, RunArguments]:
    """Command-line options over a recipe's over the defaults."""
    parts = (DataArguments, ModelArguments, RunArguments)
    description, usage = __doc__.split("\n\n")[0], "train.py [recipe.yaml] [--options]"
    parser = HfArgumentParser(parts, description=description, usage=usage)
    parser.error = _refuse
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        path, *arguments = arguments
        recipe = read_recipe(path)
        known = {option.name for part in parts for option in fields(part)}
        if unknown := sorted(set(recipe) - known):
            raise ValueError(f"{path} has option(s) {unknown} that nothing reads; `--help` lists what there is.")
        # As options of the command line, before those that are there: the same checks, and the last word counts.
        for name, value in recipe.items():
            words = [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
            arguments = [*words, *arguments] if value is not None else arguments
    return parser.parse_args_into_dataclasses(arguments)


def read_recipe(path: str) -> dict:
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is no recipe: it needs a line `option: value` for each option.")
    return recipe


def _refuse(message: str):
    raise ValueError(f"{message}; `--help` lists what there is.")


def load_splits(data: DataArguments, seed: int) -> DatasetDict:
    """The raw rows of train, validation and (where there is one) test."""
    if (data.train_file is None) == (data.dataset_name is None):
        raise ValueError("Say what to train on: either --train_file or --dataset_name.")
    if data.dataset_name is not None:
        splits = load_dataset(data.dataset_name, data.dataset_config_name)
        splits = DatasetDict({name: undecoded(split, data.audio_column) for name, split in splits.items()})
    else:
        files = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
        splits = DatasetDict({name: read_table(file, data.audio_column) for name, file in files.items() if file})
    if "validation" not in splits and "train" in splits:
        splits.update(split_table(splits["train"], data.validation_share, seed))
    for name in ("train", "validation"):
        if not len(splits.get(name, ())):
            raise ValueError(f"There is no row of the split {name!r}: { {k: len(v) for k, v in splits.items()} }.")
    return splits


def make_model(
    arguments: ModelArguments, task: Task, texts: list[str]
) -> tuple[UmonsForSequenceClassification, UmonsProcessor]:
    """A new model with a vocabulary of the training texts, or the one to go on from with a head for the task."""
    if arguments.model_name_or_path is not None:
        processor = UmonsProcessor.from_pretrained(arguments.model_name_or_path)
        config = UmonsConfig.from_pretrained(arguments.model_name_or_path, **task.config_options())
        model = UmonsForSequenceClassification.from_pretrained(
            arguments.model_name_or_path, config=config, ignore_mismatched_sizes=True
        )
        return model, processor

    tokenizer = build_tokenizer(train_vocabulary(texts, min_count=arguments.min_word_count) if texts else [])
    processor = UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())
    config = UmonsConfig(
        modalities=arguments.modalities,
        vocab_size=len(tokenizer),
        word_embedding_size=arguments.word_embedding_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.intermediate_size,
        num_hidden_layers=arguments.num_hidden_layers,
        num_attention_heads=arguments.num_attention_heads,
        hidden_dropout_prob=arguments.hidden_dropout_prob,
        attention_probs_dropout_prob=arguments.hidden_dropout_prob,
        **task.config_options(),
    )
    model = UmonsForSequenceClassification(config)
    if arguments.word_vectors is not None and "text" in config.modalities:
        size = config.word_embedding_size
        vectors = load_word_vectors(arguments.word_vectors, words=tokenizer.get_vocab(), size=size)
        matrix, coverage = build_embedding_matrix(tokenizer, vectors, size=size)
        model.get_input_embeddings().weight.data.copy_(torch.from_numpy(matrix))
        logger.info("%.1f %% of %d words have a vector in %s", 100 * coverage, len(tokenizer), arguments.word_vectors)
    return model, processor


def make_task_of(data: DataArguments, train: Dataset) -> Task:
    """The task; classes are those of the training rows."""
    if data.task != "classification":
        return make_task(data.task)
    if data.label_column not in train.column_names:
        raise ValueError(f"The table has no column {data.label_column!r}; its columns are {train.column_names}.")
    return make_task(data.task, data.label_column, [c for c in train[data.label_column] if c is not None])


def extract_splits(
    splits: DatasetDict, processor: UmonsProcessor, task: Task, modalities: list[str], data: DataArguments
) -> dict[str, Dataset]:
    """What the model reads of each split; says what cannot be read, and goes on without it."""
    rows = {}
    for name, split in splits.items():
        rows[name], problems = extract(
            split, processor, task, modalities, data.text_column, data.audio_column, data.preprocessing_num_proc
        )
        logger.info("%s: %d rows, %d with a problem", name, len(rows[name]), len(problems))
        for problem in problems:
            logger.warning("%s, %s", name, problem)
        if name != "test" and not len(rows[name]):
            raise ValueError(f"No row of the split {name!r} can be used; the first problem is: {problems[0]}")
    return rows


def evaluate(trainer: Trainer, task: Task, rows: dict[str, Dataset]) -> dict[str, dict]:
    """All measures of each held-out split, beside a constant predictor's."""
    results, train_truth = {}, np.array(rows["train"]["labels"])
    for name in ("validation", "test"):
        if name in rows and len(rows[name]):
            prediction = trainer.predict(rows[name])
            results[name] = {
                "rows": len(rows[name]),
                "model": task_metrics(task, prediction.label_ids, prediction.predictions),
                "constant": constant_metrics(task, train_truth, prediction.label_ids),
            }
    return results


def train(data: DataArguments, model_arguments: ModelArguments, run: RunArguments):
    logging.basicConfig(level=logging.INFO if run.should_log else logging.WARNING, format="%(message)s")
    disable_progress_bar()  # of loading and saving; that of training stays
    set_seed(run.seed)

    splits = load_splits(data, run.seed)
    task = make_task_of(data, splits["train"])
    texts = []
    if "text" in model_arguments.modalities and data.text_column in splits["train"].column_names:
        texts = [str(text) for text in splits["train"][data.text_column] if text is not None]
    model, processor = make_model(model_arguments, task, texts)
    with run.main_process_first(desc="features"):
        rows = extract_splits(splits, processor, task, model.config.modalities, data)

    trainer = Trainer(
        model=model,
        args=run,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=Collator(model.config.modalities, model.config.audio_feature_size),
        processing_class=processor,
        compute_metrics=lambda evaluation: task_metrics(task, evaluation.label_ids, evaluation.predictions),
    )
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=run.resume_from_checkpoint)

    results = evaluate(trainer, task, rows)
    if trainer.is_world_process_zero():
        output = Path(run.output_dir)
        # The pipeline's code first, and the processor last: the pipeline saves parts of it in its own way.
        pipeline("multimodal-emotion-recognition", model=model, processor=processor).save_pretrained(output)
        processor.save_pretrained(output)
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        source = Path(data.train_file or data.dataset_name).as_posix()
        sizes = {name: len(split) for name, split in rows.items()}
        write_model_card(output, CARD_TEMPLATE, model.config, source, sizes, run, results)
        print_results(results)


def print_results(results: dict):
    """A table of each split: the model beside the constant predictor."""
    for name, result in results.items():
        print(f"\n{name} ({result['rows']} rows){'':<14}model   constant")
        for metric, value in result["model"].items():
            print(f"  {metric:<24}{value:>8.3f}   {result['constant'].get(metric, float('nan')):>8.3f}")


def main():
    try:
        train(*parse_arguments(sys.argv[1:]))
    except (OSError, ValueError, DatasetsError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
