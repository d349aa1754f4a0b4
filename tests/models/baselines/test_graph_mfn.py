"""Graph-MFN: equations of the paper, and properties that hold for any weights."""

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    SUBSETS,
    check_times_are_used,
    graph_mfn_fuse,
    make_batch,
    make_model,
    make_times,
    memory_fusion,
    rows_of,
    times_of_row,
)

from modeling_umons import GraphMfnConfig, GraphMfnForSequenceClassification


# Different sizes, so that a confusion of two fails.
SIZES = {
    "text_hidden_size": 5, "audio_hidden_size": 3, "video_hidden_size": 4, "memory_size": 7, "vertex_size": 6,
    "proposal_hidden_size": 8, "retain_gate_hidden_size": 9, "update_gate_hidden_size": 10, "output_hidden_size": 16,
}  # fmt: skip


def small_graph_mfn(**overrides):
    return make_model(GraphMfnForSequenceClassification, **SIZES, **overrides)


@torch.no_grad()
@pytest.mark.parametrize("alignment", ["words", "adaptive"])
@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_logits_equal_reference(modalities, alignment):
    model = small_graph_mfn(modalities=modalities, alignment=alignment)
    batch = make_batch(modalities, LENGTHS if len(modalities) == 3 else FULL_LENGTHS)
    times = make_times(batch) if "text" in modalities else {}
    outputs = model.model(**batch, **times, output_efficacies=True)
    logits = model(**batch, **times).logits
    for i, row in enumerate(rows_of(batch)):
        used = times_of_row(batch, times, i) if alignment == "words" else {}
        expected, states, efficacies = memory_fusion(model.state_dict(), model.config, row, graph_mfn_fuse, used)
        torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(outputs.last_hidden_state[i, : len(states)], states, atol=1e-5, rtol=0)
        assert not outputs.last_hidden_state[i, len(states) :].any()
        efficacies = torch.stack(efficacies)
        torch.testing.assert_close(outputs.efficacies[i, : len(states)], efficacies, atol=1e-5, rtol=0)
        assert not outputs.efficacies[i, len(states) :].any()


def test_edges_connect_subsets():
    assert GraphMfnConfig(modalities=["audio"]).edges() == [("audio", "output")]
    assert GraphMfnConfig(modalities=["video", "text"]).edges() == [
        ("text", "text_video"),
        ("video", "text_video"),
        ("text", "output"),
        ("video", "output"),
        ("text_video", "output"),
    ]
    edges = GraphMfnConfig(modalities=["text", "audio", "video"]).edges()
    targets = [target for _, target in edges]
    assert len(edges) == len(set(edges)) == 19
    assert [targets.count(v) for v in ("text_audio", "text_video", "audio_video", "text_audio_video", "output")] == [
        2,
        2,
        2,
        6,
        7,
    ]


@torch.no_grad()
def test_efficacies_of_missing_vertices_are_zero():
    model, batch = small_graph_mfn(), make_batch()
    outputs = model(**batch, output_efficacies=True)
    edges = model.config.edges()
    assert outputs.efficacies.shape == (6, 11, 19)
    assert 0 <= outputs.efficacies.min() < outputs.efficacies.max() <= 1
    # Row 3 has audio and video, row 4 video only.
    for row, there in ((0, {"text", "audio", "video"}), (3, {"audio", "video"}), (4, {"video"})):
        used = {edge for edge, efficacy in zip(edges, outputs.efficacies[row, 0].tolist(), strict=True) if efficacy}
        assert used == {
            (s, t) for s, t in edges if set(s.split("_")) <= there and set(t.split("_")) - {"output"} <= there
        }
    assert model(**batch).efficacies is None


def test_vertices_are_initialised_like_linear_layers():
    model = GraphMfnForSequenceClassification(GraphMfnConfig(modalities=["text", "audio", "video"], vertex_size=32))
    assert [tuple(level.weight.shape) for level in model.model.graph.vertices] == [
        (3, 64, 32),
        (1, 192, 32),
        (1, 224, 32),
    ]
    for level in model.model.graph.vertices:
        for parameter in (level.weight, level.bias):
            bound = level.weight.shape[1] ** -0.5
            assert 0.8 * bound < parameter.abs().max() <= bound


@torch.no_grad()
def test_hidden_states_are_returned_on_request():
    model, batch = small_graph_mfn(), make_batch()
    outputs = model(**batch, output_hidden_states=True)
    assert [states.shape for states in outputs.hidden_states] == [(6, 11, 5 + 3 + 4 + 7)]
    assert model(**batch).hidden_states is None


def test_times_are_used_with_alignment_words():
    check_times_are_used(small_graph_mfn)
