"""Reading YAML or JSON into plain data, with the place of every key.

Scalars follow YAML 1.2: only ``true`` and ``false`` are booleans (so ``eval_strategy: no`` is the word),
``5e-6`` is a number, ``2:00:00`` and dates are text. Anchors, aliases and merge keys work. Left out: what
the keys mean.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from trainshed.errors import ConfigError

#: keys from the top of the file down; an integer is the index of a list item
KeyPath = tuple[str | int, ...]

# The C scanner is about ten times faster; PyYAML is built without it on some machines.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreSchemaLoader(_Loader):  # type: ignore[misc]
    """A safe loader that resolves plain scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _CoreSchemaLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


@dataclass(frozen=True)
class Source:
    """A configuration as it was written.

    Parameters
    ----------
    name
        What messages call it: the path of the file as it was given.
    data
        Plain dictionaries, lists and scalars.
    lines
        Line (from 1) of every key and list item.
    """

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]


def read_source(path: Path | str) -> Source:
    """Read a YAML or JSON file.

    Raises
    ------
    ConfigError
        When the file is missing, is not YAML, or does not hold a mapping; with file and line.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("the configuration does not exist", where=name) from None
    except IsADirectoryError:
        raise ConfigError(
            "the configuration is a directory", where=name, fix="name the YAML file in it"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration is not UTF-8 text: {error.reason}", where=name) from None
    return parse_json(text, name) if name.endswith(".json") else parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> Source:
    """Parse YAML text; ``name`` is what messages call it."""
    data, lines = _parse(text, name)
    if data is None:
        raise ConfigError("the configuration is empty", where=name, fix="`trainshed init` writes an example")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else f"the single value {data!r}"
        raise ConfigError(
            f"the configuration is {kind}", where=f"{name}:1", fix="sections with keys, such as `execution:`"
        )
    return Source(name, data, lines)


def parse_json(text: str, name: str) -> Source:
    """Parse JSON text; the lines come from its reading as YAML, of which JSON is nearly a part."""
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error.msg}", where=f"{name}:{error.lineno}") from None
    except ValueError as error:
        raise ConfigError(str(error), where=name) from None
    if not isinstance(data, dict):
        raise ConfigError("the configuration is not an object", where=f"{name}:1")
    try:
        _, lines = _parse(text.replace("\t", " "), name)
    except ConfigError:  # surrogate escapes are JSON and not YAML: messages then name the file without a line
        lines = {}
    return Source(name, data, lines)


def parse_value(text: str, where: str) -> Any:
    """Parse one YAML value, such as the right side of ``key=value``."""
    return _parse(text, where)[0]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} is there twice")
        result[key] = value
    return result


def _parse(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    loader = _CoreSchemaLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        reader = _NodeReader(loader, name)
        return reader.read(node, ()), reader.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _syntax_error(error, text, name, mark.line if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise ConfigError(f"not valid YAML: {error.reason}", where=f"{name}:{line + 1}") from None
    finally:
        loader.dispose()


def _syntax_error(error: yaml.MarkedYAMLError, text: str, name: str, line: int | None) -> ConfigError:
    where = name if line is None else f"{name}:{line + 1}"
    what = f"not valid YAML: {error.problem or error.context}"
    lines = text.splitlines()
    if line is not None and line < len(lines) and re.match(r" *\t", lines[line]):
        return ConfigError("the line is indented with a tab", where=where, fix="indent with spaces")
    return ConfigError(what, where=where)


class _NodeReader:
    """Turns composed nodes into data and remembers where each key stands."""

    def __init__(self, loader: Any, name: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._loader, self._name = loader, name
        self._open: list[int] = []

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the data of one node."""
        if path:
            self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error("an anchor contains itself", node)
        self._open.append(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._mapping(cast(yaml.MappingNode, node), path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value_node in self._pairs(node):
            key = self._key(key_node)
            line = key_node.start_mark.line + 1
            if key in own:
                raise self._error(f"the key {key!r} is there twice, first in line {own[key]}", key_node)
            own[key] = line
            self.lines[(*path, key)] = line
            result[key] = self.read(value_node, (*path, key))
        for merged in self._merged(node):
            for key_node, value_node in self._pairs(merged):
                key = self._key(key_node)
                if key not in result:
                    self.lines[(*path, key)] = key_node.start_mark.line + 1
                    result[key] = self.read(value_node, (*path, key))
        return result

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        return ((k, v) for k, v in node.value if k.tag != "tag:yaml.org,2002:merge")

    def _merged(self, node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise self._error("`<<` merges mappings only", value)
                    yield source

    def _key(self, node: yaml.Node) -> str:
        value = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._error("a key must be a word", node)
        return str(value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, value = node.tag, node.value
        if tag.endswith(":str"):
            return value
        if tag.endswith(":null"):
            return None
        if tag.endswith(":bool"):
            return value.lower() == "true"
        if tag.endswith(":int"):
            return int(value, 0) if value[:2] in ("0x", "0o") else int(value)
        if tag.endswith(":float"):
            return float(re.sub(r"\.(?=inf|nan)", "", value.lower()))
        raise self._error(f"the tag {tag!r} is not known here", node)

    def _error(self, what: str, node: yaml.Node) -> ConfigError:
        return ConfigError(what, where=f"{self._name}:{node.start_mark.line + 1}")
