"""Converted checkpoints give what the published implementation gave, from Python and by the command."""

import argparse
import importlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoProcessor

import modeling_umons
from modeling_umons.cli import convert
from modeling_umons.data.safe_checkpoint import read_checkpoint
from modeling_umons.data.safe_pickle import read_pickle
from modeling_umons.models.umons.configuration_umons import EMOTIONS


FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "convert_original_checkpoint.py"
GOLDEN = ["la_emotion", "la_sentiment2", "la_sentiment7", "lav_emotion", "lav_sentiment7"]


@pytest.fixture(scope="module")
def script():
    module = importlib.import_module("modeling_umons.export.original_checkpoint")
    return module


@pytest.fixture
def command(capsys):
    """Run the command in this process; return its exit status and output."""

    def run(*arguments) -> tuple[int, str]:
        try:
            status = convert.main([*map(str, arguments)])
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        return status, output.err if status else output.out

    return run


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def read_golden(path: Path) -> tuple[dict, dict, dict, torch.Tensor]:
    """Return weights, training arguments, inputs by the names of this package, and logits."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        args = json.loads(file.metadata()["args"]) | {"model": file.metadata()["model"]}
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    inputs = {"input_ids": tensors["input_ids"], "input_features": tensors["audio_features"]}
    if args["model"] == "Model_LAV":
        inputs["video_features"] = tensors["video_features"]
    return weights, args, inputs, tensors["logits"]


def save_checkpoint(path: Path, weights: dict, args: dict, legacy: bool = False) -> Path:
    """Save a checkpoint as the published training loop does: arguments in a Namespace, with the loss module."""
    args = argparse.Namespace(**args, loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"), lr_base=1e-4)
    torch.save({"state_dict": weights, "args": args}, path, _use_new_zipfile_serialization=not legacy)
    return path


def save_vocabulary(path: Path, size: int) -> Path:
    """Save a published vocabulary for `size` word vectors: UNK and the first word share id 1."""
    path.write_bytes(pickle.dumps({"UNK": 1, **{f"word{i}": i for i in range(1, size)}}))
    return path


def check_parity(script, path: Path):
    weights, args, inputs, expected = read_golden(path)
    model = script.convert_model(weights, args)
    assert model.config.legacy_masking
    assert not model.training
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            logits = model(**inputs).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    # The fixture must be able to tell: with padding out of sight everywhere, the answer is another one.
    model.config.legacy_masking = False
    with torch.no_grad():
        assert (model(**inputs).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", [path.stem for path in sorted(FIXTURES.glob("model_*.safetensors"))])
def test_converted_fixtures_keep_logits(script, name):
    check_parity(script, FIXTURES / f"{name}.safetensors")


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN)
def test_converted_references_keep_logits(script, shared, name):
    check_parity(script, shared / "golden" / f"model_{name}.safetensors")


def test_convert_config_follows_arguments(script):
    _, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    config = script.convert_config(args, vocab_size=40)
    assert config.modalities == ["text", "audio"]
    assert (config.num_attention_heads, config.num_hidden_layers, config.intermediate_size) == (8, 2, 128)
    assert (config.max_text_length, config.max_audio_length) == (12, 15)
    assert config.problem_type == "single_label_classification"
    assert list(config.id2label.values()) == ["-3", "-2", "-1", "0", "1", "2", "3"]

    config = script.convert_config({**args, "model": "Model_LAV", "ans_size": 2, "task_binary": True}, vocab_size=40)
    assert config.modalities == ["text", "audio", "video"]
    assert config.id2label == {0: "negative", 1: "not negative"}

    config = script.convert_config({**args, "task": "emotion", "ans_size": 6}, vocab_size=40)
    assert config.problem_type == "multi_label_classification"
    assert tuple(config.id2label.values()) == EMOTIONS


@torch.no_grad()
@pytest.mark.parametrize(("task", "num_classes"), [("emotion", 7), ("sentiment", 3)])
def test_meld_checkpoint_has_lstm_of_audio_and_its_own_classes(script, tmp_path, caplog, task, num_classes):
    """
    The published code for MELD has an LSTM over audio frames, `lstm_y`, in place of the linear `adapter`. With the
    identity as `adapter`, the model of MOSEI takes the states of that LSTM as its features.
    """
    weights, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    size = args["hidden_size"]
    weights |= {name: weights[name][:num_classes].clone() for name in ("proj.weight", "proj.bias")}
    lstm = torch.nn.LSTM(args["audio_feat_size"], size, batch_first=True)
    meld = {name: tensor for name, tensor in weights.items() if not name.startswith("adapter")}
    meld |= {f"lstm_y.{name}": parameter.detach() for name, parameter in lstm.named_parameters()}
    meld_args = args | {"dataset": "MELD", "task": task, "ans_size": num_classes}
    checkpoint = save_checkpoint(tmp_path / "best.pkl", meld, meld_args)
    script.convert_checkpoint(checkpoint, tmp_path / "out")
    assert f"{num_classes} classes of MELD, whose names it does not contain: set `id2label`" in caplog.text
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.problem_type == "single_label_classification"

    weights |= {"adapter.weight": torch.eye(size), "adapter.bias": torch.zeros(size)}
    other = script.convert_model(weights, meld_args | {"audio_feat_size": size})
    words = torch.randint(1, 40, (2, args["lang_seq_len"]))
    frames = torch.randn(2, args["audio_seq_len"], args["audio_feat_size"])
    logits = model(input_ids=words, input_features=frames).logits
    assert logits.shape == (2, num_classes)
    torch.testing.assert_close(logits, other(input_ids=words, input_features=lstm(frames)[0]).logits)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_command_converts_checkpoint(tmp_path, command, legacy):
    weights, args, inputs, expected = read_golden(FIXTURES / "model_lav_emotion.safetensors")
    # Trained on several devices: every name starts with "module.".
    weights = {f"module.{name}": tensor for name, tensor in weights.items()} if legacy else weights
    checkpoint = save_checkpoint(tmp_path / "best.pkl", weights, args, legacy)
    vocabulary = save_vocabulary(tmp_path / "token_to_ix.pkl", size=40)
    if legacy:
        status, output = command(checkpoint, tmp_path / "out", "--token_to_ix", vocabulary)
        assert status == 0
    else:
        script = [sys.executable, "-W", "error", SCRIPT, checkpoint, tmp_path / "out", "--token_to_ix", vocabulary]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(script, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        output = done.stdout
    assert "AutoModelForSequenceClassification" in output

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert isinstance(model, modeling_umons.UmonsForSequenceClassification)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=1e-5)

    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert isinstance(processor, modeling_umons.UmonsProcessor)
    assert processor.feature_extractor.feature_size == 10
    assert processor.video_processor.max_clips == 15
    text = ["Word7, word1 unheard-of", "word39"]
    batch = processor(text=text, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[7, 1, 1], [39, 0, 0]]
    assert processor(text="word2 " * 20, return_tensors="pt")["input_ids"].shape == (1, 12)


def test_missing_vocabulary_warns(tmp_path, script, caplog):
    weights, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    script.convert_checkpoint(save_checkpoint(tmp_path / "best.pkl", weights, args), tmp_path / "out")
    assert "Without --token_to_ix, the tokenizer" in caplog.text
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor(text="two words", return_tensors="pt")["input_ids"].tolist() == [[1, 1]]


def wrong_inputs(case: str, folder: Path) -> tuple[list, str]:
    """Return the arguments of a failing command, without the output folder, and its message."""
    weights, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    checkpoint, vocabulary = folder / "best.pkl", folder / "token_to_ix.pkl"
    save_vocabulary(vocabulary, size=40)
    match case:
        case "missing file":
            return [folder / "nowhere.pkl"], "nowhere.pkl"
        case "no checkpoint":
            checkpoint.write_text("epoch,accuracy\n1,60.2\n")
            return [checkpoint], r"best\.pkl .* is damaged"
        case "data file":
            return [vocabulary], r"token_to_ix\.pkl"
        case "hostile checkpoint":
            torch.save({"state_dict": weights, "args": Hostile(folder / "executed")}, checkpoint)
            return [checkpoint], r"refused: it contains .*(posix|nt)\.mkdir"
        case "hostile vocabulary":
            save_checkpoint(checkpoint, weights, args)
            vocabulary.write_bytes(pickle.dumps(Hostile(folder / "executed")))
            return [checkpoint, "--token_to_ix", vocabulary], r"refused: it contains .*(posix|nt)\.mkdir"
        case "another vocabulary":
            save_checkpoint(checkpoint, weights, args)
            save_vocabulary(vocabulary, size=41)
            return [checkpoint, "--token_to_ix", vocabulary], "41 word ids, but the checkpoint has 40 word vectors"
        case "no vocabulary":
            save_checkpoint(checkpoint, weights, args)
            vocabulary.write_bytes(pickle.dumps(["UNK", "word"]))
            return [checkpoint, "--token_to_ix", vocabulary], "not a vocabulary: expected a dict"
        case "unknown parameter":
            save_checkpoint(checkpoint, {**weights, "enc_list.0.sa9.mhatt.linear_q.bias": torch.zeros(64)}, args)
            return [checkpoint], r"`enc_list\.0\.sa9\.mhatt\.linear_q\.bias`, which Model_LA does not have"
        case "strange parameter":
            save_checkpoint(checkpoint, {**weights, "decoder.weight": torch.zeros(64)}, args)
            return [checkpoint], r"`decoder\.weight`, which Model_LA does not have"
        case "missing parameter":
            del weights["proj.bias"]
            save_checkpoint(checkpoint, weights, args)
            return [checkpoint], r"`classifier\.bias` it has nothing, where they call for \(7,\)"
        case "no embedding":
            del weights["embedding.weight"]
            save_checkpoint(checkpoint, weights, args)
            return [checkpoint], r"no matrix `embedding\.weight`"
        case "another model":
            save_checkpoint(checkpoint, weights, {**args, "model": "Model_LV"})
            return [checkpoint], "is of `Model_LV`; expected one of Model_LA, Model_LAV"
        case "missing argument":
            del args["ff_size"], args["layer"]
            save_checkpoint(checkpoint, weights, args)
            return [checkpoint], "training arguments have no layer, ff_size"
        case "argument of another type":
            save_checkpoint(checkpoint, weights, {**args, "hidden_size": "64"})
            return [checkpoint], "(?s)do not describe a model.*hidden_size"
        case "other sizes":
            save_checkpoint(checkpoint, weights, {**args, "ff_size": 256})
            return [checkpoint], r"fc1\.bias` it has \(128,\), where they call for \(256,\)"
        case "too many layers":
            save_checkpoint(checkpoint, weights, {**args, "layer": 10**12})
            return [checkpoint], "`num_hidden_layers` is 1000000000000: it must be at most 1000"
    raise NotImplementedError(case)


CASES = [
    "missing file", "no checkpoint", "data file", "hostile checkpoint", "hostile vocabulary", "another vocabulary",
    "no vocabulary", "unknown parameter", "strange parameter", "missing parameter", "no embedding", "another model",
    "missing argument", "argument of another type", "other sizes", "too many layers",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_raises(tmp_path, command, case):
    (checkpoint, *options), words = wrong_inputs(case, tmp_path)
    before = sorted(tmp_path.iterdir())
    status, message = command(checkpoint, tmp_path / "out", *options)
    assert status == (1 if case == "missing file" else 2)
    assert message.startswith("umons convert: error: ")
    assert re.search(words, message), message
    assert sorted(tmp_path.iterdir()) == before  # nothing written, nothing executed


def test_output_file_raises(tmp_path, command):
    weights, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    checkpoint = save_checkpoint(tmp_path / "best.pkl", weights, args)
    (tmp_path / "out").write_text("precious")
    status, message = command(checkpoint, tmp_path / "out")
    assert status == 1
    assert "out exists already: choose a new or empty folder" in message
    assert (tmp_path / "out").read_text() == "precious"


def published_word_ids(words: list[str], token_to_ix: dict[str, int]) -> list[int]:
    """Return the ids by the published rule: hyphens and slashes become spaces inside the word."""
    cleaned = [re.sub(r"""[.,'!?"()*#:;]""", "", word.lower()) for word in words]
    cleaned = [word.replace("-", " ").replace("/", " ") for word in cleaned if word]
    return [token_to_ix.get(word, token_to_ix["UNK"]) for word in cleaned]


def is_right(task: str, logits: torch.Tensor, truth) -> torch.Tensor:
    """Return correctness by the published evaluation: (labels,) for emotions, (1,) for sentiment."""
    if task == "emotion":
        return (logits > 0) == (torch.as_tensor(truth) > 0)
    bins = [truth < -2, -2 <= truth < -1, -1 <= truth < 0, truth == 0, 0 < truth <= 1, 1 < truth <= 2, truth > 2]
    return torch.tensor([logits.argmax().item() == bins.index(True)])


@pytest.fixture(scope="module")
def converted(shared, tmp_path_factory) -> Path:
    """Folder of the two published checkpoints, converted by the command."""
    original, folder = shared / "golden" / "original", tmp_path_factory.mktemp("converted")
    vocabulary = str(original / "MOSEI" / "token_to_ix.pkl")
    for checkpoint in (original / "ckpt").glob("*/best*.pkl"):
        assert convert.main([str(checkpoint), str(folder / checkpoint.parent.name), "--token_to_ix", vocabulary]) == 0
    return folder


@pytest.mark.shared
@pytest.mark.parametrize(("name", "task"), [("Model_LA_emotion", "emotion"), ("Model_LAV_sentiment7", "sentiment")])
def test_published_checkpoints_keep_scores(converted, shared, name, task):
    """Two checkpoints of the published training loop, with its evaluation on the test split."""
    original = shared / "golden" / "original"
    corpus = original / "MOSEI"
    model = AutoModelForSequenceClassification.from_pretrained(converted / name)
    tokenizer = AutoProcessor.from_pretrained(converted / name).tokenizer

    sentences, mels, truth = (read_pickle(corpus / f"test_{part}.p") for part in ("sentences", "mels", task))
    expected = json.loads((original / f"expected_{name}.json").read_text())
    segments = list(expected["logits"])
    batch = tokenizer(
        [sentences[segment] for segment in segments],
        is_split_into_words=True, padding=True, truncation=True, return_tensors="pt",
    )  # fmt: skip
    # The corpus has one frame in 16 already. Three modalities were trained with the same frames as "video".
    frames = [torch.tensor(mels[segment][:60]) for segment in segments]
    batch["input_features"] = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    if "video" in model.config.modalities:
        batch["video_features"] = batch["input_features"]
    with torch.no_grad():
        logits = model(**batch).logits

    torch.testing.assert_close(logits, torch.tensor(list(expected["logits"].values())), rtol=0, atol=1e-4)
    right = torch.stack([is_right(task, *pair) for pair in zip(logits, (truth[s] for s in segments), strict=True)])
    assert 100 * right.float().mean().item() == pytest.approx(expected["test_accuracy"], abs=1e-4)


@pytest.mark.shared
def test_word_ids_equal_published(script, shared):
    corpus = shared / "golden" / "original" / "MOSEI"
    token_to_ix = read_pickle(corpus / "token_to_ix.pkl")
    _, args, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
    config = script.convert_config(args | {"lang_seq_len": 60}, vocab_size=454)
    tokenizer = script.make_tokenizer(corpus / "token_to_ix.pkl", config)
    for split in ("train", "valid", "test"):
        for segment, words in read_pickle(corpus / f"{split}_sentences.p").items():
            ids = tokenizer(words, is_split_into_words=True, truncation=True)["input_ids"]
            assert ids == published_word_ids(words, token_to_ix)[:60], segment


@pytest.mark.shared
def test_published_parameters_are_all_used(script, shared):
    for checkpoint in (shared / "golden" / "original" / "ckpt").glob("*/best*.pkl"):
        published = read_checkpoint(checkpoint)
        model = script.convert_model(published["state_dict"], published["args"])
        assert model.num_parameters() == sum(tensor.numel() for tensor in published["state_dict"].values())
