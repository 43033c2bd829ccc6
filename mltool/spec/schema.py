"""The JSON Schema (2020-12) of the whole spec, so that an editor completes, explains and checks it while it is written.

Made of the sections (types, bounds, docstrings) and of the catalogue of Keras. It takes what `load_spec` takes, but for
what must hold between keys, which only `mltool check` can tell. Keys that are not in this version stand with the one
value that they take, or not at all.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema

from mltool.spec.callbacks import CALLBACKS
from mltool.spec.catalogue import KINDS, json_schema
from mltool.spec.keras_object import REFERENCE
from mltool.spec.own_things import OWN_KINDS
from mltool.spec.own_things import json_schema as own_json_schema
from mltool.spec.spec import Spec, to_plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:mltool:spec:1"
"""Names the form of the spec, whose version is 1; a name, not an address to fetch."""


def spec_json_schema() -> dict[str, Any]:
    """The schema of one YAML file."""
    schema = Spec.model_json_schema(schema_generator=_Generator)
    sections = schema.pop("$defs")
    keras = {f"keras_{kind}": json_schema(kind) for kind in KINDS}
    keras |= {f"keras_own_{kind}": own_json_schema(kind) for kind in OWN_KINDS}
    keras["keras_callback"] = _only(keras["keras_callback"], CALLBACKS)
    whole = {"$schema": DIALECT, "$id": SCHEMA_ID, **schema, "title": "mltool spec", "$defs": {**sections, **keras}}
    linked: dict[str, Any] = _linked(whole)
    return linked


def _only(schema: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a kind without the names that are not in this version."""
    bare, named = schema["anyOf"]
    properties = {name: schema for name, schema in named["properties"].items() if name in names}
    return {"anyOf": [{"enum": [name for name in bare["enum"] if name in names]}, {**named, "properties": properties}]}


class _Generator(GenerateJsonSchema):
    """Writes defaults as YAML has them, and no titles: an editor would show `Batch Size` beside `batch_size`."""

    def encode_default(self, dft: Any) -> Any:
        return to_plain(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        # The mode of reading, whatever is asked: nobody writes a spec out of this schema.
        return super().generate(schema, "validation")


def _linked(value: Any) -> Any:
    """Puts references to the catalogue where the sections name a kind: pydantic refuses foreign ones."""
    if isinstance(value, dict):
        linked = {key: _linked(item) for key, item in value.items() if key != REFERENCE}
        return {"$ref": f"#/$defs/keras_{value[REFERENCE]}", **linked} if REFERENCE in value else linked
    return [_linked(item) for item in value] if isinstance(value, list) else value
