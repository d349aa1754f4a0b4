"""Find who speaks when in a conversation, and predict the turns and the means of each speaker.

pip install "modeling-umons[speakers]"
python examples/10_speakers.py
"""

from pathlib import Path

import numpy as np
from transformers import pipeline

import modeling_umons  # noqa: F401 - registers the model and the pipeline with transformers
from modeling_umons.inference.speaker_table import summarize_speakers
from modeling_umons.models.umons.media_umons import read_clip


HUB = Path(__file__).resolve().parents[1] / "hub"
RATE = 16_000
TURNS = ("000", "007", "009", "017", "010", "004")  # clips of two voices in turn

recognize = pipeline("multimodal-emotion-recognition", model=str(HUB / "umons-mini"))
clips = [read_clip(HUB / "sample" / "clips" / f"{name}.mp4", video=False, sampling_rate=RATE).audio for name in TURNS]
conversation = np.concatenate([np.pad(clip, (0, RATE // 2)) for clip in clips])

# A path works the same. Without `num_speakers`, `speakers=True` estimates their number.
results = recognize({"audio": conversation, "sampling_rate": RATE}, num_speakers=2)
for result in results:
    start, end = result["timestamp"]
    print(f"{start:4.1f}-{end:4.1f} s  {result['speaker']}  {result['label']} {result['confidence']:.2f}")
for row in summarize_speakers(results):
    print(
        f"{row['speaker']}: {row['seconds']:.1f} s in {row['num_segments']} turns, sentiment {row['sentiment']:+.2f}"
    )
