"""`{python: "my_layers:Scale", arguments: {...}}` where a Keras thing stands: a layer, a loss, ... of the user's.

Like a function that gives data or a model, the code is found and looked at without running it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.argument_types import with_article
from mltool.spec.catalogue import OWN, KerasObject, Kind, Problem, parse_keras_object
from mltool.spec.user_code import argument_problems, reference_problem

OwnTask = Literal["classification", "binary", "regression"]
Better = Literal["greater", "lower"]

_FORM: Final = 'write {python: "my_code:Name"}'

_KEYS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "layer": {
        "python": {
            "type": "string",
            "description": "A keras.layers.Layer of yours, or a function that returns one: `module:name`, from the"
            " spec's own folder or an installed package. It is run.",
        },
        "arguments": {"type": ["object", "null"], "description": "Keywords for `python`."},
        "name": {"type": ["string", "null"], "description": "Of the layer, for the inputs of later layers."},
        "inputs": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "Names of the layers or inputs that this layer takes; without it, the layer before.",
        },
    },
    "loss": {
        "python": {
            "type": "string",
            "description": "A keras.losses.Loss of yours, or a function of (y_true, y_pred) that gives a loss for every"
            " sample: `module:name`. It is run.",
        },
        "arguments": {"type": ["object", "null"], "description": "Keywords for `python`."},
        "task": {
            "enum": list(get_args(OwnTask)),
            "description": "What the model answers. y_true is, of a classification, class numbers [batch]; of a binary"
            " one 0 or 1 [batch, 1]; of a regression float32 [batch, values].",
        },
        "from_logits": {
            "type": "boolean",
            "default": False,
            "description": "Whether the model gives logits, not probabilities.",
        },
    },
    "metric": {
        "python": {
            "type": "string",
            "description": "A keras.metrics.Metric of yours, or a function of (y_true, y_pred) that gives a value for"
            " every sample, of which the mean is told: `module:name`. It is run.",
        },
        "arguments": {"type": ["object", "null"], "description": "Keywords for `python`."},
        "name": {"type": ["string", "null"], "description": "In results; else that of the class or function."},
        "better": {
            "enum": list(get_args(Better)),
            "description": "Whether more or less of it is better; needed by limits.max_drop and by callbacks.",
        },
        "from_logits": {
            "type": "boolean",
            "default": False,
            "description": "Whether it sees the model's logits as they are, not probabilities.",
        },
    },
    "callback": {
        "python": {
            "type": "string",
            "description": "A keras.callbacks.Callback of yours, or a function that returns one: `module:name`. It is"
            " run; with get_state and set_state it is resumed exactly.",
        },
        "arguments": {"type": ["object", "null"], "description": "Keywords for `python`."},
    },
}
"""The keys of an entry, by kind, with their JSON Schema."""

_REQUIRED: Final = {"layer": ("python",), "loss": ("python", "task"), "metric": ("python",), "callback": ("python",)}

OWN_KINDS: Final[tuple[Kind, ...]] = ("layer", "loss", "metric", "callback")
"""Kinds that an own thing may be of."""


@dataclass(frozen=True, slots=True)
class OwnThing(KerasObject):
    """A layer, a loss, a metric or a callback of the user's; its `name` is `python`, which no class of Keras is called.

    Attributes:
        arguments: keywords for the class or function.
        reference: to it; checked.
        entry: the other keys, as the spec has them: `name`, `inputs`, `task`, `from_logits`, `better`.
    """

    reference: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_name(self) -> str:
        """Of the class or function."""
        return self.reference.rpartition(":")[2]

    @property
    def task(self) -> OwnTask:
        """What a loss says that the model answers."""
        task: OwnTask = self.entry["task"]
        return task

    @property
    def better(self) -> Better | None:
        """Whether more or less of a metric is better, where the spec says so."""
        return self.entry.get("better")

    @property
    def given_name(self) -> str | None:
        """The name that the spec gives."""
        return self.entry.get("name")

    @property
    def from_logits(self) -> bool:
        """Whether the outputs that a loss or a metric takes are logits."""
        return bool(self.entry.get("from_logits"))

    def path_of(self, key: str) -> tuple[str, ...]:
        """Where a key of the entry, or an argument, stands."""
        return ("arguments", key) if key in self.arguments else (key,)

    def to_spec(self) -> Any:
        """The value as YAML would hold it."""
        arguments = {"arguments": dict(self.arguments)} if self.arguments else {}
        return {OWN: self.reference, **arguments, **self.entry}


def parse_entry(
    value: Any, kind: Kind, *, extra_arguments: tuple[str, ...] = (), own: bool = True
) -> KerasObject | list[Problem]:
    """Checks one value of the spec, a thing of Keras or of the user's.

    Args:
        value: as the YAML reader gives it.
        kind: what the place in the spec takes.
        extra_arguments: see `parse_keras_object`; in an own entry `inputs` is allowed with them only.
        own: whether the place takes code of the user's.
    """
    if not own or kind not in OWN_KINDS or not isinstance(value, dict) or OWN not in value:
        return parse_keras_object(value, kind, extra_arguments=extra_arguments)
    keys = [key for key in _KEYS[kind] if key != "inputs" or "inputs" in extra_arguments]
    problems = list(_key_problems(value, kind, keys))
    arguments = value.get("arguments")
    if problem := reference_problem(value[OWN]):
        problems.append(Problem((OWN,), False, problem.message, problem.hint))
    elif arguments is None or _is_keywords(arguments):
        given = 2 if kind in ("loss", "metric") else 0  # y_true and y_pred
        problems += argument_problems(value[OWN], arguments or {}, given=given)
    entry = {key: value[key] for key in keys if key not in (OWN, "arguments") and value.get(key) is not None}
    return problems or OwnThing(OWN, dict(arguments or {}), value[OWN], entry)


def _is_keywords(arguments: Any) -> bool:
    return isinstance(arguments, dict) and all(isinstance(key, str) for key in arguments)


def _key_problems(value: dict[Any, Any], kind: Kind, keys: list[str]) -> Iterator[Problem]:
    for key in value:
        if key not in keys:
            hint = did_you_mean(str(key), keys) or f"known: {', '.join(keys)}; keywords of yours go under arguments"
            yield Problem((key,), True, f"no key of {with_article(kind)} of yours", hint)
    if value.get("arguments") is not None and not _is_keywords(value["arguments"]):
        message = f"must be a map of keywords (got {shown(value['arguments'])})"
        yield Problem(("arguments",), False, message, "write arguments: {factor: 2}")
    if kind == "metric" and not isinstance(value.get("name"), str | None):
        yield Problem(("name",), False, f"must be a name (got {shown(value['name'])})", "write name: my_metric")
    for key, needed in (("task", kind == "loss"), ("better", False)):
        choices: list[str] = _KEYS[kind].get(key, {}).get("enum", [])
        if choices and key in value and value[key] not in choices:
            yield Problem((key,), False, f"must be {_either(choices)} (got {shown(value[key])})", "choose one of them")
        elif needed and key not in value:
            message = f"a loss of yours must say its {key}: {_either(choices)}"
            yield Problem((key,), True, message, f"add {key}: {choices[0]}")
    if "from_logits" in keys and not isinstance(value.get("from_logits", False), bool):
        yield Problem(("from_logits",), False, f"must be true or false (got {shown(value['from_logits'])})")
    elif value.get("from_logits") and value.get("task") == "regression":
        yield Problem(("from_logits",), True, "a regression gives no logits", "leave it out")


def _either(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of an own thing of a kind, to be put at `#/$defs/keras_own_<kind>`."""
    properties = _KEYS[kind]
    return {
        "type": "object",
        "description": f"{with_article(kind).capitalize()} of yours, by its name.",
        "properties": properties,
        "required": list(_REQUIRED[kind]),
        "additionalProperties": False,
    }
