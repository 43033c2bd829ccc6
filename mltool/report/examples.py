"""The test samples that a model answers worst, to be looked at."""

from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.dataset import Dataset, Samples
from mltool.errors import MltoolError
from mltool.evaluation.evaluate import run_data
from mltool.inference.answers import anomaly_scores, named, probabilities, threshold_of
from mltool.report import plots
from mltool.report.pictures import as_bytes, colored, png_uri
from mltool.report.predictions import Predictions
from mltool.runs.input_schema import OutputInfo
from mltool.runs.run import Run

MOST = 12
"""Samples that are shown."""

MOST_CHARACTERS = 300
"""Of a text that is shown."""


def worst_examples(run: Run, predictions: Predictions) -> dict[str, Any]:
    """The samples whose answers are farthest from the truth; a sentence instead where the data are not at hand.

    Args:
        run: whose data they are.
        predictions: of an output of its Keras model.
    """
    nothing = {"examples": [], "examples_missing": "", "wide": False}
    rows = _worst(predictions)
    if not len(rows):
        return {**nothing, "examples_missing": "Every answer on the test split is right."}
    path = run.spec.data.source.path
    if path is not None and not Path(path).exists():
        return {**nothing, "examples_missing": f"{path} is not here, so no samples are shown."}
    try:
        data = run_data(run)
    except MltoolError as error:
        return {**nothing, "examples_missing": f"No samples are shown: {error.messages[0].message}"}
    samples = data.take(predictions.ids[rows])
    is_mask = predictions.output.task == "segmentation"
    shown = [
        {
            "name": Path(data.source.name_of(int(samples.ids[place]))).name,
            **_words(predictions, row),
            **(_masks(samples, place, predictions, row) if is_mask else _picture(data, samples, place)),
        }
        for place, row in enumerate(rows.tolist())
    ]
    return {**nothing, "examples": shown, "wide": is_mask or any(item["text"] for item in shown)}


def _worst(predictions: Predictions) -> Any:
    """Rows of the samples to be shown, the worst first."""
    output, count = predictions.output, len(predictions.ids)
    if output.task == "regression":
        errors = np.abs(predictions.outputs - predictions.targets).reshape(count, -1).max(axis=1)
        return np.argsort(-errors, kind="stable")[:MOST]
    differs = (predictions.answers != predictions.targets).reshape(count, -1)
    wrong = np.flatnonzero(differs.any(axis=1))
    if not len(wrong):
        return wrong
    return wrong[np.argsort(-_distance(predictions, wrong, differs[wrong]), kind="stable")][:MOST]


def _distance(predictions: Predictions, rows: Any, differs: Any) -> Any:
    """How far answers that are wrong are from right ones: how sure they are, or the share of them that is wrong."""
    output = predictions.output
    if output.task == "anomaly":
        return np.abs(np.log(anomaly_scores(predictions.outputs[rows]) / threshold_of(output)))
    if output.task == "segmentation":
        return differs.mean(axis=1)
    sure = probabilities(predictions.outputs[rows], output)
    if output.task == "multi_label":
        return np.where(differs, np.abs(sure - 0.5), 0).max(axis=1)
    return np.abs(sure[:, 0] - 0.5) if output.task == "binary" else sure.max(axis=1)


def _words(predictions: Predictions, row: int) -> dict[str, str]:
    output, answer, truth = predictions.output, predictions.answers[row], predictions.targets[row]
    values = predictions.outputs[row : row + 1]
    match output.task:
        case "regression":
            texts = [" ".join(f"{value:,.6g}" for value in np.ravel(values)) for values in (answer, truth)]
            return {"answer": texts[0], "truth": texts[1], "sure": ""}
        case "segmentation":
            right = float((answer == truth).mean())
            return {"answer": f"{right:.1%} of its pixels are right", "truth": "", "sure": "image, truth, answer"}
        case "multi_label":
            found = [" ".join(names) or "none" for names in named(np.stack([answer, truth]), output)]
            return {"answer": found[0], "truth": found[1], "sure": ""}
        case "anomaly":
            share = float(anomaly_scores(values)[0]) / threshold_of(output)
            sure = f"{share:.3g} times the threshold"
        case _:
            sure = f"{_sureness(values, int(answer), output):.0%} sure"
    return {"answer": output.labels[int(answer)], "truth": output.labels[int(truth)], "sure": sure}


def _sureness(values: Any, answer: int, output: OutputInfo) -> float:
    """The probability that the model gave its answer."""
    found = probabilities(values, output).reshape(-1)
    if output.task == "binary":
        return float(found[0] if answer else 1 - found[0])
    return float(found[answer])


def _masks(samples: Samples, place: int, predictions: Predictions, row: int) -> dict[str, Any]:
    """An image, its mask, and the mask that was answered, side by side."""
    image = as_bytes(next(iter(samples.inputs.values()))[place : place + 1][0])
    image = np.repeat(image, 3, axis=2) if image.shape[-1] == 1 else image[..., :3]
    height, width = image.shape[:2]
    tiles = [image]
    for mask in (predictions.targets[row], predictions.answers[row]):
        # A model may give another size than it takes: the nearest pixel.
        down = np.arange(height) * mask.shape[0] // height
        right = np.arange(width) * mask.shape[1] // width
        tiles.append(colored(mask[np.ix_(down, right)]))
    gap = np.full((height, 2, 3), 255, np.uint8)
    joined = np.concatenate([tiles[0], gap, tiles[1], gap, tiles[2]], axis=1)
    return {"image": png_uri(joined), "svg": None, "text": ""}


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
