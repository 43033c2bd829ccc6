"""Holds samples against the schema of a model's inputs: what training never saw is said, or refused."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mltool.data.source import Array, ArrayLike, batches_of
from mltool.errors import DataError
from mltool.runs.input_schema import InputInfo, InputSchema

logger = logging.getLogger("mltool")

SMALL_SHARE = 0.02
"""Pixels or sound within so small a share of the range of training were scaled before: the model scales them itself."""

SLACK = 0.1
"""Numbers may lie outside of the range of training by this share of it: the next sample nearly always does a little."""

MOST_NAMED = 3
"""Values or samples that a message names."""


def sample_name(position: int) -> str:
    """What a sample is called that has no name of its own."""
    return f"sample {position}"


def require_fit(
    batch: Mapping[str, ArrayLike],
    schema: InputSchema,
    *,
    allow_unseen: bool = False,
    name_of: Callable[[int], str] = sample_name,
) -> None:
    """Holds samples against names, missing values, categories and ranges of the training data.

    Args:
        batch: by input, [samples, ...]; inputs of other names are left to the predictor.
        schema: of the model.
        allow_unseen: categories that training had not are told, not refused: the model has one place for all of them.
        name_of: what a sample is called in messages.

    Raises:
        DataError: if a number is infinite, is missing where training had them all, or a category is unseen.
    """
    for info in schema.inputs:
        array = batch.get(info.name)
        if array is None or len(array) == 0:
            continue
        if array.dtype.kind == "U":
            _require_known(info, array[:], name_of, allow_unseen=allow_unseen)
        elif array.dtype.kind in "uif":
            _require_in_range(info, array, name_of)


def _require_known(info: InputInfo, values: Array, name_of: Callable[[int], str], *, allow_unseen: bool) -> None:
    what = info.original or info.name
    flat = values.reshape(len(values), -1)
    empty = np.flatnonzero((flat == "").any(axis=1))
    if len(empty) and not info.missing:
        raise DataError(
            f"{what!r} is missing in {_named(empty, name_of)}; training had a value everywhere", "fill it in"
        )
    if not info.categories:
        return
    unseen = ~np.isin(flat, ["", *info.categories])
    if not unseen.any():
        return
    rows = np.flatnonzero(unseen.any(axis=1))
    shown = ", ".join(repr(str(value)) for value in np.unique(flat[unseen])[:MOST_NAMED])
    message = f"{what!r} has values that training had not: {shown}, in {_named(rows, name_of)}"
    if not allow_unseen:
        known = ", ".join(info.categories[:10]) + (", ..." if len(info.categories) > 10 else "")
        raise DataError(message, f"known: {known}; or --allow-unseen takes all others as one unknown")
    logger.warning("%s", message)


def _require_in_range(info: InputInfo, array: ArrayLike, name_of: Callable[[int], str]) -> None:
    start, outside, least, most = 0, 0, np.inf, -np.inf
    for batch in batches_of(array):
        values = batch.reshape(len(batch), -1).astype(np.float64)
        _require_there(info, values, lambda row, start=start: name_of(start + row))  # type: ignore[misc]
        # `fmin` and `fmax` pass over NaN.
        least = min(least, float(np.fmin.reduce(values, axis=None, initial=np.inf)))
        most = max(most, float(np.fmax.reduce(values, axis=None, initial=-np.inf)))
        outside += _num_outside(info, values)
        start += len(batch)
    if info.minimum is not None and info.maximum is not None and least <= most:
        _tell_range(info, least, most, f"{outside} of {len(array)} samples" if outside else "")


def _require_there(info: InputInfo, values: Array, name_of: Callable[[int], str]) -> None:
    what = info.original or info.name
    infinite = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(infinite):
        raise DataError(f"{what!r} is infinite in {_named(infinite, name_of)}", "clean the samples")
    holes = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(holes) and not info.missing:
        message = f"{what!r} is missing (NaN) in {_named(holes, name_of)}; training had a value everywhere"
        raise DataError(message, "fill it in")


def _num_outside(info: InputInfo, values: Array) -> int:
    """Samples with a number that is visibly outside of the range of training; NaN is in no range and out of none."""
    if info.minimum is None or info.maximum is None:
        return 0
    slack = SLACK * (info.maximum - info.minimum)
    beyond = (values < info.minimum - slack) | (values > info.maximum + slack)
    return int(beyond.any(axis=1).sum())


def _tell_range(info: InputInfo, least: float, most: float, outside: str) -> None:
    what, trained = info.original or info.name, f"{info.minimum:.6g} to {info.maximum:.6g}"
    span = (info.maximum or 0.0) - (info.minimum or 0.0)
    if info.kind in ("image", "audio", "series") and span > 0 and 0 < most - least <= SMALL_SHARE * span:
        logger.warning(
            "%r lies in %.6g to %.6g, training in %s: scaled before? The model does that", what, least, most, trained
        )
    elif outside:
        logger.warning(
            "%r is outside of the range of training (%s) in %s: %.6g to %.6g", what, trained, outside, least, most
        )


def _named(rows: Sequence[int] | Array, name_of: Callable[[int], str]) -> str:
    shown = ", ".join(name_of(int(row)) for row in rows[:MOST_NAMED])
    return shown if len(rows) <= MOST_NAMED else f"{shown} and {len(rows) - MOST_NAMED} more"
