"""Loading of saved models by folder or Hub id."""

from pathlib import Path
from typing import Any

from ..registration import MODELS, PIPELINE_TASK, register_auto_classes
from ..utils.hub_files import DEFAULT_MODEL, find_model
from .damage import check_complete, describe_damage


def load_model(name: str, model_types: tuple[str, ...] = tuple(MODELS), **options: Any) -> tuple[Any, Any]:
    """
    Load a model for classification, in evaluation mode, and its processor.

    Args:
        name: A folder, Hub id, `umons-base` or `umons-mini`.
        model_types: Accepted values of `model_type` in the configuration.
        options: Passed to `from_pretrained`, for example `dtype`.

    Raises:
        OSError: There is no such folder, or no model can be loaded from there.
    """
    register_auto_classes()
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from ..models.umons.processing_umons import UmonsProcessor

    folder = find_model(name)
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type in model_types:
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, use_safetensors=True, **options
            )
            check_complete(folder, model)
            return model.eval(), UmonsProcessor.from_pretrained(folder)
    except ImportError:
        raise
    except Exception as error:  # transformers raises errors of many types for damaged files
        reason = describe_damage(folder, error)
        raise OSError(f"--model {name}: no model can be loaded from there: {reason}") from error
    raise OSError(
        f"--model {name}: no model can be loaded from there: its type is {config.model_type!r}; expected "
        f"{' or '.join(model_types)}."
    )


def load_pipeline(model: str | None = None, trust_remote_code: bool = False, pack: bool = False):
    """
    Load the pipeline of a model; without a name, of the default one. It decodes files in a worker process.

    Args:
        model: A folder, Hub id, `umons-base` or `umons-mini`.
        trust_remote_code: Let a model of another package execute its code.
        pack: Pack the weights if that makes the model faster (`pack_if_faster`). It pays off for about 20 inputs.

    Raises:
        OSError: There is no such folder, no model can be loaded from there, or it has no such pipeline.
    """
    register_auto_classes()
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    name = str(model or DEFAULT_MODEL)
    folder = find_model(name)
    try:
        # The overloads of `pipeline` have the tasks of transformers only.
        task: Any = PIPELINE_TASK
        recognize = pipeline(
            task,
            model=folder,
            trust_remote_code=trust_remote_code or None,
            model_kwargs={"use_safetensors": True},
        )
        if recognize.model.config.model_type in MODELS:
            check_complete(folder, recognize.model)
    except ImportError:
        raise
    except Exception as error:
        place = "" if Path(folder).is_dir() else ", which is not a local folder"
        raise OSError(f"--model {name}{place}: {describe_damage(folder, error)}") from error
    recognize.decode_in_worker()
    if pack:
        from .packed_linear import pack_if_faster

        recognize.model = pack_if_faster(recognize.model)
    return recognize


def load_transcriber(name: str):
    """Load a transcriber by its name; see `transcription_umons`. Raises OSError if there is no such model."""
    from ..models.umons import transcription_umons

    try:
        return transcription_umons.load_transcriber(name)
    except (OSError, ValueError) as error:
        raise OSError(f"--transcriber {name}: {error}") from error
