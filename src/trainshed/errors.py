"""Every exception that this package raises on purpose.

::

    TrainshedError              what is wrong, where, and what would be right
    ├── ConfigError             a YAML, an override or a constructor argument
    ├── UnknownNameError        a name that no registry knows
    ├── MissingExtraError       an optional part that is not installed
    ├── NotAvailableError       a documented part that this version does not have
    ├── DataError               a dataset, a document or a column
    ├── StoreError              a knowledge store
    │   └── StoreMismatchError  a store that was built by something else
    ├── ModelError              weights or a tokenizer that cannot be used
    ├── CheckpointError         a checkpoint that is damaged or belongs to another run
    └── RunError                a run that failed, is running elsewhere, or has no room

Left out: messages for bugs in this package; those are ordinary Python exceptions with a traceback.
"""

import difflib
from collections.abc import Iterable


class TrainshedError(Exception):
    """An error that a user can act on.

    Parameters
    ----------
    what
        What is wrong, in one sentence.
    where
        The file, line, key, row or directory it concerns.
    fix
        What would be right.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class ConfigError(TrainshedError):
    """What a YAML, a ``key=value`` override or a constructor argument says cannot be meant."""

    exit_code = 2


class UnknownNameError(TrainshedError):
    """A name that the registry of its kind does not know."""

    exit_code = 2


class MissingExtraError(TrainshedError):
    """An optional part is not installed; the message names the install command."""


class NotAvailableError(TrainshedError):
    """A documented part that this version does not have."""


class DataError(TrainshedError):
    """A dataset, document or column is missing, empty or malformed."""


class StoreError(TrainshedError):
    """A knowledge store cannot do what was asked."""


class StoreMismatchError(StoreError):
    """A knowledge store was built by another embedder, chunker or corpus than the one given."""


class ModelError(TrainshedError):
    """Weights, a tokenizer or a model directory cannot be used."""


class CheckpointError(TrainshedError):
    """A checkpoint is damaged, incomplete, or belongs to another run."""


class RunError(TrainshedError):
    """A run failed, is running elsewhere, or has no room to write."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, or None when none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the fix line for an unknown name: the nearest known one, then all of them."""
    names = sorted(known)
    near = nearest(name, names)
    listed = ", ".join(names)
    return f"did you mean {near!r}? Known: {listed}" if near else f"known: {listed}"


def require_extra(module: str, extra: str) -> None:
    """Raise `MissingExtraError` when ``module`` is not installed; nothing is imported.

    Parameters
    ----------
    module
        Top-level module that the part needs, such as ``faiss``.
    extra
        The extra of this package that brings it.
    """
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(
            f"the Python package {module!r} is not installed", fix=f"pip install 'trainshed[{extra}]'"
        )
