"""Write the tables of third-party argument classes that the control plane checks YAML against.

Run it after an update of the libraries: ``python scripts/generate_tables.py``. A test fails when a table
and the installed class differ.
"""

import dataclasses
import enum
import importlib
import importlib.metadata
import json
import os
import re
import types
import typing
from pathlib import Path
from typing import Any

from trainshed.config.arguments import SETTING_ARGUMENTS
from trainshed.files import write_atomic

TABLES = Path(__file__).parent.parent / "src" / "trainshed" / "config" / "tables"
BASE = "transformers.TrainingArguments"
TRL = (
    *("trl.SFTConfig", "trl.RewardConfig", "trl.DPOConfig", "trl.KTOConfig"),
    *("trl.GRPOConfig", "trl.RLOOConfig", "trl.DistillationConfig"),
    *("trl.experimental.orpo.ORPOConfig", "trl.experimental.cpo.CPOConfig"),
    *("trl.experimental.gkd.GKDConfig", "trl.experimental.online_dpo.OnlineDPOConfig"),
)
CLASSES = (BASE, *TRL)
NAMES = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list[str]"}
LISTS = {(float,): "list[float]", (int,): "list[int]"}


def describe(annotation: Any) -> tuple[list[str], bool, tuple[str, ...]]:
    """Return the written types of an annotation, whether it may be None, and its fixed words."""
    if annotation is type(None):
        return [], True, ()
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ["str"], False, tuple(member.value for member in annotation)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [describe(part) for part in typing.get_args(annotation)]
        names = list(dict.fromkeys(name for part in parts for name in part[0]))
        return names, any(part[1] for part in parts), next((part[2] for part in parts if part[2]), ())
    if origin is typing.Literal:
        return list(dict.fromkeys(NAMES[type(v)] for v in typing.get_args(annotation))), False, ()
    if origin is list and typing.get_args(annotation) in LISTS:
        return [LISTS[typing.get_args(annotation)]], False, ()
    if (origin or annotation) in NAMES:
        return [NAMES[origin or annotation]], False, ()
    return ["object"], False, ()


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text, on one line."""
    line = re.sub(r"\s+", " ", text.replace("%%", "%")).strip()
    return re.split(r"(?<=[.!?]) (?=[A-Z`\"'])", line, maxsplit=1)[0]


def row(field: "dataclasses.Field[Any]", annotation: Any) -> dict[str, Any]:
    """Return the table row of one dataclass field."""
    names, nullable, choices = describe(annotation)
    if field.metadata.get("const") is True and "bool" not in names:
        names.append("bool")  # the annotation leaves out what the bare flag means
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        raise TypeError(f"{field.name} has no default")
    if isinstance(default, enum.Enum):
        default = default.value
    if names == ["float"] and isinstance(default, int):
        default = float(default)
    result = {
        "name": field.name,
        "type": " | ".join(names),
        "nullable": nullable or default is None,
        "default": default,
        "help": first_sentence(field.metadata.get("help") or ""),
    }
    if choices and "list[str]" not in names:
        result["choices"] = list(choices)
    if field.name in SETTING_ARGUMENTS:
        result["setting"] = True
    return result


def table(name: str) -> dict[str, Any]:
    """Return the table of one argument class, given as ``module.Class``.

    That of a class which derives from `BASE` holds only what differs, and the fields that it took away.
    """
    fields = fields_of(name)
    library = name.split(".")[0]
    result = {"class": name, "library": library, "version": importlib.metadata.version(library)}
    if name != BASE:
        inherited = fields_of(BASE)
        result |= {"extends": BASE, "without": sorted(inherited.keys() - fields.keys())}
        fields = {key: value for key, value in fields.items() if inherited.get(key) != value}
    return {**result, "fields": list(fields.values())}


def fields_of(name: str) -> dict[str, dict[str, Any]]:
    """Return every field of a class; one that only a Python object can fill has no place in a YAML."""
    module, _, attribute = name.rpartition(".")
    cls = getattr(importlib.import_module(module), attribute)
    hints = typing.get_type_hints(cls)
    rows = (row(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init)
    return {r["name"]: r for r in rows if "object" not in r["type"]}


def main() -> None:
    """Write every table."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    for name in CLASSES:
        write_atomic(TABLES / f"{name}.json", json.dumps(table(name), indent=1) + "\n")
        print(TABLES / f"{name}.json")


if __name__ == "__main__":
    main()
