"""Build a knowledge store from passages: encode in shards that survive a kill, add, save.

Passages are encoded longest last in fixed shards; each shard is written beside the store's directory
(``<directory>.building/``) when it is done. A build that was killed goes on after the last complete shard and
ends with the same bits. The shards are keyed by everything that decides an embedding, so those of another
encoder, corpus or batch size are never taken. Left out: cutting documents (see `data.chunking`).
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.files import canonical_json, digest_text, read_json, write_atomic, write_json
from trainshed.progress import say, task
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.checks import check_passages, check_vectors
from trainshed.registry import STORES

#: batches of one shard
SHARD_BATCHES = 16


class PassageEncoder(Protocol):
    """What building needs of a retriever."""

    @property
    def name(self) -> str:
        """Name of the passage encoder."""

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""

    @property
    def normalize(self) -> bool:
        """Whether embeddings have length 1."""

    def passage_hash(self) -> str:
        """Hash of the passage encoder's weights."""

    def encode_passages(
        self,
        texts: Sequence[str],
        *,
        batch_size: int,
        dtype: torch.dtype | None = None,
        progress: str | None = None,
    ) -> Tensor:
        """Return embeddings [n, dimension] float32."""


def build_store(
    passages: Sequence[Passage],
    retriever: PassageEncoder,
    *,
    store: str = "memory",
    directory: Path | str | None = None,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    chunker: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> KnowledgeStore:
    """Encode passages and put them into a new store.

    Parameters
    ----------
    passages
        With unique ids; the store keeps their order.
    retriever
        Its passage encoder makes the embeddings.
    store
        Registered name: ``memory``, ``faiss``, ``qdrant``, ``hybrid``.
    directory
        Where the store is saved, atomically; None keeps it in memory, without shards to resume from.
    batch_size
        Texts encoded at once.
    dtype
        Type in which the encoder computes; its own when None.
    chunker
        Settings that cut the documents, for the manifest.
    options
        Further arguments of the store's class.

    Raises
    ------
    StoreError
        When there is no passage, an id stands twice, or an embedding is not finite.
    """
    if not passages:
        raise StoreError(
            "there is no passage to build a store from", fix="a corpus with at least one passage"
        )
    check_passages(passages)
    directory = None if directory is None else Path(directory)
    shards = None if directory is None else directory.parent / f"{directory.name}.building"
    embedder_hash = retriever.passage_hash()
    built: KnowledgeStore = STORES.get(store)(
        dimension=retriever.dimension,
        normalize=retriever.normalize,
        embedder=retriever.name,
        embedder_hash=embedder_hash,
        chunker=chunker,
        **(options or {}),
    )
    key = build_key([passage.text for passage in passages], embedder_hash, batch_size, dtype)
    embeddings = encode_sharded(
        passages, retriever, key=key, shards=shards, batch_size=batch_size, dtype=dtype
    )
    built.add(passages, embeddings)
    if directory is not None:
        built.save(directory)
    if shards is not None:
        shutil.rmtree(shards, ignore_errors=True)
    return built


def build_key(texts: Sequence[str], embedder_hash: str, batch_size: int, dtype: torch.dtype | None) -> str:
    """Return a hash over all that decides the bits of the embeddings and where they lie in the shards."""
    digest = hashlib.blake2b(digest_size=32)
    for text in texts:
        data = text.encode()
        digest.update(f"{len(data)}:".encode() + data)
    key = {
        "texts": digest.hexdigest(),
        "embedder": embedder_hash,
        "batch_size": batch_size,
        "dtype": str(dtype),
        "shard_batches": SHARD_BATCHES,
        "torch": torch.__version__,
    }
    return digest_text(canonical_json(key))


def encode_sharded(
    passages: Sequence[Passage],
    retriever: PassageEncoder,
    *,
    key: str,
    shards: Path | None,
    batch_size: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Encode all passages, [n, dimension] float32 in their order; shards already on disk are read.

    Parameters
    ----------
    passages
        What to encode.
    retriever
        Its passage encoder encodes.
    key
        Shards with another key are thrown away.
    shards
        Directory for the shards; None writes none.
    batch_size, dtype
        As in `build_store`.
    """
    texts = [passage.text for passage in passages]
    # texts of one length share a batch, so little is padded; the index makes the order unique
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
    size = SHARD_BATCHES * batch_size
    embeddings = torch.empty(len(texts), retriever.dimension)
    if shards is not None:
        _open_shards(shards, key)
    reused = 0
    with task("encoding passages", total=len(texts)) as shown:
        for number, start in enumerate(range(0, len(order), size)):
            rows = order[start : start + size]
            path = None if shards is None else shards / f"shard-{number:05d}.safetensors"
            shard = None if path is None else _read_shard(path, (len(rows), retriever.dimension))
            reused += 0 if shard is None else len(rows)
            if shard is None:
                shard = retriever.encode_passages(
                    [texts[row] for row in rows], batch_size=batch_size, dtype=dtype
                )
                shard = _checked_shard(shard, [passages[row] for row in rows], retriever.dimension)
                if path is not None:
                    write_atomic(path, save({"embeddings": shard, "digest": _digest(shard)}))
            embeddings[torch.tensor(rows)] = shard
            shown.advance(len(rows))
    if reused:
        say(f"encoding passages: {reused} of {len(texts)} were encoded before and read from {shards}")
    return embeddings


def _open_shards(shards: Path, key: str) -> None:
    marker = shards / "key.json"
    try:
        known = read_json(marker)
    except (FileNotFoundError, ValueError):
        known = None
    if known != key:
        shutil.rmtree(shards, ignore_errors=True)
        write_json(marker, key)


def _digest(shard: Tensor) -> Tensor:
    data = hashlib.blake2b(shard.contiguous().numpy().tobytes(), digest_size=32).digest()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _read_shard(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Return a complete shard; None when it is missing or damaged, and then it is encoded again."""
    if not path.is_file():
        return None
    try:
        content = load(path.read_bytes())
        shard, digest = content["embeddings"], content["digest"]
    except (SafetensorError, KeyError):
        say(f"{path} is damaged; its passages are encoded again")
        return None
    if tuple(shard.shape) == shape and torch.equal(_digest(shard), digest):
        return shard
    say(f"{path} is damaged; its passages are encoded again")
    return None


def _checked_shard(shard: Tensor, passages: Sequence[Passage], dimension: int) -> Tensor:
    if len(shard) != len(passages):
        raise StoreError(f"the encoder returned {len(shard)} embeddings for {len(passages)} passages")
    return check_vectors(shard, "embedding", dimension, passages)
