"""The catalogue as JSON Schema (2020-12), so that an editor completes every layer and its arguments."""

from typing import Any

from mltool.spec.argument_types import schema as type_schema
from mltool.spec.catalogue_entries import Entry, Kind, known_names, load_docs, load_entry


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of one value of a kind, to be put at `#/$defs/keras_<kind>` beside those of the other kinds.

    Either a name that needs no arguments, or a map of one name to its arguments.
    """
    docs = load_docs()[kind]
    bare: list[str] = []
    named: dict[str, Any] = {}
    for name, canonical in sorted(known_names(kind).items()):
        entry = load_entry(kind, name)
        if entry is None:
            continue
        if not entry.required:
            bare.append(name)
        if name == canonical:
            named[name] = _arguments_schema(entry, kind, docs[name])
        else:
            named[name] = {"$ref": f"#/$defs/keras_{kind}/anyOf/1/properties/{canonical}"}
    one_name = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    return {"anyOf": [{"enum": bare}, {**one_name, "properties": named}]}


def _arguments_schema(entry: Entry, kind: Kind, docs: dict[str, str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, argument in entry.arguments.items():
        described = {"description": docs[name]} if name in docs else {}
        default = {} if argument.required else {"default": argument.default}
        properties[name] = {**type_schema(argument.alternatives), **described, **default}
    if kind == "layer":
        text = "Names of the layers or inputs that this layer takes; without it, the layer before."
        properties["inputs"] = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": text}
    found: dict[str, Any] = {"type": "object" if entry.required else ["object", "null"]}
    if docs.get(""):
        found["description"] = docs[""]
    required = {"required": list(entry.required)} if entry.required else {}
    return {**found, "properties": properties, **required, "additionalProperties": False}
