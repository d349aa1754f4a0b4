"""Data sets of utterances: layouts, builders of `datasets` for them, and conversion to Parquet.

Names are imported on first use.
"""

import importlib


_MODULE_OF = {
    "UtteranceBuilder": "builders",
    "UtteranceConfig": "builders",
    "MoseiBuilder": "builders",
    "MosiBuilder": "builders",
    "MeldBuilder": "builders",
    "GoEmotionsBuilder": "builders",
    "RavdessBuilder": "builders",
    "MiniBuilder": "builders",
    "ClipsBuilder": "builders",
    "prepare_dataset": "prepare",
    "content_hash": "prepare",
    "Source": "layouts",
    "open_source": "layouts",
    "make_features": "schema",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name.startswith("modeling_umons"):
            raise
        message = f'{__name__}.{name} requires {error.name}: pip install "modeling-umons[data]"'
        raise ModuleNotFoundError(message, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
