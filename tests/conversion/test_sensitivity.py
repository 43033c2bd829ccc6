"""What one quantized layer does to the answers; candidates are made by litert-quantizer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.conversion.explain.sensitivity import answers, compared, sensitivity
from mltool.errors import ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer

Convert = Callable[..., Path]


class OneLayer:
    """Quantizes the operators of one layer to int8, by the names of their outputs."""

    def __init__(self, float_file: Path, samples: dict[str, np.ndarray], layers: list[str]) -> None:
        self._file, self._operators = float_file, read_flatbuffer(float_file, layers).operators
        count = len(next(iter(samples.values())))
        calls = [{name: array[i : i + 1] for name, array in samples.items()} for i in range(count)]
        self._ranges = self._quantizer(".*").calibrate({"serving_default": calls})

    def __call__(self, layer: str, output: Path) -> None:
        names = [re.escape(op.outputs[0].name) for op in self._operators if layer in op.layers]
        if not names:
            raise ConversionError(f"layer {layer!r} has no operator")
        output.write_bytes(self._quantizer(f"({'|'.join(names)})").quantize(self._ranges).quantized_model)

    def _quantizer(self, regex: str) -> Any:
        from litert_quantizer import qtyping, quantizer

        made = quantizer.Quantizer(str(self._file))
        every = qtyping.TFLOperationName.ALL_SUPPORTED
        made.add_static_config(regex=regex, operation_name=every, activation_num_bits=8, weight_num_bits=8)
        return made


def test_the_layer_that_loses_the_answers_alone_comes_first(table: Any, convert: Convert):
    wanted = convert(table, "none")
    make = OneLayer(wanted, table.samples, table.layers)
    found = sensitivity(make, float_file=wanted, samples=table.samples, layers=[*table.layers, "folded"])
    assert [one.layer for one in found] == ["normalization", *(one.layer for one in found[1:3]), "folded"]
    first, *others, folded = found
    assert first.same_answer < 0.8 < min(one.same_answer for one in others)
    assert first.mean_error > 2 * max(one.mean_error for one in others)
    assert (folded.mean_error, folded.reason) == (None, "layer 'folded' has no operator")


def test_the_answers_of_a_file_are_those_of_the_model(table: Any, convert: Convert):
    wanted = table.model.predict(table.samples["x"], verbose=0)
    found = answers(convert(table, "none", batch=5), table.samples, most=12)
    assert found["scores"].shape == (12, 3)  # two whole batches of 5, and one filled up
    np.testing.assert_allclose(found["scores"], wanted[:12], atol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "got", "expected"),
    [
        ([[0.0, 4.0], [3.0, 1.0]], [[1.0, 4.0], [0.0, 1.0]], (0.25, 0.75, 0.5)),
        ([[2.0], [2.0]], [[2.0], [1.0]], (0.25, 0.5, None)),
        ([[0.0, 0.0]], [[0.0, 0.5]], (0.25, 0.5, 0.0)),
    ],
    ids=["classes", "one value that is constant", "zeros"],
)
def test_errors_are_shares_of_the_range_of_the_float_answers(wanted: Any, got: Any, expected: Any):
    assert compared({"scores": np.array(wanted)}, {"scores": np.array(got)}) == expected


def test_of_several_outputs_the_worst_counts():
    wanted = {"a": np.array([[0.0, 1.0]]), "b": np.array([[0.0, 10.0]])}
    got = {"a": np.array([[0.0, 1.0]]), "b": np.array([[5.0, 4.0]])}
    assert compared(wanted, got) == (pytest.approx(0.55), pytest.approx(0.6), 0.0)
