"""Paths of the files in `hub/`, which the wheel contains as `modeling_umons/hub/`."""

import os
from pathlib import Path

from .suggest import did_you_mean


PACKAGE = Path(__file__).resolve().parent.parent
# Models in `hub/`. The installed package has umons-mini only.
SMALL_MODEL, LARGE_MODEL = "umons-mini", "umons-base"


def hub_path(*parts: str) -> Path:
    """Return the path of a file of `hub/`, in the installed package or else in the checkout."""
    installed = PACKAGE / "hub"
    return (installed if installed.is_dir() else PACKAGE.parent / "hub").joinpath(*parts)


def find_model(name: str) -> str:
    """
    Return the folder in `hub/` for the names `umons-base` and `umons-mini`, any other name as it is.

    Raises:
        FileNotFoundError: the name is a path or of a model of the package, and there is no such folder. The Hub would
            otherwise be asked for it.
    """
    path = Path(name)
    if name in (SMALL_MODEL, LARGE_MODEL) and not path.exists():
        if not hub_path(name).is_dir():
            raise FileNotFoundError(
                f"{name}: the installed package does not contain this model. A clone of the repository has it: pass "
                f"the path of its folder hub/{name}. {SMALL_MODEL} is part of the package."
            )
        return str(hub_path(name))
    if not path.exists() and _is_path(name):
        siblings = [sibling.name for sibling in path.parent.glob("*") if sibling.is_dir()]
        raise FileNotFoundError(
            f"{name}: there is no such folder.{did_you_mean(path.name, siblings)} Pass the folder of a saved "
            "model, or a Hub repository (user/name)."
        )
    return name


def _is_path(name: str) -> bool:
    """Return whether a name is a path, and not a Hub repository `name` or `user/name`."""
    parts = Path(name).parts
    is_below_folder = len(parts) > 1 and Path(parts[0]).is_dir()
    return name.startswith((os.sep, ".", "~")) or len(parts) > 2 or is_below_folder or os.path.isabs(name)


# Folder of the model that the package contains, for `pipeline` and `from_pretrained`.
UMONS_MINI = str(hub_path(SMALL_MODEL))
# Model of the commands, unless another is chosen: umons-base in a checkout, umons-mini in the installed package.
DEFAULT_MODEL = LARGE_MODEL if hub_path(LARGE_MODEL, "config.json").is_file() else SMALL_MODEL
