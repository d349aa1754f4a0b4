"""Makes transformers' Auto classes and `pipeline` know this package, without importing either.

transformers finds its own models by name: tables map a model type to class names, and the classes are looked up in the
module `transformers.models.<model type>` when they are first wanted. This package enters its names in the same tables as
soon as the modules that hold them load. (The public `register` methods want the classes themselves, and so torch.)
"""

import importlib
import sys

import wrapt


# Model types, and how their classes' names begin.
MODELS = {
    "umons": "Umons",
    "tfn": "Tfn",
    "mfn": "Mfn",
    "graph_mfn": "GraphMfn",
    "multilogue_net": "MultilogueNet",
}
PIPELINE_TASK = "multimodal-emotion-recognition"

# Module of transformers.models.auto -> its tables -> what they hold for a model type, `{}` for the beginning of its names.
TABLES = {
    "configuration_auto": {"CONFIG_MAPPING": "{}Config"},
    "modeling_auto": {
        "MODEL_MAPPING": "{}Model",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": "{}ForSequenceClassification",
    },
    # All models have their inputs made alike.
    "feature_extraction_auto": {"FEATURE_EXTRACTOR_MAPPING": "UmonsFeatureExtractor"},
    "video_processing_auto": {"VIDEO_PROCESSOR_MAPPING": {"torchvision": "UmonsVideoProcessor"}},
    "processing_auto": {"PROCESSOR_MAPPING": "UmonsProcessor"},
}


def register_auto_classes():
    """Enters this package in the tables that are loaded already, and in the others when they load."""
    for model_type in MODELS:
        sys.modules.setdefault(f"transformers.models.{model_type}", sys.modules[__package__])
    for name in TABLES:
        wrapt.register_post_import_hook(_enter, f"transformers.models.auto.{name}")
    # Loading transformers' pipelines loads ours, and ours, however it came to be loaded, registers itself.
    wrapt.register_post_import_hook(_load_pipeline, "transformers.pipelines")
    wrapt.register_post_import_hook(_register_pipeline, f"{__package__}.pipeline_umons")


def _enter(module):
    for table, value in TABLES[module.__name__.rpartition(".")[2]].items():
        mapping = getattr(module, table)
        for model_type, name in MODELS.items():
            getattr(module, f"{table}_NAMES")[model_type] = value.format(name) if isinstance(value, str) else value
            if hasattr(mapping, "_reverse_config_mapping"):  # built before, when the table loaded first
                mapping._reverse_config_mapping[f"{name}Config"] = model_type


def _load_pipeline(module):
    importlib.import_module(f"{__package__}.pipeline_umons")


def _register_pipeline(module):
    from transformers.pipelines import PIPELINE_REGISTRY, AutoModelForSequenceClassification

    PIPELINE_REGISTRY.register_pipeline(
        PIPELINE_TASK,
        pipeline_class=module.MultimodalEmotionPipeline,
        pt_model=AutoModelForSequenceClassification,
        type="multimodal",
    )
