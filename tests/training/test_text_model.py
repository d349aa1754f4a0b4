import pytest
import torch

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.training.text_model import copy_text_model


SIZES = {"vocab_size": 20, "word_embedding_size": 6, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}


def make(*modalities: str, **options) -> UmonsForSequenceClassification:
    return UmonsForSequenceClassification(UmonsConfig(modalities=list(modalities), **SIZES | options)).eval()


def test_text_alone_has_the_logits_of_the_text_model(tmp_path):
    source, model = make("text", joint_sentiment=True), make("text", "audio", joint_sentiment=True)
    source.save_pretrained(tmp_path)
    copy_text_model(model, str(tmp_path))
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(model(input_ids=ids).logits, source(input_ids=ids).logits)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".audio." in name for name in trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 16, "joint_sentiment": True}, "does not fit the new model"),
        ({"num_hidden_layers": 2, "joint_sentiment": True}, "does not fit the new model"),
        ({"id2label": {0: "good", 1: "bad"}}, "has the labels good, bad"),
    ],
)
def test_other_text_model_raises(tmp_path, options, message):
    make("text", **options).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        copy_text_model(make("text", "audio", joint_sentiment=True), str(tmp_path))
