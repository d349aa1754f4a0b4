"""Previous utterances of a conversation in the model, its configuration, tokens and pipeline."""

import pytest
import torch
from small_encoders import TEXT, save_encoder
from small_pipelines import RATE, close, make_model, make_pipeline, tone

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsModel, UmonsProcessor, build_tokenizer
from modeling_umons.export.onnx import graph_inputs
from modeling_umons.models.umons.tokenization_umons import encode_history


IDS = torch.tensor([[2, 3, 4], [5, 6, 0]])
HISTORY = torch.tensor([[4, 4, 2, 5], [3, 0, 0, 0]])
WORDS = [
    {"word": word, "timestamp": (i, i + 1)} for i, word in enumerate(["so", "very", "glad", "dont", "well", "known"])
]


@pytest.fixture(scope="module")
def model() -> UmonsForSequenceClassification:
    return make_model(context_size=2)


@pytest.fixture(scope="module")
def recognize():
    return make_pipeline(context_size=2, joint_sentiment=True)


@torch.no_grad()
def logits(model, **inputs) -> torch.Tensor:
    return model(**inputs).logits


# --- configuration and model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_size": -1}, "`context_size` is -1"),
        ({"context_size": 2, "modalities": ["audio"]}, "requires 'text' in `modalities`"),
        ({"context_size": 2, "legacy_masking": True}, "`legacy_masking=False`"),
        ({"context_size": 2, "text_encoder": TEXT["roberta"](), "max_text_length": 14}, "no positions for previous"),
    ],
)
def test_config_refuses_context_without_effect(options, message):
    with pytest.raises(ValueError, match=message):
        UmonsConfig(**options)


def test_max_context_length_depends_on_positions():
    assert UmonsConfig(context_size=3, max_text_length=20).max_context_length == 60
    config = UmonsConfig(context_size=3, max_text_length=10, text_encoder=TEXT["roberta"]())
    assert config.max_context_length == 4


def test_model_without_history_equals_model_without_context(model):
    plain = make_model()
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert logits(model, input_ids=IDS).equal(logits(plain, input_ids=IDS))
    no_words = torch.zeros(2, 1, dtype=torch.long)
    assert torch.allclose(logits(model, input_ids=IDS, history_ids=no_words), logits(plain, input_ids=IDS))


@pytest.mark.parametrize("has_encoder", [False, True])
def test_history_changes_logits_and_its_padding_does_not(model, has_encoder):
    if has_encoder:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "initializer_factor": 3.0}
        config = UmonsConfig(modalities=["text"], text_encoder=TEXT["bert"](), context_size=2, **sizes)
        model = UmonsForSequenceClassification(config).eval()
    both = logits(model, input_ids=IDS, history_ids=HISTORY)
    assert not torch.allclose(both, logits(model, input_ids=IDS), atol=1e-4)
    second = logits(model, input_ids=IDS[1:, :2], history_ids=HISTORY[1:, :1])
    assert torch.allclose(both[1:], second, atol=1e-5)
    left = torch.tensor([[4, 4, 2, 5], [0, 0, 0, 3]])
    assert torch.allclose(both, logits(model, input_ids=IDS, history_ids=left), atol=1e-5)


def test_history_of_row_without_text_contributes_nothing(model):
    audio = torch.randn(2, 5, 80, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    inputs = {"input_ids": IDS, "attention_mask": mask, "input_features": audio}
    found = logits(model, **inputs, history_ids=HISTORY)
    alone = logits(model, input_features=audio[1:])
    assert torch.allclose(found[1:], alone, atol=1e-5)


def test_sequence_is_that_of_the_text(model):
    with torch.no_grad():
        outputs = model.model(input_ids=IDS, history_ids=HISTORY, output_hidden_states=True)
    assert outputs.last_hidden_state.shape[1] == IDS.shape[1]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"history_ids": HISTORY[:1]}, "with the 2 rows of `input_ids`"),
        ({"history_ids": HISTORY, "history_mask": HISTORY[:, 1:]}, "`history_mask`"),
        ({"history_ids": torch.ones(2, 121, dtype=torch.long)}, "at most 120"),
        ({"history_ids": HISTORY + 100}, "`history_ids` contains word id 104"),
    ],
)
def test_model_refuses_invalid_history(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(input_ids=IDS, **inputs)


def test_model_without_context_refuses_history():
    with pytest.raises(ValueError, match="a model with `context_size`"):
        make_model()(input_ids=IDS, history_ids=HISTORY)


def test_onnx_export_refuses_context(model):
    with pytest.raises(ValueError, match="takes 2 previous utterances"):
        graph_inputs(model)


# --- tokens


def test_encode_history_keeps_latest_utterances_with_speakers():
    tokenizer = build_tokenizer(["ross", "hi", "joey", "you", "how"])
    history = [{"text": "how"}, {"text": "hi joey", "speaker": "Ross"}, {"speaker": None, "text": "you"}]

    def words(*limits, speaker=None) -> str:
        return tokenizer.decode(encode_history(tokenizer, history, speaker, *limits))

    assert words(3, 60) == "how ross hi joey you"
    assert words(2, 60, speaker="Joey") == "ross hi joey you joey"
    assert words(3, 2, speaker="Joey") == "you joey"
    assert encode_history(tokenizer, [], None, 3, 60) == []
    assert words(0, 60) == ""


def test_encode_history_separates_utterances(tmp_path):
    name = save_encoder(TEXT["bert"](), tmp_path)
    tokenizer = UmonsProcessor.from_encoders(text=name).tokenizer
    ids = encode_history(tokenizer, [{"text": "so glad"}, {"text": "very sad"}], None, 2, 60)
    assert tokenizer.convert_ids_to_tokens(ids) == ["so", "glad", "[SEP]", "very", "sad", "[SEP]"]
    model = UmonsModel.from_encoders(text=name, hidden_size=32, context_size=2)
    assert model.config.max_context_length == 120


# --- pipeline


def test_pipeline_takes_history(recognize):
    entry = {"text": "so glad", "speaker": "Ross", "history": ["very well", {"speaker": "Joey", "text": "dont"}]}
    alone, found = recognize({"text": "so glad"}), recognize(entry)
    assert found["sentiment"] != pytest.approx(alone["sentiment"], abs=1e-4)
    for result, expected in zip(recognize([{"text": "so glad"}, entry], batch_size=2), (alone, found), strict=True):
        assert close(result, expected)
    latest = recognize({**entry, "history": ["known", *entry["history"]]})
    assert close(latest, found)


def test_segments_are_history_of_later_ones(recognize):
    segments = recognize({"words": WORDS}, chunk_length_s=2.0)
    history = ["so very", "glad dont"]
    for result, text, before in zip(segments, [*history, "well known"], ([], history[:1], history), strict=True):
        expected = recognize({"text": text, "history": before})
        assert result["sentiment"] == pytest.approx(expected["sentiment"], abs=1e-5)


def test_overlapping_segments_are_not_history(recognize):
    segments = recognize({"words": WORDS}, chunk_length_s=2.0, hop_length_s=1.0)
    assert segments[1]["text"] == "very glad"
    for result, before in zip(segments, ([], [], ["so very"], ["so very"]), strict=False):
        expected = recognize({"text": result["text"], "history": before})
        assert result["sentiment"] == pytest.approx(expected["sentiment"], abs=1e-5)


def test_speakers_of_segments_are_in_history(recognize):
    units = [{"timestamp": (0, 2), "text": "so glad", "speaker": "Ross"}, {"timestamp": (2, 4), "text": "dont"}]
    result = recognize({"segments": units})[1]
    history = [{"speaker": "Ross", "text": "so glad"}]
    assert result["sentiment"] == pytest.approx(recognize({"text": "dont", "history": history})["sentiment"], abs=1e-5)


def test_text_of_several_parts_is_not_its_own_history():
    recognize = make_pipeline(context_size=2, joint_sentiment=True)
    plain = make_pipeline(joint_sentiment=True)
    entry = {"text": "so glad", "audio": tone(25.0), "sampling_rate": RATE}
    assert recognize(entry)["sentiment"] == pytest.approx(plain(entry)["sentiment"], abs=1e-5)


def test_explanations_keep_history(recognize):
    entry = {"text": "so glad", "history": ["dont"]}
    explained = recognize(entry, return_explanations=True)["explanations"]["text"]
    without_glad = recognize({**entry, "text": "so"})["sentiment"]
    full = recognize(entry)["sentiment"]
    assert explained[1]["sentiment"] == pytest.approx(full - without_glad, abs=1e-4)


@pytest.mark.parametrize(
    ("history", "message"),
    [([3], "`history` contains 3"), ([{"words": "so"}], "a dict with `text`"), (["\ud800"], "lone surrogate")],
)
def test_pipeline_refuses_invalid_history(recognize, history, message):
    with pytest.raises(ValueError, match=message):
        recognize({"text": "so", "history": history})


def test_pipeline_without_context_refuses_history():
    recognize = make_pipeline()
    with pytest.raises(ValueError, match="takes no previous utterances"):
        recognize({"text": "so", "history": ["glad"]})
    with pytest.raises(ValueError, match="takes no previous utterances"):
        recognize({"text": "so", "speaker": "Ross"})
