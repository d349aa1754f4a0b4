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
"""
Pretrained encoders in front of a UMONS model's front ends: any of transformers' for text, sound or clips of pictures, each
called as it is and giving a sequence of its own `hidden_size`.
"""

import inspect

import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel

from .configuration_umons import UmonsConfig, count_positions


# Names under which encoders of a modality take it.
ENCODER_INPUTS = {
    "text": ("input_ids",),
    "audio": ("input_values", "input_features"),
    "video": ("pixel_values", "pixel_values_videos"),
}
# Clips that go through an encoder at once: all the clips of a batch need a lot of memory.
CLIPS_AT_ONCE = 8
# Default length of audio in seconds, the window of Whisper.
DEFAULT_SOUND_S = 30.0


class UmonsEncoder(nn.Module):
    """
    A pretrained encoder, in `model`, with random weights unless they are loaded. What it gives is its last hidden layer, or
    with `use_weighted_layer_sum` a mean of all its layers, weighted by the softmax of `layer_weights`.
    """

    def __init__(self, config: UmonsConfig, modality: str):
        super().__init__()
        self.modality = modality
        encoder_config = config.encoder_of(modality)
        self.model = take_encoder(AutoModel.from_config(encoder_config, trust_remote_code=False), modality)
        self.input_name = self.model.main_input_name
        # The embeddings, then what each layer gives.
        mixes = config.use_weighted_layer_sum
        self.layer_weights = nn.Parameter(torch.zeros(encoder_config.num_hidden_layers + 1)) if mixes else None
        self.has_mask = "attention_mask" in inspect.signature(self.model.forward).parameters

    def encode(self, values: torch.Tensor, mask: torch.BoolTensor | None = None) -> torch.Tensor:
        """The sequence (B, T, size) that the encoder makes of its input. `mask`: (B, T_in), True where there is something."""
        mixes = self.layer_weights is not None
        inputs = {self.input_name: values, "output_hidden_states": mixes, "return_dict": True}
        if values.is_floating_point():
            inputs[self.input_name] = values.to(self.model.dtype)
        if mask is not None and self.has_mask:
            inputs["attention_mask"] = mask.long()
        outputs = self.model(**inputs)
        states = getattr(outputs, "last_hidden_state", None)
        # The last of all is what the encoder gives, normalised where it normalises it.
        layers = [*((getattr(outputs, "hidden_states", None) or ())[:-1]), states] if mixes else [states]
        expected = len(self.layer_weights) if mixes else 1
        if (
            states is None
            or states.ndim != 3
            or len(layers) != expected
            or any(x.shape != states.shape for x in layers)
        ):
            raise ValueError(
                f"A {type(self.model).__name__} gives no sequence (batch, time, size)"
                f"{f' from each of {expected} layers' if mixes else ''}: it cannot be the {self.modality} encoder"
                f"{' with `use_weighted_layer_sum`' if mixes else ''}."
            )
        if not mixes:
            return states
        return sum(weight * layer for weight, layer in zip(self.layer_weights.softmax(dim=0), layers, strict=True))


class UmonsTextEncoder(UmonsEncoder):
    """Token ids and mask (B, T) -> (B, T, size)."""

    def forward(self, input_ids: torch.LongTensor, mask: torch.BoolTensor) -> torch.Tensor:
        return self.encode(input_ids, _or_everything(mask))


class UmonsAudioEncoder(UmonsEncoder):
    """
    A batch of waveforms or spectrograms, and the mask (B, T_in) over their time -> (B, T, size) and the mask (B, T).
    Padding is kept out as far as the encoder does it: not where features are normalised over time before anything is
    masked, as in wav2vec 2.0 with `feat_extract_norm="group"` (the base models of wav2vec 2.0 and HuBERT).
    """

    def forward(
        self, values: torch.FloatTensor, mask: torch.BoolTensor | None
    ) -> tuple[torch.FloatTensor, torch.BoolTensor]:
        rule = getattr(self.model, "_get_feat_extract_output_lengths", None)
        can_count = rule is not None and not torch.compiler.is_compiling()  # the rule makes tensors of numbers
        if can_count and values.ndim == 2 and rule(values.shape[1]) < 1:
            raise ValueError(
                f"`input_values` has {values.shape[1]} samples, of which the audio encoder makes nothing: give "
                "longer sound, or pad it."
            )
        if mask is None:  # sound throughout, but for rows of zeros
            is_there = (values != 0).flatten(1).any(dim=1)
            states = self.encode(values)
            return states, is_there[:, None].expand(states.shape[:2])
        is_there = mask.any(dim=1, keepdim=True)
        mask = _or_everything(mask)
        states = self.encode(values, mask)
        lengths = self.count_steps(mask.sum(dim=1), mask.shape[1], states.shape[1]).clamp(min=1)
        steps = torch.arange(states.shape[1], device=lengths.device)
        mask = (steps < lengths[:, None]) & is_there
        if not torch.compiler.is_compiling() and not mask.is_meta:
            # Whisper gives half a minute of whatever it hears: what is padding in all rows goes no further.
            longest = max(1, int(mask.sum(dim=1).max()))
            states, mask = states[:, :longest], mask[:, :longest]
        return states, mask

    def count_steps(self, lengths: torch.LongTensor, total: int, total_steps: int) -> torch.LongTensor:
        """Steps that come of `lengths` of the input, by the encoder's own rule; or of `total` the share of all steps."""
        rule = getattr(self.model, "_get_feat_extract_output_lengths", None)
        return rule(lengths) if rule else (lengths * total_steps + total - 1) // total


class UmonsVideoEncoder(UmonsEncoder):
    """Clips (n, frames, 3, height, width) -> (n, size): the mean over what the encoder makes of each."""

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def forward(self, clips: torch.FloatTensor) -> torch.FloatTensor:
        return torch.cat([self.encode(some).mean(dim=1) for some in clips.split(CLIPS_AT_ONCE)])


class UmonsEncoders(nn.ModuleDict):
    """By modality, the encoders that a configuration names."""

    def __init__(self, config: UmonsConfig):
        kinds = {"text": UmonsTextEncoder, "audio": UmonsAudioEncoder, "video": UmonsVideoEncoder}
        names = [modality for modality in config.modalities if config.encoder_of(modality) is not None]
        super().__init__({modality: kinds[modality](config, modality) for modality in names})


def take_encoder(model: PreTrainedModel, modality: str) -> PreTrainedModel:
    """The part of a model that encodes: no decoder, nor a pooler, of which nothing would come."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    takes_clips = modality != "video" or any(hasattr(model.config, key) for key in ("num_frames", "frames_per_clip"))
    if encoder.main_input_name not in ENCODER_INPUTS[modality] or not takes_clips:
        takes = f"`{encoder.main_input_name}`" if takes_clips else "single pictures"
        raise ValueError(
            f"The {modality} encoder is a {type(encoder).__name__}, which takes {takes}: an encoder of {modality} takes "
            f"{' or '.join(f'`{name}`' for name in ENCODER_INPUTS[modality])}{' of clips' if modality == 'video' else ''}."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def _or_everything(mask: torch.BoolTensor) -> torch.BoolTensor:
    """Rows in which nothing is there look at their padding, so that every softmax is of something."""
    return mask | ~mask.any(dim=1, keepdim=True)


class FromEncodersMixin:
    """`from_encoders` of UMONS models."""

    @classmethod
    def from_encoders(
        cls, text: str | None = None, audio: str | None = None, video: str | None = None, **config_options
    ):
        r"""
        A model with pretrained encoders in the place of front ends, their weights loaded, the rest as it starts.
        [`UmonsProcessor.from_encoders`] makes the processor for it.

        ```python
        >>> model = UmonsForSequenceClassification.from_encoders(
        ...     text="microsoft/deberta-v3-base", audio="microsoft/wavlm-base-plus", joint_sentiment=True
        ... )
        ```

        Args:
            text (`str`, *optional*): folder or Hub id of an encoder of token ids (BERT, MiniLM, DeBERTa).
            audio (`str`, *optional*): of sound (wav2vec 2.0, HuBERT, WavLM; of Whisper, the encoder).
            video (`str`, *optional*): of clips of pictures (VideoMAE, TimeSformer).
            config_options: of [`UmonsConfig`]. `modalities` are those given here unless it names others as well,
                which then have their usual front end; `max_audio_length` covers half a minute.

        Raises:
            OSError: an encoder cannot be read, or fetched.
            ValueError: one is not of the modality or gives no sequence; options do not fit each other.
        """
        names = {"text": text, "audio": audio, "video": video}
        names = {modality: name for modality, name in names.items() if name is not None}
        config, pretrained = _load_pretrained(names, config_options)
        model = cls(config)
        for modality, encoder in pretrained.items():
            model.base_model.encoders[modality].model.load_state_dict(encoder.state_dict())
        return model.eval()


def fetch(auto_class, name: str, modality: str, **options):
    """What `auto_class` loads from a folder or the Hub, never running code of theirs. Errors say what to do."""
    try:
        return auto_class.from_pretrained(str(name), trust_remote_code=False, **options)
    except OSError as error:
        raise OSError(
            f"The {modality} encoder {str(name)!r} cannot be loaded: {str(error).splitlines()[0]} Give a folder that holds "
            f"it, or fetch it while there is a network, with `hf download {name}`."
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The {modality} encoder {str(name)!r} is not one of transformers' own models, or misses a part "
            f"({auto_class.__name__}): {str(error).splitlines()[0]}"
        ) from error


def _load_pretrained(names: dict[str, str], options: dict) -> tuple[UmonsConfig, dict[str, PreTrainedModel]]:
    """The configuration of a model with these encoders, by modality, and the encoders with their weights."""
    encoders = {  # in single precision, as the rest of a new model, whatever they are saved in
        modality: take_encoder(fetch(AutoModel, name, modality, dtype=torch.float32), modality)
        for modality, name in names.items()
    }
    options = {"modalities": list(encoders), **options}
    if "audio" in encoders:
        rate, frame_duration = describe_sound(encoders["audio"], fetch(AutoFeatureExtractor, names["audio"], "audio"))
        length = default_length(encoders["audio"], frame_duration)
        options = {"audio_sampling_rate": rate, "max_audio_length": length, **options}
    options.update({f"{modality}_encoder": encoder.config for modality, encoder in encoders.items()})
    return UmonsConfig(**options), encoders


def describe_sound(encoder: PreTrainedModel, extractor) -> tuple[int, float]:
    """Rate in Hz of the sound that an encoder wants, and seconds from one step of what it gives to the next."""
    many = 1_000_000  # so many that what is lost at the edges does not count
    rule = getattr(encoder, "_get_feat_extract_output_lengths", None)
    inputs_per_step = round(many / int(rule(torch.tensor(many, device="cpu")))) if rule else 1
    if hasattr(extractor, "hop_length"):
        inputs_per_s = extractor.sampling_rate / extractor.hop_length
    elif hasattr(extractor, "num_mel_bins"):  # Kaldi's frames of 10 ms, some at once
        inputs_per_s = 100 / getattr(extractor, "stride", 1)
    else:
        inputs_per_s = extractor.sampling_rate
    return extractor.sampling_rate, inputs_per_step / inputs_per_s


def default_length(encoder: PreTrainedModel, frame_duration: float) -> int:
    """`max_audio_length` unless another is asked for: the steps of half a minute, or what the encoder has positions for."""
    steps = round(DEFAULT_SOUND_S / frame_duration)
    return min(steps, count_positions(encoder.config, "audio") or steps)


def build_without_weights(name: str, modality: str) -> PreTrainedModel:
    """The encoder as its configuration describes it, without memory for weights."""
    config = fetch(AutoConfig, name, modality)
    with torch.device("meta"):
        return take_encoder(AutoModel.from_config(config, trust_remote_code=False), modality)
