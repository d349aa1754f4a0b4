"""Common tests of transformers: `import tests` imports those of the installed release."""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

import pytest
from transformers.models.auto import modeling_auto

from modeling_umons.registration import MODELS

from .fetch_transformers_tests import lay_out


HERE = Path(__file__).resolve().parent
collect_ignore = ["hf_bar"]  # base classes, not to be collected


class SkipWhatImportsThem(MetaPathFinder):
    """Skip tests that import the package `tests` if it cannot be downloaded."""

    def __init__(self, reason: str):
        self.reason = reason

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tests":
            pytest.skip(self.reason, allow_module_level=True)


try:
    # pytest creates a package `tests` for this folder: the tests of transformers come first in it.
    theirs = lay_out() / "tests"
    package = sys.modules.setdefault("tests", ModuleType("tests"))
    package.__path__ = [str(theirs), *getattr(package, "__path__", ())]
    sys.path.insert(0, str(theirs.parent))
except OSError as error:
    sys.meta_path.insert(0, SkipWhatImportsThem(str(error)))


# The common tests distinguish base models and heads by tables of names, which `register` does not change.
for model_type, (prefix, *_) in MODELS.items():
    modeling_auto.MODEL_MAPPING_NAMES[model_type] = f"{prefix}Model"
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[model_type] = f"{prefix}ForSequenceClassification"

# Markers of the common tests, for --strict-markers.
MARKERS = [
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "is_pipeline_test",
    "slow",
    "torch_compile_test",
]


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: of the transformers suite")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("conformance")


@pytest.fixture(autouse=True, scope="session")
def known_classes():
    """Add our classes to the tables of names by which the common tests choose labels."""
    from transformers.models.auto import modeling_auto

    from modeling_umons.registration import MODELS

    for model_type, (prefix, *_) in MODELS.items():
        modeling_auto.MODEL_MAPPING_NAMES[model_type] = f"{prefix}Model"
        classifier = f"{prefix}ForSequenceClassification"
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[model_type] = classifier
