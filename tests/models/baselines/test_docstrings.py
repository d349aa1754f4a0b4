"""Documentation that `auto_docstring` assembles: complete arguments and examples that run."""

import doctest

import pytest
import torch

import modeling_umons
from modeling_umons.models.baselines import configuration_baselines


NAMES = ["Tfn", "Mfn", "GraphMfn", "MultilogueNet", "Mult"]


def run_examples(docstring: str) -> int:
    # Code fences are not part of an example's output.
    test = doctest.DocTestParser().get_doctest(docstring.replace("```", ""), {}, "example", None, None)
    runner = doctest.DocTestRunner(verbose=False)
    result = runner.run(test)
    assert result.failed == 0
    return result.attempted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["Config", "Model.forward", "ForSequenceClassification.forward"])
def test_example_runs(name, suffix):
    torch.manual_seed(0)
    class_name, _, method = f"{name}{suffix}".partition(".")
    documented = getattr(modeling_umons, class_name)
    assert run_examples((getattr(documented, method) if method else documented).__doc__) > 1


@pytest.mark.parametrize("name", NAMES)
def test_configuration_documents_every_argument(name):
    config_class = getattr(configuration_baselines, f"{name}Config")
    fields = set(vars(config_class())) & {
        field for parent in config_class.__mro__ for field in vars(parent).get("__annotations__", {})
    }
    own = {field for field in fields if field not in modeling_umons.UmonsConfig.__mro__[1].__annotations__}
    assert "joint_sentiment" in own
    missing = [field for field in sorted(own) if f"    {field} (`" not in config_class.__doc__]
    assert not missing
