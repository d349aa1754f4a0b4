"""Tests of audio encoders that are fine-tuned on audio files."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from call_command import call
from datasets import Dataset, Features, List, Value
from small_encoders import AUDIO, changed, save_encoder, weights_of
from transformers import AutoModelForSequenceClassification, AutoProcessor, Wav2Vec2Config, pipeline

from modeling_umons import UmonsConfig
from modeling_umons.cli import evaluate, train
from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.collator import SOUND, ArrowRows
from modeling_umons.data.rows import make_collator, rows_for_all, usable_rows
from modeling_umons.data.sampling import order_by_length, row_lengths
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.tasks.task import make_task
from modeling_umons.training.arguments import AugmentationArguments, ModelArguments, RunArguments
from modeling_umons.training.augmentation import Augmentation
from modeling_umons.training.build_models import Parts, System, make_config, make_model
from modeling_umons.training.trainer import UmonsTrainer


BODY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODER = "model.encoders.audio.model."
CONVOLUTIONS = f"{ENCODER}feature_extractor."


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, str]:
    return {name: save_encoder(make(), tmp_path_factory.mktemp(name)) for name, make in AUDIO.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Folder of high and low tones, a broken file and a table with a row without file."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    lines = ["file_name,text,sentiment,split"]
    for i in range(16):
        is_high, split = i % 2, ("train", "train", "validation", "test")[i // 4]
        times = np.arange(2000 + 300 * i) / 16000
        samples = 0.5 * np.sin(2 * np.pi * (2000 if is_high else 250) * times) + 0.05 * random.normal(size=len(times))
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        lines.append(f"{i}.wav,{'good' if i % 3 else 'bad'},{2 * is_high - 1},{split}")
    (folder / "broken.wav").write_bytes(b"RIFF is what it says")
    lines += ["broken.wav,good,1,train", ",bad,-1,train"]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def make(tmp_path, encoders, clips):
    """Return a function that creates a `UmonsTrainer` of a tiny model with an audio encoder of this kind."""

    def call(kind="wav2vec2", modalities=("text", "audio"), arguments=None, output="run", **options) -> UmonsTrainer:
        torch.manual_seed(0)
        arguments = ModelArguments(
            modalities=list(modalities), audio_encoder=encoders[kind], word_embedding_size=4, **BODY, **NO_DROPOUT,
            **arguments or {},
        )  # fmt: skip
        task, system = make_task("sentiment"), System.parse("umons", modalities)
        parts = Parts.make(arguments, ["good", "bad"], system.encoders(arguments))
        config = make_config(system, arguments, parts, task)
        table = Dataset.from_csv(str(clips / "metadata.csv"))
        table = table.map(lambda row: {"file_name": row["file_name"] and str(clips / row["file_name"])})
        collator = make_collator(parts.processor, config, task, table.column_names)
        rows = {
            split: usable_rows(
                table.filter(lambda row, split=split: row["split"] == split),
                collator,
                parts.processor,
                DataArguments(),
            )[0]
            for split in ("train", "validation", "test")
        }
        values = {
            "output_dir": tmp_path / output, "per_device_train_batch_size": 4, "num_train_epochs": 2,
            "learning_rate": 0.01, "disable_tqdm": True, "report_to": "none", "use_cpu": True,
        }  # fmt: skip
        return UmonsTrainer(
            make_model(config, arguments, parts, running={"text", "audio"}),
            RunArguments(**values | options),
            task,
            rows,
            collator,
            AugmentationArguments(),
            parts.processor,
        )

    return call


@pytest.mark.parametrize("kind", AUDIO)
def test_encoder_is_trained_on_inputs_of_processor(make, kind, clips, tmp_path):
    trainer = make(kind)
    before = weights_of(trainer.model)
    trainer.run()
    names = {name for name in changed(trainer.model, before) if name.startswith(ENCODER)}
    assert names
    assert not any(name.startswith(CONVOLUTIONS) for name in names)  # which stay as they are

    trainer.model.save_pretrained(tmp_path / "saved")
    trainer.processing_class.save_pretrained(tmp_path / "saved")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    rate = processor.feature_extractor.sampling_rate
    sound = [read_clip(str(clips / f"{i}.wav"), video=False, sampling_rate=rate).audio for i in range(12, 16)]
    texts = ["bad", "good", "good", "bad"]
    inputs = processor(text=texts, audio=sound, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad():
        heard = model(**inputs).logits.numpy()
    test = usable_rows_of(trainer, clips, "test")
    assert test["text"] == texts
    np.testing.assert_allclose(heard, trainer.logits(test), atol=1e-5)


def usable_rows_of(trainer: UmonsTrainer, clips: Path, split: str) -> Dataset:
    table = Dataset.from_csv(str(clips / "metadata.csv")).filter(lambda row: row["split"] == split)
    table = table.map(lambda row: {"file_name": str(clips / row["file_name"])})
    return usable_rows(table, trainer.data_collator, trainer.processing_class, DataArguments())[0]


def test_model_learns_tones(make):
    trainer = make(modalities=("audio",), num_train_epochs=15, lr_scheduler_type="cosine")
    trainer.run()
    metrics = trainer.evaluate()
    assert metrics["eval_mae"] < 0.5  # always the same gives 1


@pytest.mark.parametrize(
    ("arguments", "options", "learns"),
    [
        ({"freeze_encoders": True}, {}, False),
        ({}, {"unfreeze_epoch": 1, "num_train_epochs": 1, "max_steps": 1}, False),
        ({}, {"unfreeze_epoch": 1}, True),
        ({"lora_rank": 2}, {}, True),
        ({"use_weighted_layer_sum": ["audio"]}, {"encoder_learning_rate": 1e-3, "encoder_layer_decay": 0.5}, True),
    ],
)
def test_trainable_weights_of_encoder(make, arguments, options, learns):
    if arguments.get("lora_rank"):
        pytest.importorskip("peft")
    before = weights_of(make(arguments=arguments | {"lora_rank": 0}, output="before").model)
    trainer = make(arguments=arguments, **options)
    trainer.run()
    names = {name for name in changed(trainer.model, before) if name.startswith(ENCODER)}
    assert bool(names) is learns
    assert not any(name.startswith(CONVOLUTIONS) for name in names)


def test_frozen_word_vectors_with_trainable_encoder(make):
    model = make(arguments={"freeze_word_vectors": True}).model
    assert not model.get_input_embeddings().weight.requires_grad
    assert model.model.encoders["audio"].model.encoder.layers[0].attention.k_proj.weight.requires_grad


def test_resumed_run_is_bit_exact(make):
    options = {
        "unfreeze_epoch": 1, "num_train_epochs": 2, "eval_strategy": "steps", "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1, "save_total_limit": None, "load_best_model_at_end": False,
        "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    whole = make(output="whole", **options)
    whole.run()
    resumed = make(output="resumed", **options, resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    resumed.run()
    assert resumed.state.global_step == whole.state.global_step > 4
    assert not changed(resumed.model, weights_of(whole.model))


def test_rows_without_audio_and_unreadable_files(make, clips):
    trainer = make()
    table = Dataset.from_list(
        [
            {"file_name": str(clips / "0.wav"), "text": "good", "sentiment": 1.0},
            {"file_name": str(clips / "broken.wav"), "text": "good", "sentiment": 1.0},
            {"file_name": None, "text": "bad", "sentiment": -1.0},
            {"file_name": str(clips / "broken.wav"), "text": None, "sentiment": 1.0},
        ]
    )
    collator = trainer.data_collator
    rows, problems = usable_rows(table, collator, trainer.processing_class, DataArguments())
    assert len(rows) == 3
    assert [problem.split(":")[0] for problem in problems] == ["row 1", "row 3"]
    assert "broken.wav" in problems[0]
    batch = collator(ArrowRows(rows)[:])
    assert batch["input_values_mask"].any(dim=1).tolist() == [True, False, False]
    assert not batch["input_values"][1:].any()
    # Nor does a batch without any sound lack the encoder, so that all processes compute with the same parameters.
    alone = collator(ArrowRows(rows)[[1, 2]])
    with torch.no_grad():
        some, none = (trainer.model.eval()(**of).logits for of in (batch, alone))
    torch.testing.assert_close(some[1:], none)
    emptied = rows.remove_columns(SOUND).add_column(SOUND, [None] * 3)
    assert not collator(ArrowRows(emptied)[:])["input_values_mask"].any()


def test_short_audio_with_masks_of_encoder(tmp_path):
    """SpecAugment of transformers raises for batches shorter than its masks."""
    small = AUDIO["wav2vec2"]().to_dict() | {"mask_time_prob": 0.05, "mask_time_length": 10}
    encoder = save_encoder(Wav2Vec2Config.from_dict(small), tmp_path / "encoder")
    arguments = ModelArguments(modalities=["audio"], audio_encoder=encoder, **BODY)
    task, system = make_task("sentiment"), System.parse("umons", ["audio"])
    parts = Parts.make(arguments, [], system.encoders(arguments))
    config = make_config(system, arguments, parts, task)
    collator = make_collator(parts.processor, config, task, [SOUND])
    features = Features({SOUND: List(Value("float32")), "sentiment": Value("float64")})
    rows = Dataset.from_list([{SOUND: [0.1, -0.1] * 20, "sentiment": 1.0}] * 2, features=features)
    model = make_model(config, arguments, parts, running={"audio"}).train()
    model(**collator(ArrowRows(rows)[:])).loss.backward()


def test_rows_are_grouped_by_audio_length(make):
    trainer = make(modalities=("audio",))
    rows = trainer.train_dataset
    samples = [len(sound) for sound in rows.dataset.with_format(None)[SOUND]]
    assert min(samples) > 1000  # more than the model takes of steps, at which features are cut
    assert row_lengths(rows, trainer.data_collator.modality_columns, {"audio": 100}) == samples
    assert order_by_length(rows.dataset, trainer.data_collator).tolist() == np.argsort(samples)[::-1].tolist()


def test_feature_masks_reject_spectrograms():
    batch = {"input_features": torch.ones(4, 80, 3000), "input_features_mask": torch.ones(4, 3000, dtype=torch.int64)}
    with pytest.raises(ValueError, match="processes waveforms"):
        Augmentation(bin_mask=0.1)(batch)


def test_augmentation_of_waveforms():
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.full((50, 3), 4),
        "attention_mask": torch.ones(50, 3, dtype=torch.int64),
        "input_values": torch.ones(50, 100),
        "input_values_mask": torch.ones(50, 100, dtype=torch.int64),
        "labels": torch.zeros(50),
    }
    dropped = Augmentation(modality_dropout=1.0)(batch)
    lost = ~torch.stack([dropped[name].any(dim=1) for name in ("attention_mask", "input_values_mask")])
    assert lost.sum(dim=0).tolist() == [1] * 50
    assert lost.any(dim=1).all()
    with pytest.raises(ValueError, match="processes waveforms"):
        Augmentation(time_mask=0.1)(batch)
    del batch["input_ids"], batch["attention_mask"]
    batch["input_values"] = torch.arange(50.0)[:, None].expand(50, 100)
    mixed = [Augmentation(mixup=0.4).mix(batch) for _ in range(9)]
    assert any(share < 1 for *_, share in mixed)
    for of, others, share in mixed:
        if share < 1:
            expected = share * torch.arange(50.0) + (1 - share) * others
            torch.testing.assert_close(of["input_values"][:, 0], expected)


def test_systems_with_and_without_encoder_share_rows(make, clips):
    trainer = make()
    paper = Parts.make(ModelArguments(), ["good", "bad"]).processor
    task, config = make_task("sentiment"), UmonsConfig(vocab_size=len(paper.tokenizer))
    table = Dataset.from_csv(str(clips / "metadata.csv")).filter(lambda row: row["split"] == "train")
    table = table.map(lambda row: {"file_name": row["file_name"] and str(clips / row["file_name"])})
    collators = [trainer.data_collator, make_collator(paper, config, task, table.column_names)]
    rows, problems = rows_for_all(table, collators, [trainer.processing_class, paper], DataArguments())
    assert len(rows) == 10
    assert len(problems) == 1
    for collator, name in zip(collators, ("input_values_mask", "input_features_mask"), strict=True):
        assert collator(ArrowRows(rows)[:])[name].any(dim=1).tolist() == 8 * [True] + 2 * [False]


def test_train_encoder_on_table_of_files(root, encoders, clips, tmp_path, monkeypatch):
    call(train.main, *(
        f"--train_file {clips / 'metadata.csv'} --task sentiment --label_range -3 3 --audio_encoder "
        f"{encoders['wav2vec2']} --use_cpu true --output_dir {tmp_path / 'run'} --model umons umons_paper "
        "--num_train_epochs 1 "
        "--encoder_learning_rate 1e-3 "
        "--word_embedding_size 4 --hidden_size 8 --intermediate_size 8 --num_hidden_layers 1 --num_attention_heads 2 "
        "--config_overrides umons.max_audio_length=300 --report_to none --disable_tqdm true"
        ).split())  # fmt: skip
    comparison = json.loads((tmp_path / "run" / "comparison.json").read_text(encoding="utf-8"))
    assert list(comparison["systems"]) == ["umons", "umons_paper"]
    call(evaluate.main, *(
        f"--model {tmp_path / 'run' / 'umons'} {tmp_path / 'run' / 'umons_paper'} --dataset {clips / 'metadata.csv'} "
        f"--split test --output {tmp_path / 'evaluation'}"
        ).split())  # fmt: skip
    evaluated = json.loads((tmp_path / "evaluation" / "report.json").read_text(encoding="utf-8"))
    trained = json.loads((tmp_path / "run" / "umons" / "report" / "report.json").read_text(encoding="utf-8"))
    members = evaluated["splits"]["test"]["members"]
    mae = members[str(tmp_path / "run" / "umons")]["mae"]
    assert mae == pytest.approx(trained["splits"]["test"]["model"]["mae"], abs=1e-5)
    recognize = pipeline("multimodal-emotion-recognition", model=str(tmp_path / "run" / "umons"))
    assert recognize(str(clips / "12.wav"))["modalities"] == ["audio"]


def test_options_of_frozen_encoders_raise(root, encoders, tmp_path, monkeypatch):
    rows = [
        {"text": "good", "audio_features": [[0.0] * 16] * 3, "sentiment": 1.0, "split": split}
        for split in ("train", "train", "validation")
    ]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "table.parquet"))
    with pytest.raises(SystemExit, match="no encoder is run in training"):
        call(train.main, *(
            f"--train_file {tmp_path / 'table.parquet'} --task sentiment --audio_encoder {encoders['wav2vec2']} "
            f"--encoder_learning_rate 1e-4 --output_dir {tmp_path / 'run'} --use_cpu true --report_to none"
        ).split())  # fmt: skip
