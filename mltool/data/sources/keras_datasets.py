"""The arrays of keras.datasets: downloaded by Keras on first use, to ~/.keras/datasets."""

from typing import Any

import numpy as np

from mltool import extras
from mltool.data.source import Source, checked_source, inferred_input_name, inferred_kind
from mltool.errors import DataError


def load_keras_dataset(name: str) -> Source:
    """Reads (and on first use downloads) the data set `name` of keras.datasets.

    Raises:
        DataError: if it is not on this machine and cannot be downloaded.
        MissingExtraError: if Keras is not installed.
    """
    module: Any = getattr(extras.keras().datasets, name)
    try:
        (x_train, y_train), (x_test, y_test) = module.load_data()
    # Keras raises a bare Exception for a failed download, urllib its own, a damaged cache others still.
    except Exception as error:
        hint = f"give a file with x_train, y_train, x_test, y_test: --set data.source.path={name}.npz"
        raise DataError(
            f"the data set {name!r} is not on this machine and cannot be downloaded: {error}", hint
        ) from error
    inputs, targets = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    given = {"train": range(len(x_train)), "test": range(len(x_train), len(inputs))}
    input_name = inferred_input_name(inputs)
    kinds = {input_name: inferred_kind(inputs)}
    return checked_source(f"keras.datasets.{name}", {input_name: inputs}, targets, given, kinds=kinds)
