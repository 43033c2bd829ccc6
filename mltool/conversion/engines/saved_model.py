"""A SavedModel as the converter is to see it: what it holds, and a copy of it with a fixed batch."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ConversionError

_Mark = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class OpenedModel:
    """One signature of a SavedModel.

    Attributes:
        loaded: what TensorFlow made of the folder.
        signature: key of the signature.
        specs: TensorSpecs by the name of the input.
        recurrent: whether a layer keeps its steps in a TensorList, as Keras 3's recurrent layers do.
        wide: whether something computes in float64.
        key: tells it from every other model of this process.
    """

    loaded: Any
    signature: str
    specs: Mapping[str, Any]
    recurrent: bool
    wide: bool
    key: str

    def with_batch(self, batch: int, scratch: Path) -> str:
        """Saves the signature again with a fixed batch, which rids the file of the operators that compute shapes.

        The loaded signature is wrapped, never the Keras model: calibration of such a file finds its variables null.

        Args:
            batch: number of samples.
            scratch: where the folder is made, unless it is there.

        Returns:
            The folder.
        """
        folder = scratch / f"{self.key}-{batch}"
        if not folder.exists():
            self._save(batch, folder)
        return str(folder)

    def _save(self, batch: int, folder: Path) -> None:
        import tensorflow as tf

        function = self.loaded.signatures[self.signature]
        fixed = {
            name: tf.TensorSpec([batch, *spec.shape[1:]] if spec.shape.rank else spec.shape, spec.dtype, name=name)
            for name, spec in self.specs.items()
        }
        module = tf.Module()
        module.loaded = self.loaded  # owns the variables
        # A function of its own: tf.function would take the loaded one as it is, free batch and all.
        wrapped = tf.function(lambda **inputs: function(**inputs)).get_concrete_function(**fixed)  # noqa: PLW0108
        part = folder.with_name(f"{folder.name}.part")
        tf.saved_model.save(module, str(part), signatures={self.signature: wrapped})
        part.rename(folder)  # whole or not at all


def open_saved_model(folder: str, signature: str) -> OpenedModel:
    """Loads a SavedModel, or gives the one that was loaded last where it is the same: several schemes, one load.

    Raises:
        ConversionError: it cannot be loaded, has no such signature, or an input without a rank.
    """
    return _open(folder, signature, _mark(Path(folder)))


def _mark(folder: Path) -> _Mark:
    """Tells a folder that was written anew from the one that was loaded."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@functools.lru_cache(maxsize=1)
def _open(folder: str, signature: str, mark: _Mark) -> OpenedModel:
    tf = extras.tensorflow()

    try:
        loaded = tf.saved_model.load(folder)
    except Exception as error:
        raise ConversionError(f"cannot load the SavedModel {folder}: {first_line(error)}") from error
    if signature not in loaded.signatures:
        raise ConversionError(
            f"the SavedModel {folder} has no signature {signature!r}", f"it has {sorted(loaded.signatures)}"
        )
    function = loaded.signatures[signature]
    specs = function.structured_input_signature[1]
    for name, spec in specs.items():
        if spec.shape.rank is None:
            raise ConversionError(
                f"input {name!r} of signature {signature!r} has no rank: a .tflite file needs one",
                "export the model with a shape, None where a length is free",
            )
    graph = function.graph.as_graph_def()
    nodes = [node for body in (graph.node, *(body.node_def for body in graph.library.function)) for node in body]
    return OpenedModel(
        loaded=loaded,
        signature=signature,
        specs=specs,
        recurrent=any(node.op.startswith("TensorList") for node in nodes),
        wide=any(value.type == tf.float64.as_datatype_enum for node in nodes for value in node.attr.values()),
        key=f"{abs(hash((folder, signature, mark))):x}",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error that is not empty."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
