"""A YAML file becomes plain values with places, or one clear refusal; it never runs, hangs or crashes."""

import math
import re
import time
from pathlib import Path

import pytest

from mltool.errors import SpecError
from mltool.yaml_reader import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    KeyPath,
    Position,
    dotted,
    parse_value,
    parse_yaml,
    read_yaml,
)


def refusal(text: str) -> str:
    """All that `parse_yaml` has against `text`, a line for each mistake."""
    with pytest.raises(SpecError, match=r"^s\.yaml") as caught:
        parse_yaml(text, "s.yaml")
    return str(caught.value)


# Scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("2e-5", 0.00002, id="exponent-without-dot"),
        pytest.param("1e3", 1000.0, id="exponent-is-a-float"),
        pytest.param("1E+3", 1000.0, id="capital-exponent"),
        pytest.param(".5", 0.5, id="no-digit-before-the-dot"),
        pytest.param("5.", 5.0, id="no-digit-after-the-dot"),
        pytest.param("+1.5", 1.5, id="plus"),
        pytest.param("-0.25", -0.25, id="minus"),
        pytest.param(".inf", math.inf, id="infinity"),
        pytest.param("-.INF", -math.inf, id="minus-infinity"),
        pytest.param("0o17", 15, id="octal"),
        pytest.param("0x1F", 31, id="hexadecimal"),
        pytest.param("010", 10, id="leading-zero-is-decimal"),
        pytest.param("-42", -42, id="negative-integer"),
        pytest.param("18446744073709551615", 2**64 - 1, id="largest-unsigned"),
        pytest.param("true", True, id="true"),
        pytest.param("FALSE", False, id="capital-false"),
        pytest.param("null", None, id="null"),
        pytest.param("~", None, id="tilde"),
        pytest.param("", None, id="nothing"),
        pytest.param("!!str 12", "12", id="tag-makes-text"),
        pytest.param('!!int "0x10"', 16, id="tag-makes-integer"),
        pytest.param("!!float 3", 3.0, id="tag-makes-float"),
        pytest.param("!!bool 'true'", True, id="tag-makes-boolean"),
        pytest.param("!!null ''", None, id="tag-makes-null"),
        pytest.param("!!seq [1]", [1], id="tag-on-list"),
        pytest.param("!!map {x: 1}", {"x": 1}, id="tag-on-map"),
    ],
)
def test_scalar_has_its_core_schema_value_and_type(text: str, value: object) -> None:
    read = parse_yaml(f"a: {text}", "s.yaml").data["a"]
    assert (read, type(read)) == (value, type(value))


def test_nan_is_a_float() -> None:
    assert math.isnan(parse_yaml("a: .nan", "s.yaml").data["a"])


@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "NO", "y", "tRUE", "nUll", "12:30:45", "2026-11-23", "1_000", "0b11", "0o8", "0xG", "1e",
        ".", "+.nan", "1.2.3", "0.5%", "100 KB", "C:\\x", "a#b", "١٢",
    ],
)  # fmt: skip
def test_plain_text_stays_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "s.yaml").data == {"a": text}


@pytest.mark.parametrize("text", ["12", "true", "null", "2e-5", "~", ""])
def test_quoted_scalar_stays_text(text: str) -> None:
    assert parse_yaml(f"a: '{text}'\nb: \"{text}\"", "s.yaml").data == {"a": text, "b": text}


def test_block_text_stays_text() -> None:
    assert parse_yaml("a: |\n  12\nb: >-\n  1\n  2\n", "s.yaml").data == {"a": "12\n", "b": "1 2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e999", "'1e999' is too large for a number"),
        ("18446744073709551616", "'18446744073709551616' does not fit in 64 bits"),
        ("9" * 5000, "does not fit in 64 bits"),
        ("0x" + "F" * 5000, "does not fit in 64 bits"),
        ("!!int x", "'x' is not what the tag !!int says"),
        ("!!bool yes", "'yes' is not what the tag !!bool says"),
        (r'"\0"', "the character U+0000 is not allowed"),
        (r'"\ud83d"', "the character U+D83D is not allowed"),
    ],
    ids=["float", "integer", "5000-digits", "5000-hex-digits", "tag-int", "tag-bool", "escaped-nul", "lone-surrogate"],
)
def test_scalar_without_a_usable_value_is_refused_at_its_place(text: str, message: str) -> None:
    assert re.match(rf"s\.yaml:2:4: b: .*{re.escape(message)}", refusal(f"a: 1\nb: {text}\n"))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("!!python/object/apply:os.system [ls]", "'!!python/object/apply:os.system'"),
        ("!Foo 1", "'!Foo'"),
        ("! 1", "'!'"),
        ("!!binary aGk=", "'!!binary'"),
        ("!!set {x}", "'!!set'"),
        ("!!omap [x: 1]", "'!!omap'"),
        ("!!timestamp 2026-11-23", "'!!timestamp'"),
        ("!e!x 1", "!e!"),
    ],
)
def test_foreign_tag_is_refused_at_its_place(text: str, tag: str) -> None:
    assert refusal(f"a:\n  b: {text}").startswith(f"s.yaml:2:6: the tag {tag} is not allowed; leave it out")


def test_tag_of_another_kind_is_refused() -> None:
    assert refusal("a: !!map [1]") == "s.yaml:1:4: the tag !!map does not fit a list; leave it out"


# Places

SPEC = """\
# a comment
name: digits
train:
  optimizer: {Adam: {learning_rate: 1e-3}}
  metrics:
  - accuracy
  - "ä": [7,
      8]
data:
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ((), None, (2, 1)),
        (("name",), (2, 1), (2, 7)),
        (("train",), (3, 1), (4, 3)),
        (("train", "optimizer"), (4, 3), (4, 14)),
        (("train", "optimizer", "Adam"), (4, 15), (4, 21)),
        (("train", "optimizer", "Adam", "learning_rate"), (4, 22), (4, 37)),
        (("train", "metrics"), (5, 3), (6, 3)),
        (("train", "metrics", 0), None, (6, 5)),
        (("train", "metrics", 1), None, (7, 5)),
        (("train", "metrics", 1, "ä"), (7, 5), (7, 10)),
        (("train", "metrics", 1, "ä", 1), None, (8, 7)),
        (("data",), (9, 1), (9, 6)),
    ],
    ids=lambda path: dotted(path) if isinstance(path, tuple) and path and isinstance(path[0], str) else "",
)
def test_keys_and_values_stand_where_the_file_has_them(
    path: KeyPath, key: tuple[int, int] | None, value: tuple[int, int]
) -> None:
    document = parse_yaml(SPEC, "s.yaml")
    assert document.keys.get(path) == (Position(*key) if key else None)
    assert document.values[path] == Position(*value)


def test_every_part_has_a_place() -> None:
    document = parse_yaml(SPEC, "s.yaml")
    assert document.data["train"] == {
        "optimizer": {"Adam": {"learning_rate": 0.001}},
        "metrics": ["accuracy", {"ä": [7, 8]}],
    }
    assert (len(document.keys), len(document.values)) == (8, 13)


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        pytest.param(("name",), False, (2, 7), id="value"),
        pytest.param(("name",), True, (2, 1), id="key"),
        pytest.param(("train", "epochs"), True, (3, 1), id="missing-key-is-at-its-parent's-key"),
        pytest.param(("train", "epochs"), False, (4, 3), id="missing-value-is-at-its-parent's-value"),
        pytest.param(("train", "metrics", 0), True, (6, 5), id="an-item-has-no-key"),
        pytest.param(("nope", 3, "x"), True, (2, 1), id="nothing-known-but-the-root"),
    ],
)
def test_locate_falls_back_to_the_nearest_ancestor(path: KeyPath, key: bool, place: tuple[int, int]) -> None:
    assert parse_yaml(SPEC, "s.yaml").locate(path, key=key) == Position(*place)


@pytest.mark.parametrize("before", ["\ufeff", "---\n", "%YAML 1.2\n---\n", "\r\n# x\r\n"])
def test_what_may_stand_before_a_document(before: str) -> None:
    assert parse_yaml(f"{before}a: 1\n", "s.yaml").data == {"a": 1}


def test_windows_lines_are_counted_once() -> None:
    assert parse_yaml("a: 1\r\nb: 2\r\n", "s.yaml").keys[("b",)] == Position(2, 1)


@pytest.mark.parametrize(("text", "data"), [("[1, 2]", [1, 2]), ("just text", "just text"), ("3", 3)])
def test_a_root_that_is_no_map_is_the_callers_concern(text: str, data: object) -> None:
    assert parse_yaml(text, "s.yaml").data == data


# Keys


def test_every_wrong_key_is_reported_at_once_in_order() -> None:
    text = """\
a: 1
a: 2
b: {c: 1, "c": 2, 1: 3, true: 4}
~: 5
{x: 1}: 6
[x]: 7
a: 3
d: {e: {f: 1, f: 2}}
a: {g: 1, g: 2}
?
: 8
"""
    assert refusal(text).splitlines() == [
        "s.yaml:2:1: a: this key is already on line 1; keep one of them",
        "s.yaml:3:11: b.c: this key is already on line 3; keep one of them",
        's.yaml:3:19: b: a key must be text (got 1); put it in quotes: "1"',
        's.yaml:3:25: b: a key must be text (got true); put it in quotes: "true"',
        's.yaml:4:1: a key must be text (got ~); put it in quotes: "~"',
        "s.yaml:5:1: a key must be text (got a map); put it in quotes",
        "s.yaml:6:1: a key must be text (got a list); put it in quotes",
        "s.yaml:7:1: a: this key is already on line 1; keep one of them",
        "s.yaml:8:15: d.e.f: this key is already on line 8; keep one of them",
        "s.yaml:9:1: a: this key is already on line 1; keep one of them",
        "s.yaml:9:11: a.g: this key is already on line 9; keep one of them",
        's.yaml:10:2: a key must be text (got an empty key); put it in quotes: ""',
    ]


def test_keys_that_only_yaml_1_1_turns_into_booleans_are_text() -> None:
    assert parse_yaml('on: 1\nno: 2\n"1": 3\n', "s.yaml").data == {"on": 1, "no": 2, "1": 3}


def test_a_mistake_that_aliases_repeat_is_reported_once() -> None:
    assert refusal("a: &a {x: 1, x: 2}\nb: *a\nc: {<<: *a}\n").count("\n") == 0


# Aliases and merge keys


def test_aliases_become_copies_with_places_of_their_own() -> None:
    document = parse_yaml("a: &a\n  x: [1]\nb: *a\n", "s.yaml")
    document.data["a"]["x"].append(2)
    assert document.data == {"a": {"x": [1, 2]}, "b": {"x": [1]}}
    assert document.values[("b",)] == Position(3, 4)
    assert document.values[("b", "x", 0)] == Position(2, 7)


def test_merged_keys_yield_to_explicit_and_earlier_ones() -> None:
    text = "p: &p {x: 1, y: 1}\nq: &q {y: 2, z: 2}\na:\n  z: 3\n  <<: [*p, *q]\nb:\n  <<: *p\n"
    document = parse_yaml(text, "s.yaml")
    assert document.data["a"] == {"x": 1, "y": 1, "z": 3}
    assert document.data["b"] == {"x": 1, "y": 1}
    assert document.keys[("a", "x")] == Position(1, 8)
    assert document.values[("a", "x")] == Position(1, 11)
    assert document.keys[("a", "z")] == Position(4, 3)


def test_merged_map_may_merge_another() -> None:
    text = "p: &p {x: 1, y: 1}\nq: &q {<<: *p, y: 2}\na: {<<: *q, z: 3}\n"
    assert parse_yaml(text, "s.yaml").data["a"] == {"x": 1, "y": 2, "z": 3}


def test_quoted_merge_key_is_a_key() -> None:
    assert parse_yaml('a: {"<<": 1}', "s.yaml").data == {"a": {"<<": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  <<: 3", r"s\.yaml:2:7: a: << merges maps only \(got a scalar\)"),
        ("a:\n  <<:", r"s\.yaml:2:6: a: << merges maps only \(got a scalar\)"),
        ("a: {<<: [{b: 1}, [c]]}", r"s\.yaml:1:18: a: << merges maps only \(got a list\)"),
        ("<<: {a: 1}\n<<: {b: 1}", r"s\.yaml:2:1: <<: this key is already on line 1; write one `<<: \[\*a, \*b\]`"),
        ("a: {<<: *b}", r"s\.yaml:1:9: no anchor &b stands before this alias[^\n]*$"),
        ("a: *png", r"s\.yaml:1:4: no anchor &png .* put a text that begins with \* in quotes$"),
        ("a: &a 1\nb: &a 2", r"s\.yaml:2:4: the anchor &a is already on line 1"),
        ("a: &a [1, *a]", r"s\.yaml:1:11: \*a stands inside the value that it repeats"),
        ("&a {b: {c: *a}}", r"s\.yaml:1:12: \*a stands inside the value that it repeats"),
        ("a: &a {<<: *a}", r"s\.yaml:1:12: \*a stands inside the value that it repeats"),
    ],
    ids=[
        "merge-of-number", "merge-of-nothing", "merge-of-list", "two-merges", "merge-of-unknown", "unknown-alias",
        "anchor-twice", "list-in-itself", "root-in-itself", "map-merges-itself",
    ],
)  # fmt: skip
def test_wrong_alias_or_merge_is_refused_at_its_place(text: str, message: str) -> None:
    assert re.match(message, refusal(text))


# Bounds


def tenfold(*, levels: int, first: str, one: str) -> str:
    """A document whose every level shows the one before it ten times."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {one}".replace("*", ", ".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


def chain(*, levels: int, one: str) -> str:
    """A document whose every level shows the one before it."""
    return "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {one}".replace("*", f"*a{n - 1}") for n in range(1, levels))])


WIDE_MERGE = f"a: &a {{}}\nb: &b {{<<: [{'*a, ' * 9_000}]}}\nc: {{<<: [{'*b, ' * 9_000}]}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            tenfold(levels=12, first="[x]", one="[*]"), "more than 20,000 keys and values", id="billion-laughs"
        ),
        pytest.param(tenfold(levels=13, first="{x: 1}", one="{<<: [*]}"), "more than 20,000", id="merge-key-bomb"),
        pytest.param(tenfold(levels=13, first="{}", one="{<<: [*]}"), "more than 20,000", id="bomb-of-empty-maps"),
        pytest.param(WIDE_MERGE, "more than 20,000 keys", id="wide-merges-of-nothing"),
        pytest.param(chain(levels=300, one="[[[[*]]]]"), "nested deeper than 64 levels", id="aliases-add-up-in-depth"),
        pytest.param(chain(levels=2000, one="{<<: *}"), "nested deeper than 64 levels", id="merges-add-up-in-depth"),
        pytest.param("[" * 100_000, "s.yaml:1:65: nested deeper than 64 levels", id="100000-brackets"),
        pytest.param("{a: " * 100_000, "s.yaml:1:257: nested deeper than 64 levels", id="100000-braces"),
        pytest.param("- " * 100_000, "s.yaml:1:129: nested deeper than 64 levels", id="100000-dashes"),
        pytest.param("? " * 100_000, "s.yaml:1:129: nested deeper than 64 levels", id="100000-question-marks"),
        pytest.param("- a\n" * 100_000, "s.yaml:20000:3: more than 20,000 keys and values", id="100000-items"),
        pytest.param("a: 1\n" * 400_000, "s.yaml: larger than 1 MiB", id="2-megabytes"),
    ],
)
def test_bomb_is_refused_at_once(text: str, message: str) -> None:
    start = time.process_time()
    assert message in refusal(text)
    assert time.process_time() - start < 5  # 0.4 s at most when measured; without the bound, hours


def test_bounds_hold_exactly() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(deepest, "s.yaml").locate((0,) * (MAX_DEPTH - 1)) == Position(1, MAX_DEPTH)
    assert "nested deeper" in refusal(f"[{deepest}]")
    most = "- a\n" * (MAX_NODES - 1)  # the list itself counts
    assert len(parse_yaml(most, "s.yaml").data) == MAX_NODES - 1
    assert "more than" in refusal(most + "- a\n")


def test_a_spec_of_300_lines_is_quick() -> None:
    block = "l{}:\n  o: {{Adam: {{learning_rate: 2e-5, beta_1: 0.9}}}}\n  # words\n  path: ./a b.csv\n  x:\n  - 'q'\n"
    text = "".join(block.format(index) for index in range(50))
    start = time.process_time()
    parse_yaml(text, "s.yaml")
    assert time.process_time() - start < 0.5  # 0.015 s when measured; the margin is for a busy machine


# Syntax


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "2:1: a tab stands where YAML takes only spaces; indent with spaces"),
        ("a: @x", "1:4: a value cannot begin with '@'; put the whole text in quotes"),
        ("a: `x`", "1:4: a value cannot begin with '`'; put the whole text in quotes"),
        ("a: note: this", "1:8: a ':' cannot stand here; quote a text with ': ', or look at the indentation above"),
        ("a: 1\n  b: 2", "2:4: a ':' cannot stand here; quote"),
        ("a: 1\nfoo\nb: 2", "2:1: a ':' is missing after this key; write `key: value`"),
        ("a: - 1", "1:4: a list cannot begin here; begin it on the next line, or write [a, b]"),
        ("a: 1\nb: 'x\nc: 2\n", "2:4: this quote is never closed; add the closing quote"),
        ('a: "C:\\q"', "1:8: \\q means nothing in double quotes; use single quotes, or write \\\\"),
        ("a: *.png", "1:4: no name of an alias follows; quote a text that begins with * or &"),
        ("a: & b", "1:4: no name of an anchor follows"),
        ("a:\n  b: [1,\n  2", "2:6: this bracket is never closed; add the closing bracket"),
        ("a: {b: 1\n", "1:4: this bracket is never closed"),
        ("[[", "1:3: this bracket is never closed"),
        ("a: {b: 1\nc: 2", "2:2: expected ',' or '}' in the bracket of line 1; close it, or quote a text in it"),
        ("a: [1}", "1:6: expected ',' or ']' in the bracket of line 1"),
        ("a: [1]]", "1:7: this ']' closes nothing; put the whole text in quotes"),
        ("a: ,", "1:4: a value is missing before ','"),
        ("a: 'it's'", "1:8: the value ended before this text; put the whole text in quotes; inside '...' write ''"),
        ("a:\n  b: 1\n c: 2", "3:2: the indentation does not fit the lines above; align"),
        ("a: 1\n- b", "2:1: the indentation does not fit the lines above"),
        ("'a' b", "1:5: the document ended before this text"),
        ("a: |x\n  b", "1:5: not YAML: expected chomping or indentation indicators, but found 'x'"),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here; keep one document in a file, without '---'"),
        ("a: x\ufffe", "1:5: the character U+FFFE is not allowed; remove it"),
        ("a: 1\nb: \x07", "2:4: the character U+0007 is not allowed; remove it"),
    ],
    ids=lambda text: None if re.match(r"\d", text) else ascii(text),
)
def test_syntax_error_has_a_place_and_plain_words(text: str, message: str) -> None:
    assert refusal(text).startswith(f"s.yaml:{message}")


def test_escape_that_crashes_pyyaml_is_refused() -> None:
    assert refusal(r'a: "\UFFFFFFFF"').startswith("s.yaml: an escape or a number is out of range")


def test_syntax_error_comes_with_the_mistakes_before_it() -> None:
    assert [line[:11] for line in refusal("a: !Foo 1\nb: [").splitlines()] == ["s.yaml:1:4:", "s.yaml:2:5:"]


def test_syntax_error_keeps_its_cause() -> None:
    with pytest.raises(SpecError, match="never closed") as caught:
        parse_yaml("a: [", "s.yaml")
    assert type(caught.value.__cause__).__name__ == "ParserError"


@pytest.mark.parametrize("text", ["", "  \n", "# a comment\n", "---\n", "\ufeff"], ids=ascii)
def test_empty_text_is_refused_with_a_way_to_begin(text: str) -> None:
    assert refusal(text) == "s.yaml: the file is empty; `mltool init` writes a first spec"


# Files


def test_file_is_read_under_the_name_the_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_bytes(b"\xef\xbb\xbfname: \xc3\xa4\n")
    document = read_yaml(Path("s.yaml"))
    assert (document.file, document.data) == ("s.yaml", {"name": "ä"})
    assert document.values[("name",)] == Position(1, 7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: ä\n".encode("utf-16"), r": is UTF-16 text; save it as UTF-8"),
        ("a: b\n".encode("utf-16-be"), r":1:1: the character U\+0000 is not allowed; a spec is text: save it as UTF-8"),
        (b"a: 1\n\xc3\xa4: \xe4\n", r":2:4: is not UTF-8 text \(byte 0xe4\); save it as UTF-8"),
        (b"\xef\xbb\xbfa: \xe4", r":1:4: is not UTF-8 text \(byte 0xe4\); save it as UTF-8"),
        (b"PK\x03\x04\x00\x00", r":1:3: the character U\+0003 is not allowed; remove it"),
        (b"a" * (MAX_BYTES + 1), r": larger than 1 MiB; a spec holds settings; keep data in files of their own"),
        (b"", r": the file is empty; `mltool init`"),
    ],
    ids=["utf-16", "utf-16-without-bom", "latin-1", "bom-and-latin-1", "zip", "too-large", "empty"],
)
def test_file_that_is_no_yaml_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=f"^{re.escape(str(path))}{message}"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "missing.yaml: no such file; `mltool init` writes a first one"),
        (".", "is a directory; name the YAML file in it"),
        ("a/b", r"a/b: cannot be read \(Not a directory\)"),
        ("nul\0", r"cannot be read \(embedded null byte\)"),
        ("x" * 300, r"cannot be read \(File name too long\)"),
    ],
    ids=["missing", "directory", "below-a-file", "nul-in-name", "long-name"],
)
def test_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(SpecError, match=message):
        read_yaml(tmp_path / name)


def test_endless_device_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^/dev/zero: larger than 1 MiB"):
        read_yaml(Path("/dev/zero"))


# Overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (" 3 ", 3),
        ("", None),
        ("2e-5", 0.00002),
        ("on", "on"),
        ("'3'", "3"),
        ("{Adam: {learning_rate: 1e-3}}", {"Adam": {"learning_rate": 0.001}}),
        ("[1, two]", [1, "two"]),
        ("a b", "a b"),
        ("0.5%", "0.5%"),
        ("http://x/y#z", "http://x/y#z"),
    ],
)
def test_override_is_read_as_in_a_file(text: str, value: object) -> None:
    read = parse_value(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", r"--set: a\.b: this bracket is never closed \(in '\[1, 2'\); add the closing bracket"),
        ("{x: 1, x: 2}", r"--set: a\.b\.x: this key is already on line 1 \(in '{x: 1, x: 2}'\)"),
        ("x: 1", r"--set: a\.b: a map or list needs brackets here \(in 'x: 1'\); write {key: value} or \[a, b\]"),
        ("- 1", r"--set: a\.b: a map or list needs brackets here"),
        ("5 # five", r"--set: a\.b: YAML would read only '5' \(in '5 # five'\); put the text in quotes"),
        ("# x", r"--set: a\.b: YAML would read only ''"),
        ("*x", r"--set: a\.b: no anchor &x [^\n]*$"),
        ("!!python/name:os.system", r"--set: a\.b: the tag '!!python/name:os\.system' is not allowed"),
        ("[" * 100_000, r"--set: a\.b: nested deeper than 64 levels"),
        ("\udcff", r"--set: a\.b: the character U\+DCFF is not allowed"),
    ],
    ids=["bracket", "twice", "map", "list", "comment", "all-comment", "alias", "tag", "deep", "not-utf-8"],
)
def test_wrong_override_is_refused_with_its_text_and_key(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        parse_value(text, key="a.b")
