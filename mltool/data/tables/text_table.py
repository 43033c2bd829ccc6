"""The cells of a CSV or TSV file as Arrow's texts, and what is wrong with the file, in words."""

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.data.tables.arrow_file import BLOCK_BYTES, kept_on_disk
from mltool.data.tables.rows import Rows, is_text
from mltool.errors import DataError

logger = logging.getLogger("mltool")


def read_text_table(path: Path, separator: str | None, *, on_disk: bool) -> tuple[Any, mmap.mmap | None, Rows]:
    """Every cell as text: what a column holds is decided by all of its rows, not by the first block."""
    pa, reader = extras.require("pyarrow"), extras.require("pyarrow.csv")
    separator = separator or _separator(path, _head(path))
    rows = Rows(path, separator)
    names = next(rows.records(), (1, []))[1]
    if not all(is_text(name) for name in names):
        raise _not_utf8(path, rows)
    options = {
        "parse_options": reader.ParseOptions(delimiter=separator, newlines_in_values=True),
        "convert_options": reader.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
        # The same blocks either way: what Arrow does at their edges is the same then.
        "read_options": reader.ReadOptions(block_size=BLOCK_BYTES),
    }
    file = None
    try:
        if on_disk:
            blocks = reader.open_csv(path, **options)
            arrow, file = kept_on_disk(blocks.schema, blocks)
        else:
            arrow = reader.read_csv(path, **options)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _reason(path, rows, first_line(error)) from error
    rows = Rows(path, separator, arrow.num_rows)
    _require_closed_quote(path, rows, arrow)
    return arrow, file, rows


def _reason(path: Path, rows: Rows, told: str) -> DataError:
    """What Arrow refused, with the line and the column, which it does not tell."""
    if "Empty CSV" in told:  # a header without a line end
        return DataError(f"{path} has a header and no rows", "it needs a row a sample")
    if "UTF8" in told:
        return _not_utf8(path, rows)
    is_longer = "straddling" in told
    ragged = rows.first_ragged() if is_longer or "Expected" in told else None
    if is_longer:
        row = f", row {ragged[0]}" if ragged else ""
        message = f"{path}{row}: a quote is opened and never closed, or a row has more than {BLOCK_BYTES >> 20} MB"
        return DataError(message, "close it, or double it")
    if ragged is None:
        return DataError(f"{path}: {told}", "save it as comma-separated UTF-8")
    line, found, wanted = ragged
    return DataError(f"{path}, row {line}: {found} fields, the header has {wanted}", _RAGGED)


def _not_utf8(path: Path, rows: Rows) -> DataError:
    line, column = rows.first_undecodable() or (1, "column 1")
    return DataError(f"{path}, row {line}: {column} is no UTF-8", "save the file as UTF-8")


def _require_closed_quote(path: Path, rows: Rows, arrow: Any) -> None:
    """A quote that is opened and never closed makes one cell of all rows below, and Arrow is content with it.

    Raises:
        DataError: naming the row in which it is opened.
    """
    last = str(arrow.columns[-1][-1].as_py()) if arrow.num_rows and arrow.num_columns else ""
    if "\n" not in last and "\r" not in last:
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1024, 0))
        is_closed = file.read().rstrip(b" \t\r\n").endswith(b'"')
    if not is_closed:
        line = rows.line(arrow.num_rows - 1)
        raise DataError(f"{path}, row {line}: a quote is opened and never closed", "close it, or double it")


_RAGGED = "every row needs as many fields as the header; a field with a separator in it needs quotes, in pairs"


def _head(path: Path) -> list[str]:
    """The first lines.

    Raises:
        DataError: if there are none, or they are no UTF-8 text.
    """
    with path.open("rb") as file:
        block = file.read(65536)
    if not block.strip():
        raise DataError(f"{path} is empty", "it needs a header, and a row a sample")
    if b"\0" in block:
        raise DataError(f"{path} is no text file: it holds zero bytes", "save it as UTF-8 .csv, or as .parquet")
    text = block.decode("utf-8-sig", errors="ignore")
    lines = text.splitlines()
    return lines[:-1] if len(lines) > 2 else lines


def _separator(path: Path, head: Sequence[str]) -> str:
    """The separator of a file: a tab in a .tsv; else the one of `, ; tab |` that the header has most often."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    counts = {mark: head[0].count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] and best != ",":
        logger.info("%s: fields are separated by %r (data.source.separator says another)", path, best)
    return best if counts[best] else ","


def first_line(error: BaseException) -> str:
    """What an exception says first, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
