"""Models of text to which training adds other modalities."""

from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ..models.umons.configuration_umons import MODALITIES
from ..utils.hub_files import find_model


def copy_text_model(model: PreTrainedModel, name: str) -> None:
    """
    Load the weights of a trained model of text into a new model that has more modalities, and freeze them. On text
    alone, the logits of both are then equal, however the other modalities are trained.

    Args:
        model: new model.
        name: folder or Hub id of the model of text.

    Raises:
        ValueError: the models differ in their labels, sizes or encoder.
    """
    source = AutoModelForSequenceClassification.from_pretrained(find_model(name), use_safetensors=True)
    if source.config.id2label != model.config.id2label:
        raise ValueError(
            f"--text_model {name} has the labels {', '.join(source.config.id2label.values())}, but the new model has "
            f"{', '.join(model.config.id2label.values())}: set the same --task."
        )
    weights = source.state_dict()
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # other sizes
        raise ValueError(f"--text_model {name} does not fit the new model: {str(error).splitlines()[-1]}") from error
    others = [f".{modality}" for modality in MODALITIES if modality != "text"]
    unset = [key for key in missing if not any(f"{other}." in f"{key}." for other in others)]
    if unknown or unset:
        raise ValueError(
            f"--text_model {name} does not fit the new model: {[*unknown, *unset][0]} is in one of them only. Set the "
            "same --text_encoder, sizes and number of layers."
        )
    for key, parameter in model.named_parameters():
        if key in weights:
            parameter.requires_grad_(False)
