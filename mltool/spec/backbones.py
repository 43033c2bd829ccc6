"""Keras Applications among the layers of a spec: `MobileNetV2: {alpha: 0.35, include_top: false, weights: none}`.

Their names and arguments are in the catalogue, as `write_catalogue` reads them from the installed Keras; here is what
must hold between the arguments, and where their weights lie.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mltool.spec.argument_check import shown
from mltool.spec.catalogue_entries import backbones, load_entry

NO_WEIGHTS, IMAGENET = "none", "imagenet"
"""What `weights` may say in place of a file."""

WEIGHT_FILES: Final = (".weights.h5", ".keras", ".h5")
"""Endings of files that weights are read from: of `save_weights`, of `save`, and of what Keras downloads."""


def backbone_problems(name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Arguments that do not fit one another, as (argument, message, hint).

    Args:
        name: of any layer; others than Keras Applications have no such problems.
        arguments: that the spec gives, each of the right type.
    """
    if name not in backbones():
        return
    weights = arguments["weights"]
    if weights_file(name, arguments) is not None and not str(weights).endswith(WEIGHT_FILES):
        message = f"must be none, imagenet, or a file that ends in {', '.join(WEIGHT_FILES)} (got {shown(weights)})"
        yield "weights", message, "write weights: none to begin with random ones"
    has_top, cut = arguments.get("include_top", True), arguments.get("until") is not None
    for key in ("classes", "classifier_activation"):
        if key in arguments and not has_top:
            yield key, "has no effect with include_top: false", "leave it out"
    if arguments.get("pooling") and (has_top or cut):
        cause = "until" if cut else "include_top: true"
        yield "pooling", f"has no effect with {cause}", "write include_top: false" if has_top else "leave it out"
    if weights == IMAGENET and has_top and arguments.get("classes", 1000) != 1000:
        message = f"the published weights answer with 1000 classes (got {arguments['classes']})"
        yield "classes", message, "write include_top: false, and a Dense layer after it"


def answers_with(name: str, arguments: Mapping[str, Any]) -> str | None:
    """The activation of a backbone's answer; None where it gives features."""
    if not arguments.get("include_top", True) or arguments.get("until"):
        return None
    entry = load_entry("layer", name)
    default = entry.arguments["classifier_activation"].default if entry else None
    return str(arguments.get("classifier_activation", default) or "linear")


def weights_file(name: str, arguments: Mapping[str, Any]) -> str | None:
    """The file that a layer's weights are read from; None where there is none."""
    weights = arguments.get("weights")
    is_file = name in backbones() and isinstance(weights, str) and weights not in (NO_WEIGHTS, IMAGENET)
    return weights if is_file else None


def resolve_weights(value: Any, folder: Path) -> None:
    """Makes the paths of weights absolute, wherever layers stand in a part of a spec.

    Args:
        value: plain YAML data; changed.
        folder: that relative paths begin in.
    """
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        resolve_weights(item, folder)
    if isinstance(value, dict):
        for name, arguments in value.items():
            file = weights_file(str(name), arguments) if isinstance(arguments, dict) else None
            if file:
                arguments["weights"] = str(folder / Path(file).expanduser())
