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

import torch
from torch import nn
from transformers.utils import auto_docstring

from .configuration_baselines import MfnConfig
from .memory_fusion_baselines import FusedSteps, MemoryFusionModel, with_step_before
from .modeling_baselines import BaselineForSequenceClassification, BaselinePreTrainedModel, masked_softmax


@auto_docstring
class MfnPreTrainedModel(BaselinePreTrainedModel):
    config: MfnConfig


@auto_docstring(
    custom_intro="""
    The Memory Fusion Network without its last layer: one LSTM for each modality, attention over what their cells hold at
    this step and held at the one before, and a memory of what it sees.

    Of its modalities a call needs at least one. One that is left out, or whose mask is zero throughout a row, contributes
    nothing there: its states are zero, and the attention is spread over the others. The steps of a row are those of its
    guide (see [`MemoryFusionConfig`]), the padding after them. `last_hidden_state` and the only one of `hidden_states`
    are the LSTMs' hidden states and the memory, `(B, S, sum of hidden sizes + memory_size)`, zero in padding; S is the
    longest padded length of what is given. Inputs that do not fit raise a ValueError.
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
        cells = torch.cat(with_step_before(cells), dim=-1)
        scores = self.attention_fc2(self.attention_dropout(nn.functional.relu(self.attention_fc1(cells))))
        sizes = self.config.hidden_sizes()
        is_there = torch.cat([present[:, i, None].expand(-1, size) for i, size in enumerate(sizes)] * 2, dim=-1)
        return FusedSteps(masked_softmax(scores, is_there[:, None]) * cells)


@auto_docstring(
    custom_intro="""
    The Memory Fusion Network: its last layer gives emotions, sentiment classes, sentiment as a number, or with
    `joint_sentiment` sentiment and emotions at once. `problem_type` and `id2label` decide, as in every such model.
    `word_times` and `audio_offsets` reach the model as further keyword arguments.
    """
)
class MfnForSequenceClassification(MfnPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: MfnConfig):
        super().__init__(config)
        self.add_head(MfnModel(config), config.output_hidden_size)
        self.post_init()


__all__ = ["MfnForSequenceClassification", "MfnModel", "MfnPreTrainedModel"]
