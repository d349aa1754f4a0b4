"""Loading of pipelines."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_pipelines import WORDS, close, make_processor

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.inference.loading import load_model, load_pipeline
from modeling_umons.inference.packed_linear import PackedLinear
from modeling_umons.utils import hub_files
from modeling_umons.utils.hub_files import find_model


def is_packed(recognize) -> bool:
    return any(isinstance(module, PackedLinear) for module in recognize.model.modules())


def test_packed_pipelines_predict_the_same(tmp_path):
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=2 + len(WORDS), word_embedding_size=12, hidden_size=256, intermediate_size=64, num_hidden_layers=1
    )
    UmonsForSequenceClassification(config).save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    plain, packed = load_pipeline(str(tmp_path)), load_pipeline(str(tmp_path), pack=True)
    assert (is_packed(plain), is_packed(packed)) == (False, True)
    close(packed({"text": "so glad"}), plain({"text": "so glad"}))


def test_small_models_are_not_packed(root):
    assert not is_packed(load_pipeline(str(root / "hub" / "umons-mini"), pack=True))


def test_missing_folder_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "moods").mkdir(parents=True)
    for name in (str(tmp_path / "nowhere"), "./nowhere", "runs/a/b"):
        with pytest.raises(FileNotFoundError, match=f"^{name}: there is no such folder. Pass the folder"):
            load_pipeline(name)
    with pytest.raises(FileNotFoundError, match=r"there is no such folder\. Did you mean moods\?"):
        load_model("runs/mood")


def test_model_outside_the_package_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_files, "hub_path", lambda *parts: tmp_path.joinpath("hub", *parts))
    with pytest.raises(FileNotFoundError, match="umons-base: the installed package does not contain this model"):
        load_pipeline("umons-base")


def test_hub_names_stay():
    assert [find_model(name) for name in ("mood", "user/mood")] == ["mood", "user/mood"]


@pytest.mark.parametrize("load", [load_model, load_pipeline])
def test_missing_weights_are_named(tmp_path, load):
    config = UmonsConfig(
        vocab_size=2 + len(WORDS), word_embedding_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1
    )
    UmonsForSequenceClassification(config).save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    load(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.weight"], weights["classifier.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"model\.safetensors lacks weights of the model: classifier\.weight, "):
        load(str(tmp_path))
