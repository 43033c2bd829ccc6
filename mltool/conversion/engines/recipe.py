"""Recipes of litert-quantizer: what a `Precision` means for one file, and the recipes that users bring.

A recipe is a list of rules, of which the last that fits an operator counts. A rule's `regex` is searched in the names
of the operator's output tensors, joined by `;` and with a `;` at the end (`get_op_scope` of litert-quantizer 0.11), not
in names of layers: so the layers of every operator are told from the file first, and the regex holds the exact names.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mltool.conversion.precision import FLOAT_ACTIVATIONS, Precision
from mltool.conversion.schemes import BLOCK_OPS, INT4_OPS
from mltool.errors import ArtifactError, ConversionError, Message
from mltool.inspection.model_file import ModelFile, Operator
from mltool.runs.atomic import write_json
from mltool.spec.argument_check import did_you_mean, shown

__all__ = [
    "ALGORITHMS",
    "OPERATIONS",
    "Precision",
    "Recipe",
    "is_calibrated",
    "read_recipe",
    "recipe_for",
    "require_fits",
    "write_recipe",
]

Recipe = list[dict[str, Any]]

ALGORITHMS = ("no_quantize", "min_max_uniform_quantize", "float_casting", "MSE", "OCTAV")
"""Algorithms that a recipe may name. The others want statistics that calibration by least and greatest value does not
give (GPTQ, OSCAR), custom operators (HADAMARD_ROTATION), or a model that was quantized before."""

OPERATIONS = (
    "*", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BROADCAST_TO", "CONCATENATION", "CONV_2D", "CONV_2D_TRANSPOSE",
    "DEPTHWISE_CONV_2D", "DIV", "DYNAMIC_UPDATE_SLICE", "EMBEDDING_LOOKUP", "EQUAL", "FULLY_CONNECTED", "GATHER",
    "GATHER_ND", "GELU", "HARD_SWISH", "INPUT", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MIRROR_PAD", "MUL",
    "NOT_EQUAL", "OUTPUT", "PACK", "PAD", "PADV2", "REDUCE_MIN", "RELU", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT", "SELECT_V2", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQRT",
    "SQUARED_DIFFERENCE", "STABLEHLO_COMPOSITE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "UNPACK",
)  # fmt: skip
"""Operators that a rule may name, as litert-quantizer calls them; `*` stands for all."""

_GRANULARITIES = ("TENSORWISE", "CHANNELWISE", *(f"BLOCKWISE_{size}" for size in (32, 64, 128, 256)))

_TENSOR_CONFIG: dict[str, tuple[Any, ...]] = {
    "num_bits": (4, 8, 16),
    "symmetric": (True, False),
    "granularity": _GRANULARITIES,
    "dtype": ("INT", "UINT", "FLOAT"),
}
_OP_CONFIG: dict[str, tuple[Any, ...] | None] = {
    "weight_tensor_config": None,
    "activation_tensor_config": None,
    "compute_precision": ("INTEGER", "FLOAT"),
    "explicit_dequantize": (True, False),
    "skip_checks": (False,),
}

_LONGEST_SCOPE = 10_000
"""Where litert-quantizer cuts the names of an operator's outputs."""


def recipe_for(precision: Precision, file: ModelFile) -> Recipe:
    """The rules that quantize `file` as `precision` says.

    Args:
        precision: what is asked for.
        file: the float model, read with the names of its layers where `precision.layers` has patterns.

    Raises:
        ConversionError: if no weight can be divided into blocks of the size that is asked for.
    """
    groups: dict[str, list[Operator]] = {}
    for operator in file.operators:
        groups.setdefault(precision.scheme_of(operator.layers), []).append(operator)
    _require_no_loop(groups)
    rules = _rules(precision, precision.default, ".*")
    for scheme, operators in groups.items():
        if scheme != precision.default:
            names = _any_of(operators)
            # What a scheme has no kernel for must not fall back to the default; equal regexes would replace each other.
            rules += [_rule(rf"\A{names}\Z", "no_quantize"), *_rules(precision, scheme, rf"^{names}\Z")]
    if precision.granularity == "block":
        rules.append(_block_rule(precision, groups.get("int4", [])))
    if file.half_read and precision.calibrated:
        # litert-quantizer 0.11 leaves an output that nobody reads in float, and LiteRT refuses outputs of two types.
        rules.append(_rule(rf"^(?:){_any_of(file.half_read)}\Z", "no_quantize"))
    return rules + _io_rules(precision)


def _require_no_loop(groups: Mapping[str, Sequence[Operator]]) -> None:
    """Integer activations cannot go round a loop: litert-quantizer 0.11 leaves its state float, and LiteRT refuses."""
    for scheme in sorted(set(groups) - FLOAT_ACTIVATIONS):
        looped = next((op for op in groups[scheme] if op.subgraph or op.op == "WHILE"), None)
        if looped is not None:
            layer = looped.layers[0] if looped.layers else "its layer"
            raise ConversionError(
                f"{scheme} cannot be had inside of a loop: {looped}",
                f"write layers: {{{layer}: dynamic}}, or unroll: true on the layer",
            )


def _rules(precision: Precision, scheme: str, regex: str) -> Recipe:
    """Rules of one scheme for the operators that `regex` finds."""
    granularity = "TENSORWISE" if precision.granularity == "tensor" else "CHANNELWISE"
    match scheme:
        case "float32":
            return []
        case "int8":
            return [_rule(regex, config=_static(8, granularity))]
        case "int16x8":
            return [_rule(regex, config=_static(16, granularity))]
        case "weight-only":
            return [_rule(regex, config=_weights(8, granularity, unpacked=True))]
        case _:
            rules = [_rule(regex, config=_weights(8, granularity))]
            narrow = sorted(INT4_OPS) if scheme == "int4" else []
            return rules + [_rule(regex, operation=op, config=_weights(4, granularity)) for op in narrow]


def _rule(
    regex: str,
    algorithm: str = "min_max_uniform_quantize",
    *,
    operation: str = "*",
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"regex": regex, "operation": operation, "algorithm_key": algorithm, "op_config": config or {}}


def _static(bits: int, granularity: str) -> dict[str, Any]:
    """Integer weights and activations; those of 16 bits are symmetric, as the kernels want them."""
    return {"activation_tensor_config": _activation(bits), **_weights(8, granularity)}


def _activation(bits: int, dtype: str = "INT") -> dict[str, Any]:
    return {"num_bits": bits, "symmetric": bits == 16, "granularity": "TENSORWISE", "dtype": dtype}


def _weights(bits: int, granularity: str, *, unpacked: bool = False) -> dict[str, Any]:
    """Integer weights; `unpacked` by a DEQUANTIZE before the operator, else taken by the operator as they are."""
    return {
        "weight_tensor_config": {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": "INT"},
        "compute_precision": "FLOAT" if unpacked else "INTEGER",
        "explicit_dequantize": unpacked,
    }


def _block_rule(precision: Precision, operators: Sequence[Operator]) -> dict[str, Any]:
    """One scale per block for the weights that can be divided; the others keep a scale per channel."""
    size = precision.block_size or 0
    inputs = {op.outputs[0].name: _inputs_of_weight(op) for op in operators if op.op in BLOCK_OPS}
    divided = [op for op in operators if op.op in BLOCK_OPS and _inputs_of_weight(op) % size == 0]
    if not divided:
        found = ", ".join(sorted({str(count) for count in inputs.values()})) or "no fully connected layer"
        raise ConversionError(
            f"no layer in int4 has weights that blocks of {size} inputs divide (inputs: {found})",
            "use a smaller block_size, or granularity: channel",
        )
    return _rule(rf"^{_any_of(divided)}\Z", operation="FULLY_CONNECTED", config=_weights(4, f"BLOCKWISE_{size}"))


def _inputs_of_weight(op: Operator) -> int:
    weight = op.inputs[1] if len(op.inputs) > 1 else None
    return weight.shape[-1] if weight is not None and weight.constant and weight.shape else 1


def _io_rules(precision: Precision) -> Recipe:
    """Types of the model's inputs and outputs; the regex is another one than `.*`, whose rules come first."""
    if precision.io == "float32":
        return [_rule("^", "no_quantize", operation=operation) for operation in ("INPUT", "OUTPUT")]
    bits, dtype = (16, "INT") if precision.io == "int16" else (8, "UINT" if precision.io == "uint8" else "INT")
    config = {"activation_tensor_config": _activation(bits, dtype), **_weights(8, "CHANNELWISE")}
    return [_rule("^", operation=operation, config=config) for operation in ("INPUT", "OUTPUT")]


def _any_of(operators: Iterable[Operator]) -> str:
    """A regular expression of exactly the scopes of these operators."""
    scopes = dict.fromkeys(_scope(operator)[:_LONGEST_SCOPE] for operator in operators)
    return f"(?:{'|'.join(re.escape(scope) for scope in scopes)})"


def _scope(operator: Operator) -> str:
    tensors = operator.outputs or tuple(tensor for tensor in operator.inputs if tensor is not None)
    return "".join(f"{tensor.name};" for tensor in tensors if tensor.name)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Writes a recipe as litert-quantizer reads it."""
    write_json(path, recipe)


def read_recipe(path: Path) -> Recipe:
    """Reads a user's recipe, a JSON file; litert-quantizer itself takes unknown keys without a word.

    Raises:
        ArtifactError: the file is missing or no JSON.
        ConversionError: it is no recipe; one message for everything that is wrong, with what is allowed.
    """
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the recipe {path} is no JSON: {error}") from error
    if not isinstance(rules, list) or not rules:
        raise ConversionError(f"{path}: a recipe is a list of rules (got {shown(rules)})")
    problems = [
        Message(f"rule {number}: {text}", hint, file=str(path))
        for number, rule in enumerate(rules, 1)
        for text, hint in _problems_of(rule)
    ]
    if problems:
        raise ConversionError(problems)
    if all(rule["algorithm_key"] == "no_quantize" for rule in rules):
        raise ConversionError(f"{path}: every rule says no_quantize, nothing would be quantized", "use quantize: none")
    return _with_float_io([{"op_config": {}, **rule} for rule in rules])


def is_calibrated(recipe: Recipe) -> bool:
    """Whether a rule quantizes activations, whose ranges samples must tell; weights alone need none."""
    rules = (rule for rule in recipe if rule["algorithm_key"] != "no_quantize")
    return any(rule.get("op_config", {}).get("activation_tensor_config") for rule in rules)


def _with_float_io(rules: Recipe) -> Recipe:
    """Float inputs and outputs, where no rule says what they are to be."""
    named = {rule["operation"] for rule in rules}
    return rules + [
        _rule("^(?#io)", "no_quantize", operation=operation)
        for operation in ("INPUT", "OUTPUT")
        if operation not in named
    ]


def require_fits(recipe: Recipe, file: ModelFile) -> None:
    """Proves that every rule finds an operator; one that finds none changes nothing, and nobody says so.

    Raises:
        ConversionError: naming the rules.
    """
    scopes = [_scope(operator)[:_LONGEST_SCOPE] for operator in file.operators]
    scopes += ["".join(f"{tensor.name};" for tensor in tensors) for tensors in (file.inputs, file.outputs)]
    lost = [rule["regex"] for rule in recipe if not any(re.search(rule["regex"], scope) for scope in scopes)]
    if lost:
        hint = f"it is searched in names of output tensors, such as {scopes[0]!r}"
        raise ConversionError(Message(f"regex {regex!r} of the recipe finds no operator", hint) for regex in lost)


_Problems = list[tuple[str, str]]


def _problems_of(rule: Any) -> _Problems:
    if not isinstance(rule, dict):
        return [(f"is no map (got {shown(rule)})", "")]
    required = {"regex", "operation", "algorithm_key"}
    found = _keys(rule, required | {"op_config"}, required, "")
    if "regex" in rule:
        found += _problem_of_regex(rule["regex"])
    for key, allowed in (("operation", OPERATIONS), ("algorithm_key", ALGORITHMS)):
        if key in rule:
            found += _one_of(key, rule[key], allowed)
    if rule.get("algorithm_key") != "no_quantize":
        found += _problems_of_config(rule.get("op_config"))
    return found


def _problem_of_regex(regex: Any) -> _Problems:
    if not isinstance(regex, str):
        return [(f"regex must be text (got {shown(regex)})", "")]
    try:
        re.compile(regex)
    except re.error as error:
        return [(f"regex {regex!r} is no regular expression: {error}", "'.*' fits every operator")]
    return []


def _problems_of_config(config: Any) -> _Problems:
    if not isinstance(config, dict):
        return [(f"op_config must be a map (got {shown(config)})", f"of {', '.join(_OP_CONFIG)}")]
    allowed_keys = {*_OP_CONFIG, "min_weight_elements"}
    found = _keys(config, allowed_keys, {"weight_tensor_config", "compute_precision"}, "op_config.")
    least = config.get("min_weight_elements", 0)
    if type(least) is not int or least < 0:
        found.append((f"op_config.min_weight_elements must be a whole number from 0 (got {shown(least)})", ""))
    for key, allowed in _OP_CONFIG.items():
        if key not in config:
            continue
        if allowed is not None:
            found += _one_of(f"op_config.{key}", config[key], allowed)
        elif not isinstance(config[key], dict):
            found.append((f"op_config.{key} must be a map (got {shown(config[key])})", ""))
        else:
            found += _keys(config[key], set(_TENSOR_CONFIG), {"num_bits"}, f"op_config.{key}.")
            for name, values in _TENSOR_CONFIG.items():
                if name in config[key]:
                    found += _one_of(f"op_config.{key}.{name}", config[key][name], values)
    return found


def _keys(given: dict[str, Any], allowed: set[str], required: set[str], prefix: str) -> _Problems:
    found = [
        (
            f"unknown key {prefix}{key}",
            did_you_mean(str(key), sorted(allowed)) or f"known: {', '.join(sorted(allowed))}",
        )
        for key in given
        if key not in allowed
    ]
    return found + [(f"{prefix}{key} is missing", "") for key in sorted(required - set(given))]


def _one_of(key: str, value: Any, allowed: Sequence[Any]) -> _Problems:
    if any(value == one and type(value) is type(one) for one in allowed):
        return []
    hint = did_you_mean(value, list(allowed)) if isinstance(value, str) and isinstance(allowed[0], str) else ""
    return [(f"{key} must be one of {', '.join(map(str, allowed))} (got {shown(value)})", hint)]
