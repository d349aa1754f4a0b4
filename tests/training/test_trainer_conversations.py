"""Tests of the Trainer on conversations: losses, metrics and order of predictions."""

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import TrainerCallback

from modeling_umons import (
    EMOTIONS,
    MultilogueNetConfig,
    MultilogueNetForSequenceClassification,
    UmonsFeatureExtractor,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.conversations import ConversationCollator, ConversationRows
from modeling_umons.data.rows import make_collator, usable_rows
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.evaluation.metrics import task_metrics
from modeling_umons.inference.logits import predict_logits
from modeling_umons.tasks.losses import TaskLoss, balanced_weights
from modeling_umons.tasks.task import make_task
from modeling_umons.training import trainer as trainer_module
from modeling_umons.training.arguments import AugmentationArguments, RunArguments
from modeling_umons.training.augmentation import Augmentation


WORDS = ("good", "fine", "bad", "so")
FRAME = 3


def make_rows(size: int, seed: int) -> Dataset:
    """Data sets of shuffled dialogues of one to five utterances; utterances with `good` are happy, others sad."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(size):
        dialogue, place = divmod(i, 5) if i % 7 else (100 + i, 0)
        words = random.choice(WORDS, 3)
        rows.append(
            {
                "segment_id": str(i), "video_id": f"d{dialogue}", "segment": place, "text": " ".join(words),
                "speaker": random.choice(["Joey", "Ross"]), "sentiment": 2.0 if "good" in words else -1.0,
                "audio_features": random.normal(size=(2 + i % 4, FRAME)).astype(np.float32) if i % 3 else None,
                **{name: float(random.random() < 0.4) for name in EMOTIONS},
                "happy": float("good" in words), "sad": float("good" not in words),
            }
        )  # fmt: skip
    features = make_features(FRAME)
    features["speaker"] = features["text"]
    return Dataset(to_table([rows[i] for i in random.permutation(size)], features))


@pytest.fixture(scope="module")
def rows() -> dict[str, Dataset]:
    return {"train": make_rows(40, 0), "validation": make_rows(17, 1)}


@pytest.fixture
def make(tmp_path, rows):
    """Return a function that creates a `UmonsTrainer` of a tiny model of conversations."""

    def call(task="emotion", modalities=("text", "audio"), augmentation=None, dropout=0.0, **options):
        torch.manual_seed(0)
        task = make_task(task)
        tokenizer = build_tokenizer(list(WORDS))
        processor = UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())
        config = MultilogueNetConfig(
            modalities=list(modalities), vocab_size=len(tokenizer), word_embedding_size=6, audio_feature_size=FRAME,
            utterance_size=8, global_state_size=8, party_state_size=8, emotion_state_size=8, dropout=dropout,
            recurrent_dropout=dropout, **task.config_options(),
        )  # fmt: skip
        values = {
            "output_dir": tmp_path / "run", "per_device_train_batch_size": 4, "per_device_eval_batch_size": 2,
            "num_train_epochs": 2, "learning_rate": 0.01, "disable_tqdm": True, "report_to": "none", "use_cpu": True,
        }  # fmt: skip
        return trainer_module.UmonsTrainer(
            MultilogueNetForSequenceClassification(config),
            RunArguments(**values | options),
            task,
            rows,
            make_collator(processor, config, task),
            AugmentationArguments(**augmentation or {}),
            processor,
        )

    return call


def first_batch(trainer, size: int = 6) -> dict[str, torch.Tensor]:
    return trainer.data_collator(trainer.train_dataset.__getitems__(list(range(size))))


def all_logits(trainer, rows: Dataset) -> np.ndarray:
    """Predict conversation by conversation and restore the order of the rows."""
    data = ConversationRows(rows)
    expected = np.full((len(rows), len(trainer.model.config.id2label)), np.nan, dtype=np.float32)
    places = {segment: i for i, segment in enumerate(rows["segment_id"])}
    with torch.inference_mode():
        for table in data:
            logits = trainer.model.eval()(**trainer.data_collator([table])).logits[0]
            expected[[places[segment] for segment in table["segment_id"].to_pylist()]] = logits.numpy()
    return expected


@pytest.mark.parametrize("task", ["emotion", "joint", "sentiment", "sentiment-7"])
def test_training_of_conversations_lowers_loss(make, rows, task):
    """Metrics are over utterances, each counted once."""
    trainer = make(task, num_train_epochs=6, learning_rate=0.03)
    before = trainer.evaluate()
    trainer.run()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.9 * before["eval_loss"]

    expected = all_logits(trainer, rows["validation"])
    logits = trainer.logits(rows["validation"])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    alone = predict_logits(trainer.model, rows["validation"], trainer.data_collator, batch_size=3)
    np.testing.assert_allclose(alone, expected, atol=1e-6)

    truth = make_task(task).label_array(rows["validation"].with_format("arrow")[:])[0]
    for name, value in task_metrics(make_task(task), truth, expected).items():
        assert after[f"eval_{name}"] == pytest.approx(value, abs=1e-6)
    loss = trainer_module.evaluation_metrics(make_task(task), truth, expected)["loss"]
    assert after["eval_loss"] == pytest.approx(loss, rel=1e-5)


def test_loss_of_conversations_is_that_of_model_by_default(make):
    trainer = make("sentiment-7")
    batch = first_batch(trainer)
    trainer.model.train()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), trainer.model(**batch).loss)


@pytest.mark.parametrize("task", ["emotion", "joint", "sentiment-2"])
def test_loss_options_of_conversations_apply(make, rows, task):
    """Class weights, focal loss and smoothing are the same as for single rows."""
    augmentation = {"class_weights": "balanced", "focal_gamma": 2.0}
    trainer = make(task, augmentation=augmentation, label_smoothing_factor=0.1)
    batch = first_batch(trainer)
    weights = balanced_weights(make_task(task), make_task(task).label_array(rows["train"].with_format("arrow")[:])[0])
    literal = TaskLoss(make_task(task), weights, 2.0, 0.1)
    trainer.model.train()
    there = batch["utterance_mask"].bool()
    logits, labels = trainer.model(**batch).logits[there], batch["labels"][there]
    loss = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(loss, literal(logits, labels))
    loss.backward()
    assert all(weight.grad is not None for weight in trainer.model.parameters())


def test_augmentation_of_conversations_is_by_utterance(make):
    """Compare with augmentation of utterances as rows, for the same random numbers."""
    batch = first_batch(make())
    augment = Augmentation(modality_dropout=0.7, word_dropout=0.5, time_mask=0.5, bin_mask=0.5)
    torch.manual_seed(1)
    changed = augment(batch)
    flat = {name: value.flatten(0, 1) for name, value in batch.items() if name.startswith(("input", "attention"))}
    torch.manual_seed(1)
    expected = augment(flat)
    for name, value in batch.items():
        assert changed[name].shape == value.shape
        literal = expected[name].view_as(value) if name in expected else value
        torch.testing.assert_close(changed[name], literal, rtol=0, atol=0, equal_nan=True)
    present = torch.stack([changed[name].any(dim=-1) for name in ("attention_mask", "input_features_mask")]).any(dim=0)
    assert present.equal(batch["utterance_mask"].bool())
    for name in ("input_ids", "attention_mask", "input_features"):
        assert not changed[name].equal(batch[name])


def test_mixup_rejects_conversations(make):
    trainer = make("sentiment-2", ["audio"], {"mixup": 0.4})
    with pytest.raises(ValueError, match="--mixup does not support models of conversations"):
        trainer.augment.mix({"utterance_mask": torch.ones(2, 3)})


def test_resumed_run_of_conversations_is_bit_exact(make, tmp_path):
    """Compare the weights with those of an uninterrupted run, with dropout and word dropout."""
    options = {"dropout": 0.3, "augmentation": {"word_dropout": 0.3}, "num_train_epochs": 3}
    whole = make(**options, output_dir=tmp_path / "whole")
    whole.run()
    first = make(**options)

    class Stop(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            if state.epoch > 2.5:
                raise KeyboardInterrupt

    first.add_callback(Stop)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    resumed = make(**options, resume_from_checkpoint="last")
    resumed.run()
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name])


def test_usable_rows_keep_order_of_conversations(make, rows):
    """Rows without a label are skipped within their conversation."""
    trainer = make("sentiment-2")
    assert isinstance(trainer.data_collator, ConversationCollator)
    unlabelled = rows["train"].select([0]).remove_columns("sentiment").add_column("sentiment", [None])
    unlabelled = unlabelled.select_columns(rows["train"].column_names).cast(rows["train"].features)
    table = concatenate_datasets([unlabelled, rows["train"].select(range(1, 10))])
    usable, problems = usable_rows(table, trainer.data_collator, None, DataArguments())
    assert len(usable) == 9
    assert problems == ["row 0: no label in sentiment"]
    assert {"video_id", "segment", "start", "speaker"} <= set(usable.column_names)
    assert trainer.logits(usable).shape == (9, 2)


def test_group_by_length_samples_conversations_at_random(make, caplog):
    trainer = make(train_sampling_strategy="group_by_length", num_train_epochs=1)
    with caplog.at_level("INFO"):
        trainer.train()
    assert "Conversations are sampled at random" in caplog.text
    assert trainer.state.epoch == 1
