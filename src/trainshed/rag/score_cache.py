"""What a language model said about an answer, kept so that it is asked once.

While the retriever learns, the generator is frozen, and the same question meets the same passages again in
the next epoch. A score is kept under a hash of everything that decides it, so a changed model, template,
length limit or precision never finds an old one. With a path, scores are also kept in one SQLite file: a kill
loses at most the batch being written; a row that fails its checksum is passed over, and a damaged file is
dropped with a note, since everything in it can be computed again.

Left out: deciding what decides a score (`rag.scoring` makes the scope's hash).
"""

import hashlib
import sqlite3
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from trainshed.errors import RunError
from trainshed.files import disk_errors
from trainshed.progress import say

T = TypeVar("T")

_SCHEMA_VERSION = 1
_KEYS_PER_QUERY = 500
_WAIT_S = 60.0
_SCORE = struct.Struct("<di")


class CachedScore(NamedTuple):
    """The log-likelihood of one answer after one prompt."""

    log_likelihood: float
    """Natural logarithm, summed over the answer's tokens and the end-of-sequence token."""
    n_tokens: int
    """How many tokens the sum is over."""


def score_key(scope: str, query: str, passage: str | None, answer: str) -> bytes:
    """Return the key of one score.

    Parameters
    ----------
    scope
        A hash of the model's weights, template, tokenizer, length limit and precision.
    query, passage, answer
        The texts; no passage (None) and an empty passage are different.

    Returns
    -------
    bytes
        16 bytes; lengths are hashed too, so texts that only join to the same string differ.
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in (scope, query, passage, answer):
        data = b"" if text is None else text.encode("utf-8", "surrogatepass")
        digest.update(b"-" if text is None else b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


class ScoreCache:
    """Scores in memory, and in one file when a path is given.

    Parameters
    ----------
    path
        An SQLite file, made when it is not there; its directory too. None keeps scores in memory only.

    Attributes
    ----------
    hits, misses : int
        How many keys were asked for and found, or not.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.hits = self.misses = 0
        self._memory: dict[bytes, CachedScore] = {}
        self._database = None if path is None else _open(path)

    def get(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        """Return what is known under each key, None where nothing is."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._memory]
        if unknown and self._database is not None:
            self._memory.update(self._run(lambda database: _read(database, unknown)))
        found = [self._memory.get(key) for key in keys]
        missing = sum(score is None for score in found)
        self.hits += len(found) - missing
        self.misses += missing
        return found

    def put(self, scores: Mapping[bytes, CachedScore], *, scope: str = "") -> None:
        """Keep scores; with a file, in one transaction.

        Parameters
        ----------
        scores
            Key to score.
        scope
            The scope of the keys, by which `forget_other_scopes` tells them apart.
        """
        self._memory.update(scores)
        if scores and self._database is not None:
            rows = [(key, scope, _pack(key, score)) for key, score in scores.items()]
            self._run(lambda database: _write(database, rows))

    def forget_other_scopes(self, scope: str) -> None:
        """Drop every score of another scope from the file, and every score from memory."""
        self._memory.clear()
        if self._database is not None:
            self._run(lambda database: _forget(database, scope))

    def __len__(self) -> int:
        if self._database is None:
            return len(self._memory)
        return self._run(lambda database: int(database.execute("SELECT COUNT(*) FROM scores").fetchone()[0]))

    def close(self) -> None:
        """Close the file; what was put is on disk already."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> "ScoreCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` on the file; when the file turns out damaged, on a new and empty one."""
        assert self.path is not None
        assert self._database is not None
        try:
            return work(self._database)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _cannot_use(self.path, error) from error
            self._database.close()
            self._database = _start_anew(self.path, error)
            return work(self._database)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file and make its table when it is new; raise what SQLite raises."""
    database = sqlite3.connect(path, timeout=_WAIT_S)
    try:
        with database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA_VERSION):
                database.execute("DROP TABLE IF EXISTS scores")
            database.execute(
                "CREATE TABLE IF NOT EXISTS scores"
                " (key BLOB PRIMARY KEY, scope TEXT, score BLOB) WITHOUT ROWID"
            )
            database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            database.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _open(path: Path) -> sqlite3.Connection:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise _cannot_use(path, error) from error
        return _start_anew(path, error)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file's content is at fault, and not the disk, a lock or this program."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _start_anew(path: Path, error: Exception) -> sqlite3.Connection:
    say(f"the score cache {path} is damaged ({error}); it is dropped and its scores are computed again")
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _connect(path)


def _cannot_use(path: Path, error: Exception) -> RunError:
    return RunError(
        f"the score cache cannot be read or written: {error}",
        where=str(path),
        fix="free some space, or choose another place for the cache; what was scored before is intact",
    )


def _read(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, CachedScore]:
    found = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(part))
        for key, packed in database.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", part):
            score = _unpack(key, packed)
            if score is not None:
                found[bytes(key)] = score
    return found


def _write(database: sqlite3.Connection, rows: Sequence[tuple[bytes, str, bytes]]) -> None:
    with database:
        database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)


def _forget(database: sqlite3.Connection, scope: str) -> None:
    with database:
        database.execute("DELETE FROM scores WHERE scope <> ?", (scope,))


def _pack(key: bytes, score: CachedScore) -> bytes:
    """Return a score as bytes, with a checksum over it and its key."""
    payload = _SCORE.pack(score.log_likelihood, score.n_tokens)
    return payload + zlib.crc32(key + payload).to_bytes(4, "little")


def _unpack(key: bytes, packed: object) -> CachedScore | None:
    """Return the score, or None when its bytes are not what was written."""
    if not isinstance(packed, bytes) or len(packed) != _SCORE.size + 4:
        return None
    payload, checksum = packed[:-4], int.from_bytes(packed[-4:], "little")
    return CachedScore(*_SCORE.unpack(payload)) if zlib.crc32(key + payload) == checksum else None
