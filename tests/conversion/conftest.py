"""Small models with known weights, exported once a session, and a short way to convert them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import made, run

__all__ = ["made", "run"]

SAMPLES = 64


@dataclass(frozen=True)
class Exported:
    """A SavedModel with what a conversion of it needs.

    Attributes:
        folder: the SavedModel.
        layers: names in the order of the model.
        samples: representative inputs by name.
        representative: the same as an `.npz` file.
        model: the Keras model it was made from.
    """

    folder: Path
    layers: list[str]
    samples: dict[str, np.ndarray]
    representative: Path
    model: Any


def randomize(model: Any) -> None:
    """Weights that no folding can remove: trained biases are not 0, trained variances not 1."""
    numbers = np.random.default_rng(3)
    for weight in model.weights:
        if "normalization" not in weight.path and weight.dtype == "float32":
            values = numbers.normal(0, 0.3, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)


@pytest.fixture(scope="session")
def export_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Exports a Keras model with named inputs and the output `scores`."""

    def export(name: str, model: Any, samples: dict[str, np.ndarray] | None = None) -> Exported:
        import keras
        import tensorflow as tf

        randomize(model)
        root = tmp_path_factory.mktemp(name)
        archive = keras.export.ExportArchive()
        archive.track(model)
        specs = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs}

        def scores(**inputs: Any) -> dict[str, Any]:
            values = [inputs[tensor.name] for tensor in model.inputs]
            return {"scores": model(values if len(values) > 1 else values[0])}

        function = tf.function(scores)
        function.get_concrete_function(**specs)
        archive.add_endpoint("serving_default", function)
        archive.write_out(root / "saved_model", verbose=False)
        numbers = np.random.default_rng(0)
        chosen = samples or {
            tensor.name: numbers.random((SAMPLES, *tensor.shape[1:])).astype(tensor.dtype) for tensor in model.inputs
        }
        np.savez(root / "samples.npz", **chosen)
        layers = [layer.name for layer in model.layers if type(layer).__name__ != "InputLayer"]
        return Exported(root / "saved_model", layers, chosen, root / "samples.npz", model)

    return export


@pytest.fixture(scope="session")
def digits(export_model: Callable[..., Exported]) -> Exported:
    """A CNN of 8x8 images. The offset and the padding of zeros keep Rescaling from being folded into the Conv2D."""
    import keras

    layers = keras.layers
    return export_model(
        "digits",
        keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                layers.Rescaling(2.0, offset=-1.0, name="rescaling"),
                layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="first"),
                layers.Flatten(name="flatten"),
                layers.Dense(40, activation="relu", name="wide"),
                layers.Dense(10, name="last"),
            ]
        ),
    )


@pytest.fixture(scope="session")
def table(export_model: Callable[..., Exported]) -> Exported:
    """Raw features of very different sizes through a Normalization, which int8 cannot hold: 1 and 100,000."""
    import keras

    layers = keras.layers
    mean, deviation = np.array([0.5, 50_000.0, 0.5, 5.0]), np.array([0.3, 30_000.0, 0.3, 3.0])
    x = keras.Input((4,), name="x")
    out = layers.Normalization(mean=mean, variance=deviation**2, name="normalization")(x)
    out = layers.Dense(16, activation="relu", name="hidden")(out)
    samples = np.random.default_rng(1).random((SAMPLES, 4)) * [1, 100_000, 1, 10]
    model = keras.Model(x, layers.Dense(3, name="out")(out))
    return export_model("table", model, {"x": samples.astype(np.float32)})


@pytest.fixture(scope="session")
def normed(export_model: Callable[..., Exported]) -> Exported:
    """LayerNormalization, which negates: an operator without an int8 kernel."""
    import keras

    layers = keras.layers
    x = keras.Input((4, 8), name="x")
    out = layers.Dense(3, name="out")(layers.Flatten(name="flatten")(layers.LayerNormalization(name="ln")(x)))
    return export_model("normed", keras.Model(x, out))


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Path]:
    """Converts and gives the path of the file."""
    from mltool.conversion.engines.converter import convert_saved_model

    def run(exported: Exported, quantize: str, **changed: Any) -> Path:
        arguments = {
            "saved_model": str(exported.folder),
            "signature": "serving_default",
            "output": str(tmp_path / f"{quantize}.tflite"),
            "quantize": quantize,
            "io": "float32",
            "batch": 1,
            "representative": str(exported.representative),
            "keep_float": [],
            "layer_names": exported.layers,
            **changed,
        }
        convert_saved_model(**arguments)
        return Path(arguments["output"])

    return run


@pytest.fixture(scope="session")
def convnet(export_model: Callable[..., Exported]) -> Exported:
    """A CNN whose layers differ in what can be done to them: folded, depthwise, pointwise, dense with 32 inputs."""
    import keras

    layers = keras.layers
    stack = [
        keras.Input((8, 8, 1), name="image"),
        layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="act"),
        layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depth"),
        layers.Conv2D(32, 1, activation="relu", name="point"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(40, activation="relu", name="hidden"),
        layers.Dense(10, name="last"),
    ]
    return export_model("convnet", keras.Sequential(stack))


@pytest.fixture(scope="session")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Exported], Path]:
    """The float `.tflite` file of an exported model, made once."""
    from mltool.conversion.engines.converter import convert_saved_model

    made: dict[Path, Path] = {}

    def file(exported: Exported) -> Path:
        if exported.folder not in made:
            path = tmp_path_factory.mktemp("float") / "none.tflite"
            convert_saved_model(
                saved_model=str(exported.folder),
                signature="serving_default",
                output=str(path),
                quantize="none",
                io="float32",
                batch=1,
                representative=None,
                keep_float=[],
                layer_names=exported.layers,
            )
            made[exported.folder] = path
        return made[exported.folder]

    return file


@pytest.fixture
def quantize(float_file: Callable[[Exported], Path], tmp_path: Path) -> Callable[..., Path]:
    """Quantizes the float file of an exported model and gives the path of the result."""
    from mltool.conversion.engines.quantizer import quantize_file
    from mltool.conversion.engines.recipe import recipe_for
    from mltool.inspection.flatbuffer import read_flatbuffer

    def run(exported: Exported, precision: Any, **changed: Any) -> Path:
        source = float_file(exported)
        arguments = {
            "source": str(source),
            "output": str(tmp_path / "quantized.tflite"),
            "recipe": recipe_for(precision, read_flatbuffer(source, exported.layers)),
            "representative": str(exported.representative),
            "signature": "serving_default",
            **changed,
        }
        quantize_file(**arguments)
        return Path(arguments["output"])

    return run


@pytest.fixture
def run_file() -> Callable[[Path, dict[str, np.ndarray]], np.ndarray]:
    """Runs a file on every sample, by signature names; quantizes and dequantizes integer inputs and outputs."""

    def run(path: Path, samples: dict[str, np.ndarray]) -> np.ndarray:
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        answers = []
        for index in range(len(next(iter(samples.values())))):
            sample = {name: _quantize(array[index : index + 1], inputs[name]) for name, array in samples.items()}
            answer = runner(**sample)["scores"]
            scale, zero = outputs["scores"]["quantization"]
            answers.append((answer.astype(np.float64) - zero) * scale if scale else answer)
        return np.concatenate(answers)

    return run


def _quantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return values
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(detail["dtype"])
