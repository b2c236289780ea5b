"""Checkpoints that are whole or not there.

A checkpoint is written beside its final name, with a manifest of digests, synced, and renamed. Reading
verifies the digests, so that a torn or bit-flipped one is found and the one before it is used; when none is
whole, the training stops instead of starting over unasked. Left out: what a checkpoint holds (see `loop`).
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from trainshed.errors import CheckpointError, RunError
from trainshed.files import digest_file, disk_errors, read_json, sync_directory, sync_tree, write_json
from trainshed.progress import say

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")
#: how libraries that write in C++ or Rust say that a write failed
_NO_ROOM = re.compile(r"no space left|code: 28\b|write(?:v)? failed|failed writing|PytorchStreamWriter", re.I)


def checkpoint_step(path: Path) -> int:
    """Return the step of a checkpoint directory."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is no checkpoint")
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """Return every checkpoint of a directory, intact or not, newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step, reverse=True)


def write_manifest(path: Path, fingerprint: str) -> None:
    """Write the digests of every file of a checkpoint, and what training it belongs to."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    rows = {
        file.relative_to(path).as_posix(): {"size": file.stat().st_size, "digest": digest_file(file)}
        for file in files
    }
    write_json(path / MANIFEST, {"format": 1, "fingerprint": fingerprint, "files": rows})


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when every file is as it was written."""
    try:
        manifest = read_json(path / MANIFEST)
        files = {name: (row["size"], row["digest"]) for name, row in manifest["files"].items()}
        manifest["fingerprint"]  # must be there too
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return f"{MANIFEST} is damaged"
    for name, (size, digest) in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        try:
            if file.stat().st_size != size or digest_file(file) != digest:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def latest_checkpoint(directory: Path, fingerprint: str) -> Path | None:
    """Return the newest intact checkpoint; damaged ones that are newer are removed, and a line says so.

    Parameters
    ----------
    directory
        Where the checkpoints lie.
    fingerprint
        Of the training that wants to go on.

    Raises
    ------
    CheckpointError
        When there are checkpoints and none is intact, or the newest intact one belongs to another training;
        nothing is removed then.
    """
    unusable: dict[Path, str] = {}
    for path in checkpoints(directory):
        wrong = damage(path)
        if wrong is None:
            _check_fingerprint(path, fingerprint)
            for damaged, why in unusable.items():
                say(f"{damaged.name} is not usable and is removed: {why} ({damaged})")
                # it would count as one of the newest when the ones that are too many are deleted
                shutil.rmtree(damaged)
            say(f"going on from step {checkpoint_step(path)} ({path})")
            return path
        unusable[path] = wrong
    if unusable:
        found = "; ".join(f"{path.name}: {wrong}" for path, wrong in unusable.items())
        raise CheckpointError(
            f"no checkpoint of this training is usable ({found})",
            where=str(directory),
            fix="delete this directory and run the same command again, or run it with --force and the name "
            "of this run: either trains from the beginning",
        )
    return None


def _check_fingerprint(path: Path, fingerprint: str) -> None:
    if read_json(path / MANIFEST)["fingerprint"] != fingerprint:
        raise CheckpointError(
            "the checkpoint belongs to another training: its weights, data, arguments or seed differ",
            where=str(path),
            fix="give another directory, or delete this one to start afresh",
        )


def remove_checkpoints(directory: Path) -> None:
    """Delete every checkpoint of an earlier training."""
    for path in checkpoints(directory):
        shutil.rmtree(path)


def install_checkpoint(partial: Path, final: Path) -> None:
    """Give a complete checkpoint its final name; what stood there goes away."""
    sync_tree(partial)
    if final.exists():
        stale = final.parent / f".{final.name}.old"
        shutil.rmtree(stale, ignore_errors=True)
        os.replace(final, stale)
    os.replace(partial, final)
    sync_directory(final.parent)
    shutil.rmtree(final.parent / f".{final.name}.old", ignore_errors=True)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a `RunError`, also where a library written in another language reports it."""
    try:
        with disk_errors(path):
            yield
    except (RuntimeError, SafetensorError) as error:
        if not _NO_ROOM.search(str(error)):
            raise
        with disk_errors(path):
            raise OSError(errno.ENOSPC, str(error)) from error


@contextlib.contextmanager
def written_into(path: Path) -> Iterator[Path]:
    """Yield an empty directory whose files move into ``path`` one by one when the block succeeds.

    Other files of ``path`` stay. On an error nothing there has changed.
    """
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path, prefix=".writing."))
        try:
            yield partial
            sync_tree(partial)
            for file in sorted(partial.rglob("*")):
                target = path / file.relative_to(partial)
                if file.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    os.replace(file, target)
            sync_directory(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def not_finite(what: str, value: float, step: int, directory: Path | None, *, rows: str = "") -> RunError:
    """Return the error for a loss or gradient that is no finite number, made by ``rows``."""
    kept = checkpoints(directory)[:1] if directory else []
    return RunError(
        f"the {what} is not a finite number ({value}) at step {step}" + (f", on {rows}" if rows else ""),
        where=str(kept[0]) + " is the last good checkpoint" if kept else None,
        fix="lower training.learning_rate, add warm-up steps, or set training.max_grad_norm: 1.0",
    )
