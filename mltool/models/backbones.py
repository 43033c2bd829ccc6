"""Keras Applications as layers: a model in the model, with weights from a file, cut where the spec says."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import MachineError, Message, SpecError
from mltool.models.architectures.architecture import require_form
from mltool.models.keras_objects import REFUSALS, reason_of
from mltool.models.weight_files import choose, load_into, read_models
from mltool.spec.argument_check import did_you_mean
from mltool.spec.backbones import IMAGENET, weights_file

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class Backbone:
    """A model of `keras.applications`, as a block (see `models/blocks.py`).

    Takes float [batch, height, width, channels], scaled as its weights were trained.

    Attributes:
        function: name in `keras.applications`.
        given: the arguments of the spec, with `weights` and `until`.
        name: of the layer in the model; a model of that name in the file of weights is taken.
        at: dotted key of the spec, for messages.
    """

    function: str
    given: Mapping[str, Any]
    name: str
    at: str

    @property
    def kind(self) -> str:
        """What the block is called where preprocessing steps are described."""
        return self.function

    def arguments(self) -> dict[str, Any]:
        """See `Block`."""
        return dict(self.given)

    def graph(self, inputs: Any) -> Any:
        """See `Block`.

        Raises:
            SpecError: if the file of weights is of another architecture, or there is no layer to cut at.
            ArtifactError: if that file is damaged.
            MachineError: if published weights cannot be downloaded.
            ValueError: if the input does not fit; Keras says how.
        """
        require_form(inputs, "image")
        model = self._build(inputs)
        output = self._output(model)
        file = weights_file(self.function, self.given)
        if file is not None:
            self._load(Path(file), extras.keras().Model(inputs, output))
        return output

    def _build(self, inputs: Any) -> Any:
        keras = extras.keras()
        options = {key: value for key, value in self.given.items() if key not in ("weights", "until")}
        weights = IMAGENET if self.given["weights"] == IMAGENET else None
        build = getattr(keras.applications, self.function)
        shape = tuple(inputs.shape[1:])
        try:
            with _numbering_of_a_new_process(), _no_bar_on_stdout():
                # Without a name: some take it for that of a known size (EfficientNetV2), some put it before those of
                # their layers (ConvNeXt), which are then others than in a file of weights.
                return build(input_tensor=inputs, input_shape=shape, weights=weights, **options)
        except REFUSALS as error:
            smallest = re.search(r"at least (\d+)x(\d+)", str(error))
            if smallest is None:
                raise
            cure = f"put Resizing: {{height: {smallest[1]}, width: {smallest[2]}}} under model.preprocess"
            raise ValueError(f"{self.function} takes images of {smallest[1]}x{smallest[2]} and more: {cure}") from error
        # What Keras raises where a download fails.
        except Exception as error:
            if weights is None:
                raise
            message = f"the published weights of {self.function} cannot be downloaded: {reason_of(error)}"
            hint = f"write {self.at}.weights: FILE, of a machine that can, or weights: none"
            raise MachineError(message, hint) from error

    def _output(self, model: Any) -> Any:
        until = self.given.get("until")
        if until is None:
            return model.output
        names = [layer.name for layer in model.layers]
        if until not in names:
            hint = did_you_mean(until, names) or f"its last layers are {', '.join(names[-5:])}"
            raise SpecError(Message(f"{self.function} has no layer {until!r}", hint, key=f"{self.at}.until"))
        return model.get_layer(until).output

    def _load(self, file: Path, model: Any) -> None:
        key = f"{self.at}.weights"
        if not file.is_file():
            raise SpecError(Message(f"{file} is not there", "put it back", key=key))
        stored = choose(read_models(file), self.name, [layer.name for layer in model.layers])
        try:
            load_into(model.layers, stored)
        except ValueError as error:
            where = f"its model {stored.name!r}" if stored.name else "it"
            hint = f"write what {where} was built with: the function, alpha and its like, the channels of its input"
            message = f"{file} holds the weights of another architecture; {error}"
            raise SpecError(Message(message, hint, key=key)) from error


def warn_of_scaling(function: str, arguments: Mapping[str, Any], tensor: Any) -> None:
    """Says so where published weights get pixels on another scale than they were trained on; tries black and white.

    Args:
        function: name in `keras.applications`.
        arguments: of the spec.
        tensor: that the backbone takes, as a part of the model.
    """
    keras = extras.keras()
    sources = keras.utils.get_source_inputs(tensor)
    of_images = len(sources) == 1 and len(sources[0].shape) == 4 and sources[0].shape[-1] == tensor.shape[-1] == 3
    if arguments["weights"] != IMAGENET or arguments.get("include_preprocessing") is False or not of_images:
        return
    module = getattr(keras.applications, function).__module__.rpartition(".")[2]
    published = getattr(keras.applications, module).preprocess_input
    pixels = [np.full((1, *sources[0].shape[1:]), value, np.float32) for value in (0, 255)]
    given = keras.Model(sources[0], tensor)
    found = [np.asarray(given(each)).mean(axis=(0, 1, 2)) for each in pixels]
    meant = [np.asarray(published(each.copy())).mean(axis=(0, 1, 2)) for each in pixels]
    if not np.allclose(found, meant, rtol=0.02, atol=0.02):
        logger.warning(
            "the published weights of %s take black and white pixels as %s and %s, and get %s and %s: see the README,"
            " Fine-tuning, for the preprocessing of each family",
            *(function, *map(_shown, meant), *map(_shown, found)),
        )


def _shown(channels: Any) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in channels)}]"


@contextmanager
def _numbering_of_a_new_process() -> Iterator[None]:
    """Lets Keras number layers from the beginning: `conv2d_5` must be the same layer in every run of a spec."""
    from keras.src.backend.common import global_state
    from keras.src.utils import naming

    before = global_state.get_global_attribute("object_name_uids")
    naming.reset_uids()
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


@contextmanager
def _no_bar_on_stdout() -> Iterator[None]:
    """Keeps the progress of a download away from stdout, which is for results."""
    utils = extras.keras().utils
    shown = utils.is_interactive_logging_enabled()
    utils.disable_interactive_logging()
    try:
        yield
    finally:
        if shown:
            utils.enable_interactive_logging()
