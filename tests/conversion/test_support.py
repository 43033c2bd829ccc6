"""The table of schemes and operators: what it says, that it costs nothing to read, and that it is still true."""

import json
import subprocess
import sys

import pytest
from support_table import functions, make_table

from mltool.conversion.schemes import NO_INT8_KERNEL
from mltool.conversion.support import (
    FLOAT,
    PAGE,
    QUANTIZED,
    REFUSED,
    TARGETS,
    rows,
    support_document,
    support_text,
    table,
)
from mltool.errors import UsageError


def test_every_operator_has_a_verdict_under_every_scheme():
    operators = support_document()["operators"]

    assert len(operators) > 60
    for op, row in operators.items():
        assert set(row) == set(TARGETS["litert"]), op
        assert set(row.values()) <= {QUANTIZED, FLOAT, REFUSED}, op


def test_the_table_has_a_row_for_every_operator_that_is_measured():
    assert set(support_document()["operators"]) == set(functions())


def test_the_table_says_what_is_known():
    assert table("int8")["CONV_2D"] == QUANTIZED
    assert table("int8")["NEG"] == FLOAT
    assert table("int8-io")["NEG"] == REFUSED
    assert table("dynamic")["FULLY_CONNECTED"] == QUANTIZED
    assert table("dynamic")["TANH"] == FLOAT
    assert table("int4")["DEPTHWISE_CONV_2D"] == FLOAT
    with pytest.raises(UsageError, match="no scheme 'int3'; one of: float16, dynamic, int8"):
        table("int3")


def test_what_stays_float_in_int8_is_what_the_read_back_lets_pass():
    kept = {op for op, verdict in table("int8").items() if verdict == FLOAT}

    # Two that the list does not know yet.
    assert kept == NO_INT8_KERNEL & set(table("int8"))


def test_the_text_has_a_line_for_every_operator():
    head, measured, empty, names, *lines = support_text().splitlines()

    assert "refused" in head
    assert measured.startswith("measured with tensorflow 2.")
    assert empty == ""
    assert names.split() == ["operator", *TARGETS["litert"]]
    assert [line.split()[0] for line in lines] == [row[0] for row in rows()]
    assert next(line for line in lines if line.startswith("NEG ")).split()[3:5] == ["float", "-"]


def test_reading_it_imports_nothing_heavy():
    code = (
        "import sys; from mltool.conversion.support import support_text; support_text(); "
        "print([name for name in ('numpy', 'tensorflow', 'keras', 'litert_quantizer') if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_table_is_still_true():
    """Written by `python tests/conversion/support_table.py`."""
    assert make_table() == json.loads(PAGE.read_text(encoding="utf-8"))
