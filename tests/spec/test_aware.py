"""The section of a training for one file: defaults, and one message for each mistake."""

import pytest
from pydantic import ValidationError

from mltool.spec.aware import AwareSpec


def test_without_keys_it_is_a_short_training_with_fake_quantization() -> None:
    spec = AwareSpec.model_validate({})
    assert (spec.epochs, spec.learning_rate, spec.prune, spec.cluster) == (3, 1e-4, None, None)


def test_everything_that_can_be_said() -> None:
    spec = AwareSpec.model_validate({"epochs": 1, "prune": "2:4", "cluster": 16})
    assert (spec.prune, spec.cluster) == ("2:4", 16)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"prune": 1}, "share of the weights above 0, at most 0.99, or '2:4' .got 1", id="all pruned"),
        pytest.param({"prune": 0.0}, "got 0.0", id="none pruned"),
        pytest.param({"prune": float("nan")}, "got nan", id="not a number"),
        pytest.param({"prune": True}, "got true", id="yes"),
        pytest.param({"prune": "1:2"}, "got '1:2'", id="another pattern"),
        pytest.param({"prune": 0.5, "cluster": 2}, "must be 3 or more beside prune", id="zero and one other"),
        pytest.param({"cluster": 257}, "less than or equal to 256", id="more values than int8 has"),
        pytest.param({"epochs": 0}, "greater than or equal to 1", id="no epoch"),
        pytest.param({"learning_rate": 0.0}, "greater than 0", id="learns nothing"),
        pytest.param({"sparsity": 0.5}, "Extra inputs are not permitted", id="unknown key"),
    ],
)
def test_a_mistake_has_a_message(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AwareSpec.model_validate(keys)
