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

"""The R(2+1)D network that turns clips of pictures into the features a UMONS model reads."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import auto_docstring

from .configuration_umons import UmonsVideoTowerConfig


# Clips that go through the network at once: more gain nothing on a CPU, and each takes some 200 MB of activations.
CLIPS_AT_ONCE = 8


@auto_docstring(
    custom_intro="""
    R(2+1)D, 18 layers (Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018),
    as torchvision has it, without its classifier: factorised convolutions over space, then time, and the average of the
    last layer. Frozen unless the configuration says otherwise.
    """
)
class UmonsVideoTower(PreTrainedModel):
    config: UmonsVideoTowerConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _no_split_modules = ["UmonsVideoTower"]

    def __init__(self, config: UmonsVideoTowerConfig):
        super().__init__(config)
        from torchvision.models.video import r2plus1d_18

        self.network = r2plus1d_18(weights=None)
        self.network.fc = nn.Identity()
        self.train()  # a module starts in training mode, which a frozen one must not
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True):
        # A frozen tower keeps its batch statistics too. Loading a checkpoint makes new parameters, then comes here.
        self.requires_grad_(not self.config.freeze)
        return super().train(mode and not self.config.freeze)

    def load_torchvision_weights(self, weights: str | Path):
        """
        Loads pretrained weights in torchvision's own format.

        Args:
            weights: the name of a set of torchvision, `"KINETICS400_V1"`, which is fetched and checked by its hash; or
                a local file, a state dict of `r2plus1d_18` written by `torch.save`. It is read without executing anything.

        Raises:
            OSError: the weights cannot be fetched or read, or are not those of `r2plus1d_18`.
            ValueError: there is neither a file nor a set of torchvision of this name.
        """
        from torchvision.models.video import R2Plus1D_18_Weights

        known = R2Plus1D_18_Weights.__members__
        is_file = Path(weights).is_file()
        if not is_file and str(weights) not in known:
            raise ValueError(
                f"{str(weights)!r} is neither a file nor weights of torchvision's r2plus1d_18 ({', '.join(known)})."
            )
        try:
            if is_file:
                state_dict = torch.load(weights, map_location="cpu", weights_only=True)
            else:  # what lies in torch's cache is not checked by its hash
                state_dict = known[str(weights)].get_state_dict(
                    progress=False, check_hash=True, map_location="cpu", weights_only=True
                )
        except (OSError, RuntimeError) as error:
            raise OSError(f"{weights} could not be read: {error}") from error
        except Exception as error:  # torch raises many kinds, whose advice is to execute what is in the file
            raise OSError(
                f"{weights} is not a state dict of torchvision's r2plus1d_18 that can be read without executing anything: "
                "pass what `torch.save(network.state_dict(), path)` writes."
            ) from error
        if not isinstance(state_dict, dict) or not all(isinstance(name, str) for name in state_dict):
            raise OSError(f"{weights} holds no state dict of torchvision's r2plus1d_18: pass its names and tensors.")
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith("fc.")}
        try:
            self.network.load_state_dict(state_dict)
        except RuntimeError as error:
            raise OSError(f"{weights} does not fit torchvision's r2plus1d_18: {error}") from error

    @auto_docstring
    def forward(self, pixel_values_videos: torch.FloatTensor, **kwargs) -> torch.FloatTensor:
        r"""
        pixel_values_videos (`torch.FloatTensor` of shape `(num_clips, 16, 3, 112, 112)`):
            Normalised clips, as [`UmonsVideoProcessor`] cuts them.

        Returns:
            `torch.FloatTensor` of shape `(num_clips, 512)`.
        """
        if pixel_values_videos.ndim != 5 or pixel_values_videos.shape[2] != 3:
            raise ValueError(
                f"`pixel_values_videos` has shape {tuple(pixel_values_videos.shape)}, but the tower wants "
                "(clips, frames, 3, height, width)."
            )
        clips = pixel_values_videos.to(self.dtype).transpose(1, 2)  # torchvision has channels before time
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze):
            return torch.cat([self.network(some) for some in clips.split(CLIPS_AT_ONCE)])


__all__ = ["UmonsVideoTower"]
