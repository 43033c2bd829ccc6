"""Finds every mistake of a spec in one go: what is wrong gives way to a stand-in, and the rest is checked again.

pydantic does not look at what must hold between keys while one of them is wrong, nor between sections while one of
them is. So the wrong values are taken out and the check is run again, until it passes; what a later round finds is
reported too, unless it is a consequence of what was taken out.
"""

import copy
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mltool.spec.catalogue import OWN, UNREADABLE
from mltool.spec.model import LayerSpec
from mltool.spec.spec import Spec
from mltool.yaml_reader import KeyPath, dotted

_MOST_ROUNDS = 20
"""Each round takes at least one value out; a spec that still has mistakes then is answered with those found so far."""

_HEAD = r"train(\.outputs\.[^.]+)?"
"""Where a loss and metrics stand: of the only output, or of one of several."""

_STAND_INS: tuple[tuple[str, Any], ...] = (
    (r"name", "unnamed"),
    (r"data", {"source": {"dataset": "digits"}}),
    (r"data\.source", {"dataset": "digits"}),
    (r"data\.inputs\.[^.]+", {}),
    (r"model", {"layers": [LayerSpec("", UNREADABLE)]}),
    (r"model\.layers", [LayerSpec("", UNREADABLE)]),
    (r"model\.python", UNREADABLE),
    (_HEAD, {"loss": UNREADABLE, "metrics": [UNREADABLE]}),
    (rf"{_HEAD}\.loss", UNREADABLE),
    (rf"{_HEAD}\.metrics", [UNREADABLE]),
    (r"train\.phases\.\d+", {"epochs": 1}),
    (rf"({_HEAD}\.metrics|train\.callbacks|data\.augment)\.\d+", UNREADABLE),
)
"""What stands where a value was taken out, by the pattern of its path; other keys are left out."""

_LAYER = re.compile(r"model\.(layers|preprocess(\.[^.]+)?)\.\d+")
_OWN_ARGUMENTS = re.compile(rf"({_LAYER.pattern}|{_HEAD}\.(metrics\.\d+|loss))\.arguments\b")
_KERAS_ITEM = re.compile(rf"{_LAYER.pattern}|({_HEAD}\.metrics|train\.callbacks|data\.augment)\.\d+")


def check_spec(data: dict[str, Any]) -> Spec | list[ErrorDetails]:
    """The checked spec, or every mistake in it as pydantic gives it.

    Args:
        data: plain YAML data.
    """
    found = _validate(data)
    if isinstance(found, Spec):
        return found
    mistakes = list(found)
    data = copy.deepcopy(data)
    gone: list[KeyPath] = []
    for _ in range(_MOST_ROUNDS):
        taken = _take_out(data, [_place(error) for error in found])
        if not taken:
            break  # what is left follows from what was taken out
        gone += taken
        again = _validate(data)
        if isinstance(again, Spec):
            break
        reported = [*(_place(error) for error in mistakes), *gone]
        mistakes += [error for error in again if not _is_consequence(_place(error), reported)]
        found = again
    return mistakes


def _validate(data: dict[str, Any]) -> Spec | list[ErrorDetails]:
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        return error.errors(include_url=False)


def _place(error: ErrorDetails) -> KeyPath:
    """Where an error stands; what is said of a stand-in, which has no name, is said of its place."""
    place = error["loc"]
    return place[: place.index(UNREADABLE.name)] if UNREADABLE.name in place else place


_OF_WINDOWS = (("data", "source", "window"), ("data", "source", "time"), ("data", "source", "target"))
"""Keys that need one another."""


def _is_consequence(place: KeyPath, reported: list[KeyPath]) -> bool:
    """Whether something above, at or below this place is known to be wrong, or what it refers to is."""
    refers_to_inputs = place[:1] == ("model",) and ("data", "inputs") in reported
    refers_to_outputs = place[:1] == ("model",) or place[:3] == _TARGET or place == ("train", "loss")
    optimizer = (*place[:-1], "optimizer")
    return (
        refers_to_inputs
        or (place[:2] == ("train", "optimizer") and ("train", "epochs") in reported)
        or (place[-1:] == ("no_weight_decay",) and any(other[: len(optimizer)] == optimizer for other in reported))
        or (place[:3] in _OF_WINDOWS and any(other[:3] in _OF_WINDOWS for other in reported))
        or (refers_to_outputs and any(_says_outputs(other) for other in reported))
        or any(_related(place, other) for other in reported)
    )


_TARGET = ("data", "source", "target")


def _says_outputs(place: KeyPath) -> bool:
    """Whether the outputs are not known where this is wrong."""
    return place in (("train",), _TARGET) or (place[:2] == ("train", "outputs") and len(place) <= 3)


def _related(one: KeyPath, other: KeyPath) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _take_out(data: dict[str, Any], places: list[KeyPath]) -> list[KeyPath]:
    """Takes the values at these places out of `data`, the outer ones first; where that was, which may be above them."""
    done: list[KeyPath] = []
    for place in sorted(set(places), key=lambda path: (len(path), str(path))):
        inside_another = any(place[: len(outer)] == outer for outer in done)
        if not inside_another and (taken := _take_out_one(data, place)):
            done.append(taken)
    return done


def _take_out_one(data: dict[str, Any], place: KeyPath) -> KeyPath:
    """Takes out the value at `place`, or the nearest above it that can be; returns where that was, or ()."""
    for length in range(len(place), 0, -1):
        path = place[:length]
        # A Keras object without its name is nothing: the whole item gives way. So does a thing of the user's, which may
        # need the argument that is taken out.
        is_name_of_item = _KERAS_ITEM.fullmatch(dotted(path[:-1])) or _OWN_ARGUMENTS.match(dotted(path))
        if not is_name_of_item and _replace(_lookup(data, path[:-1]), path[-1], _stand_in(data, path)):
            return path
    return ()


def _lookup(data: dict[str, Any], path: KeyPath) -> Any:
    node: Any = data
    for part in path:
        if isinstance(node, dict):
            node = node.get(str(part))
        else:
            node = node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None
    return node


def _replace(owner: Any, key: str | int, stand_in: Any) -> bool:
    """Puts the stand-in under the key, or takes the key out where there is none; False if nothing would change."""
    if isinstance(owner, list):
        present = isinstance(key, int) and key < len(owner)
        before = owner[key] if isinstance(key, int) and present else None
    else:
        present = isinstance(owner, dict) and (key in owner or stand_in is not None)
        before = owner.get(key) if isinstance(owner, dict) else None
    if not present or (isinstance(owner, list) and stand_in is None) or (stand_in is not None and before == stand_in):
        return False
    if stand_in is None:
        del owner[key]
    else:
        owner[key] = stand_in
    return True


def _stand_in(data: dict[str, Any], path: KeyPath) -> Any:
    text = dotted(path)
    if _LAYER.fullmatch(text):
        return _layer_stand_in(_lookup(data, path), text)
    if text in ("train.loss", "train.metrics") and (_lookup(data, ("train",)) or {}).get("outputs") is not None:
        return None  # nothing may stand beside outputs
    if re.fullmatch(r"convert\.\d+", text):
        return {"name": f"unreadable-{path[-1]}"}
    found = (value for pattern, value in _STAND_INS if re.fullmatch(pattern, text))
    return copy.deepcopy(next(found, None))


def _layer_stand_in(item: Any, text: str) -> LayerSpec:
    """Keeps the name and the inputs, because other layers depend on them."""
    if isinstance(item, LayerSpec):
        return item
    arguments = next(iter(item.values()), None) if isinstance(item, dict) and len(item) == 1 else None
    arguments = item if isinstance(item, dict) and OWN in item else arguments
    arguments = arguments if isinstance(arguments, dict) else {}
    name, inputs = arguments.get("name"), arguments.get("inputs")
    usable = isinstance(inputs, list) and all(isinstance(value, str) for value in inputs)
    named = name if isinstance(name, str) else f"?{text}"
    return LayerSpec(named, UNREADABLE, tuple(inputs) if inputs and usable else (), isinstance(name, str))
