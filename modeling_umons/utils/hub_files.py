"""Paths of the files in `hub/`, which the wheel contains as `modeling_umons/hub/`."""

from pathlib import Path


PACKAGE = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "umons-mini"


def hub_path(*parts: str) -> Path:
    """Return the path of a file of `hub/`, in the installed package or else in the checkout."""
    installed = PACKAGE / "hub"
    return (installed if installed.is_dir() else PACKAGE.parent / "hub").joinpath(*parts)


def find_model(name: str) -> str:
    """Return the folder of the model that the package contains for the name `umons-mini`, any other name as it is."""
    return str(hub_path(name)) if name == DEFAULT_MODEL and not Path(name).exists() else name


# Folder of the model that the package contains, for `pipeline` and `from_pretrained`.
UMONS_MINI = str(hub_path(DEFAULT_MODEL))
