"""Explanations of the pipeline: Shapley values of modalities, and words and moments that are left out."""

import json

import pytest
from small_pipelines import RATE, make_pipeline, tone

from modeling_umons import EMOTIONS
from modeling_umons.models.umons.explanations_umons import (
    MAX_UNITS,
    group_steps,
    group_words,
    list_variants,
    shapley_values,
)


@pytest.fixture(scope="module")
def recognize():
    return make_pipeline(joint_sentiment=True)


def scores_of(result) -> dict[str, float]:
    scores = {entry["label"]: entry["score"] for entry in result["emotions"]}
    return {"sentiment": result["sentiment"], **{name: scores[name] for name in EMOTIONS}}


def test_contribution_of_a_word_is_the_change_without_it(recognize):
    words = ["so", "very", "glad,", "well", "known"]
    result = recognize({"text": " ".join(words)}, return_explanations=True)
    explained = result["explanations"]["text"]
    assert [entry["word"] for entry in explained] == words
    for i, entry in enumerate(explained):
        without = scores_of(recognize({"text": " ".join(words[:i] + words[i + 1 :])}))
        for name, value in scores_of(result).items():
            assert entry[name] == pytest.approx(value - without[name], abs=1e-5)
    assert "explanations" not in recognize({"text": "so glad"})
    json.dumps(result)


def test_contributions_of_modalities_sum_to_the_prediction(recognize):
    given = {"text": "so glad", "audio": tone(3), "sampling_rate": RATE}
    result = recognize(given, return_explanations=True)
    of_modalities = result["explanations"]["modalities"]
    text, audio = recognize({"text": "so glad"}), recognize({"audio": tone(3), "sampling_rate": RATE})
    for name, value in scores_of(result).items():
        assert sum(of_modalities[modality][name] for modality in ("text", "audio")) == pytest.approx(value, abs=1e-5)
        half = (scores_of(text)[name] + value - scores_of(audio)[name]) / 2
        assert of_modalities["text"][name] == pytest.approx(half, abs=1e-5)
    moments = result["explanations"]["audio"]
    assert [entry["time"] for entry in moments][:3] == pytest.approx([0.0, 1.0, 2.0], abs=0.02)


def test_explanations_do_not_depend_on_the_batch(recognize):
    inputs = [{"text": "so glad"}, {"audio": tone(2), "sampling_rate": RATE}, {"text": "so very well known dont glad"}]
    alone = [recognize(given, return_explanations=True)["explanations"] for given in inputs]
    together = recognize(inputs, return_explanations=True, batch_size=3)
    for result, expected in zip(together, alone, strict=True):
        assert result["explanations"].keys() == expected.keys()
        for modality in set(expected) - {"modalities"}:
            for entry, other in zip(result["explanations"][modality], expected[modality], strict=True):
                assert entry == pytest.approx(other, abs=1e-4)


def test_single_word_has_the_whole_prediction(recognize):
    result = recognize({"text": "glad"}, return_explanations=True)
    (entry,) = result["explanations"]["text"]
    assert entry["sentiment"] == pytest.approx(result["sentiment"], abs=1e-6)


def test_long_text_is_explained_in_stretches(recognize):
    words = ["so", "very", "glad", "well"] * 2500
    result = recognize({"text": " ".join(words)}, return_explanations=True)
    explained = result["explanations"]["text"]
    assert " ".join(entry["word"] for entry in explained).split() == words
    assert len(explained) <= 2 * MAX_UNITS  # each part ends with a shorter stretch


def test_words_beside_long_audio_are_explained_once(recognize):
    given = {"text": "so glad", "audio": tone(15), "sampling_rate": RATE}
    result = recognize(given, return_explanations=True, return_attention=True)
    assert [entry["word"] for entry in result["explanations"]["text"]] == ["so", "glad"]
    assert [entry["word"] for entry in result["attention"]["text"]] == ["so", "glad"]
    total = sum(shares["sentiment"] for shares in result["explanations"]["modalities"].values())
    assert total == pytest.approx(result["sentiment"], abs=1e-5)


def test_segments_without_input_have_no_contributions(recognize):
    words = [{"word": "so", "timestamp": (0.0, 0.5)}, {"word": "glad", "timestamp": (9.0, 9.5)}]
    results = recognize({"words": words}, chunk_length_s=1.0, return_explanations=True)
    assert [entry["word"] for result in results for entry in result["explanations"]["text"]] == ["so", "glad"]


def test_shapley_values_of_three_modalities():
    """A game whose values are known: text alone decides, and audio and video act only together."""
    values = {}
    for subset in map(frozenset, ({"t"}, {"a"}, {"v"}, {"t", "a"}, {"t", "v"}, {"a", "v"}, {"t", "a", "v"})):
        values[subset] = 1.0 * ("t" in subset) + 0.5 * ({"a", "v"} <= subset)
    assert shapley_values(values, "tav") == pytest.approx({"t": 1.0, "a": 0.25, "v": 0.25})


def test_variants_leave_each_unit_out():
    lengths = {"attention_mask": 4, "input_features_mask": 2}
    variants = list_variants(lengths, {"attention_mask": [[1], [2]], "input_features_mask": [[0, 1]]})
    assert variants == [
        {"attention_mask": [0, 1, 2, 3]},
        {"input_features_mask": [0, 1]},
        {"attention_mask": [0, 2, 3], "input_features_mask": [0, 1]},
        {"attention_mask": [0, 1, 3], "input_features_mask": [0, 1]},
        {"attention_mask": [0, 1, 2, 3]},
    ]


def test_units_are_words_and_seconds():
    spans = [(0, 0), (0, 2), (3, 6), (6, 8), (9, 12), (0, 0)]  # "so very well" in pieces, with special tokens
    assert group_words(spans, [2, 8, 12], 1) == [[1], [2, 3], [4]]
    assert group_words(spans, [2, 8, 12], 2) == [[1, 2, 3], [4]]
    assert group_steps(7, 0.3) == [[0, 1, 2], [3, 4, 5], [6]]
