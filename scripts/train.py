#!/usr/bin/env python
"""Train a UMONS model on a table of utterances or on a data set of `datasets`.

    accelerate launch scripts/train.py scripts/recipes/sample.yaml --num_train_epochs 5
    accelerate launch scripts/train.py --train_file clips/metadata.csv --task joint --output_dir runs/clips
    accelerate launch scripts/train.py scripts/recipes/emotion.yaml --dataset_name mosei --seeds 5

A table (.csv, .tsv, .jsonl, .parquet) has a column of texts, one of sound or video files beside the table, or both, and
labels: `sentiment` in [-3, 3] and the emotions `happy sad anger surprise disgust fear`, or one column of classes. A
column `split` (train, validation, test) divides it; without one, and without --validation_file, a share is held out. A
data set of scripts/prepare_mosei.py or scripts/extract_features.py has its features in it already. Options stand in a
recipe (YAML, the first argument) or on the command line, which has the last word.

The best epoch by validation is kept. The output folder loads with `pipeline` and the Auto classes; report/ in it says how
well the model does, beside simple rivals. A run that was stopped, even killed, goes on with --resume_from_checkpoint last.
"""

import dataclasses
import json
import logging
import sys
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetsError
from safetensors import SafetensorError
from transformers import pipeline, set_seed
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
from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.word_vectors import load_word_vectors
from modeling_umons.tokenization_umons import build_embedding_matrix
from modeling_umons.training.arguments import (
    AugmentationArguments,
    CardArguments,
    DataArguments,
    ModelArguments,
    RunArguments,
    parse_arguments,
)
from modeling_umons.training.card import write_model_card
from modeling_umons.training.checkpoints import REPORT, check_for_other_run, check_writable
from modeling_umons.training.report import Split, measure, print_results, summarize_seeds, task_of, write_report
from modeling_umons.training.standardize import standardize_front_ends
from modeling_umons.training.tables import load_splits, make_collator, repeat_sources, usable_rows
from modeling_umons.training.tasks import Task, make_task
from modeling_umons.training.trainer import UmonsTrainer


logger = logging.getLogger("train")

SHOWN_PROBLEMS = 20
# Where things are, and what follows from others.
UNREPORTED = ("output_dir", "resume_from_checkpoint", "greater_is_better", "logging_dir", "run_name")
CARD_TEMPLATE = Path(__file__).resolve().parent.parent / "model_card.md"


def make_task_of(data: DataArguments, train: Dataset) -> Task:
    """The task; classes are those of the training rows."""
    if data.task != "classification":
        return make_task(data.task)
    if data.label_column not in train.column_names:
        raise ValueError(f"The table has no column {data.label_column!r}; its columns are {train.column_names}.")
    return make_task(data.task, data.label_column, [c for c in train[data.label_column] if c is not None])


def make_model(
    arguments: ModelArguments, task: Task, texts: list[str]
) -> tuple[UmonsForSequenceClassification, UmonsProcessor]:
    """A new model with a vocabulary of the training texts, or the one to go on from with a head for the task."""
    if arguments.model_name_or_path is not None:
        read = ("model_name_or_path", "freeze_word_vectors")
        if unread := [name for name in describe(arguments) if name not in read]:
            raise ValueError(
                f"A model to go on from is as it is: nothing reads {', '.join('--' + name for name in unread)}."
            )
        processor = UmonsProcessor.from_pretrained(arguments.model_name_or_path)
        config = UmonsConfig.from_pretrained(arguments.model_name_or_path, **task.config_options())
        model = UmonsForSequenceClassification.from_pretrained(
            arguments.model_name_or_path, config=config, ignore_mismatched_sizes=True
        )
        if UmonsConfig.from_pretrained(arguments.model_name_or_path).id2label != config.id2label:
            model.classifier.reset_parameters()  # a head that says something else, even if it has the same size
        return model, processor

    vectors = None
    words = train_vocabulary(texts, min_count=arguments.min_word_count) if texts else []
    if arguments.word_vectors is not None and words:
        vectors = load_word_vectors(arguments.word_vectors, size=arguments.word_embedding_size)
        words += list(islice(vectors, arguments.extra_words))  # in the order of the file, commonest first
    tokenizer = build_tokenizer(words)
    extractor = UmonsFeatureExtractor()
    if arguments.feature_extractor is not None:
        extractor = UmonsFeatureExtractor.from_pretrained(arguments.feature_extractor)
    processor = UmonsProcessor(tokenizer, extractor, UmonsVideoProcessor())
    config = UmonsConfig(
        modalities=arguments.modalities,
        audio_feature_size=extractor.frame_size,
        max_audio_length=extractor.max_length,
        vocab_size=len(tokenizer),
        word_embedding_size=arguments.word_embedding_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.intermediate_size,
        num_hidden_layers=arguments.num_hidden_layers,
        num_attention_heads=arguments.num_attention_heads,
        hidden_dropout_prob=arguments.hidden_dropout_prob,
        attention_probs_dropout_prob=arguments.attention_probs_dropout_prob,
        **task.config_options(),
    )
    model = UmonsForSequenceClassification(config)
    if vectors is not None:
        matrix, coverage = build_embedding_matrix(tokenizer, vectors, size=config.word_embedding_size)
        model.get_input_embeddings().weight.data.copy_(torch.from_numpy(matrix))
        logger.info("%.1f %% of %d words have a vector in %s", 100 * coverage, len(tokenizer), arguments.word_vectors)
    return model, processor


def prepare(
    splits: DatasetDict, collator: UtteranceCollator, processor: UmonsProcessor, data: DataArguments, is_trained: bool
) -> dict[str, Dataset]:
    """The usable rows of each split; says what cannot be used, and goes on without it."""
    rows = {}
    for name, split in splits.items():
        rows[name], problems = usable_rows(split, collator, processor.feature_extractor, data, is_trained)
        logger.info("%s: %d rows, %d with a problem", name, len(rows[name]), len(problems))
        for problem in problems[:SHOWN_PROBLEMS]:
            logger.warning("%s, %s", name, problem)
        if len(problems) > SHOWN_PROBLEMS:
            logger.warning("%s: and %d more", name, len(problems) - SHOWN_PROBLEMS)
        if name != "test" and not len(rows[name]):
            raise ValueError(f"No row of the split {name!r} can be used; the first problem is: {problems[0]}")
    return {name: split for name, split in rows.items() if len(split)}


class Trained(NamedTuple):
    """What a run leaves: its report and, unless an earlier one wrote that, what the report is of."""

    report: dict
    task: Task
    train: Split | None = None
    scored: dict[str, Split] | None = None


def train(
    data: DataArguments,
    model_arguments: ModelArguments,
    augmentation: AugmentationArguments,
    card: CardArguments,
    run: RunArguments,
):
    """Trains one model and writes it into `run.output_dir`; `None` in all processes but the first."""
    finished = Path(run.output_dir, REPORT)
    if run.resume_from_checkpoint == "last" and finished.exists():
        logger.info("%s is of a run that has ended: there is nothing to go on with.", run.output_dir)
        task = task_of(UmonsConfig.from_pretrained(run.output_dir), data.label_column)
        return Trained(json.loads(finished.read_text(encoding="utf-8")), task)
    check_writable(run.output_dir)
    if run.resume_from_checkpoint is None:
        check_for_other_run(run.output_dir)
    set_seed(run.seed)
    splits = load_splits(data, run.seed)
    task = make_task_of(data, splits["train"])
    texts = []
    if "text" in model_arguments.modalities and data.text_column in splits["train"].column_names:
        texts = [str(text) for text in splits["train"][data.text_column] if text is not None]
    model, processor = make_model(model_arguments, task, texts)
    if model_arguments.freeze_word_vectors and "text" in model.config.modalities:
        model.get_input_embeddings().requires_grad_(False)
    collator = make_collator(processor, model.config, task)
    with run.main_process_first(desc="features"):
        rows = prepare(splits, collator, processor, data, model_arguments.model_name_or_path is not None)
    sizes, train_split = {name: len(split) for name, split in rows.items()}, Split.of(task, rows["train"])
    rows["train"] = repeat_sources(rows["train"], data.repeat)
    if model_arguments.standardize_features:
        standardize_front_ends(model, rows["train"], collator)
    recipe = describe(data, model_arguments, augmentation, run)

    trainer = UmonsTrainer(model, run, task, rows, collator, augmentation, processor)
    trainer.run()

    scored = {name: Split.of(task, rows[name], trainer.logits(rows[name])) for name in rows if name != "train"}
    if not trainer.is_world_process_zero():
        return None
    results = measure(task, train_split, scored, tune=run.tune_thresholds)
    output = Path(run.output_dir)
    # The pipeline's code first, and the processor last: the pipeline saves parts of it in its own way.
    pipeline("multimodal-emotion-recognition", model=model, processor=processor).save_pretrained(output)
    processor.save_pretrained(output)
    source = Path(data.train_file or data.dataset_name).as_posix()
    write_model_card(output, CARD_TEMPLATE, model.config, source, sizes, recipe, results, **vars(card))
    report = write_report(output / "report", task, results, scored, history=trainer.state.log_history, recipe=recipe)
    print_results(results)
    return Trained(report, task, train_split, scored)


def describe(*parts) -> dict:
    """The options that are not at their defaults, for the report."""
    chosen = {}
    for part in parts:
        defaults = type(part)()
        for option in dataclasses.fields(part):
            value = getattr(part, option.name)
            is_told = option.init and option.name not in UNREPORTED and not option.name.endswith("_token")
            if is_told and value != getattr(defaults, option.name):
                chosen[option.name] = getattr(value, "value", value)
    return chosen


def train_seeds(*parts):
    """One model for each seed, in a folder of its own, and what they do together and on average."""
    *others, run = parts
    if run.resume_from_checkpoint not in (None, "last"):
        raise ValueError(
            "--seeds goes on with --resume_from_checkpoint last alone: each seed has checkpoints of its own."
        )
    members = {}
    for seed in range(run.seed, run.seed + run.seeds):
        output = Path(run.output_dir) / f"seed-{seed}"
        members[seed] = train(*others, dataclasses.replace(run, seed=seed, output_dir=str(output)))
    if not run.should_save or not any(member.scored for member in members.values()):
        return  # nothing was trained: what stands there is true
    # A seed that an earlier run finished has left its report, but not its logits: then there is no ensemble to report.
    reports = {seed: member.report for seed, member in members.items()}
    last = members[seed]
    scored = (
        {seed: member.scored for seed, member in members.items()} if all(m.scored for m in members.values()) else None
    )
    summarize_seeds(Path(run.output_dir), last.task, reports, scored, last.train, run.tune_thresholds)


def main():
    try:
        *others, run = parse_arguments(sys.argv[1:], __doc__)
        logging.basicConfig(level=logging.INFO if run.should_log else logging.WARNING, format="%(message)s")
        disable_progress_bar()  # of loading and saving; that of training stays
        (train if run.seeds == 1 else train_seeds)(*others, run)
    except (ImportError, OSError, SafetensorError, ValueError, DatasetsError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
