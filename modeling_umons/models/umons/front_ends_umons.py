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
"""Front ends of the UMONS model: what turns each modality into a sequence of hidden states."""

import torch
from torch import nn

from .configuration_umons import UmonsConfig


class UmonsLSTM(nn.Module):
    """
    One layer, one direction, every step kept: (B, T, input_size) -> (B, T, hidden_size). `nn.LSTM` would do, but
    `torch.compile` breaks the graph at it and takes the operator underneath whole. Parameters carry the names that
    `nn.LSTM` gives them.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        state = hidden_states.new_zeros(1, hidden_states.shape[0], self.hidden_size)
        weights = [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]
        # Arguments: has biases, layers, dropout, training, bidirectional, batch first.
        return torch.lstm(hidden_states, (state, state), weights, True, 1, 0.0, self.training, False, True)[0]


class UmonsTextFrontEnd(nn.Module):
    """Word ids (B, T) -> (B, T, hidden_size): word vectors, read by an LSTM."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
        self.lstm = UmonsLSTM(config.word_embedding_size, config.hidden_size)

    def forward(self, input_ids: torch.LongTensor) -> torch.Tensor:
        return self.lstm(self.embed_tokens(input_ids))


class UmonsFrontEnds(nn.ModuleDict):
    """
    By modality, what turns the model's input into (B, T, hidden_size). No position is encoded anywhere: the LSTM orders
    the words, and nothing orders the frames. After a pretrained encoder it is a linear map alone.
    """

    def __init__(self, config: UmonsConfig):
        encoder = config.text_encoder
        front_ends = {
            "text": lambda: (
                nn.Linear(encoder.hidden_size, config.hidden_size) if encoder else UmonsTextFrontEnd(config)
            ),
            "audio": lambda: nn.Linear(config.audio_feature_size, config.hidden_size),
            "video": lambda: nn.Linear(config.video_feature_size, config.hidden_size),
        }
        super().__init__({modality: front_ends[modality]() for modality in config.modalities})

    def forward(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # For gradients of an LSTM the compiler unrolls it, anew for each length, which takes minutes; on a CPU it fails
        # where the word vectors are frozen. So the front ends are left as they are, between two graphs. Here rather than
        # in `UmonsLSTM`, because no graph goes on after a break within a loop.
        has_lstm = "text" in values and isinstance(self["text"], UmonsTextFrontEnd)
        if has_lstm and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return self._encode_uncompiled(values)
        return self._encode(values)

    def _encode(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {modality: self[modality](value) for modality, value in values.items()}

    @torch.compiler.disable(
        reason="an LSTM is not compiled where gradients are wanted: wrap inference in torch.no_grad()"
    )
    def _encode_uncompiled(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._encode(values)
