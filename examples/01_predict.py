"""Predict sentiment and emotions of a sentence and of a clip, as a whole and second by second.

python examples/01_predict.py
"""

from pathlib import Path

from transformers import pipeline

import modeling_umons  # noqa: F401 - registers the model and the pipeline with transformers


HUB = Path(__file__).resolve().parents[1] / "hub"
CLIP = str(HUB / "sample" / "clips" / "060.mp4")

recognize = pipeline("multimodal-emotion-recognition", model=str(HUB / "umons-mini"))


def describe(result: dict) -> str:
    emotions = ", ".join(f"{emotion['label']} {emotion['score']:.2f}" for emotion in result["emotions"])
    return f"sentiment {result['sentiment']:+.2f}; {emotions}; from {' and '.join(result['modalities'])}"


# Any of text, audio and video, alone or together.
print("Text only:  ", describe(recognize({"text": "What a wonderful day!"}, top_k=2)))
print("Clip only:  ", describe(recognize(CLIP, top_k=2)))
result = recognize(
    {"text": "Fresh bread on a Sunday makes me so happy.", "video": CLIP}, top_k=2, return_attention=True
)
print("Both:       ", describe(result))

# Attention of the final glimpse over the words.
weights = sorted(result["attention"]["text"], key=lambda word: word["weight"], reverse=True)
print("Attention:  ", ", ".join(f"{word['word']} {word['weight']:.2f}" for word in weights[:3]))

for segment in recognize(CLIP, chunk_length_s=1.0, top_k=1):
    start, end = segment["timestamp"]
    print(f"{start:4.1f}-{end:.1f} s: ", describe(segment))
