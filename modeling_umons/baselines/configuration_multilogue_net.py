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
"""Configuration of Multilogue-Net."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers.utils import auto_docstring

from .configuration_baselines import BaselineConfig


@auto_docstring(
    custom_intro="""
    Configuration of Multilogue-Net (Shenoy and Sardana, 2020). The sizes of the states are those of the paper.
    """
)
@strict
class MultilogueNetConfig(BaselineConfig):
    r"""
    utterance_size (`int`, *optional*, defaults to 100):
        Size of what an utterance is in each modality, before its context.
    global_state_size (`int`, *optional*, defaults to 150):
        Size of the state of the conversation.
    party_state_size (`int`, *optional*, defaults to 150):
        Size of the state of each speaker.
    emotion_state_size (`int`, *optional*, defaults to 100):
        Size of the state that the emotion is read from, in each direction.
    dropout (`float`, *optional*, defaults to 0.5):
        Dropout of what the head reads.
    recurrent_dropout (`float`, *optional*, defaults to 0.1):
        Dropout of the states, at each utterance.
    """

    model_type = "multilogue_net"
    _config_module: ClassVar[str] = "configuration_multilogue_net"
    _model_name: ClassVar[str] = "MultilogueNet"
    _model_module: ClassVar[str] = "modeling_multilogue_net"
    # Inputs and labels have one more dimension in front of the others': (conversations, utterances, ...).
    takes_conversations: ClassVar[bool] = True

    utterance_size: int = 100
    global_state_size: int = 150
    party_state_size: int = 150
    emotion_state_size: int = 100
    dropout: float | int = 0.5
    recurrent_dropout: float | int = 0.1


__all__ = ["MultilogueNetConfig"]
