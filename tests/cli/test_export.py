"""Exported graphs answer as PyTorch does, whatever is missing, and the command writes them whole or not at all."""

import contextlib
import csv
import importlib
import io
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from call_command import call
from small_pipelines import make_pipeline
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoProcessor

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.cli import export
from modeling_umons.export.onnx import (
    complete_inputs,
    export_onnx,
    make_session,
    max_difference,
    quantize_int8,
    random_inputs,
    run,
)
from modeling_umons.models.umons.configuration_umons import EMOTIONS


ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "export_onnx.py"
MINI = ROOT / "hub" / "umons-mini"

TINY = {
    "vocab_size": 30,
    "word_embedding_size": 6,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_text_length": 9,
    "max_audio_length": 12,
    "max_video_length": 7,
    "audio_feature_size": 5,
}
MODELS = {
    "all-emotions": {
        "modalities": ["text", "audio", "video"], "num_labels": 6, "video_feature_size": 3,
        "problem_type": "multi_label_classification",
    },
    "video-classes-tower": {
        "modalities": ["video"], "num_hidden_layers": 2, "num_labels": 3, "video_tower": {},
        "problem_type": "single_label_classification",
    },
    "text-audio-joint-legacy": {"modalities": ["text", "audio"], "joint_sentiment": True, "legacy_masking": True},
}  # fmt: skip


def torch_logits(model, inputs) -> np.ndarray:
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    """Model, and its graph as bytes."""
    options = TINY | MODELS[request.param]
    torch.manual_seed(0)
    # Weights twice as large as usual, so that what is seen makes a difference.
    model = UmonsForSequenceClassification(UmonsConfig(initializer_factor=2.0, **options)).eval()
    return model, export_onnx(model).SerializeToString()


def test_graph_equals_pytorch(exported):
    model, graph = exported
    session = make_session(graph)
    limits = {modality: model.config.length_limit(modality) for modality in model.config.modalities}
    for batch_size in (1, 2, 3, 8):
        for shift in range(4):
            lengths = {m: 1 + (shift * (limit - 1) + 7 * i) % limit for i, (m, limit) in enumerate(limits.items())}
            inputs = random_inputs(model, batch_size, lengths, seed=shift)
            assert np.abs(run(session, inputs) - torch_logits(model, inputs)).max() < 1e-5
    assert max_difference(session, model) < 1e-5


def test_masked_modality_equals_missing_one(exported):
    model, graph = exported
    config, session = model.config, make_session(graph)
    if len(config.modalities) == 1:
        assert [entry.name for entry in session.get_inputs()] == ["video_features", "video_features_mask"]
        return
    together = run(session, random_inputs(model, 2, {m: config.length_limit(m) for m in config.modalities}))
    for modality in config.modalities:
        inputs = random_inputs(model, 2, {modality: config.length_limit(modality)})
        alone = run(session, inputs)
        assert np.abs(alone - torch_logits(model, inputs)).max() < 1e-5
        assert np.abs(alone - together).max() > 1e-3  # the others were heard


def test_graph_names_inputs_and_no_paths(exported):
    model, graph = exported
    parsed = onnx.load_from_string(graph)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*parsed.graph.input, *parsed.graph.output]
    }
    config = model.config
    texts = {name: ["batch", "text_length"] for name in ("input_ids", "attention_mask")}
    audio = {"input_features": ["batch", "audio_length", 5], "input_features_mask": ["batch", "audio_length"]}
    size = config.video_feature_size
    video = {"video_features": ["batch", "video_length", size], "video_features_mask": ["batch", "video_length"]}
    expected = {"text": texts, "audio": audio, "video": video}
    expected = {name: shape for m in config.modalities for name, shape in expected[m].items()}
    assert shapes == expected | {"logits": ["batch", config.num_labels]}
    operators = [node.op_type for node in parsed.graph.node]
    assert operators.count("LSTM") == ("text" in config.modalities)
    assert not {"Loop", "Scan"} & set(operators)
    assert str(ROOT).encode() not in graph
    assert b".py" not in graph
    assert not any(node.metadata_props or node.doc_string for node in parsed.graph.node)


def test_max_difference_detects_changed_weights(exported, tmp_path):
    model, graph = exported
    session = make_session(graph)
    with torch.no_grad():
        kept = model.classifier.bias.clone()
        model.classifier.bias[-1] += 0.01
        assert max_difference(session, model) == pytest.approx(0.01, rel=1e-2)
        model.classifier.bias[-1] = torch.nan
        assert np.isnan(max_difference(session, model))
        model.classifier.bias.copy_(kept)
    (tmp_path / "model.onnx").write_bytes(graph)
    quantize_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert 1e-4 < max_difference(make_session(tmp_path / "int8.onnx"), model) < 0.5
    assert str(tmp_path).encode() not in (tmp_path / "int8.onnx").read_bytes()
    if "text" in model.config.modalities:
        quantize_int8(tmp_path / "model.onnx", tmp_path / "words.onnx", word_vectors=False)
        words = model.get_input_embeddings().weight.detach().numpy().tobytes()
        assert words in (tmp_path / "words.onnx").read_bytes()
        assert words not in (tmp_path / "int8.onnx").read_bytes()
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    weights = [one for one in weights if one.dtype == np.int8 and one.size > 1]
    assert weights
    assert max(np.abs(one.astype(int)).max() for one in weights) <= 64  # 7 bits: sums of 8 overflow on some CPUs


def test_three_legacy_modalities_raise():
    options = TINY | {"max_video_length": 12, "modalities": ["text", "audio", "video"], "legacy_masking": True}
    model = UmonsForSequenceClassification(UmonsConfig(**options))
    with pytest.raises(ValueError, match="`legacy_masking` of text, audio and video cannot be exported"):
        export_onnx(model)


# --- the command


@pytest.fixture(scope="module")
def script():
    module = importlib.import_module("modeling_umons.export.export_model")
    return module


@pytest.fixture(scope="module")
def mini(script, tmp_path_factory):
    """Exported folder of umons-mini, and the output of the command."""
    folder = tmp_path_factory.mktemp("exported")
    with open(folder / "table.csv", "w", newline="") as file:
        rows = [["a wonderful day", 2.0], ["I hate this awful film", -2.5], ["it is a table", 0.0], ["great fun", 3.0]]
        csv.writer(file).writerows([["text", "sentiment"], *rows])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        call(export.main, MINI, folder / "out", "--int8", "--check_dataset", folder / "table.csv")
    return folder / "out", printed.getvalue()


def test_exported_folder_takes_processor_output(mini):
    folder, _ = mini
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(MINI)
    assert AutoConfig.from_pretrained(folder).id2label == dict(enumerate(("sentiment", *EMOTIONS, "neutral")))
    voice = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    session = make_session(folder / "model.onnx")
    for given in (
        {"text": ["a wonderful day", None], "audio": [voice, voice], "sampling_rate": 16000},
        {"text": ["a wonderful day", "no"]},
        {"audio": [voice], "sampling_rate": 16000},
    ):
        answer = run(session, processor(**given, return_tensors="np"))
        expected = torch_logits(model, processor(**given, return_tensors="pt"))
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() < 1e-4


def test_command_prints_sizes_speeds_and_metrics(mini):
    folder, printed = mini
    sizes = {name: (folder / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")}
    assert sizes["model_int8.onnx"] < sizes["model.onnx"] / 3
    for name, size in sizes.items():
        assert f"{name}: {size / 1e6:.2f} MB, at most" in printed
    assert re.search(r"32 row\(s\), \d+ thread\(s\): PyTorch .* ms \(1.00 x\), ONNX .* x\), ONNX int8 .* x\)", printed)
    assert "4 rows, 0 left out" in printed
    maes = re.search(r"^mae +(\S+) +(\S+) +(\S+)$", printed, flags=re.M).groups()
    assert maes[0] == maes[1]
    assert abs(float(maes[2]) - float(maes[0])) < 0.2


def test_regression_graph_returns_the_values_of_the_pipeline(tmp_path):
    ranges = {"id2label": {0: "valence", 1: "arousal"}, "label_ranges": [[1.0, 9.0], [0.0, 100.0]]}
    recognize = make_pipeline(modalities=["text"], num_labels=2, problem_type="regression", **ranges)
    recognize.model.classifier.bias.data.copy_(torch.tensor([5.0, 50.0]))  # values inside the ranges
    recognize.model.save_pretrained(tmp_path / "model")
    recognize.processor.save_pretrained(tmp_path / "model")
    texts = ["so glad", "very well known", "dont"]
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "valence", "arousal"], *([text, 4.5, 60] for text in texts)])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        call(export.main, tmp_path / "model", tmp_path / "out", "--check_dataset", tmp_path / "table.csv")
    assert re.search(r"^mae +(\S+) +\1$", printed.getvalue(), flags=re.M)

    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert {name: getattr(config, name) for name in ranges} == ranges
    inputs = AutoProcessor.from_pretrained(tmp_path / "out")(text=texts, return_tensors="np")
    values = run(make_session(tmp_path / "out" / "model.onnx"), inputs)
    assert np.ptp(values, axis=0).min() > 0.1
    results = recognize([{"text": text} for text in texts])
    expected = [[entry["score"] for entry in result["values"]] for result in results]
    assert np.abs(values - expected).max() < 1e-3


def test_word_vectors_stay_float(script, mini, tmp_path):
    call(export.main, MINI, tmp_path / "out", "--int8", "--float_word_vectors")
    words = AutoModelForSequenceClassification.from_pretrained(MINI).get_input_embeddings().weight.detach().numpy()
    assert words.tobytes() in (tmp_path / "out" / "model_int8.onnx").read_bytes()
    assert words.tobytes() not in (mini[0] / "model_int8.onnx").read_bytes()


def test_differing_graph_is_not_written(script, mini, tmp_path, monkeypatch):
    graph = onnx.load(mini[0] / "model_int8.onnx")
    monkeypatch.setattr(script, "export_onnx", lambda model: graph)
    with pytest.raises(
        SystemExit, match=r"error: The logits .* are up to \d\S* from those of PyTorch, more than 1e-04"
    ):
        call(export.main, MINI, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_raises(script, mini, tmp_path):
    folder, _ = mini
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SystemExit, match="exists already: choose a new or empty folder"):
        call(export.main, MINI, folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match="exists already: choose a new or empty folder"):
        call(export.main, MINI, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_wrong_arguments_raise(script, tmp_path, capsys):
    with pytest.raises(SystemExit, match="there is no such folder"):
        call(export.main, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "table.csv").write_text("text,sentiment,split\nfine,1,train\n")
    with pytest.raises(SystemExit, match="has no rows of the split 'test'; its splits are train"):
        call(export.main, MINI, tmp_path / "out", "--check_dataset", tmp_path / "table.csv")
    with pytest.raises(SystemExit):
        call(export.main, MINI, tmp_path / "out", "--float_word_vectors")
    assert "--float_word_vectors requires --int8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "No input: pass at least one"),
        ({"input_ids": np.ones((1, 2))}, "`input_ids` and `attention_mask` must be passed together"),
        ({"pixel_values_videos": np.ones((1, 2))}, "compute the video features from it"),
        ({"labels": np.ones(1)}, "labels is given: leave it out"),
    ],
    ids=["nothing", "no-mask", "pictures", "labels"],
)
def test_wrong_inputs_raise(mini, inputs, message):
    with pytest.raises(ValueError, match=message):
        complete_inputs(make_session(mini[0] / "model.onnx"), inputs)
