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
"""What UMONS models give."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, auto_docstring


@auto_docstring(custom_intro="What `get_audio_features` gives: the sequence that the audio encoder makes of sound.")
@dataclass
class UmonsAudioFeaturesOutput(BaseModelOutputWithPooling):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, T_audio, audio_feature_size)`):
        The sequence, which the model takes as `input_features` as well.
    pooler_output (`torch.FloatTensor` of shape `(B, T_audio, audio_feature_size)`):
        The same, under the name that features have in other models.
    attention_mask (`torch.LongTensor` of shape `(B, T_audio)`):
        1 for steps of sound, 0 for padding: the `input_features_mask` that belongs to it.
    """

    attention_mask: torch.LongTensor | None = None


@auto_docstring(
    custom_intro="""
    What `UmonsModel` gives. The joint sequence is text, audio and video, as far as the call has them, one after the
    other along time: S = T_text + T_audio + T_video steps.
    """
)
@dataclass
class UmonsModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, S, hidden_size)`):
        The joint sequence after the last block.
    pooler_output (`torch.FloatTensor` of shape `(B, 2 * hidden_size)`):
        The normalised sum of what the final glimpses saw of each modality.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        The joint sequence as it enters the first block and after each block: `num_hidden_layers + 1` times
        `(B, S, hidden_size)`.
    attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True` and eager attention):
        Self-attention, block by block, and within a block modality by modality: `(B, heads, T_m, T_m)` each.
    cross_attentions (`tuple[torch.FloatTensor]`, *optional*, as `attentions`):
        How the guided modalities attend to the guide, in the same order: `(B, heads, T_m, T_guide)` each.
    glimpse_weights (`tuple[torch.FloatTensor]`, *optional*, with `output_glimpse_weights=True`):
        Where each glimpse looks, in the same order: `(B, T_m, T_m)` for all blocks but the last (weights over
        axis 1, one glimpse for each position of axis 2), then the final glimpse of each modality, `(B, T_m, 1)`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    glimpse_weights: tuple[torch.FloatTensor, ...] | None = None


@auto_docstring(custom_intro="What `UmonsForSequenceClassification` gives.")
@dataclass
class UmonsSequenceClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, with `labels`):
        The mean over the batch of the loss that the configuration names.
    logits (`torch.FloatTensor` of shape `(B, num_labels)`):
        Scores before any softmax or sigmoid. With `joint_sentiment`, column 0 is the sentiment itself.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        The joint sequence as it enters the first block and after each block: `num_hidden_layers + 1` times
        `(B, S, hidden_size)`.
    attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True` and eager attention):
        Self-attention, block by block, and within a block modality by modality: `(B, heads, T_m, T_m)` each.
    cross_attentions (`tuple[torch.FloatTensor]`, *optional*, as `attentions`):
        How the guided modalities attend to the guide, in the same order: `(B, heads, T_m, T_guide)` each.
    glimpse_weights (`tuple[torch.FloatTensor]`, *optional*, with `output_glimpse_weights=True`):
        Where each glimpse looks, in the same order: `(B, T_m, T_m)` for all blocks but the last (weights over
        axis 1, one glimpse for each position of axis 2), then the final glimpse of each modality, `(B, T_m, 1)`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    glimpse_weights: tuple[torch.FloatTensor, ...] | None = None
