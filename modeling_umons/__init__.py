"""The UMONS co-attention transformer for sentiment and emotion in text, sound and video, in the shape of transformers.

Everything loads when it is first used: importing this package imports neither torch nor transformers.
"""

import importlib

from .auto_registration import register_auto_classes


__version__ = "0.1.0"

_MODULE_OF = {
    "EMOTIONS": "configuration_umons",
    "MODALITIES": "configuration_umons",
    "UmonsConfig": "configuration_umons",
    "UmonsPreTrainedModel": "modeling_umons",
    "UmonsModel": "modeling_umons",
    "UmonsForSequenceClassification": "modeling_umons",
    "UmonsFeatureExtractor": "feature_extraction_umons",
    "UmonsVideoProcessor": "video_processing_umons",
    "UmonsProcessor": "processing_umons",
    "MultimodalEmotionPipeline": "pipeline_umons",
    "build_tokenizer": "tokenization_umons",
    "train_vocabulary": "tokenization_umons",
    "TfnConfig": "baselines.configuration_baselines",
    "TfnModel": "baselines.modeling_tfn",
    "TfnForSequenceClassification": "baselines.modeling_tfn",
    "MfnConfig": "baselines.configuration_baselines",
    "MfnModel": "baselines.modeling_mfn",
    "MfnForSequenceClassification": "baselines.modeling_mfn",
    "GraphMfnConfig": "baselines.configuration_baselines",
    "GraphMfnModel": "baselines.modeling_graph_mfn",
    "GraphMfnForSequenceClassification": "baselines.modeling_graph_mfn",
    "MultilogueNetConfig": "baselines.configuration_baselines",
    "MultilogueNetModel": "baselines.modeling_multilogue_net",
    "MultilogueNetForSequenceClassification": "baselines.modeling_multilogue_net",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_auto_classes()
