"""Names of training options, checked without the imports of a run."""

from dataclasses import fields

import pytest

from modeling_umons.cli import option_names, predict
from modeling_umons.training.arguments import PARTS, ModelArguments


def test_option_names_are_those_of_the_dataclasses():
    assert option_names.option_names() == {option.name for part in PARTS for option in fields(part) if option.init}


def test_unknown_option_suggests_nearest():
    with pytest.raises(ValueError, match=r"Unknown option --lerning_rate; .* Did you mean --learning_rate"):
        option_names.check_option_names(["emotion", "--lerning_rate=1"])
    option_names.check_option_names(["--learning-rate", "1", "--no_use_cpu", "--num_train", "2", "--help", "-h"])


def test_unknown_option_of_other_commands_suggests_nearest(capsys):
    with pytest.raises(SystemExit):
        predict.parse_arguments(["a.wav", "--trust_remot_code"])
    assert "Did you mean --trust_remote_code?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "hint"), [("sound", "audio"), ("vidoe", "video"), ("Text", "text")])
def test_unknown_modality_suggests_nearest(name, hint):
    with pytest.raises(ValueError, match=f"--modalities {name} is unknown; .* Did you mean {hint}?"):
        ModelArguments(modalities=[name])
