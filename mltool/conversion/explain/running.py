"""A `.tflite` file whose intermediate tensors can be read after a call; runs inside the child process."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool import extras
from mltool.conversion.explain.statistics import CODES, dequantized
from mltool.errors import ArtifactError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import ModelFile, Tensor
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz

Array = NDArray[Any]


class OpenFile:
    """A file and its interpreter.

    With `keep` it runs without XNNPACK: a delegate fuses operators, and what lies between them is never written.

    Args:
        path: of the file.
        layer_names: the Keras layers in the order of the model.
        keep: whether every tensor keeps its values; without it only the outputs do, and it runs as predictors run it.

    Raises:
        ArtifactError: the file is damaged, or this runtime cannot run it.
    """

    def __init__(self, path: str, layer_names: list[str], *, keep: bool = True) -> None:
        self.path = path
        self.file: ModelFile = read_flatbuffer(Path(path), layer_names)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read at the import
        litert = extras.require("ai_edge_litert.interpreter")
        kinds = litert.OpResolverType
        try:
            self._interpreter = litert.Interpreter(
                model_path=path,
                num_threads=1,
                experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep else kinds.AUTO,
                experimental_preserve_all_tensors=keep,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error

    @property
    def inputs(self) -> dict[str, Tensor]:
        """By the names of its signature, else by their own."""
        if self.file.signatures:
            return dict(self.file.signatures[0].inputs)
        return {tensor.name: tensor for tensor in self.file.inputs}

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Likewise."""
        if self.file.signatures:
            return dict(self.file.signatures[0].outputs)
        return {tensor.name: tensor for tensor in self.file.outputs}

    @property
    def batch(self) -> int:
        """Samples of one call: a batch that the file leaves free is 1 here."""
        sizes = [tensor.shape[0] for tensor in self.inputs.values() if tensor.shape]
        return max(sizes[0], 1) if sizes else 1

    def run(self, samples: Mapping[str, Array]) -> None:
        """Runs one batch; floats become the file's own integers where its inputs are such.

        Args:
            samples: `[batch, ...]` by name of the input.

        Raises:
            ArtifactError: this runtime cannot run the file.
        """
        try:
            self._interpreter.reset_all_variables()  # else a recurrent layer goes on from the sample before
            for name, tensor in self.inputs.items():
                self._interpreter.set_tensor(tensor.index, _stored(samples[name], tensor))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self.path} cannot be run: {' '.join(str(error).split())[:200]}") from error

    def stored(self, tensor: Tensor) -> Array:
        """What a tensor holds, as it is stored."""
        found: Array = self._interpreter.get_tensor(tensor.index)
        return found

    def values(self, tensor: Tensor) -> Array:
        """What a tensor stands for; float32."""
        return dequantized(self.stored(tensor), tensor.scales, tensor.zero_points, tensor.quantized_dimension)


def _stored(values: Array, tensor: Tensor) -> Array:
    """Values in the type of an input: round(x / scale) + zero_point, clipped, where that is quantized."""
    if tensor.scales and tensor.dtype in CODES:
        least, greatest = CODES[tensor.dtype]
        values = np.clip(np.round(values / tensor.scales[0]) + tensor.zero_points[0], least, greatest)
    return np.ascontiguousarray(values.astype(tensor.dtype))


def batches_of(samples: Mapping[str, Array], size: int, most: int) -> Iterator[dict[str, Array]]:
    """Batches of exactly `size`, of at most `most` samples, the last one filled up from the front."""
    count = min(len(next(iter(samples.values()))), most)
    for start in range(0, count, size):
        chosen = np.arange(start, start + size) % count
        yield {name: array[chosen] for name, array in samples.items()}


def read_samples(path: str, names: Mapping[str, Tensor]) -> dict[str, Array]:
    """The arrays of an `.npz` file, one for every input, `[n, ...]`.

    Raises:
        ArtifactError: it cannot be read, or holds other inputs or no sample.
    """
    try:
        samples = read_npz(Path(path))
    except UNREADABLE_NPZ as error:
        raise ArtifactError(f"cannot read the samples {path}: {error}") from error
    if set(samples) != set(names):
        raise ArtifactError(f"the samples have inputs {sorted(samples)}, the file {sorted(names)}")
    if not samples or not all(array.ndim and len(array) for array in samples.values()):
        raise ArtifactError(f"the samples {path} hold no sample", "give 1 or more; 64 are enough")
    return samples
