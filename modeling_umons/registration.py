"""Registration with transformers' Auto classes and `pipeline`, through their public `register` methods."""

from importlib import import_module


# Model type -> the beginning of its class names, and the modules of its configuration and its models.
MODELS = {
    "umons": ("Umons", "umons.configuration_umons", "umons.modeling_tbje"),
    "tfn": ("Tfn", "baselines.configuration_baselines", "baselines.modeling_tfn"),
    "mfn": ("Mfn", "baselines.configuration_baselines", "baselines.modeling_mfn"),
    "graph_mfn": ("GraphMfn", "baselines.configuration_baselines", "baselines.modeling_graph_mfn"),
    "multilogue_net": ("MultilogueNet", "baselines.configuration_baselines", "baselines.modeling_multilogue_net"),
    "mult": ("Mult", "baselines.configuration_baselines", "baselines.modeling_mult"),
}
PIPELINE_TASK = "multimodal-emotion-recognition"


def register_auto_classes() -> None:
    """Make the Auto classes and `pipeline` of transformers load the models of this package without remote code."""
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForSequenceClassification,
        AutoProcessor,
    )
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # exported only with torchvision
    from transformers.pipelines import PIPELINE_REGISTRY

    from .models.umons.feature_extraction_umons import UmonsFeatureExtractor
    from .models.umons.pipeline_umons import MultimodalEmotionPipeline
    from .models.umons.processing_umons import UmonsProcessor
    from .models.umons.video_processing_umons import UmonsVideoProcessor

    for model_type, (prefix, configuration, modeling) in MODELS.items():
        config = getattr(import_module(f".models.{configuration}", __package__), f"{prefix}Config")
        models = import_module(f".models.{modeling}", __package__)
        AutoConfig.register(model_type, config, exist_ok=True)
        AutoModel.register(config, getattr(models, f"{prefix}Model"), exist_ok=True)
        classifier = getattr(models, f"{prefix}ForSequenceClassification")
        AutoModelForSequenceClassification.register(config, classifier, exist_ok=True)
        # All models read the same inputs.
        AutoFeatureExtractor.register(config, UmonsFeatureExtractor, exist_ok=True)
        AutoVideoProcessor.register(config, UmonsVideoProcessor, exist_ok=True)
        AutoProcessor.register(config, UmonsProcessor, exist_ok=True)
    if PIPELINE_TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            PIPELINE_TASK,
            pipeline_class=MultimodalEmotionPipeline,
            pt_model=AutoModelForSequenceClassification,
            type="multimodal",
        )
