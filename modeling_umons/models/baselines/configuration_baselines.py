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
"""Configurations of the baselines of the UMONS model: TFN, MFN, Graph-MFN, Multilogue-Net and MulT."""

from inspect import cleandoc
from itertools import combinations
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import auto_docstring


# Copied from modeling_umons.models.umons.configuration_umons.MODALITIES
MODALITIES = ("text", "audio", "video")

# Copied from modeling_umons.models.umons.configuration_umons.EMOTIONS
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")


def inherit_parameters(cls: type) -> type:
    """
    Put the parameters that the parent classes document first, for `auto_docstring`, which adds the defaults.

    The docstring of a parent class is a sentence, an empty line and the parameters.
    """
    parents = [parent for parent in reversed(cls.__mro__[1:]) if issubclass(parent, BaselineConfig)]
    inherited = [cleandoc(parent.__doc__ or "").split("\n\n", 1)[1] for parent in parents]
    cls.__doc__ = "\n".join([*inherited, cleandoc(cls.__doc__ or "")])
    return cls


# Abstract: `inherit_parameters` documents the parameters in the subclasses. trf-ignore: TRF057
@strict
class BaselineConfig(PreTrainedConfig):
    r"""
    Base class of the baselines' configurations: inputs and labels, named as in `UmonsConfig`.

    modalities (`list[str]`):
        Any of `"text"`, `"audio"`, `"video"`.
    vocab_size (`int`):
        Number of word ids, including padding and the unknown word.
    word_embedding_size (`int`):
        Size of the word vectors.
    max_text_length (`int`):
        Maximum number of words.
    max_audio_length (`int`):
        Maximum number of audio frames.
    max_video_length (`int`):
        Maximum number of video clips.
    audio_feature_size (`int`):
        Number of mel bins of an audio frame.
    video_feature_size (`int`):
        Size of the feature vector of a video clip.
    initializer_factor (`float`):
        Factor of the initial weights; 1.0 is PyTorch's own initialisation.
    joint_sentiment (`bool`):
        Predict sentiment and emotions at once: label 0 is the sentiment in [-3, 3], the others are emotions.
    calibration (`dict`):
        Temperatures, thresholds and errors by combination of modalities, as in `UmonsConfig`.
    label_ranges (`list[list[float]]`):
        Lowest and highest training label of each output of a regression.
    trained_modalities (`list[str]`):
        Combinations of modalities of the training rows, such as `"text+audio"`. The pipeline warns of others.
    pad_token_id (`int`):
        Word id of padding.
    """

    # Saving copies the code, so that the folder loads without this package.
    _auto_class: ClassVar[str] = "AutoConfig"
    # Prefix of the model's class names, and the file of these classes.
    _model_name: ClassVar[str] = ""
    _model_module: ClassVar[str] = ""

    modalities: list[str] | tuple[str, ...] = ("text", "audio")
    vocab_size: int = 14000
    word_embedding_size: int = 300
    max_text_length: int = 60
    max_audio_length: int = 60
    max_video_length: int = 60
    audio_feature_size: int = 80
    video_feature_size: int = 512
    initializer_factor: float = 1.0
    joint_sentiment: bool = False
    calibration: dict | None = None
    label_ranges: list | tuple | None = None
    trained_modalities: list[str] | tuple[str, ...] | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        # Canonical order. Unknown names stay for the error of `validate_architecture`.
        known = [modality for modality in MODALITIES if modality in self.modalities]
        self.modalities = known if sorted(known) == sorted(self.modalities) else list(self.modalities)
        if self.joint_sentiment and self.id2label is None and kwargs.get("num_labels", 7) == 1 + len(EMOTIONS):
            self.id2label = dict(enumerate(("sentiment", *EMOTIONS)))
            self.label2id = {label: i for i, label in self.id2label.items()}
        # With the package installed, `pipeline` must not ask to trust the folder's copy of the pipeline.
        if not type(self).__module__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        # Classes that the Auto classes load with `trust_remote_code=True`.
        model = f"{self._model_module}.{self._model_name}"
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": f"configuration_baselines.{type(self).__name__}",
                "AutoModel": f"{model}Model",
                "AutoModelForSequenceClassification": f"{model}ForSequenceClassification",
            },
        )
        super().__post_init__(**kwargs)
        # `@strict` calls this again, but wraps its ValueError in another error.
        self.validate_architecture()

    def validate_architecture(self):
        """Raise a ValueError for unknown modalities, sizes below 1 and probabilities outside [0, 1]."""
        if not self.modalities or any(self.modalities.count(m) != 1 or m not in MODALITIES for m in self.modalities):
            raise ValueError(
                f"`modalities` is {self.modalities}: it must name at least one of {list(MODALITIES)}, each once."
            )
        for name, value in vars(self).items():
            if name.endswith(("_size", "_length")) and isinstance(value, int) and value < 1:
                raise ValueError(f"`{name}` is {value}: it must be at least 1.")
            if name.endswith("dropout") and not 0 <= value <= 1:
                raise ValueError(f"`{name}` is {value}: it must be a probability, from 0 to 1.")
        if self.joint_sentiment and self.problem_type is not None:
            raise ValueError(
                f"`joint_sentiment=True` requires `problem_type=None`, but it is {self.problem_type!r}, which would "
                "apply to the sentiment too: remove `problem_type` from the configuration."
            )
        if self.joint_sentiment and self.num_labels < 2:
            raise ValueError(
                "`joint_sentiment=True` needs at least two labels, the sentiment and an emotion (the six emotions of "
                f"MOSEI make `num_labels=7`), but `num_labels` is {self.num_labels}."
            )

    # Copied from modeling_umons.models.umons.configuration_umons.UmonsConfig.length_limit
    def length_limit(self, modality: str) -> int:
        """Return the maximum length of `modality`, in words, audio frames or video clips."""
        return getattr(self, f"max_{modality}_length")


@auto_docstring(
    custom_intro="""
    Configuration of the Tensor Fusion Network (Zadeh et al., EMNLP 2017). The default sizes are those of MMSA for
    CMU-MOSEI.
    """
)
@strict
@inherit_parameters
class TfnConfig(BaselineConfig):
    r"""
    text_hidden_size (`int`, *optional*, defaults to 128):
        Size of the text LSTM.
    audio_hidden_size (`int`, *optional*, defaults to 16):
        Size of the audio network.
    video_hidden_size (`int`, *optional*, defaults to 128):
        Size of the video network.
    text_output_size (`int`, *optional*, defaults to 128):
        Size of the text vector in the tensor.
    fusion_hidden_size (`int`, *optional*, defaults to 16):
        Size of the two layers after the tensor.
    dropout (`float`, *optional*, defaults to 0.4):
        Dropout of the modalities and of the tensor.

    Example:

    ```python
    >>> from modeling_umons import TfnConfig, TfnModel

    >>> # Initializing a configuration with the default sizes
    >>> configuration = TfnConfig(modalities=["text", "audio"])

    >>> # Initializing a model with random weights from the configuration
    >>> model = TfnModel(configuration)

    >>> # Accessing the model configuration
    >>> configuration = model.config
    ```
    """

    model_type = "tfn"
    _model_name: ClassVar[str] = "Tfn"
    _model_module: ClassVar[str] = "modeling_tfn"

    text_hidden_size: int = 128
    audio_hidden_size: int = 16
    video_hidden_size: int = 128
    text_output_size: int = 128
    fusion_hidden_size: int = 16
    dropout: float | int = 0.4


# Abstract: `inherit_parameters` documents the parameters in the subclasses. trf-ignore: TRF057
@strict
class MemoryFusionConfig(BaselineConfig):
    r"""
    Base class of the configurations of MFN and Graph-MFN, which process all modalities step by step with a memory.

    text_hidden_size (`int`):
        Size of the text LSTM.
    audio_hidden_size (`int`):
        Size of the audio LSTM.
    video_hidden_size (`int`):
        Size of the video LSTM.
    memory_size (`int`):
        Size of the memory.
    proposal_hidden_size (`int`):
        Size of the hidden layer of the network that proposes the update of the memory.
    proposal_dropout (`float`):
        Dropout of that layer.
    retain_gate_hidden_size (`int`):
        Size of the hidden layer of the retain gate (gamma 1).
    retain_gate_dropout (`float`):
        Dropout of that layer.
    update_gate_hidden_size (`int`):
        Size of the hidden layer of the update gate (gamma 2).
    update_gate_dropout (`float`):
        Dropout of that layer.
    output_hidden_size (`int`):
        Size of the layer before the head.
    output_dropout (`float`):
        Dropout of that layer.
    alignment (`str`):
        Average of the other modalities over the steps of a row, which are those of its guide: the first of
        `modalities` that the row has, usually the text.

        - `"words"`: the mean of the frames whose middle is in [start, end) of the word; if there is none, the frame
          whose middle is nearest to the word's. Requires a text guide, `word_times`, and `audio_times` or
          `video_times`. Words and rows of frames with unknown times (NaN), and calls without times, are aligned as
          with `"adaptive"`.
        - `"adaptive"`: step i of n is the mean of the frames from floor(i T / n) to before ceil((i + 1) T / n) of T,
          as in `torch.nn.functional.adaptive_avg_pool1d`. Times are ignored.
    """

    text_hidden_size: int = 128
    audio_hidden_size: int = 32
    video_hidden_size: int = 128
    memory_size: int = 128
    proposal_hidden_size: int = 128
    proposal_dropout: float | int = 0.5
    retain_gate_hidden_size: int = 256
    retain_gate_dropout: float | int = 0.7
    update_gate_hidden_size: int = 256
    update_gate_dropout: float | int = 0.0
    output_hidden_size: int = 128
    output_dropout: float | int = 0.5
    alignment: Literal["words", "adaptive"] = "words"

    def hidden_sizes(self) -> list[int]:
        """Return the sizes of the LSTMs, in the order of `modalities`."""
        return [getattr(self, f"{modality}_hidden_size") for modality in self.modalities]


@auto_docstring(
    custom_intro="""
    Configuration of the Memory Fusion Network (Zadeh et al., AAAI 2018). Its attention covers two steps.
    """
)
@strict
@inherit_parameters
class MfnConfig(MemoryFusionConfig):
    r"""
    attention_hidden_size (`int`, *optional*, defaults to 128):
        Size of the hidden layer of the attention over two steps of the cells of all LSTMs.
    attention_hidden_dropout (`float`, *optional*, defaults to 0.2):
        Dropout of that layer.

    Example:

    ```python
    >>> from modeling_umons import MfnConfig, MfnModel

    >>> # Initializing a configuration with the default sizes
    >>> configuration = MfnConfig(modalities=["text", "audio"])

    >>> # Initializing a model with random weights from the configuration
    >>> model = MfnModel(configuration)

    >>> # Accessing the model configuration
    >>> configuration = model.config
    ```
    """

    model_type = "mfn"
    _model_name: ClassVar[str] = "Mfn"
    _model_module: ClassVar[str] = "modeling_mfn"

    attention_hidden_size: int = 128
    attention_hidden_dropout: float | int = 0.2


@auto_docstring(
    custom_intro="""
    Configuration of the Graph Memory Fusion Network (Zadeh et al., ACL 2018, the paper of CMU-MOSEI).
    """
)
@strict
@inherit_parameters
class GraphMfnConfig(MemoryFusionConfig):
    r"""
    vertex_size (`int`, *optional*, defaults to 128):
        Size of every vertex of the fusion graph.

    Example:

    ```python
    >>> from modeling_umons import GraphMfnConfig, GraphMfnModel

    >>> # Initializing a configuration with the default sizes
    >>> configuration = GraphMfnConfig(modalities=["text", "audio"])

    >>> # Initializing a model with random weights from the configuration
    >>> model = GraphMfnModel(configuration)

    >>> # Accessing the model configuration
    >>> configuration = model.config
    ```
    """

    model_type = "graph_mfn"
    _model_name: ClassVar[str] = "GraphMfn"
    _model_module: ClassVar[str] = "modeling_graph_mfn"

    text_hidden_size: int = 64
    audio_hidden_size: int = 16
    video_hidden_size: int = 64
    memory_size: int = 300
    proposal_hidden_size: int = 32
    proposal_dropout: float | int = 0.5
    retain_gate_hidden_size: int = 64
    retain_gate_dropout: float | int = 0.0
    update_gate_hidden_size: int = 256
    update_gate_dropout: float | int = 0.7
    output_hidden_size: int = 128
    output_dropout: float | int = 0.7
    vertex_size: int = 128

    def vertices(self) -> list[tuple[str, ...]]:
        """Return the vertices of the fusion graph below its output, as tuples of modalities, single ones first."""
        return [m for size in range(1, len(self.modalities) + 1) for m in combinations(self.modalities, size)]

    def edges(self) -> list[tuple[str, str]]:
        """
        Return the edges (source, target) of the fusion graph in the order of `efficacies`.

        A vertex is named by its modalities ("text_audio"), the last one "output". Three modalities have 19 edges, two
        have 5, one has 1.
        """
        vertices = self.vertices()
        edges = [(s, v) for v in vertices for s in vertices if set(s) < set(v)]
        return [("_".join(s), "_".join(v)) for s, v in edges] + [("_".join(s), "output") for s in vertices]


@auto_docstring(
    custom_intro="""
    Configuration of Multilogue-Net (Shenoy and Sardana, 2020). The default sizes of the states are those of the paper.
    """
)
@strict
@inherit_parameters
class MultilogueNetConfig(BaselineConfig):
    r"""
    utterance_size (`int`, *optional*, defaults to 100):
        Size of an utterance's vector in each modality, before its context.
    global_state_size (`int`, *optional*, defaults to 150):
        Size of the state of the conversation.
    party_state_size (`int`, *optional*, defaults to 150):
        Size of the state of each speaker.
    emotion_state_size (`int`, *optional*, defaults to 100):
        Size of the emotion state, in each direction.
    dropout (`float`, *optional*, defaults to 0.5):
        Dropout before the head.
    recurrent_dropout (`float`, *optional*, defaults to 0.1):
        Dropout of the states, at each utterance.

    Example:

    ```python
    >>> from modeling_umons import MultilogueNetConfig, MultilogueNetModel

    >>> # Initializing a configuration with the default sizes
    >>> configuration = MultilogueNetConfig(modalities=["text", "audio"])

    >>> # Initializing a model with random weights from the configuration
    >>> model = MultilogueNetModel(configuration)

    >>> # Accessing the model configuration
    >>> configuration = model.config
    ```
    """

    model_type = "multilogue_net"
    _model_name: ClassVar[str] = "MultilogueNet"
    _model_module: ClassVar[str] = "modeling_multilogue_net"
    # Inputs and labels have one dimension more than in the other models: (conversations, utterances, ...).
    takes_conversations: ClassVar[bool] = True

    utterance_size: int = 100
    global_state_size: int = 150
    party_state_size: int = 150
    emotion_state_size: int = 100
    dropout: float | int = 0.5
    recurrent_dropout: float | int = 0.1


@auto_docstring(
    custom_intro="""
    Configuration of the Multimodal Transformer (MulT; Tsai et al., ACL 2019). The default sizes and rates are those of
    the paper for CMU-MOSEI.
    """
)
@strict
@inherit_parameters
class MultConfig(BaselineConfig):
    r"""
    hidden_size (`int`, *optional*, defaults to 40):
        Size of each modality after its convolution. Must be a multiple of `num_attention_heads`.
    num_hidden_layers (`int`, *optional*, defaults to 4):
        Number of blocks of each transformer.
    num_attention_heads (`int`, *optional*, defaults to 8):
        Number of attention heads of each transformer.
    text_kernel_size (`int`, *optional*, defaults to 3):
        Number of words in the kernel of the temporal convolution.
    audio_kernel_size (`int`, *optional*, defaults to 3):
        Number of audio frames in the kernel.
    video_kernel_size (`int`, *optional*, defaults to 3):
        Number of video clips in the kernel.
    text_dropout (`float`, *optional*, defaults to 0.3):
        Dropout of the word vectors.
    attention_dropout (`float`, *optional*, defaults to 0.1):
        Dropout of the attention probabilities.
    hidden_dropout (`float`, *optional*, defaults to 0.1):
        Dropout of embeddings, residual branches and feed-forward networks of the transformers.
    output_dropout (`float`, *optional*, defaults to 0.1):
        Dropout in the layers before the head.

    Example:

    ```python
    >>> from modeling_umons import MultConfig, MultModel

    >>> # Initializing a configuration with the default sizes
    >>> configuration = MultConfig(modalities=["text", "audio"])

    >>> # Initializing a model with random weights from the configuration
    >>> model = MultModel(configuration)

    >>> # Accessing the model configuration
    >>> configuration = model.config
    ```
    """

    model_type = "mult"
    _model_name: ClassVar[str] = "Mult"
    _model_module: ClassVar[str] = "modeling_mult"

    hidden_size: int = 40
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    text_kernel_size: int = 3
    audio_kernel_size: int = 3
    video_kernel_size: int = 3
    text_dropout: float | int = 0.3
    attention_dropout: float | int = 0.1
    hidden_dropout: float | int = 0.1
    output_dropout: float | int = 0.1

    def validate_architecture(self):
        """Raise a ValueError for numbers of layers and heads that do not fit, and as [`BaselineConfig`]."""
        super().validate_architecture()
        for name in ("num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be at least 1.")
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )

    @property
    def memory_size(self) -> int:
        """Size of the concatenated crossmodal sequences of a modality."""
        return max(1, len(self.modalities) - 1) * self.hidden_size

    @property
    def pooled_size(self) -> int:
        """Size of the input of the head."""
        return len(self.modalities) * self.memory_size


__all__ = [
    "BaselineConfig",
    "GraphMfnConfig",
    "MemoryFusionConfig",
    "MfnConfig",
    "MultConfig",
    "MultilogueNetConfig",
    "TfnConfig",
]
