"""Tests of models by name and of their options."""

import pytest

from modeling_umons import UmonsFeatureExtractor, UmonsProcessor, UmonsVideoProcessor, build_tokenizer
from modeling_umons.tasks.task import make_task
from modeling_umons.training.arguments import ModelArguments
from modeling_umons.training.build_models import (
    Parts,
    System,
    check_options,
    config_overrides,
    make_config,
    make_model,
    union,
)


ALL = ("text", "audio", "video")
TASK = make_task("sentiment")


@pytest.fixture(scope="module")
def parts() -> Parts:
    extractor = UmonsFeatureExtractor(frame_stride=8, max_length=20, feature_size=40)
    video_processor = UmonsVideoProcessor(clip_length=8, clip_stride=4, frame_rate=10.0)
    return Parts(UmonsProcessor(build_tokenizer(["so", "glad"]), extractor, video_processor))


@pytest.mark.parametrize(
    ("name", "model_type", "modalities"),
    [
        ("umons", "umons", ALL),
        ("umons_text", "umons", ("text",)),
        ("tfn_text_audio", "tfn", ("text", "audio")),
        ("graph_mfn", "graph_mfn", ALL),
        ("graph_mfn_audio", "graph_mfn", ("audio",)),
        ("multilogue_net_text_video", "multilogue_net", ("text", "video")),
    ],
)
def test_parse_system_name(name, model_type, modalities):
    system = System.parse(name, ALL)
    assert (system.name, system.model_type, system.modalities) == (name, model_type, modalities)


@pytest.mark.parametrize("name", ["lstm", "graph", "text", "umons_smell", "umons-text", ""])
def test_parse_rejects_unknown_name(name):
    with pytest.raises(ValueError, match="is unknown; available: umons, tfn, mfn, graph_mfn, multilogue_net, mult"):
        System.parse(name, ALL)


def test_parse_requires_modality_of_run():
    with pytest.raises(ValueError, match="--model tfn_video requires video in --modalities"):
        System.parse("tfn_video", ["text", "audio"])


def test_pretrained_model_has_its_own_modalities():
    arguments = ModelArguments(model_name_or_path="umons-mini", modalities=["audio"])
    with pytest.raises(ValueError, match="--modalities has no effect: leave it out, the model has its own"):
        check_options([System.parse("umons", ["audio"])], arguments)


def test_union_has_modalities_of_all_systems():
    systems = [System.parse(name, ALL) for name in ("umons_video", "tfn_text")]
    assert union(systems).modalities == ("text", "video")


def test_overrides_of_single_model_have_priority():
    overrides = ["dropout=0.1", "tfn.dropout=0.2", "tfn_text.dropout=0.3", "umons.hidden_size=8", "dropout=0.15"]
    chosen = {name: config_overrides(System.parse(name, ALL), overrides) for name in ("umons", "tfn", "tfn_text")}
    assert chosen == {
        "umons": {"dropout": 0.15, "hidden_size": 8}, "tfn": {"dropout": 0.2}, "tfn_text": {"dropout": 0.3},
    }  # fmt: skip


@pytest.mark.parametrize("override", ["dropout", "=3", "tfn.=3"])
def test_invalid_overrides_raise(override):
    with pytest.raises(ValueError, match=r"expected option=value, or model\.option=value"):
        config_overrides(System.parse("tfn", ALL), [override])
    with pytest.raises(ValueError, match="is not a valid value"):
        config_overrides(System.parse("tfn", ALL), ["dropout=[1"])


def test_make_config_sets_options_of_run(parts):
    arguments = ModelArguments(
        word_embedding_size=7,
        config_overrides=["mfn.memory_size=6", "mfn.alignment=adaptive", "multilogue_net.dropout=0.25"],
    )
    configs = {
        name: make_config(System.parse(name, ALL), arguments, parts, TASK)
        for name in ("umons_text", "tfn_audio", "mfn", "multilogue_net")
    }
    for config in configs.values():
        assert (config.num_labels, config.problem_type) == (1, "regression")
        assert (config.vocab_size, config.word_embedding_size) == (len(parts.processor.tokenizer), 7)
        assert (config.audio_feature_size, config.max_audio_length) == (40, 20)
    assert configs["umons_text"].hidden_size == 512
    assert configs["tfn_audio"].modalities == ["audio"]
    mfn = configs["mfn"]
    assert (mfn.memory_size, mfn.alignment, mfn.text_hidden_size) == (6, "adaptive", 128)
    assert configs["multilogue_net"].dropout == 0.25
    model = make_model(configs["tfn_audio"], arguments, parts)
    assert type(model).__name__ == "TfnForSequenceClassification"


@pytest.mark.parametrize("name", ["hidden_sise", "vertices", "num_labels"])
def test_unknown_overrides_raise(parts, name):
    arguments = ModelArguments(config_overrides=[f"{name}=3"])
    with pytest.raises(ValueError, match=f"GraphMfnConfig has no {name}"):
        make_config(System.parse("graph_mfn", ALL), arguments, parts, TASK)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["tfn"], {"hidden_size": 8, "num_hidden_layers": 1}, "--hidden_size, --num_hidden_layers has no effect"),
        (["tfn", "mfn"], {"config_overrides": ["umons.hidden_size=8"]}, "the model 'umons' is not trained"),
    ],
    ids=["sizes", "override"],
)
def test_options_without_effect_raise(names, options, message):
    with pytest.raises(ValueError, match=message):
        check_options([System.parse(name, ALL) for name in names], ModelArguments(**options))


def test_options_of_single_models():
    systems = [System.parse(name, ALL) for name in ("umons", "tfn_text")]
    options = ModelArguments(
        hidden_size=8, config_overrides=["tfn_text.dropout=0", "tfn.dropout=1", "umons.hidden_size=4"]
    )
    check_options(systems, options, ["tfn=5e-3", "mfn=1e-3"])  # a recipe may have options of other models
    with pytest.raises(ValueError, match="mnf=5e-3: --model mnf is unknown"):
        check_options(systems, options, ["mnf=5e-3"])


def test_recipe_options_of_replaced_models_are_allowed():
    systems = [System.parse("umons_paper", ["text"])]
    options = ModelArguments(text_encoder="x", config_overrides=["tfn.dropout=0"])
    with pytest.raises(ValueError, match="--text_encoder has no effect"):
        check_options(systems, options)
    options.optional = frozenset({"text_encoder", "config_overrides"})
    check_options(systems, options)
    options.optional = frozenset({"config_overrides"})
    with pytest.raises(ValueError, match="--text_encoder has no effect"):
        check_options(systems, options)
