"""Fine-tune umons-mini on classes of your own: praise, complaint or question.

python examples/05_own_labels.py
"""

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

import modeling_umons  # noqa: F401 - registers the model and the pipeline with transformers


MODEL = str(Path(__file__).resolve().parents[1] / "hub" / "umons-mini")
DATA = {
    "praise": ["I love this camera.", "Great service, thank you.", "The food was wonderful.", "A really good phone.",
               "This movie is great.", "I am very happy with it."],
    "complaint": ["It broke after a week.", "The room was dirty.", "I hate this movie.", "Terrible service.",
                  "The food was cold and bad.", "I am not happy with it."],
    "question": ["How much is it?", "Where is the station?", "When do you open?", "What is in the box?",
                 "Can I pay by card?", "Do you have another one?"],
}  # fmt: skip
LABELS = list(DATA)

processor = AutoProcessor.from_pretrained(MODEL)
torch.manual_seed(0)
# The body keeps its weights; only the head has a new size.
model = AutoModelForSequenceClassification.from_pretrained(
    MODEL,
    joint_sentiment=False,
    problem_type="single_label_classification",
    id2label=dict(enumerate(LABELS)),
    label2id={label: i for i, label in enumerate(LABELS)},
    ignore_mismatched_sizes=True,
)

inputs = processor(text=[text for texts in DATA.values() for text in texts], return_tensors="pt")
labels = torch.tensor([i for i, texts in enumerate(DATA.values()) for _ in texts])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
for epoch in range(31):
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if epoch % 10 == 0:
        print(f"epoch {epoch:2}: loss {loss.item():.3f}")

recognize = pipeline("multimodal-emotion-recognition", model=model.eval(), processor=processor)
for text in ("What a great hotel.", "The screen is bad.", "Where can I buy it?"):
    [best] = recognize({"text": text}, top_k=1)["labels"]
    print(f"{text:22} {best['label']} ({best['score']:.2f})")
