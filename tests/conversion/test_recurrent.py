"""Recurrent layers: every scheme with every batch, and answers that do not hang on what was asked before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.conversion.read_back import read_back
from mltool.conversion.schemes import SCHEMES
from mltool.inference.litert import LiteRtPredictor
from mltool.inspection.flatbuffer import read_flatbuffer

Convert = Callable[..., Path]


def _layers(name: str) -> list[Any]:
    import keras

    layers = keras.layers
    return {
        "lstm": lambda: [layers.LSTM(8, name="lstm")],
        "gru": lambda: [layers.GRU(8, name="gru")],
        "simple": lambda: [layers.SimpleRNN(8, name="simple")],
        "both ways": lambda: [layers.Bidirectional(layers.LSTM(6), name="both")],
        "stacked": lambda: [
            layers.LSTM(8, return_sequences=True, name="lower"),
            layers.GRU(5, return_sequences=True, name="upper"),
        ],
        "convolutions": lambda: [
            layers.Reshape((6, 4, 1), name="row"),
            layers.ConvLSTM1D(3, 3, name="convolutions"),
            layers.Flatten(name="flat"),
        ],
    }[name]()


NAMES = ("lstm", "gru", "simple", "both ways", "stacked", "convolutions")
QUICK = ("lstm", "gru")
"""Kinds that the gate looks at; the long matrix has all."""


@pytest.fixture(scope="module")
def recurrent(export_model: Callable[..., Any]) -> Callable[[str], Any]:
    """A model with a recurrent layer, made once."""
    import keras

    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            tensor = x = keras.Input((6, 4), name="x")
            for layer in (*_layers(name), keras.layers.Dense(3, name="out")):
                tensor = layer(tensor)
            samples = np.random.default_rng(2).normal(size=(64, 6, 4)).astype(np.float32)
            made[name] = export_model(name.replace(" ", "_"), keras.Model(x, tensor), {"x": samples})
        return made[name]

    return get


def _held(exported: Any, path: Path, quantize: str, io: str = "float32") -> np.ndarray:
    """The answers of a file, after the file and they were held against what was asked for."""
    read_back(path, quantize=quantize, io=io, layer_names=exported.layers)
    with LiteRtPredictor(path) as predictor:
        answers = predictor.predict(exported.samples)["scores"]
    expected = exported.model.predict(exported.samples["x"], verbose=0)
    difference = np.abs(answers - expected) / np.ptp(expected)
    scheme = SCHEMES[quantize]
    assert difference.max() <= scheme.max_error
    assert difference.mean() <= scheme.mean_error
    return answers


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
@pytest.mark.parametrize(
    ("quantize", "io", "batch"),
    [
        pytest.param("none", "float32", 1, id="float, one"),
        pytest.param("none", "float32", None, id="float, free"),
        pytest.param("int8", "float32", 1, id="int8, one"),
        pytest.param("int8", "float32", 5, id="int8, five"),
        pytest.param("int8", "float32", None, id="int8, free"),
    ],
)
def test_every_kind_of_recurrent_layer_converts_with_every_batch(
    recurrent: Callable[[str], Any], convert: Convert, name: str, quantize: str, io: str, batch: int | None
):
    exported = recurrent(name)

    path = convert(exported, quantize, io=io, batch=batch)

    shape = read_flatbuffer(path).signatures[0].inputs["x"].shape
    assert shape == (-1 if batch is None else batch, 6, 4)
    _held(exported, path, quantize, io)


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_a_free_batch_takes_any_number_of_samples_and_gives_each_its_own_answer(
    recurrent: Callable[[str], Any], convert: Convert, quantize: str
):
    exported = recurrent("stacked")
    path = convert(exported, quantize, batch=None)
    answers = _held(exported, path, quantize)

    with LiteRtPredictor(path) as predictor:
        for count in (1, 2, 7):
            part = predictor.predict({"x": exported.samples["x"][:count]})["scores"]
            assert part == pytest.approx(answers[:count], abs=1e-5)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_answers_do_not_hang_on_what_was_asked_before(recurrent: Callable[[str], Any], convert: Convert, quantize: str):
    exported = recurrent("lstm")
    path = convert(exported, quantize)

    with LiteRtPredictor(path) as predictor:
        forwards = predictor.predict(exported.samples)["scores"]
        backwards = predictor.predict({"x": exported.samples["x"][::-1].copy()})["scores"]
    assert np.array_equal(backwards[::-1], forwards)


def test_what_is_added_belongs_to_the_layer(recurrent: Callable[[str], Any], convert: Convert):
    exported = recurrent("lstm")

    operators = read_flatbuffer(convert(exported, "none", batch=None), exported.layers).operators

    assert {op.layers for op in operators if op.op in ("FILL", "WHILE")} == {("lstm",)}
    assert [op.op for op in operators].count("FILL") == 2  # of the states, which are one, and of the answers
