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
from mltool.conversion.sources.answers import ForeignPredictor
from mltool.conversion.sources.core import Core
from mltool.conversion.sources.foreign import Foreign
from mltool.conversion.sources.foreign_schema import names_of, require_meaning, schema_of_data, schema_of_signature
from mltool.conversion.sources.generated import DEFAULT, Draw, generate
from mltool.data.dataset import SPLITS, Dataset, Samples
from mltool.data.identity import content_hashes, fingerprint
from mltool.errors import ArtifactError, UsageError
from mltool.evaluation.evaluate import output_of
from mltool.evaluation.metrics import measure
from mltool.evaluation.reference import Reference
from mltool.evaluation.verify import require_from_training
from mltool.inference.answers import by_output
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Predictor
from mltool.runs.input_schema import InputSchema
from mltool.spec.convert import ConvertSpec
from mltool.spec.spec import Spec

logger = logging.getLogger("mltool")

GENERATED_SAMPLES = 256
"""Samples made up for a model without data: its file is held against it on these."""

MADE_UP = "generated"
"""What a record says of the samples that its file was held against, where they were made up; else it is the split."""


class ForeignOrigin:
    """A model that no run trained.

    Args:
        foreign: the model.
        spec: of data for it, with the loss that says what its outputs are; None without data.
        data: of the spec.
        converter: runs it, where it is a SavedModel.
        interpreter: runs it, where it is a `.tflite` file.
        draw: what is made up without data.
        seed: of that.

    Raises:
        DataError: if the data are not what the model takes, or samples cannot be made up.
    """

    def __init__(
        self,
        foreign: Foreign,
        spec: Spec | None,
        data: Dataset | None,
        *,
        converter: Child,
        interpreter: Child,
        draw: Draw = DEFAULT,
        seed: int = 42,
    ) -> None:
        self.foreign, self.spec, self._data, self._draw = foreign, spec, data, draw
        self._converter, self._interpreter = converter, interpreter
        self.name, self.seed = foreign.name, spec.seed if spec else seed
        self.run = None
        self.core = Core(foreign.saved_model, foreign.signature, foreign.float_file)
        self.layer_names = foreign.layers
        self._samples = self._split("test") if data else self._made_up()

    @property
    def data(self) -> Dataset:
        """The samples of the spec.

        Raises:
            UsageError: without a spec.
        """
        if self._data is None:
            raise UsageError(f"{self.name} has no data to calibrate with", "--data SPEC, or --calibration random")
        return self._data

    @cached_property
    def record(self) -> dict[str, Any]:
        """How the record of a file names the model, and the samples that the file was held against."""
        hashes = self._data.hashes[self._data.splits.test] if self._data else content_hashes(self._samples.inputs)
        return {
            "artifact": self.foreign.name,
            "kind": self.foreign.kind,
            "sha256": self.foreign.sha256,
            "signature": self.foreign.signature,
            "loaded_by": self.foreign.loaded_by,
            "held_out": "test" if self._data else MADE_UP,
            "drawn": None if self._data else str(self._draw),
            "samples": len(self._samples),
            "samples_hash": fingerprint(hashes),
        }

    @cached_property
    def schema(self) -> InputSchema:
        """What the signature says, and the data."""
        if self.spec is not None:
            return schema_of_data(self.foreign, self.data, self.spec)
        with self._predictor() as predictor:
            outputs = predictor.predict(self._samples.first(1))
        return schema_of_signature(self.foreign, self._draw, outputs)

    @cached_property
    def reference(self) -> Reference:
        """The model itself, on the test split of the data, or on samples that are made up."""
        found = self._reference_on(self._samples)
        for name, value in found.metrics.items():
            logger.info("%s: %s %.4f on %d test samples, as it came", self.name, name, value, len(found.samples))
        return found

    def _reference_on(self, samples: Samples) -> Reference:
        schema = self.schema
        with self._predictor() as predictor:
            outputs = output_of(predictor, samples.inputs, schema, Path(self.name))
        for name, values in by_output(outputs, schema).items():
            if not np.isfinite(values).all():
                message = f"{self.name} answers {name!r} with NaN or infinity"
                hint = "bring its inputs into range" if self._data else "--input-range NAME=LOW,HIGH says what it takes"
                raise ArtifactError(message, hint)
        if self.spec is None:
            return Reference(samples, outputs, {}, schema, ())
        require_meaning(self.name, outputs, schema)
        asked = self.spec.train.measures
        return Reference(samples, outputs, measure(asked, outputs, samples.targets[:], schema), schema, asked)

    def _predictor(self) -> Predictor:
        if self.foreign.float_file is not None:
            return open_lite(self.foreign.float_file, child=self._interpreter, steps=())
        return ForeignPredictor(self.foreign, self._converter)

    def _split(self, name: str) -> Samples:
        return self._named(self.data.split(name))

    def _named(self, samples: Samples) -> Samples:
        """Samples under the names of the model's inputs."""
        names = names_of(self.foreign, samples.inputs)
        return replace(samples, inputs={theirs: samples.inputs[ours] for theirs, ours in names.items()})

    def _made_up(self) -> Samples:
        """Samples without targets: nobody knows what is right."""
        inputs = generate(self.foreign.inputs, GENERATED_SAMPLES, self.seed, self._draw)
        logger.warning("%s has no data: its files are held against it on samples that are %s", self.name, self._draw)
        return Samples(inputs, np.zeros(0), np.arange(GENERATED_SAMPLES))

    def calibration(self, entry: ConvertSpec) -> Calibration:
        """See `Origin`."""
        if entry.calibration == "random":
            return draw_random(self._schema_with_ranges(), entry.representative, self.seed)
        calibration = draw_representative(self.data, entry.representative, self.seed, {})
        require_from_training(calibration.samples.ids, calibration.hashes, self._stored_splits())
        found = replace(calibration, samples=self._named(calibration.samples), ranges=ranges_of(self.schema))
        require_sound(found)
        return found

    def _schema_with_ranges(self) -> InputSchema:
        """Ranges of the samples that are made up, where there are no data to tell them."""
        if self._data is not None:
            return self.schema
        arrays = self._samples.first(len(self._samples))
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
