"""Compare UMONS with baselines from related work on the same rows, with the same budget.

    python examples/07_compare_models.py

`umons compare` does the same with several seeds and confidence intervals.
"""

import csv
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

import modeling_umons as umons
from modeling_umons.evaluation.metrics import sentiment_metrics
from modeling_umons.models.umons.media_umons import read_clip


SAMPLE = Path(__file__).resolve().parents[1] / "hub" / "sample"


def read(split: str) -> list[dict]:
    with (SAMPLE / f"{split}set.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row | {"audio": read_clip(SAMPLE / row["file_name"], video=False).audio} for row in rows]


train, test = read("train"), read("test")
tokenizer = umons.build_tokenizer(umons.train_vocabulary(row["text"] for row in train))
processor = umons.UmonsProcessor(tokenizer, umons.UmonsFeatureExtractor(), umons.UmonsVideoProcessor())


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    texts, audio = [row["text"] for row in rows], [row["audio"] for row in rows]
    inputs = processor(text=texts, audio=audio, sampling_rate=22050, return_tensors="pt")
    return {**inputs, "labels": torch.tensor([float(row["sentiment"]) for row in rows])}


task = {"num_labels": 1, "problem_type": "regression", "vocab_size": len(tokenizer), "word_embedding_size": 64}
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
configs = {"UMONS": umons.UmonsConfig(**task, **sizes), "TFN": umons.TfnConfig(**task), "MFN": umons.MfnConfig(**task)}
batch, unseen = collate(train), collate(test)

print(f"{'':8} parameters   MAE  corr")
for name, config in configs.items():
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(30):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        prediction = model.eval()(**unseen).logits[:, 0]
    metrics = sentiment_metrics(unseen["labels"].numpy(), prediction.numpy())
    print(f"{name:8} {model.num_parameters():10,} {metrics['mae']:5.2f} {metrics['corr']:5.2f}")
