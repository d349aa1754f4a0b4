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
"""UMONS model configuration"""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import auto_docstring


# In the order of all modalities of the package. By default the first one of a model guides the others.
MODALITIES = ("text", "audio", "video")

# Inputs that hold the sequence of a modality. After an encoder the names are `audio_embeds` and `video_embeds`.
INPUT_NAMES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
# Label of models that also predict that none of the emotions is present.
NEUTRAL = "neutral"

# Fields that must be positive.
SIZES = (
    "vocab_size", "word_embedding_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "max_text_length", "max_audio_length", "max_video_length", "audio_feature_size",
    "video_feature_size",
)  # fmt: skip

MAX_LAYERS = 1000  # more take minutes to build, before their weights are missed

# Fields of encoders with the number of their positions: learnt positions of tokens, and Whisper's.
POSITIONS = {"text": "max_position_embeddings", "audio": "max_source_positions"}
# Encoders whose positions start after `pad_token_id`, as RoBERTa's.
POSITIONS_AFTER_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def count_positions(encoder: PreTrainedConfig, modality: str) -> int | None:
    """Return the maximum length of an encoder, of text in tokens or of audio in steps; `None` if it has none."""
    positions = getattr(encoder, POSITIONS[modality], None) or -1
    # XLNet's -1 means any length; DeBERTa has relative positions only, of any distance.
    if positions < 1 or not getattr(encoder, "position_biased_input", True):
        return None
    first = (encoder.pad_token_id or 0) + 1 if encoder.model_type in POSITIONS_AFTER_PADDING else 0
    return positions - first


@auto_docstring(
    custom_intro="""
    Configuration of the video tower, torchvision's `r2plus1d_18`: features of size 512 for clips of 16 frames.
    """
)
@strict
class UmonsVideoTowerConfig(PreTrainedConfig):
    r"""
    hidden_size (`int`, *optional*, defaults to 512):
        Size of the features, always 512.
    freeze (`bool`, *optional*, defaults to `True`):
        Whether to keep the weights and batch statistics fixed in training.
    """

    model_type = "umons_video_tower"

    hidden_size: int = 512
    freeze: bool = True

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size != 512:
            raise ValueError(
                f"`hidden_size` of the video tower is {self.hidden_size}, but that of r2plus1d_18 is 512."
            )


@auto_docstring(
    custom_intro="""
    Configuration of the UMONS joint-encoding transformer (TBJE; Delbrouck et al., Challenge-HML at ACL 2020,
    doi 10.18653/v1/2020.challengehml-1.1). The defaults are the paper's recipe for text and audio.
    """
)
@strict
class UmonsConfig(PreTrainedConfig):
    r"""
    modalities (`list[str]`, *optional*, defaults to `["text", "audio"]`):
        Any of `"text"`, `"audio"`, `"video"`. The first of them, in this order, guides the others by default.
    vocab_size (`int`, *optional*, defaults to 14000):
        Number of word ids, including padding and the unknown word.
    word_embedding_size (`int`, *optional*, defaults to 300):
        Size of the word vectors.
    hidden_size (`int`, *optional*, defaults to 512):
        Size of the hidden states. Must be a multiple of `num_attention_heads`.
    intermediate_size (`int`, *optional*, defaults to 1024):
        Size of the hidden layer of feed-forward networks and glimpses.
    num_hidden_layers (`int`, *optional*, defaults to 4):
        Number of blocks.
    num_attention_heads (`int`, *optional*, defaults to 4):
        Number of attention heads.
    hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
        Dropout of residual branches, of feed-forward networks and of glimpses.
    attention_probs_dropout_prob (`float`, *optional*, defaults to 0.1):
        Dropout of the attention probabilities.
    max_text_length (`int`, *optional*, defaults to 60):
        Maximum number of words, and the number of glimpses over text in each block but the last.
    max_audio_length (`int`, *optional*, defaults to 60):
        Maximum number of audio frames, and the number of glimpses over them.
    max_video_length (`int`, *optional*, defaults to 60):
        Maximum number of video clips, and the number of glimpses over them.
    audio_feature_size (`int`, *optional*, defaults to 80):
        Number of mel bins of an audio frame, or size of the features of the audio encoder.
    video_feature_size (`int`, *optional*, defaults to 512):
        Size of the feature vector of a video clip.
    video_tower (`UmonsVideoTowerConfig` or `dict`, *optional*):
        Video tower of the model, which then takes `pixel_values_videos` in place of `video_features`.
    text_encoder (`PreTrainedConfig` or `dict` with `model_type`, *optional*):
        Pretrained text encoder of any type of transformers, such as BERT, in place of word vectors and LSTM. A linear
        layer projects its output to `hidden_size`. Sets `vocab_size` and `pad_token_id`. [`UmonsModel.from_encoders`]
        loads its weights.
    audio_encoder (`PreTrainedConfig` or `dict` with `model_type`, *optional*):
        Pretrained audio encoder (wav2vec 2.0, HuBERT, WavLM, the encoder of Whisper). The model then takes
        `input_values`, or `input_features` for Whisper, or the output of the encoder as `audio_embeds`. Sets
        `audio_feature_size`.
    video_encoder (`PreTrainedConfig` or `dict` with `model_type`, *optional*):
        Pretrained video encoder (VideoMAE, TimeSformer), in place of the video tower. The model then takes
        `pixel_values_videos`, or the output of the encoder as `video_embeds`. Sets `video_feature_size`.
    use_weighted_layer_sum (`bool` or `list[str]`, *optional*, defaults to `False`):
        Use a learnt weighted mean of the hidden layers of an encoder in place of the last layer: `True` for all
        encoders, or a list of modalities. Sets `layerdrop` of these encoders to 0.
    average_audio (`bool`, *optional*, defaults to `False`):
        Average the output of the audio encoder over time: the model has one audio step. Better than all steps if the
        training data have few voices. No moment then has an attention weight, or contributes on its own.
    audio_sampling_rate (`int`, *optional*):
        Sampling rate of the audio encoder in Hz, which the processor must share.
    layer_norm_eps (`float`, *optional*, defaults to 1e-6):
        Epsilon of layer normalisation, added to the variance.
    initializer_factor (`float`, *optional*, defaults to 1.0):
        Factor of the initial weights; 1.0 is PyTorch's own initialisation, as in the published code.
    legacy_masking (`bool`, *optional*, defaults to `False`):
        Mask padding in the first block only, as the published code does; with all three modalities, its video glimpse
        has the audio mask. For converted checkpoints. A missing modality contributes nothing in either case, where
        the published code attends to its padding. By default, padding is masked everywhere.
    modality_fusion (`str`, *optional*, defaults to `"attention"`):
        `"attention"`: the guide attends over the other modalities, and the head processes the sum of all, as in the
        paper. `"vote"`: modalities do not attend to each other, the head processes each alone, and the logits are
        combined by `combine_votes` in `modeling_tbje.py`; requires `joint_sentiment`. For models trained without rows
        of several modalities.
    guide (`str`, *optional*):
        Modality that guides the others by cross-attention; the first of `modalities` by default.
    use_cross_attention (`bool`, *optional*, defaults to `True`):
        Whether the guide guides the others. Otherwise every modality has the self-attention of the guide only.
    use_glimpses (`bool`, *optional*, defaults to `True`):
        Whether blocks and poolers have glimpses. Otherwise blocks have none, and poolers average over time.
    use_outer_residual (`bool`, *optional*, defaults to `True`):
        Whether a residual connection spans the attention unit of each block.
    context_size (`int`, *optional*, defaults to 0):
        Number of previous utterances of a conversation that the model takes as `history_ids`. The text front end or
        encoder processes them before the text; the blocks process the states of the text only.
    audio_front_end (`str`, *optional*, defaults to `"linear"`):
        `"linear"` projects each audio frame, `"lstm"` encodes their order, as in the published code for MELD.
    joint_sentiment (`bool`, *optional*, defaults to `False`):
        Predict sentiment and emotions at once: label 0 is the sentiment in [-3, 3], the others are emotions. Sets
        seven labels unless `id2label` is given, and requires `problem_type=None`.
    calibration (`dict`, *optional*):
        Temperatures, thresholds and errors by combination of modalities, which the pipeline applies. `umons train` and
        `umons evaluate --calibrate` write it; `calibration_umons.py` documents its form.
    label_ranges (`list[list[float]]`, *optional*):
        Lowest and highest training label of each output of a regression, for displays.
    trained_modalities (`list[str]`, *optional*):
        Combinations of modalities of the training rows, such as `"text+audio"`. The pipeline warns of others.
    pad_token_id (`int`, *optional*, defaults to 0):
        Word id of padding.

    Example:

    ```python
    >>> from modeling_umons import UmonsConfig, UmonsModel

    >>> configuration = UmonsConfig(modalities=["text", "audio"], vocab_size=14000)
    >>> model = UmonsModel(configuration)
    ```
    """

    model_type = "umons"
    sub_configs = {
        "video_tower": UmonsVideoTowerConfig,
        "text_encoder": AutoConfig,
        "audio_encoder": AutoConfig,
        "video_encoder": AutoConfig,
    }
    _auto_class: ClassVar[str] = "AutoConfig"  # saving copies the code

    modalities: list[str] | tuple[str, ...] = ("text", "audio")
    vocab_size: int = 14000
    word_embedding_size: int = 300
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_text_length: int = 60
    max_audio_length: int = 60
    max_video_length: int = 60
    audio_feature_size: int = 80
    video_feature_size: int = 512
    video_tower: UmonsVideoTowerConfig | dict | None = None
    text_encoder: PreTrainedConfig | dict | None = None
    audio_encoder: PreTrainedConfig | dict | None = None
    video_encoder: PreTrainedConfig | dict | None = None
    use_weighted_layer_sum: bool | list[str] | tuple[str, ...] = False
    average_audio: bool = False
    audio_sampling_rate: int | None = None
    layer_norm_eps: float = 1e-6
    initializer_factor: float = 1.0
    legacy_masking: bool = False
    modality_fusion: str = "attention"
    guide: str | None = None
    use_cross_attention: bool = True
    use_glimpses: bool = True
    use_outer_residual: bool = True
    context_size: int = 0
    audio_front_end: Literal["linear", "lstm"] = "linear"
    joint_sentiment: bool = False
    calibration: dict | None = None
    label_ranges: list | tuple | None = None
    trained_modalities: list[str] | tuple[str, ...] | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        # Canonical order: `modalities[0]` is the default guide. Unknown names are left to the validation.
        known = [modality for modality in MODALITIES if modality in self.modalities]
        self.modalities = known if sorted(known) == sorted(self.modalities) else list(self.modalities)
        if self.joint_sentiment and self.id2label is None and kwargs.get("num_labels", 7) == 1 + len(EMOTIONS):
            self.id2label = dict(enumerate(("sentiment", *EMOTIONS)))
            self.label2id = {label: i for i, label in self.id2label.items()}
        # With the package installed, `pipeline` uses its class and must not require trust in the copy in the folder.
        if not type(self).__module__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        # Classes that the Auto classes load with `trust_remote_code=True`.
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_umons.UmonsConfig",
                "AutoModel": "modeling_tbje.UmonsModel",
                "AutoModelForSequenceClassification": "modeling_tbje.UmonsForSequenceClassification",
            },
        )
        if isinstance(self.video_tower, dict):
            self.video_tower = UmonsVideoTowerConfig(**self.video_tower)
        for modality in MODALITIES:
            self._adopt_encoder(modality)
        super().__post_init__(**kwargs)
        # `@strict` calls this again, and wraps its errors in one that is not a ValueError.
        self.validate_architecture()

    def _adopt_encoder(self, modality: str):
        """Convert the configuration of an encoder from a dict, and set the sizes that depend on it."""
        name = f"{modality}_encoder"
        encoder = getattr(self, name)
        if encoder is None:
            return
        if isinstance(encoder, dict):
            if encoder.get("model_type") not in CONFIG_MAPPING:
                raise ValueError(
                    f"`{name}` has the model type {encoder.get('model_type')!r}, which is unknown to this "
                    "transformers: pass the `model_type` of one of its models, such as 'bert', 'wav2vec2' or "
                    "'videomae'."
                )
            encoder = AutoConfig.for_model(**encoder)
            setattr(self, name, encoder)
        size = getattr(encoder, "hidden_size", None)
        if not isinstance(size, int) or (modality == "text" and not hasattr(encoder, "vocab_size")):
            raise ValueError(
                f"`{name}` is of type {encoder.model_type!r}, which has no `hidden_size` of its sequence"
                f"{' or no `vocab_size`' if modality == 'text' else ''}: pass an encoder of {modality}, or the "
                f"{modality} part of the configuration of a model of several modalities."
            )
        if modality == "text":
            self.vocab_size, self.pad_token_id = encoder.vocab_size, encoder.pad_token_id
        else:
            # The adapter of wav2vec 2.0 has its own size.
            size = encoder.output_hidden_size if getattr(encoder, "add_adapter", False) else size
            setattr(self, f"{modality}_feature_size", size)
        if self.weights_layers(modality):
            for drop in ("layerdrop", "encoder_layerdrop"):
                if hasattr(encoder, drop):
                    setattr(encoder, drop, 0.0)

    @property
    def guide_modality(self) -> str:
        """Modality that guides the others."""
        return self.guide or self.modalities[0]

    def validate_architecture(self):
        """Raise a ValueError for unknown modalities and for sizes that do not fit each other."""
        if not self.modalities or any(self.modalities.count(m) != 1 or m not in MODALITIES for m in self.modalities):
            raise ValueError(
                f"`modalities` is {self.modalities}: it must name at least one of {list(MODALITIES)}, each once."
            )
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be at least 1.")
        if not all(isinstance(label, str) for label in self.id2label.values()):
            raise ValueError(f"`id2label` is {self.id2label!r:.200}: its values must be names of labels.")
        if self.num_hidden_layers > MAX_LAYERS:
            raise ValueError(f"`num_hidden_layers` is {self.num_hidden_layers}: it must be at most {MAX_LAYERS}.")
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if self.guide is not None and self.guide not in self.modalities:
            raise ValueError(f"`guide` is {self.guide!r}: it must be one of `modalities`, {self.modalities}.")
        self._validate_encoders()
        if self.video_tower is not None and "video" not in self.modalities:
            raise ValueError(f"`video_tower` is given, but `modalities` is {self.modalities}: add 'video'.")
        if self.video_tower is not None and self.video_feature_size != self.video_tower.hidden_size:
            raise ValueError(
                f"`video_feature_size` is {self.video_feature_size}, but the features of the video tower have the "
                f"size {self.video_tower.hidden_size}."
            )
        if self.joint_sentiment and self.problem_type is not None:
            raise ValueError(
                f"`joint_sentiment=True` requires `problem_type=None`, but it is {self.problem_type!r}, which would "
                "apply to the sentiment too: remove `problem_type` from the configuration."
            )
        if self.modality_fusion not in ("attention", "vote"):
            raise ValueError(f"`modality_fusion` is {self.modality_fusion!r}: it must be 'attention' or 'vote'.")
        if self.modality_fusion == "vote" and (not self.joint_sentiment or self.legacy_masking):
            raise ValueError(
                "`modality_fusion='vote'` requires `joint_sentiment=True` and `legacy_masking=False`: it combines a "
                "sentiment and emotions."
            )
        self._validate_context()
        if self.joint_sentiment and self.num_labels < 2:
            raise ValueError(
                "`joint_sentiment=True` needs at least two labels, the sentiment and an emotion (the six emotions of "
                f"MOSEI make `num_labels=7`), but `num_labels` is {self.num_labels}."
            )
        if self.legacy_masking and len(self.modalities) == 3 and self.max_video_length != self.max_audio_length:
            raise ValueError(
                "`legacy_masking=True` masks the video glimpse with the audio mask, so `max_video_length` "
                f"({self.max_video_length}) and `max_audio_length` ({self.max_audio_length}) must be equal."
            )

    def _validate_context(self):
        if self.context_size < 0:
            raise ValueError(f"`context_size` is {self.context_size}: it must be 0 or more.")
        if self.context_size and ("text" not in self.modalities or self.legacy_masking):
            raise ValueError(
                f"`context_size` is {self.context_size}, which requires 'text' in `modalities` and "
                "`legacy_masking=False`: set it to 0."
            )
        if self.context_size and self.max_context_length < 1:
            raise ValueError(
                f"`text_encoder` has no positions for previous utterances beyond `max_text_length` "
                f"({self.max_text_length}): lower it, or set `context_size` to 0."
            )

    def _validate_encoders(self):
        for modality in (modality for modality in MODALITIES if self.encoder_of(modality) is not None):
            name = f"{modality}_encoder"
            if modality not in self.modalities:
                raise ValueError(f"`{name}` is given, but `modalities` is {self.modalities}: add {modality!r}.")
            if self.legacy_masking:
                raise ValueError(
                    f"`legacy_masking=True` is for published checkpoints, which have no `{name}`: remove one of them."
                )
        if self.average_audio and self.audio_encoder is None:
            raise ValueError("`average_audio=True` averages the output of an `audio_encoder`, which is not given.")
        if not isinstance(self.use_weighted_layer_sum, bool):
            for modality in self.use_weighted_layer_sum:
                if modality not in MODALITIES or self.encoder_of(modality) is None:
                    raise ValueError(
                        f"`use_weighted_layer_sum` has {modality!r}, but there is no encoder of that modality: leave "
                        "it out."
                    )
        if self.video_encoder is not None and self.video_tower is not None:
            raise ValueError("`video_encoder` and `video_tower` are both given: pass one of them.")
        for modality in (modality for modality in POSITIONS if self.encoder_of(modality) is not None):
            positions = count_positions(self.encoder_of(modality), modality)
            if positions is not None and positions < self.length_limit(modality):
                raise ValueError(
                    f"`max_{modality}_length` is {self.length_limit(modality)}, but `{modality}_encoder` has "
                    f"{positions} positions: set it to that or less."
                )

    def encoder_of(self, modality: str) -> PreTrainedConfig | None:
        """Return the configuration of the pretrained encoder of `modality`, or `None`."""
        return getattr(self, f"{modality}_encoder")

    def weights_layers(self, modality: str) -> bool:
        """Return whether the output of the encoder of `modality` is a weighted mean of its hidden layers."""
        chosen = self.use_weighted_layer_sum
        return chosen if isinstance(chosen, bool) else modality in chosen

    def sequence_name(self, modality: str) -> str:
        """Return the input name of the sequence of `modality`, such as `audio_embeds` with an `audio_encoder`."""
        if modality != "text" and self.encoder_of(modality) is not None:
            return f"{modality}_embeds"
        return INPUT_NAMES[modality]

    def length_limit(self, modality: str) -> int:
        """Return the maximum length of `modality`, in words, audio frames or video clips."""
        return getattr(self, f"max_{modality}_length")

    @property
    def max_context_length(self) -> int:
        """
        Maximum number of tokens of the previous utterances: `max_text_length` of each, within the text encoder's
        positions.
        """
        length = self.context_size * self.max_text_length
        encoder = self.encoder_of("text")
        positions = None if encoder is None else count_positions(encoder, "text")
        return length if positions is None else min(length, positions - self.max_text_length)


__all__ = ["UmonsConfig", "UmonsVideoTowerConfig"]
