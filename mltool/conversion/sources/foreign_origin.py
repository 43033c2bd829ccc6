"""A model of somebody else's as an origin: what it takes and answers is told by its signature, and by data."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mltool.child import Child
from mltool.conversion.calibration import Calibration, draw_random, draw_representative, ranges_of, require_sound
from mltool.conversion.origin import SearchSplit, search_ids
from mltool.conversion.sources.core import Core
from mltool.conversion.sources.foreign import Foreign
from mltool.conversion.sources.generated import DEFAULT, generate
from mltool.data.dataset import SPLITS, Dataset, Samples
from mltool.data.describe import describe_input
from mltool.errors import DataError, UsageError
from mltool.evaluation.evaluate import output_of
from mltool.evaluation.metrics import measure
from mltool.evaluation.reference import Reference
from mltool.evaluation.verify import require_from_training
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Predictor
from mltool.inference.saved_model import SavedModelPredictor
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo
from mltool.spec.convert import ConvertSpec
from mltool.spec.spec import Spec
from mltool.spec.task import output_kind

logger = logging.getLogger("mltool")

GENERATED_SAMPLES = 256
"""Samples made up for a model without data: its file is held against it on these."""


class ForeignOrigin:
    """A model that no run trained.

    Args:
        foreign: the model.
        spec: of data for it, with the loss that says what its outputs are; None without data.
        interpreter: runs it, where it is a `.tflite` file.
        seed: of what is made up without data.

    Raises:
        DataError: if the data are not what the model takes.
    """

    def __init__(self, foreign: Foreign, spec: Spec | None, interpreter: Child, *, seed: int = 42) -> None:
        self.foreign, self.spec, self._interpreter = foreign, spec, interpreter
        self.name, self.seed = foreign.name, spec.seed if spec else seed
        self.run = None
        self.core = Core(foreign.saved_model, foreign.signature, foreign.float_file)
        self.layer_names = foreign.layers
        self.record: dict[str, Any] = {
            "artifact": foreign.name,
            "kind": foreign.kind,
            "sha256": foreign.sha256,
            "signature": foreign.signature,
            "loaded_by": foreign.loaded_by,
            "held_out": "test" if spec else "generated",
        }

    def require_batch(self, entry: ConvertSpec) -> None:
        """Proves that the model can be called with the batch of an entry.

        Raises:
            UsageError: if the model fixes another one.
        """
        batch = self.foreign.batch
        if batch is not None and entry.batch != batch:
            message = f"{entry.name}: {self.name} takes {batch} samples a call (got batch: {entry.batch})"
            raise UsageError(message, f"write batch: {batch}")

    @cached_property
    def data(self) -> Dataset:
        """The samples of the spec.

        Raises:
            UsageError: without a spec.
        """
        if self.spec is None:
            message = f"{self.name} has no data: it can be converted to none, dynamic and float16 only"
            raise UsageError(message, "name a spec of its data: --data SPEC; or calibrate by --calibration random")
        return Dataset(self.spec)

    @cached_property
    def schema(self) -> InputSchema:
        """What the signature says, and the data."""
        return self._schema_of_data(self.spec) if self.spec else self._schema_of_signature()

    def _schema_of_signature(self) -> InputSchema:
        inputs = tuple(
            InputInfo(info.name, info.dtype, tuple(size or 1 for size in info.shape), None, None)
            for info in self.foreign.inputs
        )
        outputs = tuple(
            OutputInfo(info.name, tuple(size or 1 for size in info.shape), "regression", "values")
            for info in self.foreign.outputs
        )
        return InputSchema(inputs, outputs)

    def _schema_of_data(self, spec: Spec) -> InputSchema:
        train, data = self._split("train"), self.data
        names = dict(zip(train.inputs, data.source.inputs, strict=True))
        of_data = data.split("train")
        inputs = [replace(describe_input(names[name], of_data, data.source), name=name) for name in train.inputs]
        for info in inputs:
            self._require_shape(info)
        found = {info.name: info for info in self.foreign.outputs}
        outputs = []
        for key, meaning in data.meanings.items():
            name = key or self.foreign.outputs[0].name
            if name not in found or len(data.meanings) != len(found):
                described = ", ".join(data.meanings)
                message = f"{self.name} has the outputs {', '.join(found)}; the spec describes {described}"
                raise DataError(message, "write train.outputs with the names of the model")
            shape = tuple(size or 1 for size in found[name].shape)
            if meaning.labels and meaning.task == "classification" and shape != (len(meaning.labels),):
                message = f"{self.name} answers with {shape} values, the data have {len(meaning.labels)} classes"
                raise DataError(message, "name them all in the order of the model: data.source.classes")
            kind = output_kind(spec.train.heads[key].loss)
            outputs.append(OutputInfo(name, shape, meaning.task, kind, meaning.labels, columns=meaning.columns))
        return InputSchema(tuple(inputs), tuple(outputs))

    def _require_shape(self, info: InputInfo) -> None:
        wanted = next(end for end in self.foreign.inputs if end.name == info.name)
        fits = len(info.shape) == len(wanted.shape) and all(
            size in (None, found) for size, found in zip(wanted.shape, info.shape, strict=True)
        )
        if not fits or (info.dtype == "string") != (wanted.dtype == "string"):
            shown = tuple("any" if size is None else size for size in wanted.shape)
            message = f"{self.name} takes {wanted.dtype} of shape {shown} as {info.name!r}; the data give {info.dtype}"
            raise DataError(f"{message} of shape {info.shape}", "bring the data to that shape")

    def _split(self, name: str) -> Samples:
        return self._named(self.data.split(name))

    def _named(self, samples: Samples) -> Samples:
        """Samples under the names of the model's inputs; where both have one only, it need not be called alike."""
        ours, theirs = list(samples.inputs), [info.name for info in self.foreign.inputs]
        if len(ours) == len(theirs) == 1:
            return replace(samples, inputs={theirs[0]: samples.inputs[ours[0]]})
        if set(ours) != set(theirs):
            message = f"{self.name} takes {', '.join(theirs)}; the data give {', '.join(ours)}"
            raise DataError(message, "name them under data.inputs")
        return replace(samples, inputs={name: samples.inputs[name] for name in theirs})

    @cached_property
    def reference(self) -> Reference:
        """The model itself, on the test split of the data, or on samples that are made up."""
        samples = self._split("test") if self.spec else self._generated()
        if not self.spec:
            logger.warning("%s has no data: its files are held against it on samples that are %s", self.name, DEFAULT)
        return self._reference_on(samples)

    def _reference_on(self, samples: Samples) -> Reference:
        schema = self.schema
        with self._predictor() as predictor:
            outputs = output_of(predictor, samples.inputs, schema, Path(self.name))
        asked = self.spec.train.measures if self.spec else ()
        metrics = measure(asked, outputs, samples.targets[:], schema) if asked else {}
        return Reference(samples, outputs, metrics, schema, asked)

    def _predictor(self) -> Predictor:
        if self.foreign.saved_model is not None:
            return SavedModelPredictor(self.foreign.saved_model, self.foreign.signature)
        assert self.foreign.float_file is not None  # noqa: S101  one of the two is there
        return open_lite(self.foreign.float_file, child=self._interpreter, steps=())

    def _generated(self) -> Samples:
        inputs = generate(self.foreign.inputs, GENERATED_SAMPLES, self.seed)
        return Samples(inputs, np.zeros(GENERATED_SAMPLES, np.int64), np.arange(GENERATED_SAMPLES))

    def calibration(self, entry: ConvertSpec) -> Calibration:
        """See `Origin`."""
        if entry.calibration == "random":
            return draw_random(self._schema_with_ranges(), entry.representative, self.seed)
        calibration = draw_representative(self.data, entry.representative, self.seed, {})
        require_from_training(calibration.samples.ids, calibration.hashes, self._stored_splits())
        names = dict(zip(self.data.source.inputs, (info.name for info in self.schema.inputs), strict=True))
        inputs = {names[name]: array for name, array in calibration.samples.inputs.items()}
        found = replace(calibration, samples=replace(calibration.samples, inputs=inputs), ranges=ranges_of(self.schema))
        require_sound(found)
        return found

    def _schema_with_ranges(self) -> InputSchema:
        """Ranges of the samples that are made up, where there are no data to tell them."""
        if self.spec:
            return self.schema
        samples = self._generated()
        arrays = samples.first(len(samples))
        inputs = tuple(
            replace(info, minimum=float(arrays[info.name].min()), maximum=float(arrays[info.name].max()))
            for info in self.schema.inputs
        )
        return replace(self.schema, inputs=inputs)

    def _stored_splits(self) -> Mapping[str, Any]:
        """As a run stores them."""
        splits = {name: getattr(self.data.splits, name) for name in SPLITS}
        ids = {f"{name}_ids": found for name, found in splits.items()}
        return {**ids, **{f"{name}_hashes": self.data.hashes[found] for name, found in splits.items()}}

    def search_reference(self, split: SearchSplit, most: int) -> Reference:
        """See `Origin`."""
        return self._reference_on(self._named(self.data.take(search_ids(self.data, split, most))))
