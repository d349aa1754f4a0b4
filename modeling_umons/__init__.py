"""UMONS co-attention transformer (TBJE, ACL 2020) for sentiment and emotion in text, audio and video.

Importing the package registers its models with the Auto classes and `pipeline` of transformers.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING


__version__ = "0.2.0.dev0"

# Attributes load on first access. Editors and type checkers read the imports below instead.
_MODULES = {
    "models.baselines.configuration_baselines": [
        "GraphMfnConfig",
        "MfnConfig",
        "MultConfig",
        "MultilogueNetConfig",
        "TfnConfig",
    ],
    "models.baselines.modeling_graph_mfn": ["GraphMfnForSequenceClassification", "GraphMfnModel"],
    "models.baselines.modeling_mfn": ["MfnForSequenceClassification", "MfnModel"],
    "models.baselines.modeling_mult": ["MultForSequenceClassification", "MultModel"],
    "models.baselines.modeling_multilogue_net": ["MultilogueNetForSequenceClassification", "MultilogueNetModel"],
    "models.baselines.modeling_tfn": ["TfnForSequenceClassification", "TfnModel"],
    "models.umons.configuration_umons": ["EMOTIONS", "MODALITIES", "UmonsConfig"],
    "models.umons.feature_extraction_umons": ["UmonsFeatureExtractor"],
    "models.umons.modeling_tbje": ["UmonsForSequenceClassification", "UmonsModel", "UmonsPreTrainedModel"],
    "models.umons.pipeline_umons": ["MultimodalEmotionPipeline"],
    "models.umons.processing_umons": ["UmonsProcessor"],
    "models.umons.tokenization_umons": ["build_tokenizer", "train_vocabulary"],
    "models.umons.video_processing_umons": ["UmonsVideoProcessor"],
    "utils.hub_files": ["UMONS_MINI"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "EMOTIONS",
    "MODALITIES",
    "UMONS_MINI",
    "GraphMfnConfig",
    "GraphMfnForSequenceClassification",
    "GraphMfnModel",
    "MfnConfig",
    "MfnForSequenceClassification",
    "MfnModel",
    "MultConfig",
    "MultForSequenceClassification",
    "MultModel",
    "MultilogueNetConfig",
    "MultilogueNetForSequenceClassification",
    "MultilogueNetModel",
    "MultimodalEmotionPipeline",
    "TfnConfig",
    "TfnForSequenceClassification",
    "TfnModel",
    "UmonsConfig",
    "UmonsFeatureExtractor",
    "UmonsForSequenceClassification",
    "UmonsModel",
    "UmonsPreTrainedModel",
    "UmonsProcessor",
    "UmonsVideoProcessor",
    "build_tokenizer",
    "train_vocabulary",
]

if TYPE_CHECKING:
    from .models.baselines.configuration_baselines import (
        GraphMfnConfig,
        MfnConfig,
        MultConfig,
        MultilogueNetConfig,
        TfnConfig,
    )
    from .models.baselines.modeling_graph_mfn import GraphMfnForSequenceClassification, GraphMfnModel
    from .models.baselines.modeling_mfn import MfnForSequenceClassification, MfnModel
    from .models.baselines.modeling_mult import MultForSequenceClassification, MultModel
    from .models.baselines.modeling_multilogue_net import MultilogueNetForSequenceClassification, MultilogueNetModel
    from .models.baselines.modeling_tfn import TfnForSequenceClassification, TfnModel
    from .models.umons.configuration_umons import EMOTIONS, MODALITIES, UmonsConfig
    from .models.umons.feature_extraction_umons import UmonsFeatureExtractor
    from .models.umons.modeling_tbje import UmonsForSequenceClassification, UmonsModel, UmonsPreTrainedModel
    from .models.umons.pipeline_umons import MultimodalEmotionPipeline
    from .models.umons.processing_umons import UmonsProcessor
    from .models.umons.tokenization_umons import build_tokenizer, train_vocabulary
    from .models.umons.video_processing_umons import UmonsVideoProcessor
    from .utils.hub_files import UMONS_MINI


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _is_command() -> bool:
    """Return whether the program is `umons`, or `python -m modeling_umons`, whose name is -m during this import."""
    name = sys.argv[0] if sys.argv else ""
    options = sys.orig_argv[1:]
    module = options[options.index("-m") + 1] if name == "-m" and "-m" in options[:-1] else ""
    return Path(name).stem == "umons" or module.partition(".")[0] == __name__


# The command registers later, when a subcommand needs it: `umons --help` must not wait for torch.
if not _is_command():
    from .registration import register_auto_classes

    register_auto_classes()
