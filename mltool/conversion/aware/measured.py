"""What pruning and clustering left in a model, counted."""

from typing import Any

import numpy as np

from mltool.conversion.aware.stages import kernels_of


def measured(model: Any) -> dict[str, dict[str, Any]]:
    """Of every layer with a kernel: `weights`, the share of them that is zero (`sparsity`), different `values`."""
    found = {}
    for name, kernel in kernels_of(model).items():
        values = kernel.numpy()
        zeros, different = float(np.mean(values == 0)), len(np.unique(values))
        found[name] = {"weights": int(values.size), "sparsity": zeros, "values": different}
    return found
