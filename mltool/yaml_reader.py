"""Reads a YAML file into plain values that remember where they stand.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/, section 10.3.2): `2e-5` is a number, `010` is
ten, `on` and `12:30:45` are text. A file may come from anyone: nothing in it runs, and its size, its depth and the
number of nodes that its aliases unfold into are bounded before they cost anything.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from mltool.errors import Message, SpecError

MAX_BYTES = 1 << 20
"""A spec is a few kilobytes; PyYAML needs at most 1.4 s for any 1 MiB that was tried (measured on one EPYC core)."""

MAX_DEPTH = 64
"""Levels of maps and lists after aliases are unfolded: far from the recursion limit, and from any real spec."""

MAX_NODES = 20_000
"""Keys and values, counted after aliases and merge keys are unfolded."""

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a value; `()` is the whole document."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; both numbers are 1-based, columns count characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document and the places of its parts."""

    file: str
    """As the user wrote it."""
    data: Any
    """Plain dicts, lists and scalars; an alias became a copy of its own."""
    keys: Mapping[KeyPath, Position]
    """Where each key of a map stands; one that came by `<<` stands where it was written."""
    values: Mapping[KeyPath, Position]
    """Where each value of a map, each item of a list, and the document `()` begin."""

    files: Mapping[KeyPath, str] = field(default_factory=dict)
    """The file of each path that another file brought; the others stand in `file`."""

    def file_of(self, path: KeyPath) -> str:
        """The file that `path`, or else the nearest of its ancestors that stands somewhere, stands in."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.keys or path[:length] in self.values:
                return self.files.get(path[:length], self.file)
        return self.file

    def on_top_of(self, base: "Document", merge: Callable[[Any, Any], Any]) -> "Document":
        """This document put over another one, by a rule of merging."""
        brought = {path: base.file_of(path) for path in (*base.keys, *base.values)}
        own = {*self.keys, *self.values}
        return Document(
            self.file,
            merge(base.data, self.data),
            {**base.keys, **self.keys},
            {**base.values, **self.values},
            {**{path: file for path, file in brought.items() if path not in own}, **self.files},
        )

    def locate(self, path: KeyPath, *, key: bool = False) -> Position | None:
        """Where `path` stands, or else the nearest of its ancestors that stands somewhere.

        Args:
            path: a path into `data`; it may go on where the document ends.
            key: the place of the key instead of the place of its value.
        """
        for length in range(len(path), -1, -1):
            known = (self.keys.get(path[:length]) if key else None) or self.values.get(path[:length])
            if known:
                return known
        return None


def dotted(path: KeyPath) -> str:
    """The path as messages and `--set` write it: `train.optimizer.Adam`, `convert.0.quantize`."""
    return ".".join(str(part) for part in path)


def read_yaml(path: Path) -> Document:
    """Reads one YAML file.

    Raises:
        SpecError: the file cannot be read, is too large or not UTF-8, or `parse_yaml` refuses its text.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SpecError(Message("no such file", "`mltool init` writes a first one", file)) from error
    except IsADirectoryError as error:
        raise SpecError(Message("is a directory", "name the YAML file in it", file)) from error
    except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(Message(f"cannot be read ({reason})", file=file)) from error
    _check_size(len(content), file)
    return parse_yaml(_decode(content, file), file)


def parse_yaml(text: str, file: str) -> Document:
    """Reads YAML text.

    Args:
        text: exactly one document.
        file: the name that messages give it.

    Raises:
        SpecError: the text is empty, too large or too deep, or not YAML; or it holds duplicate keys, keys that are not
            text, foreign tags, numbers out of range, unknown aliases or wrong merge keys: every one of them.
    """
    reading = _Reading(file)
    root = reading.compose(text.removeprefix("\ufeff"))
    if root is None or (root.plain and not root.text):
        reading.fail("the file is empty", "`mltool init` writes a first spec", None)
    data = reading.build(root, ())
    reading.finish()
    return Document(file, data, reading.keys, reading.values)


def parse_value(text: str, file: str = "--set", *, key: str = "") -> Any:
    """Reads one value of an override such as `--set train.epochs=3`, by the rules and bounds of a file.

    Args:
        text: a scalar, or a map or list in braces or brackets; empty is null.
        file: the name that messages give it; they hold the text instead of a line and column.
        key: the dotted path that is overridden, for messages.

    Raises:
        SpecError: as `parse_yaml`; also if part of the text would be lost as a comment, or it is a map without braces.
    """
    reading = _Reading(file)
    try:
        root = reading.compose(text)
        _check_override(reading, root, text.strip())
        value = None if root is None else reading.build(root, ())
        reading.finish()
    except SpecError as error:
        raise SpecError(_about_value(message, text, key) for message in error.messages) from error
    return value


def _check_override(reading: "_Reading", root: "_Node | None", text: str) -> None:
    """Refuses what YAML reads, but hardly as it was meant on a command line."""
    if root and root.kind != "scalar" and not root.flow:
        reading.fail("a map or list needs brackets here", "write {key: value} or [a, b], or put a text in quotes", None)
    read = root.text if root else ""
    if (root is None or root.plain) and read != text:
        reading.fail(f"YAML would read only {_shown(read)}", "put the text in quotes", None)


def _about_value(message: Message, text: str, key: str) -> Message:
    full_key = ".".join(part for part in (key, message.key) if part)
    return replace(message, message=f"{message.message} (in {_shown(text)})", line=None, column=None, key=full_key)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


# Bytes and characters


def _check_size(size: int, file: str) -> None:
    if size > MAX_BYTES:
        hint = "a spec holds settings; keep data in files of their own"
        raise SpecError(Message(f"larger than {MAX_BYTES >> 20} MiB", hint, file))


def _decode(content: bytes, file: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError(Message("is UTF-16 text", "save it as UTF-8", file))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rest = error.object  # without the byte order mark, which `error.start` does not count either
        place = _position(rest[: error.start].decode())
        message = f"is not UTF-8 text (byte 0x{rest[error.start]:02x})"
        raise SpecError(Message(message, "save it as UTF-8", file, place.line, place.column)) from error


_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as PyYAML counts lines
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2, 5.1
_NOT_IN_ESCAPES = re.compile("[\0\ud800-\udfff]")  # "\0" crashes `open`, and "\ud800" `print`


def _position(before: str) -> Position:
    """The place just after the text `before`."""
    lines = _LINE_BREAK.split(before)
    return Position(len(lines), len(lines[-1]) + 1)


def _place(mark: Any) -> Position:  # Any: PyYAML's stubs have several types of marks, and a None that never comes
    return Position(mark.line + 1, mark.column + 1)


# Syntax errors

_QUOTE = "put the whole text in quotes"
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    # What PyYAML says ("context: problem"), what we say, how to fix it; the first row that matches.
    (r"character '\\t'", "a tab stands where YAML takes only spaces", "indent with spaces"),
    (r"character '(.)' that cannot start", "a value cannot begin with '{0}'", _QUOTE),
    ("mapping values are not", "a ':' cannot stand here", "quote a text with ': ', or look at the indentation above"),
    ("could not find expected ':'", "a ':' is missing after this key", "write `key: value`"),
    ("sequence entries are not", "a list cannot begin here", "begin it on the next line, or write [a, b]"),
    ("quoted scalar: found unexpected", "this quote is never closed", "add the closing quote"),
    ("unknown escape character '(.*)'", "\\{0} means nothing in double quotes", r"use single quotes, or write \\"),
    ("an (alias|anchor): expected", "no name of an {0} follows", "quote a text that begins with * or &"),
    ("'<stream end>'", "this bracket is never closed", "add the closing bracket"),
    ("expected (',' or '.'), but", "expected {0} in the bracket of line {start}", "close it, or quote a text in it"),
    ("found '([]}])'", "this '{0}' closes nothing", _QUOTE),
    ("node content, but found '(.*)'", "a value is missing before '{0}'", ""),
    ("block end>.*<(scalar|alias|anchor|tag)>", "the value ended before this text", f"{_QUOTE}; inside '...' write ''"),
    ("expected <block end>", "the indentation does not fit the lines above", "align the keys of a map"),
    ("undefined tag handle '(.*)'", "the tag {0} is not allowed", "leave it out"),
    ("'<document start>'", "the document ended before this text", _QUOTE),
)
# What was opened matters there, not where the parser gave up.
_AT_ITS_BEGINNING = re.compile("'<stream end>'|quoted scalar: found unexp|expected ':'|an (alias|anchor): expected")


def _syntax_message(error: Exception, file: str) -> Message:
    """What is wrong, in the words of somebody who writes a spec rather than a parser."""
    if not isinstance(error, yaml.MarkedYAMLError):  # chr() or int() inside PyYAML
        return Message(f"an escape or a number is out of range ({error})", "look for \\U and %YAML", file)
    said = f"{error.context or ''}: {error.problem or ''}"
    message, hint = f"not YAML: {error.problem}", ""
    for pattern, ours, our_hint in _SYNTAX:
        if found := re.search(pattern, said, re.DOTALL):
            start = error.context_mark.line + 1 if error.context_mark else "?"
            message, hint = ours.format(*found.groups(), start=start), our_hint
            break
    begins = error.context_mark if _AT_ITS_BEGINNING.search(said) else None
    place = _place(begins or error.problem_mark or error.context_mark)
    return Message(message, hint, file, place.line, place.column)


# Scalars

_TAG = "tag:yaml.org,2002:"
_KIND_OF_TAG = dict.fromkeys(("str", "int", "float", "bool", "null"), "scalar") | {"map": "map", "seq": "list"}

_SCALARS: tuple[tuple[str, re.Pattern[str], Callable[[str], Any]], ...] = (
    ("null", re.compile("null|Null|NULL|~|"), lambda text: None),
    ("bool", re.compile("true|True|TRUE"), lambda text: True),
    ("bool", re.compile("false|False|FALSE"), lambda text: False),
    ("int", re.compile("[-+]?[0-9]+"), int),
    ("int", re.compile("0o[0-7]+"), lambda text: int(text, 8)),
    ("int", re.compile("0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    ("float", re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    ("float", re.compile(r"\.(nan|NaN|NAN)"), lambda text: math.nan),
)


def _resolve(node: "_Node") -> Any:
    """The value of a scalar.

    Raises:
        ValueError: with a message and a hint.
    """
    if found := _NOT_IN_ESCAPES.search(node.text):
        raise ValueError(f"the character U+{ord(found[0]):04X} is not allowed", "remove it")
    if node.tag == "str" or not (node.tag or node.plain):
        return node.text
    for name, pattern, convert in _SCALARS:
        if node.tag in ("", name) and pattern.fullmatch(node.text):
            return _in_range(node.text, name, convert)
    if node.tag:
        raise ValueError(f"{_shown(node.text)} is not what the tag !!{node.tag} says", "leave the tag out")
    return node.text


def _in_range(text: str, name: str, convert: Callable[[str], Any]) -> Any:
    # The length first: Python does not convert integers of more than 4,300 digits.
    if name == "int" and (len(text) > 64 or not -(2**63) <= convert(text) < 2**64):
        raise ValueError(f"{_shown(text)} does not fit in 64 bits", "put it in quotes if it is text")
    value = convert(text)
    if name == "float" and math.isinf(value) and "inf" not in text.lower():
        raise ValueError(f"{_shown(text)} is too large for a number", "write .inf for infinity")
    return value


# Nodes


@dataclass(slots=True)
class _Node:
    """What the text holds, before aliases unfold."""

    kind: Literal["scalar", "list", "map"]
    position: Position
    tag: str = ""
    plain: bool = False
    flow: bool = False
    text: str = ""
    items: list["_Node"] = field(default_factory=list)
    """Of a list its items, of a map its keys and values by turns."""


_Pair = tuple[_Node, _Node]  # a key and its value


class _Reading:
    """One text: events to nodes (`compose`), nodes to values (`build`), and the mistakes that were found on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.keys: dict[KeyPath, Position] = {}
        self.values: dict[KeyPath, Position] = {}
        self._problems: dict[tuple[Position | None, str], Message] = {}
        self._num_nodes = 0

    def note(self, message: str, hint: str, position: Position | None, path: KeyPath = ()) -> None:
        """Keeps a mistake; the first only, where an alias shows the same place again."""
        line, column = (position.line, position.column) if position else (None, None)
        found = Message(message, hint, self.file, line, column, dotted(path))
        self._problems.setdefault((position, message), found)

    def fail(self, message: str, hint: str, position: Position | None, path: KeyPath = ()) -> NoReturn:
        """Stops at a mistake after which reading on makes no sense."""
        self.note(message, hint, position, path)
        raise SpecError(self._problems.values())

    def finish(self) -> None:
        """Raises every mistake that was kept, in the order of the text."""
        if self._problems:
            raise SpecError(sorted(self._problems.values(), key=lambda found: (found.line or 0, found.column or 0)))

    def compose(self, text: str) -> _Node | None:
        """The tree of nodes, or None where there is no document."""
        top = _Node("list", Position(1, 1))  # stands around the root, which so needs no case of its own
        open_nodes, anchors, num_documents = [top], dict[str, _Node](), 0
        for event in self._events(text):
            place = _place(event.start_mark)
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, anchors, open_nodes)
                open_nodes[-1].items.append(node)
                if isinstance(event, yaml.CollectionStartEvent):
                    open_nodes.append(node)
                if len(open_nodes) - 1 > MAX_DEPTH:
                    self._fail_depth(place)
            elif isinstance(event, yaml.CollectionEndEvent):
                open_nodes.pop()
            elif isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    self.fail("a second document begins here", "keep one document in a file, without '---'", place)
        return top.items[0] if top.items else None

    def _events(self, text: str) -> Iterator[yaml.Event]:
        _check_size(len(text), self.file)
        if found := _NOT_ALLOWED.search(text):
            hint = "a spec is text: save it as UTF-8" if found[0] == "\0" else "remove it"
            self.fail(f"the character U+{ord(found[0]):04X} is not allowed", hint, _position(text[: found.start()]))
        try:
            # The pure-Python parser: libyaml's is faster (0.8 against 12 ms for 300 lines), but not in every build of
            # PyYAML, and words its errors otherwise.
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise SpecError((*self._problems.values(), _syntax_message(error, self.file))) from error

    def _node(self, event: yaml.NodeEvent, anchors: dict[str, _Node], open_nodes: list[_Node]) -> _Node:
        place = _place(event.start_mark)
        self._count(place)
        if isinstance(event, yaml.ScalarEvent):
            node = _Node("scalar", place, plain=event.implicit[0], text=event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            kind: Literal["map", "list"] = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
            node = _Node(kind, place, flow=bool(event.flow_style))
        else:
            return self._alias(str(event.anchor), place, anchors, open_nodes)
        node.tag = self._tag(event.tag, node)
        if event.anchor and event.anchor in anchors:
            first = anchors[event.anchor].position.line
            self.note(f"the anchor &{event.anchor} is already on line {first}", "give it another name", place)
        elif event.anchor:
            anchors[event.anchor] = node
        return node

    def _alias(self, name: str, place: Position, anchors: dict[str, _Node], open_nodes: list[_Node]) -> _Node:
        target = anchors.get(name)
        if target is None:
            hint = f"set &{name} above, or put a text that begins with * in quotes"
            self.note(f"no anchor &{name} stands before this alias", hint, place)
            return _Node("map", place, flow=True)  # of no consequence: an empty map may stand anywhere, after `<<` too
        if any(target is node for node in open_nodes):
            self.fail(f"*{name} stands inside the value that it repeats", "a value cannot hold itself", place)
        return replace(target, position=place)

    def _tag(self, tag: str | None, node: _Node) -> str:
        if not tag:
            return ""
        name = tag.removeprefix(_TAG) if tag.startswith(_TAG) else ""
        if _KIND_OF_TAG.get(name) == node.kind:
            return name
        shown = tag.replace(_TAG, "!!", 1)
        if name in _KIND_OF_TAG:
            self.note(f"the tag {shown} does not fit a {node.kind}", "leave it out", node.position)
        else:
            self.note(f"the tag {_shown(shown)} is not allowed", "leave it out; values are plain", node.position)
        return ""

    def build(self, node: _Node, path: KeyPath) -> Any:
        """The plain value of a node; its places go to `keys` and `values`."""
        if not path:
            self._num_nodes = 0  # `compose` counted what is written; this counts what it unfolds into
        self._count(node.position)
        self.values[path] = node.position
        if node.kind == "scalar":
            return self._scalar(node, path)
        if len(path) >= MAX_DEPTH:
            self._fail_depth(node.position)
        if node.kind == "list":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.items)]
        data = {}
        for name, (key, value) in self._pairs(node, path).items():
            self.keys[*path, name] = key.position
            data[name] = self.build(value, (*path, name))
        return data

    def _pairs(self, node: _Node, path: KeyPath, merge_depth: int = 0) -> dict[str, _Pair]:
        """The keys and values of a map; first those that it merges, which its own override."""
        if merge_depth > MAX_DEPTH:
            self._fail_depth(node.position)
        own = self._own_pairs(node, path)
        merged: dict[str, _Pair] = {}
        if merge := own.pop(None, None):
            for source in self._merge_sources(merge[1], path):
                self._count(source.position)
                for name, pair in self._pairs(source, path, merge_depth + 1).items():
                    merged.setdefault(name, pair)
        return merged | {name: pair for name, pair in own.items() if name is not None}

    def _own_pairs(self, node: _Node, path: KeyPath) -> dict[str | None, _Pair]:
        """The keys that a map writes itself; None stands for the merge key `<<`, which in quotes is like any other."""
        own: dict[str | None, _Pair] = {}
        for key, value in zip(node.items[::2], node.items[1::2], strict=True):
            self._count(key.position)
            is_merge = key.plain and key.text == "<<"
            name = None if is_merge else self._key_name(key, path)
            if name in own:
                hint = "write one `<<: [*a, *b]`" if is_merge else "keep one of them"
                message = f"this key is already on line {own[name][0].position.line}"
                self.note(message, hint, key.position, (*path, key.text))
                self.build(value, (*path, key.text))  # for the mistakes in it
            else:
                own[name] = key, value
        return own

    def _merge_sources(self, value: _Node, path: KeyPath) -> list[_Node]:
        sources = value.items if value.kind == "list" else [value]
        for source in sources:
            if source.kind != "map":
                hint = "write `<<: *name` or `<<: [*a, *b]`, where the names are of maps"
                self.note(f"<< merges maps only (got a {source.kind})", hint, source.position, path)
        return [source for source in sources if source.kind == "map"]

    def _key_name(self, key: _Node, path: KeyPath) -> str:
        """The key as text; any other type is a mistake, and the reading goes on under its text to find more."""
        if key.kind != "scalar":
            self.note(f"a key must be text (got a {key.kind})", "put it in quotes", key.position, path)
            return f"<{key.kind} {key.position}>"
        if not isinstance(self._scalar(key, path), str):
            shown = key.text or "an empty key"
            self.note(f"a key must be text (got {shown})", f'put it in quotes: "{key.text}"', key.position, path)
        return key.text

    def _scalar(self, node: _Node, path: KeyPath) -> Any:
        try:
            return _resolve(node)
        except ValueError as error:
            message, hint = error.args
            self.note(message, hint, node.position, path)
            return node.text

    def _count(self, place: Position) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            self.fail(
                f"more than {MAX_NODES:,} keys and values", "a spec is smaller; do aliases repeat aliases?", place
            )

    def _fail_depth(self, place: Position) -> NoReturn:
        self.fail(f"nested deeper than {MAX_DEPTH} levels", "a spec is flatter than that", place)
