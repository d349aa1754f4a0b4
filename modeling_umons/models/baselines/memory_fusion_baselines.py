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
"""What MFN and Graph-MFN have in common: LSTMs side by side, a gated memory, and the model around them."""

from typing import NamedTuple

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from .alignment_baselines import align, check_word_times, guide_lengths
from .configuration_baselines import MemoryFusionConfig
from .modeling_baselines import (
    INPUT_DOCS,
    INPUT_NAMES,
    BaselineModelOutput,
    BaselinePreTrainedModel,
    can_read_values,
    check_rows,
    clear_padding,
    prepare_inputs,
)


# What `forward` takes besides.
WORD_TIME_DOCS = r"""
    word_times (`torch.FloatTensor` of shape `(batch_size, text_length, 2)`, *optional*):
        Start and end of each word, in seconds from the beginning of the segment; NaN where unknown. Looked at with
        `alignment="words"`.
    audio_offsets (`torch.FloatTensor` of shape `(batch_size,)`, *optional*):
        Seconds of silence trimmed before the first audio frame (`offsets` of the feature extractor); 0 by default.
        Looked at together with `word_times`.
    output_efficacies (`bool`, *optional*, defaults to `False`):
        Of Graph-MFN: whether to return the efficacies of its edges.
"""


class FusedSteps(NamedTuple):
    """What a model makes of the LSTMs' states at every step."""

    fused: torch.Tensor  # (B, S, fused size), what the memory reads
    efficacies: torch.Tensor | None = None  # (B, S, edges), of Graph-MFN


class ParallelLSTMs(nn.Module):
    """
    One LSTM for each modality, all of them stepped by one product with a block-diagonal matrix. What they remember does
    not depend on the memory of the model, so that everything above them can look at all steps at once.
    """

    def __init__(self, input_sizes: list[int], hidden_sizes: list[int]):
        super().__init__()
        self.hidden_sizes = hidden_sizes
        # Cells for their parameters: their names, their shapes, their start.
        self.cells = nn.ModuleList([nn.LSTMCell(*sizes) for sizes in zip(input_sizes, hidden_sizes, strict=True)])

    def forward(
        self, sequences: list[torch.Tensor | None], is_step: torch.BoolTensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            sequences: (B, S, input size) by modality, `None` for absent.
            is_step: (B, S, modalities), False where a modality's state stays what it was: padding, or absent.

        Returns:
            hidden states and cells, (B, S, sum of hidden sizes) each.
        """
        inputs = torch.cat(
            [
                is_step.new_zeros(*is_step.shape[:2], 4, size, dtype=cell.bias_ih.dtype)
                if sequence is None
                else nn.functional.linear(sequence, cell.weight_ih, cell.bias_ih + cell.bias_hh).unflatten(
                    -1, (4, size)
                )
                for cell, size, sequence in zip(self.cells, self.hidden_sizes, sequences, strict=True)
            ],
            dim=-1,
        )  # (B, S, 4 gates, all hidden sizes)
        blocks = [cell.weight_hh.unflatten(0, (4, -1)).unbind() for cell in self.cells]
        weight = torch.cat([torch.block_diag(*gate) for gate in zip(*blocks, strict=True)]).T
        is_step = torch.cat(
            [is_step[..., i, None].expand(-1, -1, size) for i, size in enumerate(self.hidden_sizes)], dim=-1
        )

        hidden = cell = inputs.new_zeros(inputs.shape[0], inputs.shape[-1])
        all_hidden, all_cells = [], []
        for step_inputs, step_mask in zip(inputs.unbind(dim=1), is_step.unbind(dim=1), strict=True):
            gates = step_inputs + (hidden @ weight).unflatten(-1, (4, -1))
            input_gate, forget_gate, candidate, output_gate = gates.unbind(dim=1)
            new_cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * candidate.tanh()
            cell = torch.where(step_mask, new_cell, cell)
            hidden = torch.where(step_mask, output_gate.sigmoid() * new_cell.tanh(), hidden)
            all_hidden.append(hidden)
            all_cells.append(cell)
        return torch.stack(all_hidden, dim=1), torch.stack(all_cells, dim=1)


class GatedMemory(nn.Module):
    """
    The multi-view gated memory: at each step `u = g1 * u + g2 * proposal`, where the gates g1 (of what is kept) and g2 (of
    what is written) are two-layer networks of what was fused and of u.
    """

    def __init__(self, config: MemoryFusionConfig, fused_size: int):
        super().__init__()
        self.memory_size = config.memory_size
        self.retain_fc1 = nn.Linear(fused_size + config.memory_size, config.retain_gate_hidden_size)
        self.retain_fc2 = nn.Linear(config.retain_gate_hidden_size, config.memory_size)
        self.retain_dropout = nn.Dropout(config.retain_gate_dropout)
        self.update_fc1 = nn.Linear(fused_size + config.memory_size, config.update_gate_hidden_size)
        self.update_fc2 = nn.Linear(config.update_gate_hidden_size, config.memory_size)
        self.update_dropout = nn.Dropout(config.update_gate_dropout)

    def forward(self, fused: torch.Tensor, proposal: torch.Tensor, is_step: torch.BoolTensor) -> torch.Tensor:
        """(B, S, fused size), (B, S, memory_size), and (B, S), False for padding -> the memory, (B, S, memory_size)."""
        # Both gates as one network, whose first layer is done for all steps as far as it does not read the memory.
        weight = torch.cat([self.retain_fc1.weight, self.update_fc1.weight])
        of_fused, of_memory = weight.split([fused.shape[-1], self.memory_size], dim=-1)
        inputs = nn.functional.linear(fused, of_fused, torch.cat([self.retain_fc1.bias, self.update_fc1.bias]))
        weight = torch.block_diag(self.retain_fc2.weight, self.update_fc2.weight)
        bias = torch.cat([self.retain_fc2.bias, self.update_fc2.bias])
        is_kept = torch.cat(
            [
                dropout(inputs.new_ones(*inputs.shape[:2], layer.in_features))
                for layer, dropout in (
                    (self.retain_fc2, self.retain_dropout),
                    (self.update_fc2, self.update_dropout),
                )
            ],
            dim=-1,
        )

        memory = proposal.new_zeros(proposal.shape[0], self.memory_size)
        memories = []
        steps = (inputs, is_kept, proposal, is_step[..., None])
        for step_inputs, kept, proposed, step_mask in zip(*(x.unbind(dim=1) for x in steps), strict=True):
            hidden = nn.functional.relu(step_inputs + nn.functional.linear(memory, of_memory)) * kept
            retain, update = nn.functional.linear(hidden, weight, bias).sigmoid().chunk(2, dim=-1)
            memory = torch.where(step_mask, retain * memory + update * proposed, memory)
            memories.append(memory)
        return torch.stack(memories, dim=1)


@auto_docstring(
    custom_intro="""
    LSTMs, what a subclass makes of their states (`fuse`), the memory, and a layer over the last state of all.
    """
)
class MemoryFusionModel(BaselinePreTrainedModel):
    config: MemoryFusionConfig

    def __init__(self, config: MemoryFusionConfig, fused_size: int):
        r"""
        fused_size (`int`):
            Size of what `fuse` gives the memory to read.
        """
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]
        input_sizes = {
            "text": config.word_embedding_size,
            "audio": config.audio_feature_size,
            "video": config.video_feature_size,
        }
        if "text" in config.modalities:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
        self.lstms = ParallelLSTMs([input_sizes[m] for m in config.modalities], config.hidden_sizes())
        # What may be written into the memory.
        self.proposal_fc1 = nn.Linear(fused_size, config.proposal_hidden_size)
        self.proposal_dropout = nn.Dropout(config.proposal_dropout)
        self.proposal_fc2 = nn.Linear(config.proposal_hidden_size, config.memory_size)
        self.memory = GatedMemory(config, fused_size)
        self.output_fc = nn.Linear(sum(config.hidden_sizes()) + config.memory_size, config.output_hidden_size)
        self.output_dropout = nn.Dropout(config.output_dropout)

    def fuse(self, hidden: torch.Tensor, cells: torch.Tensor, present: torch.BoolTensor) -> FusedSteps:
        """Hidden states and cells (B, S, sum of hidden sizes) of the LSTMs, and which modalities a row has, (B, M)."""
        raise NotImplementedError("A subclass says what it makes of the LSTMs' states.")

    @can_return_tuple
    @auto_docstring(custom_args=INPUT_DOCS + WORD_TIME_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        word_times: torch.FloatTensor | None = None,
        audio_offsets: torch.FloatTensor | None = None,
        output_efficacies: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineModelOutput:
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        values, masks = prepare_inputs(self.config, inputs, self.dtype)
        values = clear_padding(values, masks)
        check_rows(masks)
        may_look = can_read_values(*masks.values())
        if word_times is not None:
            check_word_times(word_times, audio_offsets, input_ids, may_look)
            word_times = word_times if "text" in values else None
        lengths = guide_lengths(masks)
        longest = max(mask.shape[1] for mask in masks.values())
        num_steps = int(lengths.max()) if may_look else longest

        if "text" in values:
            values["text"] = self.embed_tokens(values["text"])
        sequences = align(self.config, values, masks, lengths, num_steps, word_times, audio_offsets)
        is_step = torch.arange(num_steps, device=lengths.device) < lengths[:, None]
        absent = torch.zeros_like(lengths, dtype=torch.bool)
        present = torch.stack([masks[m].any(dim=1) if m in masks else absent for m in self.config.modalities], dim=1)
        hidden, cells = self.lstms(
            [sequences.get(m) for m in self.config.modalities], is_step[..., None] & present[:, None]
        )
        steps = self.fuse(hidden, cells, present)
        proposal = self.proposal_fc2(self.proposal_dropout(nn.functional.relu(self.proposal_fc1(steps.fused)))).tanh()
        memory = self.memory(steps.fused, proposal, is_step)

        states = torch.cat([hidden, memory], dim=-1)
        # States stay what they are in padding: the last step has them all.
        pooled = self.output_dropout(nn.functional.relu(self.output_fc(states[:, -1])))
        # Shapes depend on shapes alone.
        padding = (0, 0, 0, longest - num_steps)
        states = nn.functional.pad(states * is_step[..., None], padding)
        efficacies = None
        if output_efficacies and steps.efficacies is not None:
            efficacies = nn.functional.pad(steps.efficacies * is_step[..., None], padding)
        return BaselineModelOutput(
            last_hidden_state=states,
            pooler_output=pooled,
            hidden_states=(states,) if self.wants_hidden_states(kwargs) else None,
            efficacies=efficacies,
        )


def with_step_before(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, S, D) -> the same one step earlier, beginning with zeros, and the states themselves."""
    return nn.functional.pad(states, (0, 0, 1, 0))[:, :-1], states


__all__ = ["FusedSteps", "GatedMemory", "MemoryFusionModel", "ParallelLSTMs"]
