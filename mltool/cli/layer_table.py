"""The tables of `convert --explain`: the layers of a file, those that lose most first."""

import json
from collections.abc import Sequence
from typing import Any

from mltool import console


def layer_tables(made: Sequence[Any]) -> list[str]:
    """A table for every file that was explained.

    Args:
        made: what `convert` returned.
    """
    from mltool.conversion.explain.records import Explanation
    from mltool.conversion.explain.rows import COLUMNS, MOST_LAYERS, lines, rows
    from mltool.runs.lite import LiteFolder

    tables = []
    for item in made:
        file = LiteFolder(item.path.parent).explain_file(item.record.name)
        if file.is_file():
            found = Explanation.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
            tables += [*lines(found), console.table(COLUMNS, rows(found, MOST_LAYERS))]
    return tables
