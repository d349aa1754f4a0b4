"""Video tower, alone and in a model. It is fully convolutional: clips of 4 frames of 16 x 16 are enough."""

import os
import pickle
import urllib.error

import pytest
import torch
from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsModel
from modeling_umons.models.umons.configuration_umons import UmonsVideoTowerConfig
from modeling_umons.models.umons.modeling_tbje import CLIPS_AT_ONCE, UmonsVideoTower


SMALL = {
    "modalities": ["text", "video"], "vocab_size": 20, "word_embedding_size": 4, "hidden_size": 8,
    "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_video_length": 4,
}  # fmt: skip
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def make_model(**tower) -> UmonsForSequenceClassification:
    return UmonsForSequenceClassification(UmonsConfig(**SMALL, video_tower=tower))


def make_clips(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Create torchvision's network with random batch statistics, as if it were trained."""
    torch.manual_seed(1)
    network = r2plus1d_18(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.weight, 1.0, 0.1)
            torch.nn.init.normal_(module.bias, 0.0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network.eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "r2plus1d_18.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tower(weights) -> UmonsVideoTower:
    tower = UmonsVideoTower(UmonsVideoTowerConfig()).eval()
    tower.load_torchvision_weights(weights)
    return tower


@pytest.fixture(scope="module")
def model(weights) -> UmonsForSequenceClassification:
    torch.manual_seed(2)
    model = make_model().eval()
    model.model.video_tower.load_torchvision_weights(str(weights))
    return model


@torch.no_grad()
def plain_features(network, clips: torch.Tensor) -> torch.Tensor:
    """Return the features of torchvision's network before the classifier."""
    seen = []
    handle = network.avgpool.register_forward_hook(lambda module, args, output: seen.append(output.flatten(1)))
    network(clips.transpose(1, 2))
    handle.remove()
    return seen[0]


def assert_same_network(tower: UmonsVideoTower, network):
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    found = tower.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("num_clips", [1, CLIPS_AT_ONCE + 2])
def test_tower_equals_torchvision(tower, network, num_clips):
    clips = make_clips(num_clips)
    features = tower(clips)
    expected = plain_features(network, clips)
    assert features.shape == (num_clips, 512)
    assert (expected > 0).float().mean() > 0.5
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_tower_equals_torchvision_at_full_size(tower, network):
    clips = torch.randn(1, 16, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tower(clips), plain_features(network, clips), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_classifier", [True, False])
def test_load_torchvision_weights_from_file(network, tmp_path, with_classifier):
    state_dict = network.state_dict()
    if not with_classifier:
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith("fc.")}
    torch.save(state_dict, tmp_path / "weights.pth")
    tower = UmonsVideoTower(UmonsVideoTowerConfig())
    tower.load_torchvision_weights(tmp_path / "weights.pth")
    assert_same_network(tower, network)
    assert not any(parameter.requires_grad for parameter in tower.parameters())


class Hostile:
    """Create a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_malicious_weights_are_not_executed(tower, network, tmp_path, save):
    canary, path = tmp_path / "canary", tmp_path / "weights.pth"
    save({"stem.0.weight": Hostile(canary)}, path)
    with pytest.raises(OSError, match=r"weights\.pth is not a state dict .* without executing"):
        tower.load_torchvision_weights(path)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Hostile(canary)))  # the canary works
    assert canary.exists()
    assert_same_network(tower, network)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3), "is not a dict of names and tensors"),
        ([1, 2], "is not a dict of names and tensors"),
        ({0: torch.zeros(3)}, "is not a dict of names and tensors"),
        ({}, "does not fit torchvision's r2plus1d_18: .*Missing key"),
        (torch.nn.Linear(2, 2).state_dict(), "does not fit torchvision's r2plus1d_18: .*Unexpected key"),
        ({"stem.0.weight": torch.zeros(1)}, "does not fit torchvision's r2plus1d_18: .*size mismatch"),
        ({"stem.0.weight": "words"}, "does not fit torchvision's r2plus1d_18"),
    ],
)
def test_weights_of_other_content_raise(tower, network, tmp_path, value, message):
    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(OSError, match=rf"(?s)weights\.pth {message}"):
        tower.load_torchvision_weights(tmp_path / "weights.pth")
    assert_same_network(tower, network)


def test_unreadable_weights_raise(tower, weights, tmp_path):
    (tmp_path / "notes.txt").write_text("Happy words, no weights.\n" * 50)
    (tmp_path / "part.pth").write_bytes(weights.read_bytes()[:100_000])
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("notes.txt", "part.pth", "empty.pth"):
        with pytest.raises(OSError, match=rf"{name} (could not be read|is not a state dict)"):
            tower.load_torchvision_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["KINETICS400_V9", "kinetics400_v1", "none.pth", "", "."])
def test_unknown_weights_name_raises(tower, name):
    with pytest.raises(ValueError, match=rf"'{name}' is neither a file nor weights of .* \(KINETICS400_V1"):
        tower.load_torchvision_weights(name)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Path of the weights in the cache of torchvision."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / R2Plus1D_18_Weights.KINETICS400_V1.url.rsplit("/", 1)[1]


def test_load_torchvision_weights_by_name(network, weights, cached):
    cached.symlink_to(weights)
    tower = UmonsVideoTower(UmonsVideoTowerConfig())
    tower.load_torchvision_weights("KINETICS400_V1")
    assert_same_network(tower, network)


def test_weights_download_checks_hash(network, weights, cached, monkeypatch):
    asked = []

    def download(url, destination, hash_prefix=None, progress=True):
        asked.append((url, hash_prefix))
        os.symlink(weights, destination)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    tower = UmonsVideoTower(UmonsVideoTowerConfig())
    tower.load_torchvision_weights("KINETICS400_V1")
    assert_same_network(tower, network)
    url = R2Plus1D_18_Weights.KINETICS400_V1.url
    assert asked == [(url, url.rsplit("-", 1)[1].removesuffix(".pth"))]


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), RuntimeError('invalid hash value (expected "9")'), TimeoutError("late")],
)
def test_failed_weights_download_raises(tower, network, cached, monkeypatch, error):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    with pytest.raises(OSError, match=r"KINETICS400_V1 could not be read: .*(no route|invalid hash|late)"):
        tower.load_torchvision_weights("KINETICS400_V1")
    assert_same_network(tower, network)


def test_malicious_cached_weights_are_not_executed(tower, cached, tmp_path):
    torch.save({"stem.0.weight": Hostile(tmp_path / "canary")}, cached)
    with pytest.raises(OSError, match="KINETICS400_V1 is not a state dict"):
        tower.load_torchvision_weights("KINETICS400_V1")
    assert not (tmp_path / "canary").exists()


def train_once(model) -> tuple[dict, dict]:
    """Train for one step, and return the parameters and statistics of the tower before and after."""
    before = {name: value.clone() for name, value in model.model.video_tower.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    labels = torch.tensor([0, 1])
    model(pixel_values_videos=make_clips(2, 3), video_features_mask=MASK, labels=labels).loss.backward()
    optimizer.step()
    return before, model.model.video_tower.state_dict()


def assert_frozen(model):
    assert not any(parameter.requires_grad for parameter in model.model.video_tower.parameters())
    front_end = model.model.front_ends["video"].weight
    assert front_end.requires_grad
    old = front_end.detach().clone()
    before, after = train_once(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(front_end, old)


def test_tower_is_frozen_by_default():
    assert_frozen(make_model())


@pytest.mark.parametrize("attn_implementation", [None, "sdpa", "eager"])
def test_saved_tower_loads_equal_and_frozen(model, tmp_path, attn_implementation):
    """The checkpoint contains the tower, which is frozen again after loading."""
    inputs = {"pixel_values_videos": make_clips(2, 3), "video_features_mask": MASK}
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(tmp_path)
    loaded = UmonsForSequenceClassification.from_pretrained(tmp_path, attn_implementation=attn_implementation)
    assert loaded.config._attn_implementation == (attn_implementation or "sdpa")
    before, after = model.model.video_tower.state_dict(), loaded.model.video_tower.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, logits, atol=1e-6, rtol=1e-6)
    assert_frozen(loaded.train())


def test_unfrozen_tower_trains(tmp_path):
    model = make_model(freeze=False).train()
    before, after = train_once(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"network.stem.0.weight", "network.stem.1.running_mean", "network.layer4.1.conv2.0.3.weight"} <= changed
    model.config.save_pretrained(tmp_path)
    assert UmonsConfig.from_pretrained(tmp_path).video_tower.freeze is False


def test_tower_skips_padding_clips(model, network):
    clips = make_clips(2, 3)
    computed = []
    handle = model.model.video_tower.network.register_forward_pre_hook(lambda module, args: computed.append(args[0]))
    features = model.get_video_features(clips, MASK).pooler_output
    nothing = model.get_video_features(clips, torch.zeros_like(MASK)).pooler_output
    handle.remove()
    is_clip = MASK.bool()
    assert [len(some) for some in computed] == [3]
    torch.testing.assert_close(computed[0], clips[is_clip].transpose(1, 2), atol=0, rtol=0)
    torch.testing.assert_close(features[is_clip], plain_features(network, clips[is_clip]), atol=1e-5, rtol=1e-5)
    assert not features[~is_clip].any()
    assert nothing.shape == (2, 3, 512)
    assert not nothing.any()


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_pixels_equal_their_features(model, dtype):
    clips, mask = make_clips(2, 3), MASK.to(dtype)
    text = {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    with torch.no_grad():
        features = model.get_video_features(clips, mask).pooler_output
        of_pixels = model(pixel_values_videos=clips, video_features_mask=mask, **text).logits
        of_features = model(video_features=features, video_features_mask=mask, **text).logits
        of_others = model(pixel_values_videos=make_clips(2, 3, seed=1), video_features_mask=mask, **text).logits
    torch.testing.assert_close(of_pixels, of_features, atol=1e-6, rtol=1e-6)
    assert (of_pixels - of_others).abs().max() > 1e-5


def test_missing_mask_keeps_all_clips(model):
    clips = make_clips(2, 3)
    with torch.no_grad():
        without = model(pixel_values_videos=clips).logits
        everywhere = model(pixel_values_videos=clips, video_features_mask=torch.ones(2, 3)).logits
    torch.testing.assert_close(without, everywhere, atol=1e-6, rtol=1e-6)


def test_tower_runs_under_autocast(model):
    clips = make_clips(2, 3)
    with torch.no_grad():
        exact = model(pixel_values_videos=clips, video_features_mask=MASK).logits
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(pixel_values_videos=clips, video_features_mask=MASK).logits
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


WRONG = {
    "rank": (
        {"pixel_values_videos": make_clips(3)},
        r"\(3, 4, 3, 16, 16\), but this model takes \(batch, clips, frames, 3,",
    ),
    "channels": ({"pixel_values_videos": make_clips(1, 2).transpose(2, 3)}, r"\(1, 2, 3, 4, 16, 16\), but"),
    "mask": (
        {"pixel_values_videos": make_clips(2, 3), "video_features_mask": torch.ones(2, 2)},
        r"`video_features_mask` has shape \(2, 2\), but must have the shape \(2, 3\) of the clips",
    ),
    "nan": (
        {"pixel_values_videos": make_clips(1, 2) * float("nan")},
        "`pixel_values_videos` contains NaN or infinite",
    ),
    "length": (
        {"pixel_values_videos": make_clips(1, 5)},
        r"`pixel_values_videos` has 5 clips, but this model takes 1 to 4",
    ),
    "both": ({"pixel_values_videos": make_clips(1, 2), "video_features": torch.ones(1, 2, 512)}, "are both given"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_invalid_clips_raise(model, name):
    inputs, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_invalid_tower_input_raises(tower):
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 3, 16, 16\), but the tower takes \(clips, frames, 3,"):
        tower(make_clips(2, 3))


@pytest.mark.parametrize("modalities", [["text"], ["text", "video"]])
def test_pixels_without_tower_raise(modalities):
    model = UmonsModel(UmonsConfig(**{**SMALL, "modalities": modalities}))
    with pytest.raises(
        ValueError, match="`pixel_values_videos` is given, but the video of this model is `video_features`"
    ):
        model(pixel_values_videos=make_clips(1, 2))


def test_tower_runs_in_bfloat16(tower, weights):
    """In bfloat16 and with channels last, features of each clip stay close."""
    fast = UmonsVideoTower(UmonsVideoTowerConfig()).eval()
    fast.load_torchvision_weights(weights)
    fast = fast.to(torch.bfloat16).to(memory_format=torch.channels_last_3d)
    # Another image for each clip: features of noise hardly differ.
    clips = make_clips(6) + 2 * torch.nn.functional.interpolate(
        torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(3)), (16, 16)
    ).unsqueeze(1)
    exact, rough = tower(clips), fast(clips)
    assert rough.dtype == torch.bfloat16
    similarity = torch.nn.functional.cosine_similarity(exact[:, None], rough.float()[None], dim=-1)
    assert similarity.diagonal().min() >= 0.999
    assert (similarity - 2 * torch.eye(6)).max() < 0.999
