"""Train a small model of text and audio with the plain `Trainer` of transformers, on the embedded sample.

python examples/03_train_with_trainer.py
"""

import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

import modeling_umons as umons
from modeling_umons.models.umons.media_umons import read_clip


SAMPLE = Path(__file__).resolve().parents[1] / "hub" / "sample"
LABELS = ["sentiment", *umons.EMOTIONS]

with (SAMPLE / "metadata.csv").open(encoding="utf-8") as file:
    rows = [row | {"audio": read_clip(SAMPLE / row["file_name"], video=False).audio} for row in csv.DictReader(file)]
train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))

processor = umons.UmonsProcessor(
    umons.build_tokenizer(umons.train_vocabulary(row["text"] for row in train)),
    umons.UmonsFeatureExtractor(),
    umons.UmonsVideoProcessor(),
)
config = umons.UmonsConfig(
    vocab_size=len(processor.tokenizer), word_embedding_size=64, hidden_size=64, intermediate_size=128,
    num_hidden_layers=2, joint_sentiment=True,
)  # fmt: skip
torch.manual_seed(0)
model = umons.UmonsForSequenceClassification(config)


def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
    texts, audio = [row["text"] for row in batch], [row["audio"] for row in batch]
    inputs = processor(text=texts, audio=audio, sampling_rate=22050, return_tensors="pt")
    # Sentiment in [-3, 3]; emotions from 0 to 3, of which the model learns the presence.
    labels = torch.tensor([[float(row[label]) for label in LABELS] for row in batch])
    labels[:, 1:] = (labels[:, 1:] > 0).float()
    return {**inputs, "labels": labels}


def mean_absolute_error(predictions) -> dict[str, float]:
    return {"sentiment_mae": float(np.abs(predictions.predictions[:, 0] - predictions.label_ids[:, 0]).mean())}


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, num_train_epochs=6, per_device_train_batch_size=8, learning_rate=1e-3, remove_unused_columns=False,
        report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=22, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, collate, train, test, compute_metrics=mean_absolute_error)
    print("Before training:", trainer.evaluate()["eval_sentiment_mae"])
    trainer.train()
    print("After training: ", trainer.evaluate()["eval_sentiment_mae"])
