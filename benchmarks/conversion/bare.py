"""The bare TFLiteConverter: what a script by the book makes of the same SavedModel and samples.

    python benchmarks/conversion/bare.py prepare RUN FOLDER                  what mltool would convert, and 128 samples
    python benchmarks/conversion/bare.py convert FOLDER SCHEME ...           knows nothing of mltool
    python benchmarks/conversion/bare.py measure RUN FILE.tflite ...         the metric of each on the test split

`table.py` calls these as processes, one after the other; each prints JSON documents, one a line: `convert` one a
scheme, as soon as it is there, in case that the next one crashes.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SCHEMES = ("none", "dynamic", "float16", "int8", "int8-io", "int16x8")
"""What the converter has options for."""

SAMPLES = 128

Samples = dict[str, np.ndarray[Any, Any]]
Row = dict[str, Any]


def bare_converter(tf: Any, folder: str, scheme: str, samples: Samples, *, recurrent: bool = False) -> Any:
    """The converter, set as TensorFlow's guide to post-training quantization sets it.

    Args:
        tf: TensorFlow.
        folder: a SavedModel.
        scheme: one of `SCHEMES`; int8 is "integer with float fallback", int8-io "integer only".
        samples: training samples by input, [n, ...].
        recurrent: sets what no guide has, but what alone makes builtin operators of a recurrent layer of Keras 3.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    converter._experimental_default_to_single_batch_in_tensor_list_ops = recurrent
    if scheme == "none":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in ("int8", "int8-io", "int16x8"):
        converter.representative_dataset = lambda: one_by_one(samples)
    if scheme == "int8-io":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if scheme == "int16x8":
        opsets = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            opsets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            opsets.TFLITE_BUILTINS,
        ]
    return converter


def one_by_one(samples: Samples) -> Iterator[Samples]:
    """Batches of one sample."""
    for row in range(len(next(iter(samples.values())))):
        yield {name: array[row : row + 1] for name, array in samples.items()}


def prepare(run: str, folder: str) -> Iterator[Row]:
    """Writes `saved_model` and `samples.npz`; of a model that takes text the part behind its text, as mltool does."""
    from mltool.conversion.calibration import draw_representative
    from mltool.conversion.sources.core import steps_outside, write_core
    from mltool.evaluation.evaluate import run_data
    from mltool.runs.find import find_run

    found, target = find_run(run), Path(folder)
    schema, data = found.input_schema, run_data(found)
    core = write_core(found.keras_file, schema, target / "core") if steps_outside(schema) else None
    calibration = draw_representative(data, SAMPLES, found.spec.seed, {})
    arrays: dict[str, Any] = dict(calibration.samples.first(SAMPLES))
    for step in core.steps if core else ():
        arrays[step.input] = step(arrays[step.input])
    np.savez(target / "samples.npz", **arrays)
    source = core.saved_model if core and core.saved_model else _exported(found)
    (target / "saved_model").symlink_to(source.absolute())
    yield {"samples": len(calibration.samples)}


def _exported(run: Any) -> Path:
    from mltool.exporting.export import export

    folder: Path = run.saved_model_folder
    if not folder.is_dir():
        export(run)
    return folder


def load_samples(tf: Any, folder: str) -> Samples:
    """What `prepare` wrote, in the types that the model takes."""
    loaded = tf.saved_model.load(str(Path(folder) / "saved_model"))
    specs = loaded.signatures["serving_default"].structured_input_signature[1]
    with np.load(Path(folder) / "samples.npz") as stored:
        return {name: stored[name].astype(specs[name].dtype.as_numpy_dtype) for name in stored.files}


def convert(folder: str, *schemes: str) -> Iterator[Row]:
    """Converts to `SCHEME.tflite` in the folder, or says why not."""
    import tensorflow as tf

    samples = load_samples(tf, folder)
    for scheme in schemes:
        yield {"scheme": scheme, **_convert(tf, Path(folder), scheme, samples)}


def _convert(tf: Any, folder: Path, scheme: str, samples: Samples) -> Row:
    row: Row = {}
    for recurrent in (False, True):
        converter = bare_converter(tf, str(folder / "saved_model"), scheme, samples, recurrent=recurrent)
        started = time.perf_counter()
        try:
            data = converter.convert()
        except Exception as error:  # whatever it is, it is the figure
            row = {**row, "with_flag" if recurrent else "error": _in_short(error)}
            if "TensorList" not in row["error"]:
                break
            continue
        (folder / f"{scheme}.tflite").write_bytes(data)
        return {**row, "bytes": len(data), "seconds": time.perf_counter() - started}
    return row


def _in_short(error: Exception) -> str:
    """The operators that it names, else its first line."""
    found = {data.operator.name.removeprefix("tf.") for data in getattr(error, "errors", ()) if data.operator.name}
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {', '.join(sorted(found)) or lines[0]}"[:300]


def measure(run: str, *files: str) -> Iterator[Row]:
    """The metric of every file on the whole test split, and how often it answers as the Keras model."""
    from mltool.conversion.sources.core import steps_outside, write_core
    from mltool.errors import MltoolError
    from mltool.evaluation.evaluate import run_data
    from mltool.evaluation.reference import reference_of
    from mltool.runs.find import find_run

    found = find_run(run)
    reference = reference_of(found, run_data(found))
    core_folder = Path(files[0]).parent / "core_to_measure"
    outside = steps_outside(found.input_schema)
    steps = write_core(found.keras_file, found.input_schema, core_folder).steps if outside else ()
    for file in files:
        try:
            yield {"scheme": Path(file).stem, **_measured(Path(file), reference, steps)}
        except MltoolError as error:
            yield {"scheme": Path(file).stem, "not_run": str(error)}


def _measured(file: Path, reference: Any, steps: Any) -> Row:
    from mltool.errors import ArtifactError
    from mltool.evaluation.agreement import compare_answers, worst_of
    from mltool.evaluation.metrics import lower_is_better
    from mltool.evaluation.metrics import measure as metric_of
    from mltool.inference.outside import open_lite
    from mltool.inference.predictor import concatenated, in_batches
    from mltool.runs.arrays import together

    row: Row = {}
    with open_lite(file, steps=steps) as predictor:
        try:
            found = predictor.predict(reference.samples.inputs)
        except ArtifactError as error:
            row["whole_batches"] = str(error)
            samples = reference.samples.first(len(reference.samples))
            found = concatenated([predictor.predict(one) for one in in_batches(samples, 1)])
    outputs = together({info.name: found[info.name] for info in reference.schema.outputs})
    asked = reference.metric(None)
    value = metric_of([asked], outputs, reference.samples.targets[:], reference.schema)[asked.name]
    drop = reference.metrics[asked.name] - value
    return {
        **row,
        "metric": {"name": asked.name, "value": value, "drop": -drop if lower_is_better(asked.metric) else drop},
        "agreement": worst_of(compare_answers(reference.outputs, outputs, reference.schema)).to_json(),
    }


COMMANDS: dict[str, Callable[..., Iterator[Row]]] = {"prepare": prepare, "convert": convert, "measure": measure}


def main() -> None:
    """One command; what TensorFlow prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
        raise SystemExit(__doc__)
    for row in COMMANDS[sys.argv[1]](*sys.argv[2:]):
        answers.write(json.dumps(row) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
