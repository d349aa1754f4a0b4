"""Effects of importing the package on a fresh interpreter and on transformers."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A small model and its processor, saved."""
    path = tmp_path_factory.mktemp("saved")
    config = UmonsConfig(vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, word_embedding_size=4)
    UmonsForSequenceClassification(config).save_pretrained(path)
    tokenizer = build_tokenizer(["good", "bad"])
    UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor()).save_pretrained(path)
    return str(path)


def test_command_help_loads_neither_torch_nor_transformers():
    run("""
        import sys
        sys.argv = ["umons", "--help"]
        from modeling_umons.cli.main import main
        try:
            main()
        except SystemExit as done:
            assert not done.code
        heavy = {"torch", "transformers", "torchvision", "numpy", "av"} & set(sys.modules)
        assert not heavy, heavy
    """)


def test_dir_lists_public_names():
    run("""
        import modeling_umons
        assert set(modeling_umons.__all__) <= set(dir(modeling_umons))
        for name in modeling_umons.__all__:
            getattr(modeling_umons, name)
    """)


ORDERS = {
    "before": "import modeling_umons; import transformers",
    "after": """\
import transformers
transformers.AutoModel, transformers.AutoProcessor, transformers.AutoModelForSequenceClassification
import modeling_umons
""",
}
LOAD = """
import sys
folder = sys.argv[1]
config = transformers.AutoConfig.from_pretrained(folder)
assert type(config) is modeling_umons.UmonsConfig
assert type(transformers.AutoConfig.for_model("umons", hidden_size=16)) is modeling_umons.UmonsConfig
assert type(transformers.AutoModel.from_pretrained(folder)) is modeling_umons.UmonsModel
assert type(transformers.AutoModel.from_config(config)) is modeling_umons.UmonsModel
classifier = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
assert type(classifier) is modeling_umons.UmonsForSequenceClassification
assert type(transformers.AutoProcessor.from_pretrained(folder)) is modeling_umons.UmonsProcessor
assert type(transformers.AutoFeatureExtractor.from_pretrained(folder)) is modeling_umons.UmonsFeatureExtractor
assert type(transformers.AutoVideoProcessor.from_pretrained(folder)) is modeling_umons.UmonsVideoProcessor
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
assert tokenizer("Good, bad!")["input_ids"] == [2, 3]
# Our own entry in the tables leaves those of transformers as they were.
from transformers import BertConfig, BertModel
assert type(transformers.AutoModel.from_config(BertConfig(
    vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
))) is BertModel
"""


def test_auto_classes_find_the_package_in_either_order(folder):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda order: run(order + "\n" + LOAD, folder), ORDERS.values()))
