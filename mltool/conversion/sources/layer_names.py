"""Layer names of a model that nobody describes: the scopes that its operators lie in."""

import re
from collections.abc import Iterable

_PLUMBING = re.compile(r"(.*/)?(StatefulPartitionedCall|PartitionedCall|jit_\w+|pjit\[.*|XlaCallModule)(_\d+)?")


def layers_in(names: Iterable[str]) -> list[str]:
    """The innermost scope of every operator that lies in one: `net/stem/Conv2D` is of `stem`.

    Args:
        names: of nodes or output tensors, in the order of the model; of fused ones, joined with `;`, each counts.

    Returns:
        Every scope once, in that order.
    """
    scopes = (name.strip(":;0123456789").rpartition("/")[0] for joined in names for name in joined.split(";"))
    found = (scope.rpartition("/")[2] for scope in scopes if scope and not _PLUMBING.fullmatch(scope))
    return list(dict.fromkeys(found))
