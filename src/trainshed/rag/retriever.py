"""A retriever: one encoder for questions and passages, or one for each.

LSR trains the question side against passages that stay as they are, so a single encoder can be made dual
(`Retriever.as_dual`). Left out: the store that is searched (`rag.stores`), and training (`trainers.lsr`).
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from trainshed.errors import ConfigError, ModelError
from trainshed.files import atomic_directory, read_json, write_json
from trainshed.models.encoders import DEFAULT_ENCODER, TextEncoder, load_encoder, weights_hash

_MANIFEST = "retriever.json"


class Retriever:
    """Questions and passages to vectors of one space.

    Parameters
    ----------
    query_encoder
        Encodes questions, and passages too when there is no ``passage_encoder``.
    passage_encoder
        Encodes passages.
    name
        What manifests call the passage encoder.
    """

    def __init__(
        self,
        query_encoder: TextEncoder,
        passage_encoder: TextEncoder | None = None,
        *,
        name: str = DEFAULT_ENCODER,
    ) -> None:
        self.query_encoder = query_encoder
        self.passage_encoder = passage_encoder or query_encoder
        self.name = name
        if self.query_encoder.dimension != self.passage_encoder.dimension:
            raise ConfigError(
                f"the query encoder makes vectors of {self.query_encoder.dimension} numbers, the passage "
                f"encoder of {self.passage_encoder.dimension}",
                fix="two encoders of one family",
            )

    @classmethod
    def from_names(
        cls, passage_encoder: str = DEFAULT_ENCODER, query_encoder: str | None = None, *, device: str = "cpu"
    ) -> Self:
        """Load a retriever from names or directories of encoders, or from what `save` wrote."""
        place = Path(passage_encoder).expanduser()
        if query_encoder is None and (place / _MANIFEST).is_file():
            return cls.load(place, device=device)
        passages = load_encoder(passage_encoder, device=device)
        queries = None if query_encoder is None else load_encoder(query_encoder, device=device)
        if queries is None:
            return cls(passages, name=passage_encoder)
        return cls(queries, passages, name=passage_encoder)

    @property
    def is_dual(self) -> bool:
        """Whether questions and passages have encoders of their own."""
        return self.query_encoder is not self.passage_encoder

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.passage_encoder.dimension

    @property
    def normalize(self) -> bool:
        """Whether vectors have length 1, so that inner products are cosines."""
        return self.passage_encoder.normalize

    def passage_hash(self) -> str:
        """Return the hash of the passage encoder's weights, which a store's manifest is checked against."""
        return weights_hash(self.passage_encoder)

    def query_hash(self) -> str:
        """Return the hash of the query encoder's weights."""
        return weights_hash(self.query_encoder)

    def as_dual(self) -> None:
        """Give questions an encoder of their own, a copy that starts with the same weights."""
        if not self.is_dual:
            self.query_encoder = copy.deepcopy(self.query_encoder)

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
        progress: str | None = None,
    ) -> Tensor:
        """Return the vectors of questions, ``[n, d]`` float32, without gradients."""
        return self.query_encoder.encode(texts, batch_size=batch_size, dtype=dtype, progress=progress)

    def encode_passages(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
        progress: str | None = None,
    ) -> Tensor:
        """Return the vectors of passages, ``[n, d]`` float32, without gradients."""
        return self.passage_encoder.encode(texts, batch_size=batch_size, dtype=dtype, progress=progress)

    def save(self, directory: str | Path) -> None:
        """Write both encoders, each as a directory that sentence-transformers loads, atomically."""
        with atomic_directory(Path(directory)) as partial:
            self.query_encoder.save_pretrained(partial / "query_encoder")
            if self.is_dual:
                self.passage_encoder.save_pretrained(partial / "passage_encoder")
            write_json(partial / _MANIFEST, {"name": self.name, "dual": self.is_dual})

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Self:
        """Load what `save` wrote.

        Raises
        ------
        ModelError
            When it is not there or damaged.
        """
        place = Path(directory)
        try:
            manifest = read_json(place / _MANIFEST)
        except (OSError, ValueError) as error:
            raise ModelError(
                "this directory holds no saved retriever", where=str(place), fix="what Retriever.save wrote"
            ) from error
        queries = load_encoder(str(place / "query_encoder"), device=device)
        passages = load_encoder(str(place / "passage_encoder"), device=device) if manifest["dual"] else None
        return cls(queries, passages, name=manifest["name"])
