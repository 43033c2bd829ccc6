"""What another backend than TensorFlow cannot do is refused by `check`, key by key."""

import pytest

OWN = {"python": "mine:thing"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"data.augment": [{"RandomFlip": {"mode": "horizontal"}}]},
            "data.augment.0.RandomFlip: augmentation runs in tf.data, and train.backend is jax",
            id="augmentation",
        ),
        pytest.param(
            {"model.preprocess": ["StringLookup"]},
            "model.preprocess.0.StringLookup: StringLookup computes with TensorFlow alone, and train.backend is jax",
            id="text",
        ),
        pytest.param(
            {"model.layers": [{"Hashing": {"num_bins": 3}}, "Flatten", {"Dense": {"units": 10}}]},
            "model.layers.0.Hashing: Hashing computes with TensorFlow alone, and train.backend is jax",
            id="hashing",
        ),
        pytest.param(
            {"model": OWN}, "model.python: a function may build its model with TensorFlow, and train.backend is jax",
            id="own model",
        ),
        pytest.param(
            {"model.layers": [OWN, {"Dense": {"units": 10}}]},
            "model.layers.0.python: a layer of yours may use TensorFlow, and train.backend is jax",
            id="own layer",
        ),
        pytest.param(
            {"train.loss": {**OWN, "task": "classification", "from_logits": True}},
            "train.loss: a loss of yours may use TensorFlow, and train.backend is jax",
            id="own loss",
        ),
        pytest.param(
            {"train.metrics": ["accuracy", OWN]},
            "train.metrics.1: a metric of yours may use TensorFlow, and train.backend is jax",
            id="own metric",
        ),
        pytest.param(
            {
                "train": {"loss": "MeanSquaredError", "anomaly": {"normal": "0"}},
                "model.layers": ["Flatten", {"Dense": {"units": 64}}],
            },
            "train.anomaly: is not in this version with train.backend: jax",
            id="anomaly",
        ),
        pytest.param(
            {"train.strategy": "mirrored"},
            "train.strategy: mirrored distributes by tf.distribute, and train.backend is jax",
            id="strategy",
        ),
        pytest.param(
            {"train.strategy": {"one_device": {"device": "GPU:1"}}},
            "train.strategy.one_device.device: names a device as TensorFlow does, and train.backend is jax",
            id="device",
        ),
        *(
            pytest.param(
                {f"train.{key}": value},
                f"train.{key}: is a setting of TensorFlow's, and train.backend is jax (got {shown})",
                id=key,
            )
            for key, value, shown in (
                ("accumulate", 2, "2"),
                ("tf32", False, "false"),
                ("jit_compile", True, "true"),
                ("threads", 1, "1"),
                ("onednn", False, "false"),
            )
        ),
    ],
)  # fmt: skip
def test_what_another_backend_cannot_do_is_refused_with_the_reason(changes, expected, bench):
    bench.write("def thing(*args):\n    return args\n", "mine.py")
    bench.load(changes)  # with TensorFlow it can
    found = bench.refused({**changes, "train.backend": "jax"})
    assert [message.partition(";")[0] for message in found] == [expected]


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_backend_of_keras_is_taken(backend, bench):
    assert bench.load({"train.backend": backend}).train.backend == backend


def test_another_backend_is_told_with_what_was_meant(bench):
    found = bench.refused({"train.backend": "pytorch"})
    assert found == ["train.backend: must be 'tensorflow', 'jax' or 'torch' (got 'pytorch'); did you mean 'torch'?"]
