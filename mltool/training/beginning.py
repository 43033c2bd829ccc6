"""What a training starts from, and from which score on its model calls a sample an anomaly: written into the run."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mltool.data.describe import describe_input
from mltool.data.identity import fingerprint
from mltool.data.scan import scan
from mltool.data.scratch import slices_of
from mltool.data.sources.user_function import hash_of_code
from mltool.errors import DataError, Message
from mltool.inference.answers import anomaly_scores
from mltool.inference.keras_predictor import KerasPredictor
from mltool.models.for_data import output_of_model
from mltool.models.outputs import ENDINGS, units_layers
from mltool.models.steps import steps_of
from mltool.runs.atomic import sha256_of, write_json
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.runs.run import Run
from mltool.runs.training_sections import training_sections
from mltool.spec.backbones import weights_file
from mltool.spec.spec import Spec
from mltool.spec.task import output_kind
from mltool.training.devices.environment import describe_environment
from mltool.training.setup import Setup

logger = logging.getLogger("mltool")


def record_setup(run: Run, setup: Setup) -> None:
    """Writes into the run what it starts from: splits, data, the model and what it takes, versions and devices."""
    data, spec = setup.data, setup.spec
    splits, hashes = data.splits, data.split_hashes()
    document = scan(data)
    errors = [f for f in document["findings"] if f["level"] == "error" and not f["is_asked_for"]]
    if errors and not run.splits_file.is_file():
        raise DataError(Message(finding["message"], finding["hint"]) for finding in errors)
    if not run.splits_file.is_file():
        run.save_splits(data.record())
    write_json(run.scan_file, document)
    write_json(run.model_summary_file, setup.summary.to_json())
    for finding in document["findings"]:
        if finding["level"] != "note":
            logger.warning("%s", finding["message"])
    run.update(
        status="training",
        error=None,
        training_sections=training_sections(spec),
        input=_input_schema(setup).to_json(),
        data={
            "fingerprint": data.fingerprint,
            "source": data.source.origin,
            "code": _code_of([spec.data.source.python] if spec.data.source.python else []),
            "splits": {
                name: {"samples": len(ids), "hash": fingerprint(hashes[name])} for name, ids in splits.ids().items()
            },
            # Not of the splits: those that a resumed run recorded count none.
            "dropped_copies": document["copies"]["dropped"],
            "kept_copies": document["copies"]["kept"],
        },
        model={"code": _code_of(spec.code), "weights": _weights_of(spec)},
        environment=describe_environment(
            setup.loop.strategy, jit_compile=setup.loop.options.jit_compile, deterministic=spec.train.deterministic
        ),
    )


def record_threshold(run: Run, setup: Setup) -> None:
    """Writes into the run from which score on a sample is an anomaly: a quantile of the training samples' scores.

    Call when the model has the weights that are kept; for other tasks there is nothing to do.
    """
    schema, asked = run.input_schema, setup.spec.train.anomaly
    if asked is None:
        return
    predictor, train = KerasPredictor(setup.loop.model, schema.output_names), setup.data.split("train")
    scores = [
        anomaly_scores(predictor.predict({name: array[part] for name, array in train.inputs.items()})[name_of_output])
        for name_of_output in predictor.outputs
        for part in slices_of(len(train), SCORED_AT_ONCE)
    ]
    threshold = float(np.quantile(np.concatenate(scores), asked.quantile))
    output = replace(schema.outputs[0], threshold=threshold)
    run.update(input=replace(schema, outputs=(output,)).to_json())
    logger.info("the threshold is a score of %.6g: quantile %g of the training samples", threshold, asked.quantile)


SCORED_AT_ONCE = 1024
"""Samples whose differences are held in memory."""


def _code_of(references: Iterable[str]) -> dict[str, str]:
    """Functions and classes of the user's with the hash of the file of each, as run.json has them."""
    return {reference: hash_of_code(reference) for reference in references}


def _weights_of(spec: Spec) -> dict[str, str]:
    """The files that layers take weights from, with their hashes, as run.json has them."""
    layers = (*spec.model.preprocess_layers, *spec.model.layers)
    found = (weights_file(layer.layer.name, layer.layer.arguments) for layer in layers)
    return {file: sha256_of(Path(file)) for file in found if file}


def _input_schema(setup: Setup) -> InputSchema:
    data, spec = setup.data, setup.spec
    train = data.split("train")
    layers = {layer.name for layer in setup.loop.model.layers}
    units = units_layers(data.meanings)
    return InputSchema(
        inputs=tuple(describe_input(name, train, data.source) for name in train.inputs),
        outputs=tuple(
            OutputInfo(
                spec.output_names[key],
                tuple(output_of_model(setup.loop.model, key).shape[1:]),
                meaning.task,
                output_kind(spec.train.heads[key].loss),
                meaning.labels,
                scaled=units[key] in layers,
                columns=meaning.columns,
            )
            for key, meaning in data.meanings.items()
        ),
        missing_markers=tuple(spec.data.source.missing) if spec.data.source.known_kind == "table" else (),
        preprocessing=steps_of(setup.loop.model, [*ENDINGS, *units.values(), *spec.model.own_names]),
    )
