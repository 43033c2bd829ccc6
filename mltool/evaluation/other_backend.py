"""A model that another backend trained, held against what it answered there before anything is made of it."""

import logging
from collections.abc import Mapping

import numpy as np

from mltool import extras
from mltool.errors import ArtifactError
from mltool.evaluation.evaluate import run_data
from mltool.inference.keras_predictor import KerasPredictor, load_keras_model
from mltool.inference.predictor import Array
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz, write_npz
from mltool.runs.atomic import writing
from mltool.runs.run import Run

logger = logging.getLogger("mltool")

NUM_SAMPLES = 256
"""Validation samples that both are asked about."""

TOLERANCE = 1e-5
"""Largest difference, as a share of the largest output: the order of float32 sums differs."""


def save_answers(run: Run, answers: Mapping[str, Array]) -> None:
    """Writes down what a model answers to the first validation samples where it was trained.

    Args:
        run: of the model.
        answers: float32 [samples, ...], by output.
    """
    with writing(run.backend_answers_file) as temporary, temporary.open("wb") as opened:
        write_npz(opened, answers, small=True)


def check_under_tensorflow(run: Run) -> None:
    """Proves that the model of a run answers under TensorFlow as where it was trained; once, and records it.

    Where there is no TensorFlow, or the environment asks for another backend, it says so: whatever makes something of
    the model comes here first.

    Raises:
        ArtifactError: if it answers differently, or the file of answers is damaged.
    """
    trained = run.manifest.get("backend")
    if trained is None or trained.get("difference") is not None:
        return
    name = trained["name"]
    missing = _what_stands_in_the_way()
    if missing:
        logger.warning("not checked under TensorFlow here, as %s: export does it, before anything else", missing)
        return
    difference = _largest_difference(run)
    if not difference <= TOLERANCE:
        message = f"{run.keras_file} answers under TensorFlow otherwise than under {name}, where it was trained"
        told = f"{message}: off by {difference:.3g} of the largest output, allowed is {TOLERANCE:g}"
        raise ArtifactError(told, "take train.backend: tensorflow, and please report it")
    run.update(backend={"difference": difference})
    logger.info("answers under TensorFlow as under %s: off by %.3g of the largest output", name, difference)


def _what_stands_in_the_way() -> str:
    if not extras.has("tensorflow"):
        return "it is not installed"
    given = extras.given_backend()
    return f"KERAS_BACKEND is {given!r}" if given not in (None, "tensorflow") else ""


def _largest_difference(run: Run) -> float:
    """Over all outputs, as a share of the largest value of each; NaN where one is."""
    try:
        kept = read_npz(run.backend_answers_file)
    except UNREADABLE_NPZ as error:
        raise ArtifactError(f"{run.backend_answers_file} is missing or damaged: {error}", "train again") from error
    inputs = run_data(run).split("validation").first(NUM_SAMPLES)
    found = KerasPredictor(load_keras_model(run.keras_file), run.input_schema.output_names).predict(inputs)
    if set(found) != set(kept) or any(found[name].shape != kept[name].shape for name in kept):
        raise ArtifactError(f"{run.backend_answers_file} is of another model", "train again")
    shares = [np.abs(found[name] - kept[name]).max() / (np.abs(kept[name]).max() or 1.0) for name in kept]
    return float(np.max(shares))
