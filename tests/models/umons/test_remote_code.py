"""A saved folder is enough: it loads where this package is not installed, and needs no remote code where it is.

Everything is tried in new processes, with an empty Hugging Face cache and no network.
"""

import shutil

import pytest
import torch
from remote_code import ANSWER, INSTALLED, LOAD, NOT_INSTALLED, OURS, SAVE, check_answer, run
from safetensors.torch import save_file

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsModel,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


@pytest.fixture(scope="module")
def one_thread():
    """Sums come in another order on several threads, and answers are compared to the last bit."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_thread):
    """Model and processor saved in one folder, an input, and the expected result."""
    folder = tmp_path_factory.mktemp("remote_code")
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=16,
        word_embedding_size=12,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        joint_sentiment=True,
        num_labels=7,
    )
    model = UmonsForSequenceClassification(config).eval()
    tokenizer = build_tokenizer(["so", "very", "glad"])
    processor = UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor())
    model.save_pretrained(folder / "saved")
    processor.save_pretrained(folder / "saved")

    waveforms = torch.rand(2, 22050) - 0.5
    inputs = processor(text=["So very glad", None], audio=list(waveforms), sampling_rate=22050, return_tensors="pt")
    save_file({"waveforms": waveforms}, folder / "question.safetensors")
    with torch.no_grad():
        save_file({**inputs, "logits": model(**inputs).logits}, folder / "expected.safetensors")
    return folder


def test_loads_without_the_package_and_saves_again(folder):
    auto_classes = f"AUTO_CLASSES = {[*OURS, 'AutoTokenizer']}"
    found = run(folder, NOT_INSTALLED, auto_classes, LOAD, ANSWER, SAVE)
    tokenizer_module, _ = found.pop("AutoTokenizer")
    assert tokenizer_module.startswith("transformers.")  # the tokenizer needs no code of ours
    assert {name: class_name for name, (_, class_name) in found.items()} == OURS
    assert {module.split(".")[0] for module, _ in found.values()} == {"transformers_modules"}
    check_answer(folder)

    # What remote code saves is as good, and stands on its own.
    second = folder / "second"
    second.mkdir()
    shutil.move(folder / "saved_again", second / "saved")
    for name in ("question.safetensors", "expected.safetensors"):
        shutil.copy(folder / name, second)
    again = run(second, NOT_INSTALLED, auto_classes, LOAD, ANSWER)
    assert {name: again[name][1] for name in OURS} == OURS
    check_answer(second)
    assert sorted(path.name for path in (second / "saved").iterdir()) == sorted(
        path.name for path in (folder / "saved").iterdir()
    )


def test_needs_no_remote_code_with_the_package(folder):
    found = run(folder, INSTALLED, f"AUTO_CLASSES = {[*OURS]}", LOAD, ANSWER)
    assert {name: class_name for name, (_, class_name) in found.items()} == OURS
    assert {module.split(".")[0] for module, _ in found.values()} == {"modeling_umons"}
    check_answer(folder)
    assert not list((folder / "cache").rglob("*umons*"))  # no code was copied


@pytest.mark.parametrize(
    ("auto_class", "make"),
    [
        ("AutoModel", lambda: UmonsModel(UmonsConfig(modalities=["audio"], hidden_size=8, num_hidden_layers=1))),
        ("AutoFeatureExtractor", UmonsFeatureExtractor),
        ("AutoVideoProcessor", UmonsVideoProcessor),
    ],
)
def test_each_part_saved_alone_loads_without_the_package(tmp_path, auto_class, make):
    part = make()
    part.save_pretrained(tmp_path / "saved")
    found = run(tmp_path, NOT_INSTALLED, f"AUTO_CLASSES = {[auto_class]}", LOAD)
    assert found[auto_class][0].startswith("transformers_modules.")
    assert found[auto_class][1] == type(part).__name__
