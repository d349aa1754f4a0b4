r"""Fine-tune MiniLM without UMONS on the official texts of CMU-MOSEI: `BertForSequenceClassification` and `Trainer`.

    umons prepare --layout labels --source MOSEI --output runs/mosei
    python scripts/train_plain_minilm.py runs/mosei --output runs/plain_minilm

The usual settings (learning rate 5e-5 with warm-up, batches of 32, two epochs) with the loss of UMONS; nothing is
chosen on validation. Writes the model and the report of each seed; seeds with a report are skipped.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset
from measure_texts import load_texts
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from modeling_umons.evaluation.results import measure
from modeling_umons.evaluation.splits import Split
from modeling_umons.tasks.losses import TaskLoss
from modeling_umons.tasks.task import Task, make_task
from modeling_umons.training.encoders import find_encoder
from modeling_umons.utils.files import write_atomically


def train(task: Task, splits: dict[str, Split], output: Path, seed: int, max_steps: int) -> None:
    """Train with a seed; saves the model, and its report on validation in `report/report.json`."""
    set_seed(seed)  # of the new linear layer
    folder, loss = find_encoder("minilm"), TaskLoss(task)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(task.labels))
    rows = {
        name: Dataset.from_dict(
            {**tokenizer(list(split.texts), truncation=True, max_length=128), "labels": split.truth.tolist()}
        )
        for name, split in splits.items()
    }
    arguments = TrainingArguments(
        str(output), learning_rate=5e-5, warmup_steps=0.1, num_train_epochs=2, max_steps=max_steps,
        per_device_train_batch_size=32, per_device_eval_batch_size=128, weight_decay=0.01,
        train_sampling_strategy="group_by_length", bf16=True, use_cpu=True, seed=seed, save_strategy="no",
        logging_steps=100, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, DataCollatorWithPadding(tokenizer), rows["train"], processing_class=tokenizer,
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: loss(outputs.logits, labels),
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    arguments.train_sampling_strategy = "random"  # predictions too are made in the order of this strategy
    logits = trainer.predict(rows["validation"].remove_columns("labels")).predictions
    validation = splits["validation"]
    scored = Split(validation.truth, logits, validation.texts, groups=validation.groups)
    report = {"seed": seed, "splits": measure(task, None, {"validation": scored})}
    write_atomically(output / "report" / "report.json", json.dumps(report, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder of `umons prepare`")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, with a folder for each seed")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, starting at 1")
    parser.add_argument("--max_steps", type=int, default=-1, help="end after this many steps, for a trial")
    arguments = parser.parse_args()
    task = make_task("joint")
    splits = load_texts(task, arguments.dataset)
    for seed in range(1, arguments.seeds + 1):
        output = arguments.output / f"seed-{seed}"
        if not (output / "report" / "report.json").is_file():
            train(task, splits, output, seed, arguments.max_steps)


if __name__ == "__main__":
    main()
