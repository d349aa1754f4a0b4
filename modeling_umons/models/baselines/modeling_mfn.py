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
"""PyTorch Memory Fusion Network (MFN; Zadeh et al., AAAI 2018)."""

from typing import NamedTuple

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from .configuration_baselines import MemoryFusionConfig, MfnConfig
from .modeling_baselines import (
    INPUT_DOCS,
    INPUT_NAMES,
    BaselineForSequenceClassification,
    BaselineModelOutput,
    BaselinePreTrainedModel,
    can_read_values,
    check_rows,
    clear_padding,
    masked_softmax,
    move_padding_last,
    prepare_inputs,
)


# Documentation of the times of words and frames, for `auto_docstring`.
TIME_DOCS = r"""
        word_times (`torch.FloatTensor` of shape `(batch_size, text_length, 2)`, *optional*):
            Start and end of each word, in seconds from the beginning of the segment; NaN where unknown. Used with
            `alignment="words"`, together with `audio_times` and `video_times`.
        audio_times (`torch.FloatTensor` of shape `(batch_size, audio_length)`, *optional*):
            Middle of each audio frame, in the same seconds ([`~UmonsProcessor.audio_times`]); NaN where unknown.
        video_times (`torch.FloatTensor` of shape `(batch_size, video_length)`, *optional*):
            Middle of each video clip, in the same seconds ([`~UmonsVideoProcessor.clip_times`]); NaN where unknown.
        output_efficacies (`bool`, *optional*, defaults to `False`):
            Whether to return the efficacies of the edges of the fusion graph. Graph-MFN only.
"""


def get_guide_lengths(masks: dict[str, torch.BoolTensor]) -> torch.LongTensor:
    """Return the number of steps (B,) of each row's guide, its first modality, from the masks in canonical order."""
    lengths = torch.stack([mask.sum(dim=1) for mask in masks.values()])
    first = (lengths > 0).int().argmax(dim=0)
    return lengths.gather(0, first[None])[0]


def normalise_weights(is_selected: torch.BoolTensor) -> torch.Tensor:
    """Return weights (B, S, T) whose product with frames is the mean of the selected frames."""
    return is_selected / is_selected.sum(dim=-1, keepdim=True).clamp(min=1)


def compute_adaptive_weights(mask: torch.BoolTensor, lengths: torch.LongTensor, num_steps: int) -> torch.Tensor:
    """
    Compute the weights of adaptive average pooling over the unpadded frames of each row.

    Args:
        mask: (B, T), True for frames.
        lengths: (B,), the number of steps to which the frames of a row are pooled.
        num_steps: S, at least the maximum of `lengths`.

    Returns:
        float32 (B, S, T). The weights of a step sum to 1; they are zero after a row's last step and in rows without
        frames. A row with as many steps as frames keeps its frames, moved to the front.
    """
    steps = torch.arange(num_steps, device=mask.device)
    num_frames, goal = mask.sum(dim=1)[:, None], lengths.clamp(min=1)[:, None]
    start = steps * num_frames // goal
    end = ((steps + 1) * num_frames + goal - 1) // goal  # rounded up
    place = (mask.cumsum(dim=1) - 1)[:, None]
    is_selected = (place >= start[..., None]) & (place < end[..., None]) & mask[:, None]
    return normalise_weights(is_selected & (steps < lengths[:, None])[..., None])


def compute_word_weights(mask: torch.BoolTensor, word_times: torch.Tensor, frame_times: torch.Tensor) -> torch.Tensor:
    """
    Compute the weights that average the frames of each word.

    A word has the frames whose middle is in [start, end); without any, the frame whose middle is nearest to the word's
    (the first of equally near ones).

    Args:
        mask: (B, T), True for frames.
        word_times: float (B, S, 2), start and end in seconds.
        frame_times: float (B, T), middles of the frames in seconds.

    Returns:
        float32 (B, S, T). The weights of a word sum to 1; they are zero in rows without frames and undefined for NaN
        times.
    """
    middles = frame_times.float()[:, None]  # (B, 1, T)
    start, end = word_times.float()[..., None].unbind(dim=2)  # (B, S, 1) each
    is_selected = (middles >= start) & (middles < end) & mask[:, None]
    distance = (middles - (start + end) / 2).abs().masked_fill(~mask[:, None], torch.inf)
    is_nearest = nn.functional.one_hot(distance.argmin(dim=-1), mask.shape[1]).bool() & mask[:, None]
    return normalise_weights(torch.where(is_selected.any(dim=-1, keepdim=True), is_selected, is_nearest))


def check_times(times: dict[str, torch.Tensor], values: dict[str, torch.Tensor]):
    """Raise a ValueError for times that do not fit the words and frames, and for infinite or reversed times."""
    names = {"text": "word_times", "audio": "audio_times", "video": "video_times"}
    for modality, given in times.items():
        if modality not in values:
            raise ValueError(
                f"`{names[modality]}` is given without `{INPUT_NAMES[modality]}`: pass both, or leave both out."
            )
        expected = (*values[modality].shape[:2], 2) if modality == "text" else values[modality].shape[:2]
        if given.shape != expected:
            meaning = "start and end of each word" if modality == "text" else "the middle of each frame"
            raise ValueError(
                f"`{names[modality]}` has shape {tuple(given.shape)}, but `{INPUT_NAMES[modality]}` requires "
                f"{tuple(expected)}: {meaning}, in seconds."
            )
        if can_read_values(given) and given.isinf().any():
            raise ValueError(f"`{names[modality]}` contains infinite times: pass seconds, and NaN where unknown.")
    words = times.get("text")
    if words is not None and can_read_values(words) and (words[..., 0] > words[..., 1]).any():
        raise ValueError("`word_times` contains words that end before they start: pass (start, end) in seconds.")


def align_modalities(
    config: MemoryFusionConfig,
    sequences: dict[str, torch.Tensor],
    masks: dict[str, torch.BoolTensor],
    lengths: torch.LongTensor,
    num_steps: int,
    times: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """
    Align every modality with the steps of the guide (see [`MemoryFusionConfig`]).

    Args:
        config: configuration with the alignment.
        sequences: (B, T_m, D_m) by modality.
        masks: (B, T_m) by modality.
        lengths: (B,), the result of `get_guide_lengths` for the masks.
        num_steps: S, at least the maximum of `lengths`.
        times: times of words (B, T_text, 2) and frames (B, T_m) by modality, NaN where unknown.

    Returns:
        (B, S, D_m) by modality, zero after a row's last step.
    """
    weights = {modality: compute_adaptive_weights(mask, lengths, num_steps) for modality, mask in masks.items()}
    # CODEPATH: models trained with word times; "adaptive" is for data without them
    if config.alignment == "words" and times and "text" in times:
        words, is_word = move_padding_last(times["text"], masks["text"])
        words = words.masked_fill(~is_word[..., None], torch.nan)[:, :num_steps]
        words = nn.functional.pad(words, (0, 0, 0, num_steps - words.shape[1]), value=torch.nan)
        is_known = ~words.isnan().any(dim=-1, keepdim=True)
        for modality in times.keys() - {"text"}:
            has_time = masks[modality] & ~times[modality].isnan()
            by_word = compute_word_weights(has_time, words, times[modality].nan_to_num())
            is_used = is_known & has_time.any(dim=1)[:, None, None]
            weights[modality] = torch.where(is_used, by_word, weights[modality])
    return {modality: weights[modality].to(value.dtype) @ value for modality, value in sequences.items()}


class FusedSteps(NamedTuple):
    """Input of the memory at every step."""

    fused: torch.Tensor  # (B, S, fused size)
    efficacies: torch.Tensor | None = None  # (B, S, edges), Graph-MFN only


class ParallelLSTMs(nn.Module):
    """
    One LSTM per modality, all computed by one product with a block-diagonal matrix.

    Their states do not depend on the memory, so that later layers process all steps at once.
    """

    def __init__(self, input_sizes: list[int], hidden_sizes: list[int]):
        super().__init__()
        self.hidden_sizes = hidden_sizes
        # The cells hold the parameters; `forward` computes their steps jointly.
        self.cells = nn.ModuleList([nn.LSTMCell(*sizes) for sizes in zip(input_sizes, hidden_sizes, strict=True)])

    def forward(
        self, sequences: list[torch.Tensor | None], is_step: torch.BoolTensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute the states of all steps.

        Args:
            sequences: (B, S, input size) by modality, `None` for missing ones.
            is_step: (B, S, modalities), False where the state is kept: padding, or a missing modality.

        Returns:
            Hidden states and cell states, (B, S, sum of hidden sizes) each.
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
    Multi-view gated memory: `u = g1 * u + g2 * proposal` at each step.

    The retain gate g1 and the update gate g2 are two-layer networks of the fused states and of u.
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
        """
        Compute the memory (B, S, memory_size) of all steps.

        Args:
            fused: (B, S, fused size).
            proposal: (B, S, memory_size).
            is_step: (B, S), False for padding, which leaves the memory as it is.
        """
        # Both gates are one network. The part of its first layer that does not depend on the memory is computed at
        # once.
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
    Base class of MFN and Graph-MFN: LSTMs, the fusion of their states (`fuse`, in the subclass), the memory, and a
    layer over the last states.
    """
)
class MemoryFusionModel(BaselinePreTrainedModel):  # subclasses call `post_init`; trf-ignore: TRF013
    config: MemoryFusionConfig

    def __init__(self, config: MemoryFusionConfig, fused_size: int):
        r"""
        fused_size (`int`):
            Size of the output of `fuse`.
        """
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]
        input_sizes = {
            "text": config.word_embedding_size,
            "audio": config.audio_feature_size,
            "video": config.video_feature_size,
        }
        # CODEPATH: models with text; models of audio and video only have no words
        if "text" in config.modalities:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
        self.lstms = ParallelLSTMs([input_sizes[m] for m in config.modalities], config.hidden_sizes())
        # Network that proposes the update of the memory.
        self.proposal_fc1 = nn.Linear(fused_size, config.proposal_hidden_size)
        self.proposal_dropout = nn.Dropout(config.proposal_dropout)
        self.proposal_fc2 = nn.Linear(config.proposal_hidden_size, config.memory_size)
        self.memory = GatedMemory(config, fused_size)
        self.output_fc = nn.Linear(sum(config.hidden_sizes()) + config.memory_size, config.output_hidden_size)
        self.output_dropout = nn.Dropout(config.output_dropout)

    def fuse(self, hidden: torch.Tensor, cells: torch.Tensor, present: torch.BoolTensor) -> FusedSteps:
        """
        Fuse the states of the LSTMs into the input of the memory.

        Args:
            hidden: (B, S, sum of hidden sizes).
            cells: (B, S, sum of hidden sizes).
            present: (B, M), True for the modalities that a row has.
        """
        raise NotImplementedError("Subclasses implement `fuse`.")

    @can_return_tuple
    @auto_docstring(custom_args=INPUT_DOCS + TIME_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        word_times: torch.FloatTensor | None = None,
        audio_times: torch.FloatTensor | None = None,
        video_times: torch.FloatTensor | None = None,
        output_efficacies: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineModelOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from modeling_umons import MfnConfig, MfnModel

        >>> model = MfnModel(MfnConfig(modalities=["text", "audio"]))
        >>> words, frames = torch.randint(1, 14000, (2, 8)), torch.randn(2, 20, 80)
        >>> outputs = model(input_ids=words, input_features=frames)
        >>> list(outputs.pooler_output.shape)
        [2, 128]

        >>> # With times, each word is aligned with the frames spoken during it
        >>> starts = torch.arange(8) * 0.4
        >>> times = torch.stack([starts, starts + 0.4], dim=-1).expand(2, 8, 2)
        >>> middles = (torch.arange(20) * 0.2).expand(2, 20)
        >>> outputs = model(input_ids=words, input_features=frames, word_times=times, audio_times=middles)
        ```
        """
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        values, masks = prepare_inputs(self.config, inputs, self.dtype)
        values = clear_padding(values, masks)
        check_rows(masks)
        can_read = can_read_values(*masks.values())
        times = {"text": word_times, "audio": audio_times, "video": video_times}
        times = {m: given for m, given in times.items() if given is not None and m in self.config.modalities}
        check_times(times, values)
        lengths = get_guide_lengths(masks)
        longest = max(mask.shape[1] for mask in masks.values())
        num_steps = int(lengths.max()) if can_read else longest

        if "text" in values:
            values["text"] = self.embed_tokens(values["text"])
        sequences = align_modalities(self.config, values, masks, lengths, num_steps, times)
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
        # Padding keeps the states: the last step has the final states of all rows.
        pooled = self.output_dropout(nn.functional.relu(self.output_fc(states[:, -1])))
        # Output shapes depend on input shapes only, not on masks.
        padding = (0, 0, 0, longest - num_steps)
        states = nn.functional.pad(states * is_step[..., None], padding)
        efficacies = None
        if output_efficacies and steps.efficacies is not None:
            efficacies = nn.functional.pad(steps.efficacies * is_step[..., None], padding)
        return BaselineModelOutput(
            last_hidden_state=states,
            pooler_output=pooled,
            hidden_states=(states,) if self.returns_hidden_states(kwargs) else None,
            efficacies=efficacies,
        )


def pair_with_previous(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, S, D) states one step earlier, beginning with zeros, and the states themselves."""
    return nn.functional.pad(states, (0, 0, 1, 0))[:, :-1], states


@auto_docstring
class MfnPreTrainedModel(BaselinePreTrainedModel):
    config: MfnConfig


@auto_docstring(
    custom_intro="""
    The Memory Fusion Network without a head on top: one LSTM per modality, attention over their cell states at this
    step and the previous one, and a memory.

    A call needs at least one modality of the model. A missing modality has zero states and no attention, both for an
    input that is left out and for a row whose mask is all zero. The steps of a row are those of its guide (see
    [`MemoryFusionConfig`]), followed by padding. `last_hidden_state` contains the hidden states of the LSTMs and the
    memory, `(B, S, sum of hidden sizes + memory_size)`, zero in padding; S is the largest padded length of the inputs.
    `hidden_states` contains this sequence only. Invalid inputs raise a ValueError.
    """
)
class MfnModel(MfnPreTrainedModel, MemoryFusionModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: MfnConfig):
        size = 2 * sum(config.hidden_sizes())
        super().__init__(config, fused_size=size)
        self.attention_fc1 = nn.Linear(size, config.attention_hidden_size)
        self.attention_dropout = nn.Dropout(config.attention_hidden_dropout)
        self.attention_fc2 = nn.Linear(config.attention_hidden_size, size)
        self.post_init()

    def fuse(self, hidden: torch.Tensor, cells: torch.Tensor, present: torch.BoolTensor) -> FusedSteps:
        cells = torch.cat(pair_with_previous(cells), dim=-1)
        scores = self.attention_fc2(self.attention_dropout(nn.functional.relu(self.attention_fc1(cells))))
        sizes = self.config.hidden_sizes()
        is_present = torch.cat([present[:, i, None].expand(-1, size) for i, size in enumerate(sizes)] * 2, dim=-1)
        return FusedSteps(masked_softmax(scores, is_present[:, None]) * cells)


@auto_docstring(
    custom_intro="""
    The Memory Fusion Network with a classification head for emotions, sentiment classes, sentiment as a number, or,
    with `joint_sentiment`, sentiment and emotions at once. `problem_type` and `id2label` select the task. The
    arguments `word_times`, `audio_times` and `video_times` are passed on to the model.
    """
)
class MfnForSequenceClassification(MfnPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: MfnConfig):
        super().__init__(config)
        self.add_head(MfnModel(config), config.output_hidden_size)
        self.post_init()


__all__ = ["MemoryFusionModel", "MfnForSequenceClassification", "MfnModel", "MfnPreTrainedModel"]
