"""Modules from outside the package that register trainers, stages or stores when they are imported.

Installed plug-ins need none of this: their entry points are found by the registry.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from trainshed.errors import ConfigError


def absolute(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with paths of ``.py`` files made absolute, for a process that starts elsewhere."""
    return tuple(str(Path(name).resolve()) if name.endswith(".py") else name for name in names)


def import_plugins(names: Iterable[str]) -> list[Path]:
    """Import modules by name, or ``.py`` files by path, and return their source files.

    Raises
    ------
    ConfigError
        When there is no such module or file.
    """
    return [_import_file(Path(name)) if name.endswith(".py") else _import_module(name) for name in names]


def _import_file(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError("plug-in file not found", where=str(path))
    module_name = path.stem
    loaded = sys.modules.get(module_name)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or "").resolve() == path.resolve():
        return path
    if loaded is not None:
        raise ConfigError(
            f"a module named {module_name!r} is loaded already", where=str(path), fix="rename the file"
        )
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return path


def _import_module(name: str) -> Path:
    # a module beside the configuration is found also when `trainshed` was not started by `python -m`
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        raise ConfigError(
            f"no module named {name!r}", where="--import", fix="give an importable module or a .py file"
        ) from error
    return Path(module.__file__ or "")
