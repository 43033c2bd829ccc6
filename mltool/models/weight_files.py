"""Weights in a file of Keras, layer by layer; no model is built and no code of the file is run."""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ArtifactError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StoredModel:
    """A model of a file: the file's own, or one that is a layer in it.

    Attributes:
        name: of the model.
        layers: name to weights, in Keras' order; layers without weights have none.
    """

    name: str
    layers: Mapping[str, tuple[Array, ...]]


def read_models(file: Path) -> list[StoredModel]:
    """All models in a file, the outer ones first.

    Args:
        file: `.keras` or `.weights.h5` of Keras 3, or `.h5` as Keras Applications are published.

    Raises:
        ArtifactError: if it is damaged, or no such file.
    """
    import h5py

    try:
        if file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                opened: Any = io.BytesIO(archive.read("model.weights.h5"))
        else:
            opened = file
        with h5py.File(opened, "r") as root:
            found = [_published(root)] if "layer_names" in root.attrs else list(_saved(root, root))
    # h5py raises what it meets in a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{file} is damaged, or no file of Keras' weights: {reason}") from error
    if not found:
        raise ArtifactError(f"{file} holds no layers with weights", "save it with Keras 3")
    return found


def _saved(group: Any, root: Any, name: str = "") -> Iterator[StoredModel]:
    """Models as Keras 3 saves them: a group a layer, called after its class, with the layer's name in `vars`."""
    layers: dict[str, tuple[Array, ...]] = {}
    inside = []
    for key, below in group.get("layers", {}).items():
        own = str(below["vars"].attrs.get("name", key)) if "vars" in below else key
        variables = below.get("vars", {})
        layers[own] = tuple(_array(variables[str(index)], root) for index in range(len(variables)))
        if "layers" in below:
            inside.append((own, below))
    if layers:
        yield StoredModel(name, layers)
    for own, below in inside:
        yield from _saved(below, root, own)


def _published(root: Any) -> StoredModel:
    """A model as Keras 2 saves weights."""
    layers = {}
    for name in map(_text, root.attrs["layer_names"]):
        group = root[name]
        layers[name] = tuple(_array(group[_text(weight)], root) for weight in group.attrs["weight_names"])
    return StoredModel("", layers)


def _array(dataset: Any, root: Any) -> Array:
    """The numbers of a weight.

    Raises:
        ValueError: if they lie in another file: HDF5 reads any that the user may read, and a model that is passed on
            would carry it.
    """
    if dataset.external or dataset.is_virtual or dataset.file.filename != root.filename:
        raise ValueError("its numbers lie in another file")
    found: Array = dataset[()]
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def choose(models: Sequence[StoredModel], name: str, wanted: Iterable[str]) -> StoredModel:
    """The model of a file that is meant: the one with this name, else the one that has most of the layers.

    Args:
        models: of the file; at least one.
        name: of the layer that the weights are for.
        wanted: names of its layers.
    """
    counted = set(numbered_anew(wanted))
    named = [model for model in models if model.name == name]
    return max(named or models, key=lambda model: len(counted & set(numbered_anew(model.layers))))


def numbered_anew(names: Iterable[str]) -> dict[str, str]:
    """Names as Keras would number them in a new process, with the name that each stands for.

    Keras counts the layers without a name of their own over a whole process: `conv2d_94` is `conv2d` there.
    """
    numbers = [(found[1], int(found[2] or 0), name) for name in names if (found := _NUMBERED.fullmatch(name))]
    ranks: Counter[str] = Counter()
    anew = {}
    for base, _, name in sorted(numbers):
        anew[f"{base}_{ranks[base]}" if ranks[base] else base] = name
        ranks[base] += 1
    return anew


_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?", re.DOTALL)


def load_into(layers: Sequence[Any], stored: StoredModel) -> None:
    """Puts weights into layers, by their names; nothing is changed unless all of them fit.

    Raises:
        ValueError: naming the first layer that is missing or has other shapes.
    """
    exact = all(layer.name in stored.layers for layer in layers if _variables(layer))
    theirs = {name: name for name in stored.layers} if exact else numbered_anew(stored.layers)
    names = [layer.name for layer in layers]
    ours = {name: name for name in names} if exact else {old: new for new, old in numbered_anew(names).items()}
    found = [(layer, stored.layers.get(theirs.get(ours[layer.name], ""), ())) for layer in layers if _variables(layer)]
    for layer, arrays in found:
        _require_fit(layer, arrays)
    for layer, arrays in found:
        layer.load_own_variables({str(index): array for index, array in enumerate(arrays)})


def _variables(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _require_fit(layer: Any, arrays: Sequence[Array]) -> None:
    variables = _variables(layer)
    if not arrays:
        raise ValueError(f"the first layer that differs is {layer.name!r}: it is not there")
    for variable, array in zip(variables, arrays, strict=False):
        if tuple(variable.shape) != array.shape:
            message = f"its {variable.name} is {array.shape} there, {tuple(variable.shape)} here"
            raise ValueError(f"the first layer that differs is {layer.name!r}: {message}")
    if len(variables) != len(arrays):
        message = f"it has {len(arrays)} weights there, {len(variables)} here"
        raise ValueError(f"the first layer that differs is {layer.name!r}: {message}")
