"""Writing so that a crash leaves the last complete state, and hashing what was written.

Everything is written beside its final name, synced, and renamed. Left out: locking (see `plan.directory`).
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainshed.errors import RunError

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_text(text: str, length: int = 32) -> str:
    """Return the first ``length`` hex digits of the BLAKE2b hash of ``text``."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=32).hexdigest()[:length]


def digest_file(path: Path, length: int = 32) -> str:
    """Return the first ``length`` hex digits of the BLAKE2b hash of a file's bytes."""
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:length]


def digest_tree(path: Path, length: int = 32) -> str:
    """Return one hash over a file, or over every file of a directory and its relative name."""
    if path.is_file():
        return digest_file(path, length)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest_text("\n".join(f"{p.relative_to(path).as_posix()} {digest_file(p)}" for p in files), length)


def sync_directory(path: Path) -> None:
    """Ask the system to write a directory's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Ask the system to write every file below ``path`` to disk."""
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden write into a `RunError` that names the directory."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                "the disk is full; what was complete before is still intact",
                where=str(path),
                fix="free some space and run the same command again: it goes on from there",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RunError(f"cannot write: {error.strerror}", where=str(path)) from error
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes ``path``, replacing what was there, when the block succeeds.

    On an error or a kill ``path`` is untouched; a kill leaves a ``.<name>.*.partial`` beside it, which the
    next call for the same name removes. In the moment between the two renames of a replacement the old
    state lies at ``.<name>.old``; `recover_directory` puts it back.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_directory(path)
        for stale in path.parent.glob(f".{path.name}.*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
        os.chmod(partial, 0o755)
        try:
            yield partial
            sync_tree(partial)
            old = path.parent / f".{path.name}.old"
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
            sync_directory(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            recover_directory(path)
            raise


def recover_directory(path: Path) -> None:
    """Put back the old state of a directory whose replacement was killed between its two renames."""
    old = path.parent / f".{path.name}.old"
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, path)
