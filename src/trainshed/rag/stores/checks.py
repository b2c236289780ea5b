"""What a store demands of passages and vectors before it takes them. Left out: what it does with them."""

import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError


def check_passages(passages: Sequence[Passage]) -> None:
    """Refuse a batch in which an id stands twice or metadata is not JSON."""
    seen: set[str] = set()
    for passage in passages:
        if passage.id in seen:
            raise StoreError(f"the passage id {passage.id!r} stands twice in the batch", fix="unique ids")
        seen.add(passage.id)
        if passage.metadata:
            try:
                json.dumps(dict(passage.metadata), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise StoreError(
                    f"the metadata is not JSON: {error}", where=f"passage {passage.id!r}", fix="JSON values"
                ) from error


def check_vectors(
    vectors: Tensor, what: str, dimension: int | None, passages: Sequence[Passage] = ()
) -> Tensor:
    """Return vectors [n, dimension] as float32 on the CPU.

    Parameters
    ----------
    vectors
        What was given.
    what
        Its name in an error.
    dimension
        What the store has; None before its first vectors.
    passages
        Whose embeddings they are, to name the one that is wrong.

    Raises
    ------
    StoreError
        When the shape is wrong or a number is not finite; names the row.
    """
    if vectors.ndim != 2 or (dimension is not None and vectors.shape[1] != dimension):
        raise StoreError(
            f"the {what} tensor has shape {list(vectors.shape)}, expected [n, {dimension or 'dimension'}]",
            fix="use the encoder that the store was built with",
        )
    vectors = vectors.detach().to("cpu", torch.float32)
    # a finite sum has finite terms; a single query is searched in less time than looking at each takes
    if not math.isfinite(float(vectors.sum())) and not bool(vectors.isfinite().all()):
        row = int((~vectors.isfinite().all(dim=1)).nonzero()[0])
        of = f", passage {passages[row].id!r}" if passages else ""
        raise StoreError(f"the {what} is not finite", where=f"row {row}{of}", fix="finite numbers")
    return vectors.contiguous()


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale rows [n, d] to length 1; rows that have it to within 1e-6, and zeros, come back bit-identical."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    if len(vectors) == 1 and abs(float(norms) - 1) <= 1e-6:
        return vectors
    done = (norms - 1).abs() <= 1e-6
    if bool(done.all()):
        return vectors
    return torch.where(done | (norms == 0), vectors, vectors / norms.clamp_min(1e-30))
