"""A model whose axes are free, with the shape that its samples have.

A file with free axes was measured not to load with some of them (LiteRT 2.3 prepares it as if each had one value, and a
convolution of 3x3 has no place there); of fixed ones the converter makes fewer operators, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.child import Child, ChildCrashed
from mltool.conversion.sources.foreign import Foreign
from mltool.errors import ConversionError, DataError
from mltool.inference.predictor import TensorInfo, tensor_info

FIX = "mltool.conversion.sources.fixed_shapes:write_fixed"
"""What the child is asked to call."""

TIMEOUT_SECONDS = 600.0
"""A model that takes longer is taken for hung."""


def fits(wanted: Sequence[int | None], found: Sequence[int]) -> bool:
    """Whether samples of a shape are what an input takes."""
    return len(wanted) == len(found) and all(size in (None, there) for size, there in zip(wanted, found, strict=True))


def with_shapes(foreign: Foreign, shapes: Mapping[str, Sequence[int]], scratch: Path, child: Child) -> Foreign:
    """The model with these shapes of samples; as it is where they do not fit, or no axis is free.

    Args:
        foreign: a SavedModel; a float file stays as it is.
        shapes: of one sample, by input.
        scratch: a folder, for what is made.
        child: that has loaded it.

    Raises:
        DataError: if the model does not take samples of these shapes.
        ConversionError: if TensorFlow dies of it.
    """
    is_free = any(None in info.shape for info in foreign.inputs)
    if foreign.saved_model is None or not is_free or not all(fits(i.shape, shapes[i.name]) for i in foreign.inputs):
        return foreign
    folder = scratch / f"{foreign.name}-fixed"
    try:
        found: dict[str, tuple[str, list[int | None]]] = child.call(
            FIX,
            timeout_seconds=TIMEOUT_SECONDS,
            folder=str(foreign.saved_model),
            signature=foreign.signature,
            shapes={name: list(shape) for name, shape in shapes.items()},
            made=str(folder),
        )
    except ChildCrashed as error:
        raise ConversionError(f"{foreign.name}: the process that fixed its axes {error.status}") from error
    inputs = tuple(TensorInfo(info.name, info.dtype, tuple(shapes[info.name])) for info in foreign.inputs)
    outputs = tuple(tensor_info(foreign.name, info.name, *found[info.name]) for info in foreign.outputs)
    return replace(foreign, saved_model=folder, inputs=inputs, outputs=outputs)


def write_fixed(
    *, folder: str, signature: str, shapes: Mapping[str, Sequence[int]], made: str
) -> dict[str, tuple[str, list[int | None]]]:
    """Saves a signature again, its axes but the first fixed; inside the child.

    Returns:
        Type and shape of every output, by name.

    Raises:
        DataError: if the model does not take samples of these shapes.
    """
    tf = extras.tensorflow()
    loaded = tf.saved_model.load(folder)
    function = loaded.signatures[signature]
    specs = {
        name: tf.TensorSpec([*spec.shape[:1], *shapes[name]], spec.dtype, name=name)
        for name, spec in function.structured_input_signature[1].items()
    }
    module = tf.Module()
    module.loaded = loaded  # owns the variables

    def serve(**inputs: Any) -> Any:
        return function(**inputs)

    try:
        concrete = tf.function(serve).get_concrete_function(**specs)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        shown = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        reason = " ".join(str(error).split()).rpartition("Error: ")[2][:200]
        raise DataError(f"the model does not take samples of shape {shown}: {reason}", "give another shape") from error
    tf.saved_model.save(module, made, signatures={signature: concrete})
    return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in concrete.structured_outputs.items()}
