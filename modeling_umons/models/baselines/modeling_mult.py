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
"""PyTorch Multimodal Transformer (MulT; Tsai et al., ACL 2019)."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import auto_docstring

from .configuration_baselines import MultConfig
from .modeling_baselines import (
    INPUT_NAMES,
    BaselineForSequenceClassification,
    BaselineModel,
    BaselinePreTrainedModel,
    masked_softmax,
    move_padding_last,
    select_last_state,
)


def embed_positions(hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Scale (B, T, D) states by sqrt(D) and add sinusoidal positions (Vaswani et al., 2017).

    Even dimensions 2i of step t have sin(t / 10000^(2i / D)), odd dimensions 2i + 1 the cosine.
    """
    length, size = hidden_states.shape[1:]
    steps = torch.arange(length, device=hidden_states.device, dtype=torch.float32)
    rates = 10000 ** (-torch.arange(0, size, 2, device=hidden_states.device, dtype=torch.float32) / size)
    angles = steps[:, None] * rates
    positions = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]
    return hidden_states * size**0.5 + positions.to(hidden_states.dtype)


class MultAttention(nn.Module):
    """Multi-head attention of a sequence (B, T, D) over a source (B, S, D), restricted to the mask (B, S)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        self.head_dim = hidden_size // num_heads
        self.dropout = nn.Dropout(dropout)
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor, source: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
        query, key, value = (
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection, states in ((self.q_proj, hidden_states), (self.k_proj, source), (self.v_proj, source))
        )
        scores = query @ key.transpose(2, 3) * self.head_dim**-0.5
        weights = self.dropout(masked_softmax(scores, mask[:, None, None]))
        return self.o_proj((weights @ value).transpose(1, 2).flatten(2))


class MultLayer(nn.Module):
    """
    Block of a transformer: z = z + MHA(LN(z), LN(s), LN(s)); z = z + FFN(LN(z)).

    The source s is another modality in a crossmodal transformer, and z itself in one of self-attention. Residual
    connections skip the layer norm, as in the code of the authors. A row whose source is empty skips the attention.
    """

    def __init__(self, config: MultConfig, size: int):
        super().__init__()
        self.attn = MultAttention(size, config.num_attention_heads, config.attention_dropout)
        self.attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, 4 * size)
        self.fc2 = nn.Linear(4 * size, size)
        self.mlp_layer_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self, hidden_states: torch.Tensor, source: torch.Tensor | None, mask: torch.BoolTensor | None
    ) -> torch.Tensor:
        if mask is not None:
            normed = self.attn_layer_norm(hidden_states)
            attended = self.attn(normed, normed if source is None else self.attn_layer_norm(source), mask)
            is_there = mask.any(dim=1)[:, None, None].to(attended.dtype)
            hidden_states = hidden_states + self.dropout(attended) * is_there
        expanded = self.dropout(nn.functional.relu(self.fc1(self.mlp_layer_norm(hidden_states))))
        return hidden_states + self.dropout(self.fc2(expanded))


class MultEncoder(nn.Module):
    """
    Transformer over a sequence (B, T, D) with positions; with a source, a crossmodal one. Ends with a layer norm.

    The mask is that of the source, and `None` for a source that is left out; in self-attention it is that of the
    sequence.
    """

    def __init__(self, config: MultConfig, size: int):
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([MultLayer(config, size) for _ in range(config.num_hidden_layers)])
        self.layer_norm = nn.LayerNorm(size)

    def forward(
        self, hidden_states: torch.Tensor, source: torch.Tensor | None, mask: torch.BoolTensor | None
    ) -> torch.Tensor:
        hidden_states = self.dropout(embed_positions(hidden_states))
        if source is not None:
            source = self.dropout(embed_positions(source))
        for layer in self.layers:
            hidden_states = layer(hidden_states, source, mask)
        return self.layer_norm(hidden_states)


@auto_docstring
class MultPreTrainedModel(BaselinePreTrainedModel):
    config: MultConfig

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv1d):
            bound = self.config.initializer_factor * (module.in_channels * module.kernel_size[0]) ** -0.5
            init.uniform_(module.weight, -bound, bound)
        else:
            super()._init_weights(module)


@auto_docstring(
    custom_intro="""
    The Multimodal Transformer without a head on top: a temporal convolution of each modality, a crossmodal transformer
    from each modality to each other, a transformer over the results of each modality, and the last step of each.

    A call needs at least one modality of the model. A missing modality is not attended to, and its own vector is zero,
    both for an input that is left out and for a row whose mask is all zero. `hidden_states` are the last sequences of
    the given modalities, `(B, T_m, size)` each, in the order of `config.modalities`, with the padding of each row
    behind its steps; there is no `last_hidden_state`. Invalid inputs raise a ValueError.
    """
)
class MultModel(MultPreTrainedModel, BaselineModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: MultConfig):
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]
        sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
        # CODEPATH: models with text; models of audio and video only have no words
        if "text" in config.modalities:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
            sizes["text"] = config.word_embedding_size
        self.convolutions = nn.ModuleDict(
            {
                modality: nn.Conv1d(
                    sizes[modality],
                    config.hidden_size,
                    getattr(config, f"{modality}_kernel_size"),
                    bias=False,
                )
                for modality in config.modalities
            }
        )
        self.crossmodal = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {
                        source: MultEncoder(config, config.hidden_size)
                        for source in config.modalities
                        if source != target
                    }
                )
                for target in config.modalities
            }
        )
        self.memories = nn.ModuleDict(
            {modality: MultEncoder(config, config.memory_size) for modality in config.modalities}
        )
        self.text_dropout = nn.Dropout(config.text_dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.fc1 = nn.Linear(config.pooled_size, config.pooled_size)
        self.fc2 = nn.Linear(config.pooled_size, config.pooled_size)
        self.post_init()

    def fuse(
        self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the input of the head (B, D) and the last sequence of each modality."""
        sequences, masks = self._convolve(values, masks)

        memories = {}
        for modality, sequence in sequences.items():
            # A source that is left out equals one that is missing in every row.
            parts = [
                encoder(sequence, sequences.get(source, sequence), masks.get(source))
                for source, encoder in self.crossmodal[modality].items()
            ] or [sequence]
            mask = masks[modality] | ~masks[modality].any(dim=1, keepdim=True)  # no softmax is empty
            memories[modality] = self.memories[modality](torch.cat(parts, dim=-1), None, mask)

        batch_size = len(next(iter(masks.values())))
        last = [
            select_last_state(memories[modality], masks[modality])
            if modality in memories
            else self.fc1.weight.new_zeros(batch_size, self.config.memory_size)
            for modality in self.config.modalities
        ]
        pooled = torch.cat(last, dim=-1)
        pooled = pooled + self.fc2(self.output_dropout(nn.functional.relu(self.fc1(pooled))))
        return pooled, tuple(memories.values())

    def _convolve(
        self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.BoolTensor]]:
        """Return the convolved sequences (B, T_m, hidden_size) and masks (B, T_m), padding behind the other steps."""
        if "text" in values:
            values["text"] = self.text_dropout(self.embed_tokens(values["text"]))
        sequences, ordered = {}, {}
        for modality, value in values.items():
            value, ordered[modality] = move_padding_last(value, masks[modality])
            value = value.masked_fill(~ordered[modality][..., None], 0)  # a convolution reaches into the padding
            convolution = self.convolutions[modality]
            reach = convolution.kernel_size[0] - 1  # a sequence keeps its length
            value = nn.functional.pad(value.transpose(1, 2), (reach // 2, reach - reach // 2))
            sequences[modality] = convolution(value).transpose(1, 2)
        return sequences, ordered


@auto_docstring(
    custom_intro="""
    The Multimodal Transformer with a classification head for emotions, sentiment classes, sentiment as a number, or,
    with `joint_sentiment`, sentiment and emotions at once. `problem_type` and `id2label` select the task.
    """
)
class MultForSequenceClassification(MultPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: MultConfig):
        super().__init__(config)
        self.add_head(MultModel(config), config.pooled_size)
        self.post_init()


__all__ = ["MultForSequenceClassification", "MultModel", "MultPreTrainedModel"]
