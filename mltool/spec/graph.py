"""Reads lists of layers into one flat graph: names, blocks that repeat, layers that are used twice."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mltool.spec.architectures import architecture_problems
from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.backbones import backbone_problems
from mltool.spec.blocks import AUGMENTATIONS, MIXERS
from mltool.spec.catalogue import KerasObject, Problem, call_arguments
from mltool.spec.catalogue_entries import backbones
from mltool.spec.own_things import OwnThing, parse_entry

Place = tuple[str | int, ...]

BLOCK, SHARED = "Block", "Shared"
"""Entries of a list of layers that are no layers of their own: see `Reader`."""

LEARNING = ("Discretization", "IntegerLookup", "Normalization", "StringLookup", "TextVectorization")
"""Layers of Keras that see training data before training."""

KNOWN_ALREADY = ("mean", "variance", "vocabulary", "bin_boundaries")
"""Arguments that give a layer what it would learn from data."""

BLOCK_INPUT = "input"
"""What a block takes, under `inputs` of its layers."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer of the graph.

    Attributes:
        name: unique in the model; made from the class where the spec gives none.
        layer: the Keras layer, with its arguments but `inputs` and `name`; or `Shared`, with the `layer` that it is.
        inputs: names of layers or of model inputs; empty means the layer before (or the only input).
        named: whether the spec gave the name; of no consequence for the model, so not compared.
        place: where it stands in the `model` section; likewise.
    """

    name: str
    layer: KerasObject
    inputs: tuple[str, ...] = ()
    named: bool = field(default=False, compare=False)
    place: Place = field(default=(), compare=False)

    @property
    def shares(self) -> str | None:
        """The layer whose weights it uses again; None for a layer of its own."""
        return self.layer.arguments["layer"] if self.layer.name == SHARED else None

    def place_of(self, *path: str | int) -> Place:
        """Where `inputs` or `name` stands: among the arguments of Keras' layers, beside `python:` of one's own."""
        return (*(self.place[:-1] if isinstance(self.layer, OwnThing) else self.place), *path)

    def to_spec(self) -> Any:
        """The YAML form, with the name that was given or made."""
        said: dict[str, Any] = {"name": self.name}
        if self.inputs:
            said["inputs"] = list(self.inputs)
        if isinstance(self.layer, OwnThing):
            return {**self.layer.to_spec(), **said}
        arguments = {**self.layer.arguments, **said}
        return KerasObject(self.layer.name, arguments).to_spec()


def snake_case(class_name: str) -> str:
    """`Conv2D` to `conv2d`, `GlobalAveragePooling2D` to `global_average_pooling2d`, as Keras names its layers."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


@dataclass
class _Scope:
    """Names that the layers of a list may use, and what they stand for.

    Attributes:
        prefix: of the names of layers in it; "" outside of all blocks.
        parent: the list around it.
        full: name in the model by name in this list.
    """

    prefix: str = ""
    parent: "_Scope | None" = None
    full: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The name in the model; a name that no list knows is that of an input, or is told later."""
        if name in self.full:
            return self.full[name]
        return self.parent.resolve(name) if self.parent else name


@dataclass(frozen=True)
class _Block:
    """A block as it was read: what it takes (None for the one input of the model), and its layers, all times."""

    takes: str | None
    layers: tuple[LayerSpec, ...]


class Reader:
    """Reads lists of layers, gives every layer a name, and collects the problems.

    `Block: {repeat, layers}` stands for its layers, one after the other, `repeat` times; `Block: {use: NAME}` for those
    of `model.blocks`. Their names begin with the block's; `input` is what the block takes, the block's name its output.
    `Shared: {layer: NAME, inputs}` uses a layer, or all layers of a block, again with the same weights.

    Args:
        blocks: `model.blocks`, as YAML.
    """

    def __init__(self, blocks: Mapping[str, Any] | None = None) -> None:
        self.places: dict[str, Place] = {}
        self.problems: list[Problem] = []
        self._blocks = blocks or {}
        self._open: list[str] = []
        self._used: set[str] = set()
        self._previous: str | None = None
        self._read_blocks: dict[str, _Block] = {}

    def read(self, value: Any, path: Place, *, is_graph: bool) -> tuple[LayerSpec, ...]:
        """Parses one list; what does not parse is a problem and left out.

        Args:
            value: as YAML.
            path: of the list.
            is_graph: whether its layers may say their inputs, and blocks may stand in it.
        """
        self._previous = None
        return self._read(value, path, _Scope(), is_graph=is_graph)

    def check_unused_blocks(self) -> None:
        """Collects the problems of blocks that no list has used: a typo in them would pass in silence."""
        for name in self._blocks:
            if name not in self._used:
                other = Reader(self._blocks)
                other._block({"use": name, "inputs": [BLOCK_INPUT]}, ("blocks", name), _Scope())
                self._used |= other._used
                self.problems += other.problems

    def _read(self, value: Any, path: Place, scope: _Scope, *, is_graph: bool) -> tuple[LayerSpec, ...]:
        if not isinstance(value, list | tuple):
            message = f"must be a list of layers (got {shown(value)})"
            self._refuse(path, message, "write [{Dense: {units: 10}}]")
            return ()
        found: list[LayerSpec] = []
        for index, item in enumerate(value):
            name = next(iter(item)) if isinstance(item, dict) and len(item) == 1 else None
            if is_graph and name == BLOCK:
                found += self._block(item[name], (*path, index, BLOCK), scope)
            elif is_graph and name == SHARED:
                found += self._shared(item, (*path, index), scope)
            else:
                found += self._layer(item, (*path, index), scope, is_graph=is_graph)
            self._previous = found[-1].name if found else None
        return tuple(found)

    def _parse(self, item: Any, path: Place, *, is_graph: bool = True) -> KerasObject | None:
        """One entry, its arguments checked, or None with the problems."""
        found = parse_entry(item, "layer", extra_arguments=("inputs",) if is_graph else ())
        if isinstance(found, KerasObject):
            return found
        self.problems += [Problem((*path, *p.path), p.at_key, p.message, p.hint) for p in found]
        return None

    def _layer(self, item: Any, path: Place, scope: _Scope, *, is_graph: bool) -> tuple[LayerSpec, ...]:
        if isinstance(item, LayerSpec):
            self.places[item.name] = (*path, item.layer.name)
            return (replace(item, place=(*path, item.layer.name)),)
        found = self._parse(item, path, is_graph=is_graph)
        if found is None:
            return ()
        place = (*path, found.name)
        if isinstance(found, OwnThing):
            return (self._own_layer(found, place, scope),)
        if refusal := _no_layer_of_its_own(found) or (None if is_graph else _no_preprocessing(found)):
            self._refuse(path, *refusal)
            return ()
        arguments = dict(found.arguments)
        name, inputs = arguments.pop("name", None), arguments.pop("inputs", None)
        full = self._name(name, snake_case(found.name), place, scope)
        self.problems += [
            Problem((*place, argument), False, message, hint)
            for problems in (architecture_problems, backbone_problems)
            for argument, message, hint in problems(found.name, arguments)
        ]
        layer = KerasObject(found.name, arguments)
        return (LayerSpec(full, layer, self._inputs(inputs, place, scope), name is not None, place),)

    def _own_layer(self, found: OwnThing, place: Place, scope: _Scope) -> LayerSpec:
        name = self._name(found.given_name, snake_case(found.own_name), place[:-1], scope)
        inputs = self._inputs(found.entry.get("inputs"), place[:-1], scope)
        return LayerSpec(name, replace(found, entry={}), inputs, found.given_name is not None, place)

    def _block(self, item: Any, place: Place, scope: _Scope) -> tuple[LayerSpec, ...]:
        arguments = self._block_arguments(item, place)
        if arguments is None:
            return ()
        name = self._name(arguments.get("name"), "block", place, scope)
        inputs = self._inputs(arguments.get("inputs"), place, scope)
        if len(inputs) > 1:
            self._refuse((*place, "inputs"), f"a block takes one input (got {len(inputs)})", "join them before")
        used, layers, inside = arguments.get("use"), arguments.get("layers"), (*place, "layers")
        if used is not None:
            layers, inside = self._blocks.get(used), ("blocks", used)
            if layers is None:
                hint = (
                    did_you_mean(used, list(self._blocks)) or f"model.blocks has: {', '.join(self._blocks) or 'none'}"
                )
                self._refuse((*place, "use"), f"no block is called {used!r}", hint)
                return ()
            if used in self._open:
                self._refuse((*place, "use"), f"the block {used!r} is used inside of itself", "take it out there")
                return ()
            self._used.add(used)
        self._open.append(str(used))
        found: list[LayerSpec] = []
        first = inputs[0] if inputs else self._previous
        repeat = arguments.get("repeat", 1)
        for number in range(1, repeat + 1):
            problems = len(self.problems)
            inner = _Scope(f"{name}_{number}" if repeat > 1 else name, scope)
            takes = self._previous if found else first
            if takes is not None:
                inner.full[BLOCK_INPUT] = takes
            elif _mentions_input(layers):
                self._refuse(
                    place, f"a layer takes {BLOCK_INPUT!r}, and nothing comes before the block", "add inputs: [NAME]"
                )
            self._previous = takes  # of what stands first in it: a block there takes what this one takes
            read = list(self._read(layers, inside, inner, is_graph=True))
            if read and inputs and not found and not read[0].inputs:
                read[0] = replace(read[0], inputs=inputs)
            found += read
            self._previous = found[-1].name if found else self._previous
            if len(self.problems) > problems:  # one time is enough
                break
        self._open.pop()
        if found:
            scope.full[arguments.get("name") or name] = found[-1].name
            self._read_blocks[name] = _Block(first, tuple(found))
        return tuple(found)

    def _block_arguments(self, item: Any, place: Place) -> dict[str, Any] | None:
        """The arguments of a block, its layers aside, or None with the problems."""
        if isinstance(item, dict) and isinstance(item.get("layers"), list):
            outside = {key: value for key, value in item.items() if key != "layers"}
        else:
            outside = item
        found = self._parse({BLOCK: outside}, place[:-1])
        if found is None:
            return None
        if ("layers" in (item or {})) == ("use" in (item or {})):
            self._refuse(place, "must have either layers, or use: the name of a block", "write layers: [...]")
            return None
        return {**item, **found.arguments}

    def _shared(self, item: Any, path: Place, scope: _Scope) -> tuple[LayerSpec, ...]:
        found = self._parse(item, path)
        if found is None:
            return ()
        place = (*path, SHARED)
        written = found.arguments["layer"]
        name = self._name(found.arguments.get("name"), "shared", place, scope)
        inputs = self._inputs(found.arguments.get("inputs"), place, scope)
        block = self._block_named(written, scope)
        if block is None:
            target = scope.resolve(written)
            if target not in self.places:
                hint = did_you_mean(written, [*scope.full]) or "it must come before"
                self._refuse((*place, "layer"), f"no layer before this one is called {written!r}", hint)
                return ()
            return (LayerSpec(name, KerasObject(SHARED, {"layer": target}), inputs, True, place),)
        takes = inputs[0] if inputs else self._previous
        again = {block.takes: takes} if block.takes is not None and takes is not None else {}
        copies = []
        for index, member in enumerate(block.layers):
            taken = tuple(again.get(one, one) for one in member.inputs) if index or member.inputs else inputs
            again[member.name] = name if index == len(block.layers) - 1 else f"{name}_{member.name}"
            self.places[again[member.name]] = place
            target = member.shares or member.name
            copies.append(LayerSpec(again[member.name], KerasObject(SHARED, {"layer": target}), taken, True, place))
        return tuple(copies)

    def _block_named(self, written: str, scope: _Scope) -> _Block | None:
        """The block that a list calls so; None if it is none."""
        here: _Scope | None = scope
        while here is not None:
            full = f"{here.prefix}_{written}" if here.prefix else written
            if full in self._read_blocks:
                return self._read_blocks[full]
            here = here.parent
        return None

    def _name(self, name: Any, base: str, place: Place, scope: _Scope) -> str:
        start = f"{scope.prefix}_" if scope.prefix else ""
        if name is None:
            tries = (base, *(f"{base}_{number}" for number in range(1, 10_000)))
            short = next(one for one in tries if start + one not in self.places)
        else:
            short = str(name)
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", short):
                self._refuse((*place, "name"), f"{name!r} is not a name", "use letters, digits, _ . -")
            elif start + short in self.places:
                self._refuse((*place, "name"), f"the name {start + short!r} is used twice", "give one another name")
        self.places[start + short] = place
        scope.full[short] = start + short
        return start + short

    def _inputs(self, inputs: Any, place: Place, scope: _Scope) -> tuple[str, ...]:
        if inputs is None:
            return ()
        if isinstance(inputs, list) and inputs and all(isinstance(name, str) for name in inputs):
            return tuple(scope.resolve(name) for name in inputs)
        self._refuse(
            (*place, "inputs"),
            f"must be a list of names of layers or inputs (got {shown(inputs)})",
            "write inputs: [name]",
        )
        return ()

    def _refuse(self, path: Place, message: str, hint: str) -> None:
        self.problems.append(Problem(path, False, message, hint))


def _no_preprocessing(layer: KerasObject) -> tuple[str, str] | None:
    """Why a layer cannot stand under preprocess, with a hint; None where it can."""
    if layer.name in backbones():
        return f"{layer.name!r} is a network with weights to be trained", "write it in model.layers"
    return None


def _no_layer_of_its_own(layer: KerasObject) -> tuple[str, str] | None:
    """Why a layer cannot be an item of the list, with a hint; None where it can.

    Keras takes most of it without a word: mixed samples beside targets that are not mixed, a normalization that has
    seen no data and so changes nothing.
    """
    if layer.name in (*AUGMENTATIONS, *MIXERS, "AugMix"):
        hint = "write it under data.augment" if layer.name != "AugMix" else "write RandAugment under data.augment"
        return f"{layer.name!r} is an augmentation, and none of the model's layers", hint
    if layer.name in (BLOCK, SHARED):
        return f"{layer.name!r} cannot stand here", "write it in model.layers, with its arguments"
    if "states" in call_arguments(layer.name):
        return f"{layer.name!r} is one step of a recurrent layer", f"write RNN: {{cell: {{{layer.name}: {{...}}}}}}"
    for inner in _inside(layer):
        if inner.name == "RandomCrop":
            # Measured with Keras 3.15: its images keep their size then, whatever its documentation says.
            message = "'RandomCrop' cuts while training only, and the layers after it would meet two sizes"
            return message, "write CenterCrop, or RandomTranslation under data.augment"
        if inner is not layer and inner.name in LEARNING and not any(key in inner.arguments for key in KNOWN_ALREADY):
            message = f"{inner.name!r} learns from data before training, and cannot inside of {layer.name!r}"
            return message, "write it under model.preprocess, as an item of its own"
    return None


def _inside(layer: KerasObject) -> Iterable[KerasObject]:
    """A Keras thing, and those among its arguments, at any depth."""
    yield layer
    for value in layer.arguments.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, KerasObject):
                yield from _inside(item)


def _mentions_input(layers: Any) -> bool:
    """Whether a layer of a block says that it takes `input`."""
    found = [arguments for item in layers or () if isinstance(item, dict) for arguments in item.values()]
    return any(isinstance(each, dict) and BLOCK_INPUT in (each.get("inputs") or ()) for each in found)


def graph_problems(layers: tuple[LayerSpec, ...]) -> Iterable[Problem]:
    """A name that comes later, a layer that feeds itself."""
    order = {layer.name: index for index, layer in enumerate(layers)}
    for index, layer in enumerate(layers):
        for position, name in enumerate(layer.inputs):
            if order.get(name, -1) >= index:
                what = "itself" if name == layer.name else f"{name!r}, which comes later"
                path = layer.place_of("inputs", position)
                yield Problem(path, False, f"{layer.name!r} takes its input from {what}", "put it after its inputs")


def unused_layers(layers: tuple[LayerSpec, ...], outputs: Iterable[str]) -> Iterable[Problem]:
    """Layers that feed no other and are no outputs of the model."""
    used = {name for layer in layers for name in layer.inputs} | set(outputs)
    used |= {before.name for before, layer in itertools.pairwise(layers) if not layer.inputs}
    for layer in layers:
        if layer.name not in used:
            message = f"nothing uses the output of {layer.name!r}"
            yield Problem(layer.place, True, message, "name it in the inputs of a later layer, or take it out")
