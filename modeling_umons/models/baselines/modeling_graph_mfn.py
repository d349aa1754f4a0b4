# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""PyTorch Graph Memory Fusion Network (Graph-MFN; Zadeh et al., ACL 2018, the paper of CMU-MOSEI)."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import auto_docstring

from .configuration_baselines import GraphMfnConfig
from .modeling_baselines import BaselineForSequenceClassification, BaselinePreTrainedModel
from .modeling_mfn import FusedSteps, MemoryFusionModel, pair_with_previous


class GraphMfnLevel(NamedTuple):
    """Vertices with the same number of modalities, and the sources of each, as indices."""

    vertices: list[int]
    sources: list[list[int]]  # the same number for each vertex of a level


def build_levels(config: GraphMfnConfig) -> list[GraphMfnLevel]:
    """Return the levels of the fusion graph above the single modalities. The last one is the output vertex."""
    vertices = config.vertices()
    levels = []
    for size in range(2, len(config.modalities) + 1):
        level = [i for i, vertex in enumerate(vertices) if len(vertex) == size]
        sources = [[j for j, source in enumerate(vertices) if set(source) < set(vertices[i])] for i in level]
        levels.append(GraphMfnLevel(level, sources))
    return [*levels, GraphMfnLevel([len(vertices)], [list(range(len(vertices)))])]


class GraphMfnVertices(nn.Module):
    """Networks of all vertices of a level, a linear layer and ReLU each, computed by one batched product."""

    def __init__(self, num_vertices: int, num_sources: int, vertex_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_vertices, num_sources * vertex_size, vertex_size))
        self.bias = nn.Parameter(torch.empty(num_vertices, 1, vertex_size))

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        """Map (N, vertices, sources, vertex_size) to (N, vertices, vertex_size)."""
        sources = sources.flatten(2).transpose(0, 1)
        return nn.functional.relu(torch.baddbmm(self.bias, sources, self.weight)).transpose(0, 1)


class GraphMfnFusionGraph(nn.Module):
    """
    Dynamic Fusion Graph: a vertex for each set of modalities, and an output vertex.

    The input of a vertex are the vertices of its subsets, each scaled by the efficacy of their edge; the input of the
    output are all other vertices.
    """

    def __init__(self, config: GraphMfnConfig):
        super().__init__()
        self.levels = build_levels(config)
        self.members = [[modality in vertex for modality in config.modalities] for vertex in config.vertices()]
        num_edges, size = len(config.edges()), config.vertex_size
        self.efficacy_fc1 = nn.Linear(len(config.modalities) * size, size)
        self.efficacy_fc2 = nn.Linear(size, num_edges)
        self.vertices = nn.ModuleList(
            [GraphMfnVertices(len(level.vertices), len(level.sources[0]), size) for level in self.levels]
        )

    def forward(self, singletons: torch.Tensor, present: torch.BoolTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute the output (B, S, vertex_size) and the efficacies (B, S, edges).

        Args:
            singletons: (B, S, M, vertex_size), the vertices of the single modalities.
            present: (B, M), True for the modalities that a row has. A vertex with a missing modality is zero, and so
                are the efficacies of its edges.
        """
        members = torch.tensor(self.members, device=present.device)
        is_present = (present[:, None] | ~members).all(dim=-1)  # (B, vertices)
        is_present = nn.functional.pad(is_present, (0, 1), value=True)[:, None, :, None].to(singletons.dtype)
        vertices = singletons * is_present[:, :, : present.shape[1]]
        efficacies = self.efficacy_fc2(nn.functional.relu(self.efficacy_fc1(vertices.flatten(2)))).sigmoid()

        used = []
        sizes = [len(level.vertices) * len(level.sources[0]) for level in self.levels]
        parts = efficacies.split(sizes, dim=-1)
        for level, network, part in zip(self.levels, self.vertices, parts, strict=True):
            # (B, S, vertices of the level, sources)
            part = part.unflatten(-1, (len(level.vertices), -1)) * is_present[:, :, level.vertices]
            part = part * is_present[:, :, level.sources].squeeze(-1)
            scaled = vertices[:, :, level.sources] * part[..., None]
            new = network(scaled.flatten(0, 1)).unflatten(0, scaled.shape[:2])
            vertices = torch.cat([vertices, new * is_present[:, :, level.vertices]], dim=2)
            used.append(part.flatten(2))
        return vertices[:, :, -1], torch.cat(used, dim=-1)


@auto_docstring
class GraphMfnPreTrainedModel(BaselinePreTrainedModel):
    config: GraphMfnConfig

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, GraphMfnVertices):
            bound = self.config.initializer_factor * module.weight.shape[1] ** -0.5  # as of a linear layer
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)


@auto_docstring(
    custom_intro="""
    Graph-MFN without a head on top: one LSTM per modality, a graph that fuses their hidden states at this step and the
    previous one, and a memory.

    A call needs at least one modality of the model. Missing modalities, both inputs that are left out and rows whose
    mask is all zero, have zero vertices in the graph, and so have all sets with them; the efficacies of their edges
    are zero. The steps of a row are those of its guide (see [`MemoryFusionConfig`]), followed by padding.

    `last_hidden_state` contains the hidden states of the LSTMs and the memory, `(B, S, sum of hidden sizes +
    memory_size)`; S is the largest padded length of the inputs. `hidden_states` contains this sequence only.
    `efficacies`, with `output_efficacies=True`, is `(B, S, edges)` in the order of `config.edges()`. Both are zero in
    padding. Invalid inputs raise a ValueError.
    """
)
class GraphMfnModel(GraphMfnPreTrainedModel, MemoryFusionModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: GraphMfnConfig):
        super().__init__(config, fused_size=config.vertex_size)
        self.singletons = nn.ModuleList([nn.Linear(2 * size, config.vertex_size) for size in config.hidden_sizes()])
        self.graph = GraphMfnFusionGraph(config)
        self.post_init()

    def fuse(self, hidden: torch.Tensor, cells: torch.Tensor, present: torch.BoolTensor) -> FusedSteps:
        before, now = (states.split(self.config.hidden_sizes(), dim=-1) for states in pair_with_previous(hidden))
        singletons = [
            layer(torch.cat(states, dim=-1)) for layer, *states in zip(self.singletons, before, now, strict=True)
        ]
        return FusedSteps(*self.graph(torch.stack(singletons, dim=2), present))


@auto_docstring(
    custom_intro="""
    Graph-MFN with a classification head for emotions, sentiment classes, sentiment as a number, or, with
    `joint_sentiment`, sentiment and emotions at once. `problem_type` and `id2label` select the task. The arguments
    `word_times`, `audio_times`, `video_times` and `output_efficacies` are passed on to the model.
    """
)
class GraphMfnForSequenceClassification(GraphMfnPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: GraphMfnConfig):
        super().__init__(config)
        self.add_head(GraphMfnModel(config), config.output_hidden_size)
        self.post_init()


__all__ = ["GraphMfnForSequenceClassification", "GraphMfnModel", "GraphMfnPreTrainedModel"]
