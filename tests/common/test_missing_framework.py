"""A machine without TensorFlow is told how to get it, in one sentence."""

import sys

import pytest

from common.errors import ConfigError
from common.learning.seam import build
from common.messages import ModelChoice


@pytest.mark.parametrize("name", ["simple_cnn", "mobilenet_v2"])
def test_model_of_a_framework_that_is_not_here_names_the_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorflow", "keras"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("framework", "keras_learner"):  # as if no test had loaded them
        monkeypatch.delitem(sys.modules, f"common.learning.{module}", raising=False)
    with pytest.raises(ConfigError, match=rf"models\.{name}: .*; install fedpi\[learning\]"):
        build(ModelChoice(name=name), {})
