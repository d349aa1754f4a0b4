"""Use features of your own in place of log-mel frames: here loudness and zero crossings of each 50 ms.

    python examples/04_own_features.py

Any feature size works: set `audio_feature_size` (or `video_feature_size`) and pass `(batch, frames, size)`.
A mask marks padding.
"""

import csv
from pathlib import Path

import numpy as np
import torch

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.models.umons.media_umons import read_clip


SAMPLE = Path(__file__).resolve().parents[1] / "hub" / "sample"
FRAME = 1102  # samples of 50 ms at 22050 Hz


def extract(path: Path) -> torch.Tensor:
    """Return features (frames, 2) of a clip, of the first 3 seconds."""
    audio = read_clip(path, video=False, max_duration=3.0).audio
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    loudness = np.log10(np.sqrt((frames**2).mean(axis=1)) + 1e-4)
    crossings = (np.diff(np.sign(frames), axis=1) != 0).mean(axis=1)
    return torch.tensor(np.stack([loudness, crossings], axis=1), dtype=torch.float32)


with (SAMPLE / "trainset.csv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
features = [extract(SAMPLE / row["file_name"]) for row in rows]
input_features = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(feature)) for feature in features], batch_first=True)
labels = torch.tensor([float(row["sentiment"]) > 0 for row in rows]).long()

torch.manual_seed(0)
config = UmonsConfig(
    modalities=["audio"], audio_feature_size=2, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
    num_labels=2, id2label={0: "negative", 1: "positive"}, problem_type="single_label_classification",
)  # fmt: skip
model = UmonsForSequenceClassification(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(61):
    loss = model(input_features=input_features, input_features_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        print(f"step {step:2}: loss {loss.item():.3f}")

with torch.no_grad():
    predicted = model.eval()(input_features=input_features, input_features_mask=mask).logits.argmax(dim=-1)
print(f"Positive clips: {int(labels.sum())} of {len(labels)}")
print(f"Training accuracy: {(predicted == labels).float().mean():.2f}")
