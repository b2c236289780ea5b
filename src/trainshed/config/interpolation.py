"""``${env:NAME}`` and ``${stages.NAME}`` in values.

The first is replaced when the configuration is read, and remembered, so that a secret is never written to
disk. The second stays as it is until a worker knows where the stage left its outputs. Left out: anything
else between ``${`` and ``}``; it is an error.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainshed.config.documents import Document, dotted
from trainshed.config.problems import Problem
from trainshed.config.yaml_source import KeyPath

_MARK = re.compile(r"\$\{([^}]*)\}")
_ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_STAGE = re.compile(r"\$\{stages\.([A-Za-z0-9_-]+)\}(/.*)?")


def stage_reference(text: Any) -> tuple[str, str] | None:
    """Return the stage that a value refers to and the path below its outputs, or None."""
    match = _STAGE.fullmatch(text) if isinstance(text, str) else None
    return (match[1], (match[2] or "").lstrip("/")) if match else None


def resolve_stage(text: str, outputs: Mapping[str, Path]) -> str:
    """Return a value with the stage that it refers to replaced by where that stage left its outputs.

    ``outputs`` maps names of stages to directories; a reference to any other stage stays as it is.
    """
    reference = stage_reference(text)
    if reference is None or reference[0] not in outputs:
        return text
    return str(outputs[reference[0]] / reference[1])


def fill_environment(text: str, environ: Mapping[str, str]) -> str:
    """Return ``text`` with every ``${env:NAME}`` replaced; a `KeyError` names the one that is not set."""
    return _MARK.sub(
        lambda mark: environ[found[1]] if (found := _ENVIRONMENT.fullmatch(mark[1])) else mark[0], text
    )


def interpolate(document: Document, environ: Mapping[str, str]) -> tuple[dict[KeyPath, str], list[Problem]]:
    """Replace ``${env:NAME}`` in place.

    Returns
    -------
    tuple
        What each changed value was before, by its path; and the problems.
    """
    templates: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for path, holder, key in list(_strings(document.data, ())):
        text = holder[key]
        problem = _problem(text)
        if problem is None:
            try:
                filled = fill_environment(text, environ)
            except KeyError as error:
                problem = f"the environment variable {error.args[0]} is not set"
            else:
                if filled != text:
                    templates[path] = text
                    holder[key] = filled
        if problem:
            holder[key] = None  # one problem is enough
            problems.append(Problem(problem, document.place(path), dotted(path)))
    return templates, problems


def _problem(text: str) -> str | None:
    for mark in _MARK.finditer(text):
        if _ENVIRONMENT.fullmatch(mark[1]) or _STAGE.fullmatch(text):
            continue
        if mark[1].startswith("stages."):
            return f"{mark[0]} must begin the value and may only be followed by a /path"
        return f"{mark[0]} is not known; there are ${{env:NAME}} and ${{stages.NAME}}"
    return None


def _strings(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, str):
            if "${" in inner:
                yield (*path, key), value, key
        else:
            yield from _strings(inner, (*path, key))
