"""A configuration as data with the place of every key, and joining two of them.

Left out: what keys mean.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.config.yaml_source import KeyPath, Source


@dataclass
class Document:
    """Plain data, and for each key and list item the place that messages name.

    Parameters
    ----------
    name
        Place of anything that has none of its own: the file.
    data
        Sections, keys, values.
    places
        ``file:line`` or ``command line`` of each key path.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def from_source(cls, source: Source) -> "Document":
        """Return the document that a file holds."""
        places = {path: f"{source.name}:{line}" for path, line in source.lines.items()}
        # its own copy: values are filled in later
        return cls(source.name, copy.deepcopy(source.data), places)

    def place(self, path: KeyPath) -> str:
        """Return where a key stands, or the nearest one above it."""
        for length in range(len(path), 0, -1):
            if (place := self.places.get(path[:length])) is not None:
                return place
        return self.name

    def get(self, path: KeyPath) -> Any:
        """Return the value at a path, or None."""
        value: Any = self.data
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    def put(self, path: KeyPath, value: Any, places: Mapping[KeyPath, str]) -> None:
        """Set the value at a path; ``places`` are those of the value, relative to it (``()`` is its key)."""
        target = self.data
        for length, key in enumerate(path[:-1], 1):
            inner = target.get(str(key))
            if not isinstance(inner, dict):
                inner = target[str(key)] = {}
                self.places.setdefault(path[:length], places.get((), self.name))
            target = inner
        target[str(path[-1])] = value
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]
        self.places.update({(*path, *below): place for below, place in places.items()})

    def places_below(self, path: KeyPath) -> dict[KeyPath, str]:
        """Return the places of a value, relative to it."""
        size = len(path)
        return {p[size:]: place for p, place in self.places.items() if p[:size] == path}

    def remove(self, path: KeyPath) -> None:
        """Take away a key and what is below it; nothing happens where it is not there."""
        above = self.get(path[:-1]) if len(path) > 1 else self.data
        if isinstance(above, dict) and path[-1] in above:
            del above[str(path[-1])]
            for old in [p for p in self.places if p[: len(path)] == path]:
                del self.places[old]


def join(under: Any, over: Any) -> Any:
    """Return ``over`` laid over ``under``: mappings are joined key by key, anything else replaces."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    joined = dict(under)
    for key, value in over.items():
        joined[key] = join(under[key], value) if key in under else value
    return joined


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it."""
    return ".".join(str(key) for key in path)
