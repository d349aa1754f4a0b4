"""Tests of the Trainer: loss, augmentation and resumed runs."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.data.rows import make_collator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.tasks.losses import TaskLoss, balanced_weights
from modeling_umons.tasks.task import make_task
from modeling_umons.training import trainer as trainer_module
from modeling_umons.training.arguments import AugmentationArguments, RunArguments
from modeling_umons.training.checkpoints import asks_for_more, find_checkpoint, list_checkpoints


WORDS = ("good", "fine", "bad", "so")
FRAME = 3


def make_rows(size: int, seed: int) -> Dataset:
    """Data sets with three words, a few frames and all labels; anger is rare."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "segment_id": str(i),
            "text": " ".join(random.choice(WORDS, 3)),
            "audio_features": random.normal(size=(2 + i % 4, FRAME)).astype(np.float32),
            "sentiment": float(random.integers(-3, 4)),
            **{name: float(random.random() < (0.1 if name == "anger" else 0.4)) for name in EMOTIONS},
        }
        for i in range(size)
    ]
    return Dataset(to_table(rows, make_features(FRAME)))


@pytest.fixture(scope="module")
def rows() -> dict[str, Dataset]:
    return {"train": make_rows(16, 0), "validation": make_rows(6, 1)}


@pytest.fixture
def make(tmp_path, rows):
    """Return a function that creates a `UmonsTrainer` of a tiny model."""

    def call(task="emotion", modalities=("text", "audio"), augmentation=None, dropout=0.0, train=None, **options):
        torch.manual_seed(0)
        task = make_task(task)
        tokenizer = build_tokenizer(list(WORDS))
        processor = UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())
        config = UmonsConfig(
            modalities=list(modalities), vocab_size=len(tokenizer), word_embedding_size=4, hidden_size=8,
            audio_feature_size=FRAME, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **task.config_options(),
        )  # fmt: skip
        values = {
            "output_dir": tmp_path / "run", "per_device_train_batch_size": 8, "num_train_epochs": 2,
            "learning_rate": 0.01, "disable_tqdm": True, "report_to": "none", "use_cpu": True,
        }  # fmt: skip
        return trainer_module.UmonsTrainer(
            UmonsForSequenceClassification(config),
            RunArguments(**values | options),
            task,
            {**rows, "train": train or rows["train"]},
            make_collator(processor, config, task),
            AugmentationArguments(**augmentation or {}),
            processor,
        )

    return call


def first_batch(trainer, size: int = 8) -> dict[str, torch.Tensor]:
    return trainer.data_collator(trainer.train_dataset[list(range(size))])


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


# --- the loss


@pytest.mark.parametrize("task", ["emotion", "joint", "sentiment", "sentiment-7"])
def test_loss_is_that_of_model_by_default(make, task):
    trainer = make(task)
    trainer.model.train()
    batch = first_batch(trainer)
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    torch.testing.assert_close(loss, trainer.model(**batch).loss)
    assert outputs.logits.shape[0] == 8


@pytest.mark.parametrize(
    ("augmentation", "options"),
    [
        ({"class_weights": "balanced"}, {}),
        ({"focal_gamma": 2.0}, {}),
        ({}, {"label_smoothing_factor": 0.1}),
        ({"class_weights": "balanced", "focal_gamma": 2.0}, {"label_smoothing_factor": 0.1}),
    ],
)
@pytest.mark.parametrize("task", ["emotion", "sentiment-2"])
def test_loss_options_apply(make, rows, task, augmentation, options):
    trainer = make(task, augmentation=augmentation, **options)
    batch = first_batch(trainer)
    weights = None
    if "class_weights" in augmentation:
        weights = balanced_weights(make_task(task), make_task(task).label_array(rows["train"].data.table)[0])
    literal = TaskLoss(
        make_task(task), weights, augmentation.get("focal_gamma", 0.0), options.get("label_smoothing_factor", 0.0)
    )
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    outputs = trainer.model(**batch)
    assert loss.equal(literal(outputs.logits, batch["labels"]))
    assert loss != outputs.loss
    loss.backward()
    assert all(weight.grad is not None for weight in trainer.model.parameters())


def test_balanced_weights_are_of_training_rows(make, rows):
    """Repeated rows count repeatedly; validation rows do not count."""
    trainer = make(augmentation={"class_weights": "balanced"}, train=rows["train"].select([0, 0, 0, 1, 2, 3, 4, 5]))
    truth = np.array([[rows["train"][i][name] for name in EMOTIONS] for i in (0, 0, 0, 1, 2, 3, 4, 5)])
    present = truth.sum(axis=0)
    expected = np.maximum(8 - present, 1) / np.maximum(present, 1)
    np.testing.assert_allclose(trainer.task_loss.class_weights.numpy(), expected, rtol=1e-6)


def test_loss_options_require_classes(make):
    with pytest.raises(ValueError, match="'sentiment' has none"):
        make("sentiment", augmentation={"class_weights": "balanced"})


@pytest.mark.parametrize(
    ("task", "class_weights"),
    [("joint", "none"), ("joint", "balanced"), ("sentiment", "none"), ("sentiment-7", "balanced")],
)
def test_accumulated_batches_equal_one_batch(make, tmp_path, rows, task, class_weights):
    """Steps of 9 and 5 rows, in batches of 3 rows or as a whole. For `joint`, labels are unknown in some rows."""
    augmentation, train = {"class_weights": class_weights}, rows["train"].select(range(14))
    if task == "joint":
        unknown = [("sentiment",) if i < 5 else EMOTIONS if i > 8 else () for i in range(14)]
        train = train.map(lambda row, i: row | dict.fromkeys(unknown[i]), with_indices=True, keep_in_memory=True)
    options = {"optim": "sgd", "learning_rate": 0.1, "train": train, "augmentation": augmentation}
    one = make(task, **options, per_device_train_batch_size=9)
    two = make(
        task, **options, per_device_train_batch_size=3, gradient_accumulation_steps=3, output_dir=tmp_path / "two"
    )
    one.run()
    two.run()
    assert one.state.global_step == two.state.global_step == 4
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(value, two.model.state_dict()[name], rtol=1e-5, atol=1e-6)


# The compiler reads `.grad` of tensors at a graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_steps_equal_eager_ones(make, tmp_path):
    """As `--torch_compile true`, without the slow compilation to machine code."""
    options = {"num_train_epochs": 1, "logging_strategy": "steps", "logging_steps": 1}
    eager = make("joint", **options)
    compiled = make(
        "joint", **options, torch_compile=True, torch_compile_backend="aot_eager", output_dir=tmp_path / "compiled"
    )
    try:
        for trainer in (eager, compiled):
            trainer.run()
    finally:
        torch.compiler.reset()
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (eager, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert weights_of(compiled).keys() == weights_of(eager).keys()


# --- augmentation


def test_mixup_mixes_losses(make):
    trainer = make("sentiment-2", ["audio"], {"mixup": 0.4})
    batch = first_batch(trainer)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, others, share = trainer.augment.mix(batch)
        if 0.2 < share < 0.8:
            break
    loss_of = torch.nn.functional.cross_entropy
    logits = trainer.model(**{name: mixed[name] for name in ("input_features", "input_features_mask")}).logits
    expected = share * loss_of(logits, batch["labels"]) + (1 - share) * loss_of(logits, batch["labels"][others])
    trainer.model.train()  # there is no dropout: nothing else is drawn
    torch.manual_seed(seed)
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), expected)
    trainer.model.eval()
    torch.manual_seed(seed)
    plain = trainer.model(**batch).loss
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), plain)


def test_mixup_rejects_text(make):
    trainer = make(augmentation={"mixup": 0.4})
    with pytest.raises(ValueError, match="--mixup requires a model without text"):
        trainer.run()


def test_validation_is_not_augmented(make):
    """Replace all words and drop a modality of each row in training; evaluation is unchanged."""
    trainer = make(augmentation={"word_dropout": 1.0, "modality_dropout": 1.0})
    batch = first_batch(trainer)
    own = trainer.model.eval()(**batch).loss
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), own)
    trainer.model.train()
    assert not trainer.compute_loss(trainer.model, dict(batch)).isclose(own)


# --- runs


STOPS = {"max_halvings": 1, "patience": 1, "num_train_epochs": 12, "learning_rate": 0.5, "dropout": 0.2}


@pytest.mark.parametrize("keeps_the_best", [True, False])
def test_resuming_a_stopped_run_keeps_weights(make, tmp_path, keeps_the_best):
    """Resume a run that was interrupted after its last epoch, before its report."""
    options = {**STOPS, "load_best_model_at_end": keeps_the_best}
    whole = make(**options)
    whole.run()
    assert whole.state.epoch < 12
    last = find_checkpoint(whole.args.output_dir)
    assert is_same(weights_of(whole), load_file(last / "model.safetensors")) != keeps_the_best
    # In another place, as when the folder was moved.
    Path(whole.args.output_dir).rename(tmp_path / "moved")

    resumed = make(**options, output_dir=tmp_path / "moved", resume_from_checkpoint="last")
    resumed.run()
    assert is_same(weights_of(resumed), weights_of(whole))
    assert resumed.state.global_step == whole.state.global_step
    assert find_checkpoint(tmp_path / "moved").name == last.name
    rows = make_rows(5, 2)
    np.testing.assert_array_equal(resumed.logits(rows), whole.logits(rows))


def test_stopped_run_resumes_with_more_patience(make):
    whole = make(**STOPS)
    whole.run()
    resumed = make(**STOPS | {"patience": 2}, resume_from_checkpoint="last")
    resumed.run()
    assert resumed.state.global_step > whole.state.global_step


def test_resuming_without_checkpoint_starts(make, caplog):
    """Incomplete checkpoints are ignored."""
    part = Path(make().args.output_dir, "checkpoint-2")
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"part")
    caplog.set_level("INFO", logger=trainer_module.__name__)
    resumed = make(resume_from_checkpoint="last")
    resumed.run()
    assert "Going on" not in caplog.text
    assert resumed.state.global_step == 4
    start = make(output_dir=part.parent / "other")
    start.run()
    assert is_same(weights_of(start), weights_of(resumed))


def test_resumed_run_is_bit_exact(make, tmp_path, caplog):
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
    caplog.set_level("INFO", logger=trainer_module.__name__)
    resumed = make(**options, resume_from_checkpoint="last")
    resumed.run()
    assert f"Resuming from {tmp_path / 'run' / 'checkpoint-4'}" in caplog.text
    assert is_same(weights_of(resumed), weights_of(whole))


@pytest.fixture
def run_of_two_epochs(make, tmp_path) -> Path:
    make(output_dir=tmp_path / "two_epochs").run()
    return tmp_path / "two_epochs"


def test_run_killed_in_rotation_resumes_bit_exactly(make, tmp_path, monkeypatch):
    """Kill a run at the removal of files of its first checkpoint, which is no longer the best one."""
    options = {"num_train_epochs": 4, "augmentation": {"word_dropout": 0.3}, "load_best_model_at_end": False}
    whole = make(**options, output_dir=tmp_path / "whole")
    whole.run()
    real = shutil.rmtree
    for number, kept in enumerate([None, "scheduler.pt", "model.safetensors"]):

        def kill(path, kept=kept, **options):
            for file in Path(path).iterdir() if kept else ():
                if file.name != kept:
                    file.unlink()
            raise KeyboardInterrupt

        output = tmp_path / str(number)
        monkeypatch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            make(**options, output_dir=output).run()
        monkeypatch.setattr(shutil, "rmtree", real)
        resumed = make(**options, output_dir=output, resume_from_checkpoint="last")
        resumed.run()
        assert is_same(weights_of(resumed), weights_of(whole))
        assert [path.name for path in list_checkpoints(output)] == [
            path.name for path in list_checkpoints(whole.args.output_dir)
        ]


def test_checkpoints_rotate_by_step_and_keep_best(make):
    """The clock is set back before the last checkpoint."""
    trainer = make(num_train_epochs=5, metric_for_best_model="loss")

    class Clock(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            state.best_metric, state.best_global_step = 0.0, 2
            for path in list_checkpoints(args.output_dir):
                os.utime(path, (2e9 - state.global_step, 2e9 - state.global_step))

    trainer.add_callback(Clock)
    trainer.run()
    assert [path.name for path in list_checkpoints(trainer.args.output_dir)] == ["checkpoint-2", "checkpoint-10"]


def test_best_of_equal_epochs_has_the_lowest_loss(make, caplog, monkeypatch):
    caplog.set_level("INFO")
    trainer = make(num_train_epochs=3, metric_for_best_model="emotion_acc")
    losses = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"loss": next(losses), "emotion_acc": 0.5})
    trainer.run()
    assert trainer.state.best_global_step == 4
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"
    assert "Best epoch on validation: 2 (emotion_acc 0.5)." in caplog.text


def test_finished_run_is_continued_for_more_epochs(make, tmp_path):
    whole = make(num_train_epochs=3, output_dir=tmp_path / "whole")
    whole.run()
    first = make(num_train_epochs=2)
    first.run()
    assert not asks_for_more(first.args)
    longer = make(num_train_epochs=3, resume_from_checkpoint="last")
    assert asks_for_more(longer.args)
    longer.run()
    assert is_same(weights_of(longer), weights_of(whole))


def test_resuming_with_other_data_raises(make, rows, caplog):
    make(num_train_epochs=1).run()
    train = rows["train"]
    others = [
        ({"train": train.select([1, 0, *range(2, 16)])}, r"differ in train \(was 16 rows \w+, is 16 rows \w+\)\. "),
        (
            {"train": train.select(range(8)), "task": "sentiment"},
            r"labels \(was happy, .*, is sentiment\); train \(.*, is 8 rows ",
        ),
        ({"seed": 1}, r"differ in --seed \(was 42, is 1\)\. Resume it with the same ones"),
        ({"gradient_accumulation_steps": 2}, r"differ in rows per step \(was 8, is 16\)"),
        ({"dropout": 0.2}, r"hidden_dropout_prob \(was 0.0, is 0.2\)"),
    ]
    for options, message in others:
        with pytest.raises(ValueError, match=message):
            make(**options, resume_from_checkpoint="last").run()
    trainer = make(num_train_epochs=2, learning_rate=0.02, resume_from_checkpoint="last")
    trainer.fingerprint["options"]["processes"] = 2
    trainer.run()
    assert "processes (was 1, is 2): results are not bit-exact" in caplog.text
    assert trainer.state.global_step == 4


def test_checkpoints_have_the_default_mode(make):
    trainer = make(num_train_epochs=1)
    trainer.run()
    files = list(find_checkpoint(trainer.args.output_dir).iterdir())
    assert len({path.stat().st_mode for path in files}) == 1


def zip_pickle(program: bytes) -> bytes:
    """Return an archive of `torch.save` with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return file.getvalue()


# A dictionary whose key is a tuple in 100,000 tuples: its hash overflows the stack.
CRASH = zip_pickle(b"\x80\x02})" + 100_000 * b"\x85" + b"Ns.")


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json"]
)
@pytest.mark.parametrize("content", [b"", b"\x80\x02cos\nsystem\n.", b"PK\x03\x04 damaged", CRASH])
def test_damaged_checkpoint_is_named_with_the_one_before(run_of_two_epochs, make, name, content):
    output = run_of_two_epochs
    (output / "checkpoint-4" / name).write_bytes(content)
    message = r"checkpoint-4 is damaged: .*\. Resume from the one before: --resume_from_checkpoint .*checkpoint-2$"
    with pytest.raises(OSError, match=message) as raised:
        make(num_train_epochs=3, output_dir=output, resume_from_checkpoint="last").run()
    assert "weights_only" not in str(raised.value)


def test_checkpoint_of_pickled_weights_is_refused(run_of_two_epochs, make):
    (run_of_two_epochs / "checkpoint-4" / "model.safetensors").rename(
        run_of_two_epochs / "checkpoint-4" / "pytorch_model.bin"
    )
    with pytest.raises(OSError, match=r"pytorch_model.bin is a pickle; only safetensors are loaded"):
        make(num_train_epochs=3, output_dir=run_of_two_epochs, resume_from_checkpoint="last").run()


def test_resuming_from_incomplete_checkpoint_raises(make, tmp_path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoint-2 is not a complete checkpoint"):
        make(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")).run()


@pytest.mark.parametrize(
    ("task", "metric", "greater"),
    [("emotion", "emotion_acc", True), ("joint", "loss", False), ("sentiment", "mae", False)],
)
def test_default_metric_of_task(make, task, metric, greater):
    args = make(task).args
    assert (args.metric_for_best_model, args.greater_is_better) == (metric, greater)


def test_unknown_metric_raises(make):
    with pytest.raises(ValueError, match=r"is 'f1'; the task 'sentiment-2' has loss, accuracy, balanced_accuracy"):
        make("sentiment-2", metric_for_best_model="f1")
    assert make("sentiment-2", metric_for_best_model="eval_f1_macro").args.greater_is_better


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:36563: Connection reset by peer."),
        torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
    ],
    ids=["gloo", "nccl"],
)
def test_lost_process_is_named_with_the_remedy(make, monkeypatch, error):
    trainer = make()
    monkeypatch.setattr(trainer, "train", lambda **options: (_ for _ in ()).throw(error))
    with pytest.raises(ConnectionError, match=r"another process .* lost .*--resume_from_checkpoint last"):
        trainer.run()


def test_other_errors_are_not_converted(make, monkeypatch):
    trainer = make()
    monkeypatch.setattr(trainer.model, "forward", lambda **inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run()


def test_trainer_logits_equal_model(make, rows):
    trainer = make()
    logits = trainer.logits(rows["validation"])
    batch = trainer.data_collator(rows["validation"].with_format("arrow")[:])
    with torch.inference_mode():
        expected = trainer.model.eval()(**batch).logits
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-6)
