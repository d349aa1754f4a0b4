"""A picture of what Graph-MFN lets through: its fusion graph, with the mean efficacy of every edge. Needs matplotlib."""

import math
from pathlib import Path

import torch


VERTEX_SIZE = (0.5, 0.36)  # of a picture in which layers are 1.3 apart
COLORMAP = "viridis_r"
Point = tuple[float, float]


def mean_efficacies(efficacies: torch.Tensor) -> torch.Tensor:
    """(..., edges) -> (edges,), of each edge the mean over the steps at which it is there; NaN where it never is."""
    efficacies = efficacies.detach().float().flatten(0, -2)
    return efficacies.sum(dim=0) / (efficacies != 0).sum(dim=0)


def plot_fusion_graph(efficacies: torch.Tensor, edges: list[tuple[str, str]], path: str | Path, title: str = ""):
    """
    Draws the fusion graph of Graph-MFN into the image file `path`: single modalities on the left, the output on the right,
    and each edge as wide and as dark as its mean efficacy, which stands on it in hundredths.

    Args:
        efficacies: (batch, steps, edges) or (steps, edges), what the model gives with `output_efficacies=True`: from 0
            to 1, and zero, which is not counted, at steps that are padding or lack the edge's modalities.
        edges: the names of their vertices, `config.edges()`.
        path: where to write; its suffix says the format.
        title: a line above the picture.

    Raises:
        ValueError: there are not as many efficacies as edges, or they are not between 0 and 1.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure  # the object, not pyplot: nothing global, no window

    efficacies = torch.as_tensor(efficacies)
    if efficacies.ndim < 2 or efficacies.shape[-1] != len(edges):
        raise ValueError(
            f"`efficacies` has shape {tuple(efficacies.shape)}, but for {len(edges)} edges it must be (batch, steps, "
            f"{len(edges)}) or (steps, {len(edges)})."
        )
    if not ((efficacies >= 0) & (efficacies <= 1)).all():
        raise ValueError("`efficacies` holds values that are not from 0 to 1: pass those of the model as they are.")

    places = _places(edges)
    means = mean_efficacies(efficacies).tolist()
    curves = {(source, target): _curve(places, source, target) for source, target in edges}
    heights = [y for curve in curves.values() for _, y in curve]
    right, bottom, top = places["output"][0], min(heights) - 0.5, max(heights) + 0.5
    figure = Figure(figsize=(3 + 2 * right, 2 + 1.2 * (top - bottom)), layout="constrained")
    axis = figure.subplots()
    colors = ScalarMappable(Normalize(0, 1), colormaps[COLORMAP])
    labels: list[Point] = []
    for edge, mean in zip(edges, means, strict=True):
        x, y = zip(*curves[edge], strict=True)
        is_known = mean == mean
        color = colors.to_rgba(mean) if is_known else "#cccccc"
        axis.plot(x, y, color=color, linewidth=0.6 + 5 * mean if is_known else 0.6, solid_capstyle="round", zorder=1)
        labels.append(_label_place(curves[edge], labels, [curve for e, curve in curves.items() if e != edge]))
        text = f"{100 * mean:.0f}" if is_known else "-"
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": color, "linewidth": 0.8}
        axis.text(*labels[-1], text, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
    for name, place in places.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "#f2f2f2", "edgecolor": "#444444"}
        axis.text(*place, name.replace("_", "\n"), ha="center", va="center", fontsize=10, bbox=box, zorder=4)
    axis.set_xlim(-0.4, right + 0.4)
    axis.set_ylim(bottom, top)
    axis.set_axis_off()
    if title:
        figure.suptitle(title, parse_math=False)
    figure.colorbar(colors, ax=axis, label="mean efficacy (on the edges in hundredths)", shrink=0.7)
    figure.savefig(path, dpi=120)


def _places(edges: list[tuple[str, str]]) -> dict[str, Point]:
    """By vertex its place: from left to right layers of as many modalities, the output last."""
    layers: dict[int, list[str]] = {}
    for source, target in edges:
        if target == "output":
            layers.setdefault(source.count("_"), []).append(source)
    layers[max(layers) + 1] = ["output"]
    places = {}
    for x, layer in layers.items():
        # The pairs are closer together, and every other layer is a little lower: fewer lines run through a vertex.
        gap = 1.5 if x == 0 else 1.1
        for i, name in enumerate(layer):
            places[name] = (1.3 * x, gap * ((len(layer) - 1) / 2 - i) - 0.35 * (x % 2))
    return places


def _curve(places: dict[str, Point], source: str, target: str) -> list[Point]:
    """The least bent line from one vertex to another (a quadratic Bezier curve) that keeps clear of the others."""
    (x0, y0), (x1, y1) = places[source], places[target]
    others = [place for name, place in places.items() if name not in (source, target)]

    def bent(bend: float) -> list[Point]:
        middle = (x0 + x1) / 2, (y0 + y1) / 2 + bend
        steps = [i / 60 for i in range(61)]
        return [
            tuple(
                (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
                for a, b, c in zip((x0, y0), middle, (x1, y1), strict=True)
            )
            for t in steps
        ]

    def clearance(curve: list[Point]) -> float:
        width, height = VERTEX_SIZE
        return min((max(abs(x - a) / width, abs(y - b) / height) for x, y in curve for a, b in others), default=9)

    bends = sorted((0.2 * i for i in range(-20, 21)), key=abs)
    candidates = [bent(bend) for bend in bends]
    return next((curve for curve in candidates if clearance(curve) >= 1), max(candidates, key=clearance))


def _label_place(curve: list[Point], labels: list[Point], others: list[list[Point]]) -> Point:
    """The point of a curve, off its ends, that is farthest from other labels and, half as important, other curves."""

    def room(point: Point) -> float:
        to_label = min((math.dist(point, label) for label in labels), default=9)
        to_curve = min((math.dist(point, p) for other in others for p in other[::3]), default=9)
        return min(to_label, 2 * to_curve, 0.3)

    return max(curve[14:47], key=room)
