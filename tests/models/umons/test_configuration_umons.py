import pytest

from modeling_umons import EMOTIONS, TfnConfig, UmonsConfig


def test_defaults_equal_paper_recipe():
    config = UmonsConfig()
    assert config.modalities == ["text", "audio"]
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (4, 512, 1024)
    assert (config.num_attention_heads, config.hidden_dropout_prob, config.word_embedding_size) == (4, 0.1, 300)
    assert [config.length_limit(modality) for modality in ("text", "audio", "video")] == [60, 60, 60]
    assert (config.audio_feature_size, config.video_feature_size) == (80, 512)
    assert not config.legacy_masking


def test_modalities_have_canonical_order():
    assert UmonsConfig(modalities=["video", "text"]).modalities == ["text", "video"]
    assert UmonsConfig(modalities=("audio", "video", "text")).modalities == ["text", "audio", "video"]


def test_saved_config_loads_equal(tmp_path):
    config = UmonsConfig(modalities=["video", "audio"], hidden_size=32, joint_sentiment=True, max_video_length=9)
    config.save_pretrained(tmp_path)
    loaded = UmonsConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.modalities == ["audio", "video"]
    assert loaded.id2label == config.id2label


def test_joint_sentiment_sets_labels():
    config = UmonsConfig(joint_sentiment=True)
    assert config.num_labels == 7
    assert config.id2label == dict(enumerate(("sentiment", *EMOTIONS)))
    assert config.label2id["fear"] == 6
    assert UmonsConfig(joint_sentiment=True, num_labels=7).id2label == config.id2label

    own = {0: "polarity", 1: "joy"}
    assert UmonsConfig(joint_sentiment=True, id2label=own).id2label == own
    assert UmonsConfig(joint_sentiment=True, num_labels=3).num_labels == 3


@pytest.mark.parametrize("modalities", [[], ["text", "smell"], ["text", "text"], ["audio", "text", "audio"]])
def test_invalid_modalities_raise(modalities):
    with pytest.raises(
        ValueError, match=r"must name at least one of \['text', 'audio', 'video'\], each once"
    ) as error:
        UmonsConfig(modalities=modalities)
    assert str(modalities) in str(error.value)


def test_indivisible_hidden_size_raises():
    with pytest.raises(ValueError, match=r"`hidden_size` \(30\) must be a multiple of `num_attention_heads` \(4\)"):
        UmonsConfig(hidden_size=30)


@pytest.mark.parametrize("field", ["num_attention_heads", "num_hidden_layers", "vocab_size", "max_audio_length"])
def test_nonpositive_size_raises(field):
    with pytest.raises(ValueError, match=f"`{field}` is 0: it must be at least 1"):
        UmonsConfig(**{field: 0})


@pytest.mark.parametrize("config_class", [UmonsConfig, TfnConfig])
@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_joint_sentiment_rejects_problem_type(config_class, problem_type):
    assert config_class(joint_sentiment=True).problem_type is None
    with pytest.raises(ValueError, match=r"requires `problem_type=None`.* remove `problem_type`"):
        config_class(joint_sentiment=True, problem_type=problem_type)


def test_joint_sentiment_without_emotion_raises():
    with pytest.raises(ValueError, match="`joint_sentiment=True` needs at least two labels"):
        UmonsConfig(joint_sentiment=True, num_labels=1)


def test_legacy_masking_with_unequal_lengths_raises():
    lengths = {"max_audio_length": 50, "max_video_length": 60, "legacy_masking": True}
    with pytest.raises(ValueError, match=r"`max_video_length` \(60\) and `max_audio_length` \(50\) must be equal"):
        UmonsConfig(modalities=["text", "audio", "video"], **lengths)
    # With two modalities the lengths are independent.
    assert UmonsConfig(modalities=["text", "video"], **lengths).legacy_masking
