"""The test samples that a model answers worst, to be looked at."""

from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.dataset import Dataset, Samples
from mltool.errors import MltoolError
from mltool.evaluation.evaluate import run_data
from mltool.inference.answers import probabilities
from mltool.report import plots
from mltool.report.pictures import as_bytes, png_uri
from mltool.report.predictions import Predictions
from mltool.runs.input_schema import InputSchema
from mltool.runs.run import Run

MOST = 12
"""Samples that are shown."""

MOST_CHARACTERS = 300
"""Of a text that is shown."""


def worst_examples(run: Run, predictions: Predictions) -> dict[str, Any]:
    """The samples whose answers are farthest from the truth; a sentence instead where the data are not at hand.

    Args:
        run: whose data they are.
        predictions: of its Keras model.
    """
    schema = run.input_schema
    rows = _worst(predictions, schema)
    if not len(rows):
        return {"examples_missing": "Every answer on the test split is right."}
    path = run.spec.data.source.path
    if path is not None and not Path(path).exists():
        return {"examples_missing": f"{path} is not here, so no samples are shown."}
    try:
        data = run_data(run)
    except MltoolError as error:
        return {"examples_missing": f"No samples are shown: {error.messages[0].message}"}
    samples = data.take(predictions.ids[rows])
    shown = [
        {
            "name": Path(data.source.name_of(int(samples.ids[place]))).name,
            **_words(predictions, row, schema),
            **_picture(data, samples, place),
        }
        for place, row in enumerate(rows.tolist())
    ]
    return {"examples": shown, "wide": any(item["text"] for item in shown)}


def _worst(predictions: Predictions, schema: InputSchema) -> Any:
    if schema.task == "regression":
        errors = np.abs(predictions.outputs - predictions.targets).reshape(len(predictions.ids), -1).max(axis=1)
        return np.argsort(-errors, kind="stable")[:MOST]
    wrong = np.flatnonzero(predictions.answers != predictions.targets)
    if not len(wrong):
        return wrong
    sure = probabilities(predictions.outputs[wrong], schema)
    confidence = np.abs(sure[:, 0] - 0.5) if schema.task == "binary" else sure.max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")][:MOST]


def _words(predictions: Predictions, row: int, schema: InputSchema) -> dict[str, str]:
    answer, truth = predictions.answers[row], predictions.targets[row]
    if schema.task != "regression":
        sure = _sureness(predictions.outputs[row : row + 1], int(answer), schema)
        return {"answer": schema.labels[int(answer)], "truth": schema.labels[int(truth)], "sure": f"{sure:.0%}"}
    texts = [" ".join(f"{value:,.6g}" for value in np.ravel(values)) for values in (answer, truth)]
    return {"answer": texts[0], "truth": texts[1], "sure": ""}


def _sureness(output: Any, answer: int, schema: InputSchema) -> float:
    """The probability that the model gave its answer."""
    found = probabilities(output, schema).reshape(-1)
    if schema.task == "binary":
        return float(found[0] if answer else 1 - found[0])
    return float(found[answer])


def _picture(data: Dataset, samples: Samples, place: int) -> dict[str, Any]:
    """An image as a picture, a series or a sound as a line, all else as text."""
    markup = extras.require("markupsafe").Markup
    nothing: dict[str, Any] = {"image": None, "svg": None, "text": ""}
    for name, array in samples.inputs.items():
        value = array[place : place + 1][0]
        kind = data.source.kinds.get(name, "")
        if kind == "image" and value.shape[-1] in (1, 3):
            return {**nothing, "image": png_uri(as_bytes(value))}
        if kind in ("series", "audio"):
            return {**nothing, "svg": markup(plots.line(value))}
    cells = [f"{name}: {_cell(array[place : place + 1][0])}" for name, array in samples.inputs.items()]
    text = cells[0].partition(": ")[2] if len(cells) == 1 else ", ".join(cells)
    return {**nothing, "text": text[:MOST_CHARACTERS] + ("…" if len(text) > MOST_CHARACTERS else "")}


def _cell(value: Any) -> str:
    values = np.ravel(value)
    if values.dtype.kind == "U":
        return " ".join(values.tolist()) or "missing"
    shown = " ".join(f"{number:.6g}" for number in values[:8])
    return f"{shown} …" if len(values) > 8 else shown
