"""What a `.tflite` file is made of and held against: a run, or a model that somebody else trained."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from mltool.conversion.calibration import Calibration, draw_random, draw_representative, ranges_of, require_sound
from mltool.conversion.entries import ending_layers
from mltool.conversion.sources.core import Core, steps_outside, write_core
from mltool.data.dataset import Dataset
from mltool.data.scratch import spread
from mltool.data.source import Array
from mltool.errors import DataError
from mltool.evaluation.evaluate import run_data
from mltool.evaluation.reference import Reference, reference_of, reference_on
from mltool.evaluation.verify import require_from_training
from mltool.exporting.export import SIGNATURE
from mltool.inspection.model_summary import load_summary
from mltool.runs.input_schema import InputSchema
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec

SearchSplit = Literal["validation", "train"]
"""What a search may look at; the test split is left for its winner."""


class Origin(Protocol):
    """A model, what feeds it, and what its answers are.

    Attributes:
        name: for messages.
        seed: of what is drawn.
    """

    name: str
    seed: int

    @property
    def run(self) -> Run | None:
        """That it is of; None of a model of somebody else's."""
        ...

    @property
    def schema(self) -> InputSchema:
        """What it takes and answers."""
        ...

    @property
    def core(self) -> Core:
        """What an engine reads."""
        ...

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Of the model, preprocessing first; empty where they are not known."""
        ...

    @property
    def reference(self) -> Reference:
        """The model on held-out samples."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """How the record of a file names it."""
        ...

    def calibration(self, entry: ConvertSpec) -> Calibration:
        """The samples that calibrate a file, proven to be sound.

        Raises:
            DataError: if they are not, or there are none.
        """
        ...

    def search_reference(self, split: SearchSplit, most: int) -> Reference:
        """The model on samples that a search chooses by.

        Args:
            split: that they are of.
            most: samples at most, evenly taken from all.

        Raises:
            DataError: if there are none.
        """
        ...


class RunOrigin:
    """A trained and exported run.

    Args:
        run: locked by the caller.
        scratch: where a part of its model is written, should it be needed.
    """

    def __init__(self, run: Run, scratch: Path) -> None:
        self.run, self._scratch = run, scratch
        self.name, self.schema, self.seed = run.id, run.input_schema, run.spec.seed

    @cached_property
    def data(self) -> Dataset:
        """All samples of the run."""
        return run_data(self.run)

    @cached_property
    def core(self) -> Core:
        """The SavedModel of the run, or its part behind the steps that take text."""
        if not steps_outside(self.schema):
            return Core(self.run.saved_model_folder, SIGNATURE)
        return write_core(self.run.keras_file, self.schema, self._scratch / "core")

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        """See `Origin`."""
        outside = {step.name for step in self.schema.preprocessing if step.takes_text}
        inside = [step.name for step in self.schema.preprocessing if not step.takes_text]
        own = [*inside, *self.run.spec.model.own_names, *ending_layers(self.schema)]
        skipped = outside | {info.name for info in self.schema.inputs}
        known = [name for name in self._summarized() if name.partition("/")[0] not in skipped]
        # A layer that is none of Keras' leaves only the name of the model that it lies in.
        return tuple(dict.fromkeys(part for name in [*known, *own] for part in (name.partition("/")[0], name)))

    def _summarized(self) -> list[str]:
        """All layers as training wrote them down, those of models inside of the model as `outer/inner`."""
        file = self.run.model_summary_file
        return [layer.layer for layer in load_summary(file).layers] if file.is_file() else []

    @cached_property
    def reference(self) -> Reference:
        """The Keras model on the test split; kept as the run's evaluation."""
        return reference_of(self.run, self.data, keep=True)

    @property
    def record(self) -> dict[str, Any]:
        """See `Origin`."""
        return {"artifact": "saved_model/1", "sha256": self.run.artifact_hash(self.run.saved_model_folder)}

    def calibration(self, entry: ConvertSpec) -> Calibration:
        """See `Origin`."""
        if entry.calibration == "random":
            return draw_random(self.schema, entry.representative, self.seed)
        calibration = draw_representative(self.data, entry.representative, self.seed, ranges_of(self.schema))
        # What was drawn is not trusted either: the promise is about samples, not about the function that draws them.
        require_from_training(calibration.samples.ids, calibration.hashes, self.run.load_splits())
        require_sound(calibration)
        return calibration

    def search_reference(self, split: SearchSplit, most: int) -> Reference:
        """See `Origin`."""
        return reference_on(self.run, self.data.take(search_ids(self.data, split, most)))


def search_ids(data: Dataset, split: SearchSplit, most: int) -> Array:
    """Positions of samples of a split, evenly taken from all.

    Raises:
        DataError: if there are none.
    """
    ids = data.splits.train if split == "train" else data.splits.validation
    if not len(ids):
        message = "a search chooses by validation samples, and there are none"
        raise DataError(message, "write data.split.validation: 0.1, and train again")
    return spread(ids, most)
