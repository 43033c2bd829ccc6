"""A SavedModel as the converter is to see it: what it holds, and a copy with a fixed batch; read without loading it."""

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.conversion.sources.graph_check import SavedGraph, read_saved_model, serving_graph
from mltool.errors import ConversionError, DiskError

_Mark = tuple[tuple[str, int, int], ...]

GRAPH_FILE = "saved_model.pb"
_FINGERPRINT = "fingerprint.pb"
"""What the graph hashes to, for statistics of TensorFlow's; of another graph it would be wrong."""


@dataclass(frozen=True)
class OpenedModel:
    """One signature of a SavedModel.

    Attributes:
        folder: of it.
        signature: key of the signature.
        specs: TensorSpecs by the name of the input.
        recurrent: whether a layer keeps its steps in a TensorList, as Keras 3's recurrent layers do.
        wide: whether something computes in float64.
        key: tells it from every other model of this process.
    """

    folder: Path
    signature: str
    specs: Mapping[str, Any]
    recurrent: bool
    wide: bool
    key: str

    def with_batch(self, batch: int, scratch: Path) -> str:
        """Writes the model again with a fixed batch, which rids the file of the operators that compute shapes.

        The shape of the signature's placeholders is changed in the graph; the converter infers those behind them.
        Loading, tracing and saving the model gives the same operators (the same bytes, of six of eight models; names
        differ in the others), and took as long again as the conversion.

        Args:
            batch: number of samples.
            scratch: where the folder is made, unless it is there.

        Returns:
            The folder.

        Raises:
            ConversionError: an input has another batch for good.
            DiskError: the folder cannot be written.
        """
        folder = scratch / f"{self.key}-{batch}"
        if not folder.exists():
            proto = self._fixed(batch)
            try:
                _write(self.folder, folder, proto.SerializeToString(deterministic=True))
            except OSError as error:
                raise DiskError(f"cannot write {folder}: {error.strerror}") from error
        return str(folder)

    def _fixed(self, batch: int) -> Any:
        """The SavedModel message with the batch in it."""
        proto = read_saved_model(self.folder)
        graph = serving_graph(self.folder, proto)
        nodes = {node.name: node for node in graph.graph_def.node}
        for name, info in sorted(graph.signature_def[self.signature].inputs.items()):
            placeholder = nodes[info.name.partition(":")[0]]
            for shape in (info.tensor_shape, placeholder.attr["shape"].shape):
                if shape.dim and shape.dim[0].size not in (-1, batch):
                    message = f"input {name!r} has a batch of {shape.dim[0].size} for good, not {batch}"
                    raise ConversionError(message, f"write batch: {shape.dim[0].size}, or export it with a free one")
                if shape.dim:
                    shape.dim[0].size = batch
        return proto


def _write(source: Path, folder: Path, graph: bytes) -> None:
    """A copy of a SavedModel with another graph, whole or not at all."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a child that was ended
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        target = part / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.relative_to(part) not in (Path(GRAPH_FILE), Path(_FINGERPRINT)):
            _link(file, target)
    (part / GRAPH_FILE).write_bytes(graph)
    part.rename(folder)


def _link(source: Path, target: Path) -> None:
    """The weights, which nobody changes here, are not copied where the file system can do without."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def open_saved_model(folder: str, signature: str) -> OpenedModel:
    """Reads a SavedModel, or gives the one that was read last where it is the same: several schemes, one look.

    Raises:
        ArtifactError: it is damaged.
        ConversionError: it has no such signature, or an input without a rank.
    """
    return _open(folder, signature, _mark(Path(folder)))


def _mark(folder: Path) -> _Mark:
    """Tells a folder that was written anew from the one that was read."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@functools.lru_cache(maxsize=1)
def _open(folder: str, signature: str, mark: _Mark) -> OpenedModel:
    tf = extras.tensorflow()
    meta_graph = serving_graph(Path(folder), read_saved_model(Path(folder)))
    signatures = meta_graph.signature_def
    if signature not in signatures:
        known = sorted(key for key in signatures if not key.startswith("__"))
        raise ConversionError(f"the SavedModel {folder} has no signature {signature!r}", f"it has {known}")
    infos = signatures[signature].inputs
    specs = {name: tf.TensorSpec(infos[name].tensor_shape, infos[name].dtype, name) for name in sorted(infos)}
    for name, spec in specs.items():
        if spec.shape.rank is None:
            raise ConversionError(
                f"input {name!r} of signature {signature!r} has no rank: a .tflite file needs one",
                "export the model with a shape, None where a length is free",
            )
    nodes = [node.proto for node in SavedGraph(meta_graph).reached_by(signatures[signature])]
    return OpenedModel(
        folder=Path(folder),
        signature=signature,
        specs=specs,
        recurrent=any(node.op.startswith("TensorList") for node in nodes),
        wide=any(value.type == tf.float64.as_datatype_enum for node in nodes for value in node.attr.values()),
        key=f"{abs(hash((folder, signature, mark))):x}",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error that is not empty."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
