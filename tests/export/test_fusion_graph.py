"""The picture of Graph-MFN's fusion graph."""

import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from modeling_umons import GraphMfnConfig
from modeling_umons.export.fusion_graph import (
    COLORMAP,
    VERTEX_SIZE,
    _curve,
    _places,
    mean_efficacies,
    plot_fusion_graph,
)


def edges_of(*modalities: str) -> list[tuple[str, str]]:
    return GraphMfnConfig(modalities=list(modalities)).edges()


def count_of_color(path, efficacy: float) -> int:
    wanted = np.array(colormaps[COLORMAP](efficacy, bytes=True)[:3], dtype=int)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    pixels = pixels[:, : int(0.8 * pixels.shape[1])]  # without the colour bar
    return int((abs(pixels - wanted).max(axis=-1) <= 3).sum())


def test_the_mean_is_over_the_steps_at_which_an_edge_is_there():
    efficacies = torch.tensor([[[0.2, 0.0, 0.5], [0.4, 0.0, 0.0]], [[0.6, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    means = mean_efficacies(efficacies).tolist()
    assert means[::2] == pytest.approx([0.4, 0.5])
    assert math.isnan(means[1])


def test_an_edge_is_as_dark_and_wide_as_its_efficacy(tmp_path):
    edges = edges_of("text", "audio")
    efficacies = torch.full((2, 3, len(edges)), 0.1)
    efficacies[..., edges.index(("text", "output"))] = 0.9
    path = tmp_path / "graph.png"
    plot_fusion_graph(efficacies, edges, path, title="one strong edge of $5")
    assert count_of_color(path, 0.9) > count_of_color(path, 0.1) > 100
    assert count_of_color(path, 0.5) == 0
    # An edge that is never there is grey.
    efficacies[..., edges.index(("text", "output"))] = 0.0
    plot_fusion_graph(efficacies, edges, path)
    assert count_of_color(path, 0.9) == 0


@pytest.mark.parametrize("modalities", [("audio",), ("text", "video"), ("text", "audio", "video")], ids="-".join)
def test_no_edge_runs_through_a_vertex(modalities):
    edges = edges_of(*modalities)
    places = _places(edges)
    assert set(places) == set(itertools.chain(*edges))
    width, height = VERTEX_SIZE
    for source, target in edges:
        assert places[source][0] < places[target][0]
        for name in set(places) - {source, target}:
            a, b = places[name]
            curve = _curve(places, source, target)
            assert all(max(abs(x - a) / width, abs(y - b) / height) >= 1 for x, y in curve), (source, target, name)


def test_what_does_not_fit_is_refused(tmp_path):
    edges = edges_of("text", "audio")
    with pytest.raises(ValueError, match=r"for 5 edges it must be \(batch, steps, 5\)"):
        plot_fusion_graph(torch.rand(2, 3, 19), edges, tmp_path / "graph.png")
    with pytest.raises(ValueError, match="from 0 to 1"):
        plot_fusion_graph(torch.full((2, 3, 5), 1.5), edges, tmp_path / "graph.png")
    assert not list(tmp_path.iterdir())
