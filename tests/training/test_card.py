"""The model card."""

from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from modeling_umons import UmonsConfig
from modeling_umons.training.card import results_table, write_model_card
from modeling_umons.training.tasks import make_task


RESULTS = {
    "validation": {"rows": 8, "model": {"mae": 0.5, "corr": 0.25}, "constant": {"mae": 1.0}},
    "test": {"rows": 9, "model": {"mae": 0.75}, "constant": {"mae": 1.25, "corr": 0.0}},
}


def test_table_of_results():
    assert results_table(RESULTS).splitlines() == [
        "| | validation (8 rows) | constant | test (9 rows) | constant |",
        "|---|---|---|---|---|",
        "| mae | 0.500 | 1.000 | 0.750 | 1.250 |",
        "| corr | 0.250 |  |  | 0.000 |",  # what a split has not is left empty
    ]
    assert results_table({}) == "Not evaluated."


@pytest.mark.parametrize(
    ("modalities", "example"), [(["text", "audio"], '{"text": "what a wonderful day"}'), (["audio"], '"clip.wav"')]
)
def test_card_loads(root, tmp_path, modalities, example):
    config = UmonsConfig(
        modalities=modalities, **make_task("classification", classes=["calm", "angry"]).config_options()
    )
    run = SimpleNamespace(
        learning_rate=0.001, lr_scheduler_type=SimpleNamespace(value="constant"), per_device_train_batch_size=4,
        num_train_epochs=2, seed=1,
    )  # fmt: skip
    rows = {"train": 30, "validation": 8, "test": 9}
    write_model_card(tmp_path, root / "model_card.md", config, "clips/metadata.csv", rows, run, RESULTS)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlanguage: en\n")
    assert "{{" not in text
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.tags == ["emotion", "sentiment", "multimodal", "umons"]
    assert f"# {tmp_path.name}\n" in card.text
    assert f"recognize({example})" in card.text
    assert f"from {' and '.join(modalities)}, by" in card.text
    assert "2 label(s): angry, calm." in card.text
    assert "clips/metadata.csv: 30 train rows, 8 validation rows, 9 test rows." in card.text
    assert "- lr_scheduler_type: constant\n" in card.text
    assert results_table(RESULTS) in card.text
