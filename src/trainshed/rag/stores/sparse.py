"""Word search over a store's passages by BM25 (Lucene's variant, as `bm25s` has it). Left out: stemming."""

from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.manifest import REBUILD


def words(texts: Sequence[str]) -> list[list[str]]:
    """Cut texts into lower-case words of two letters and more, without English stop words."""
    tokens: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords="en", return_ids=False, show_progress=False
    )
    return tokens


class WordIndex:
    """BM25 scores of passages, by title and text.

    Parameters
    ----------
    scores
        A built index; None when no passage has a word.
    """

    def __init__(self, scores: bm25s.BM25 | None) -> None:
        self._scores = scores

    @classmethod
    def build(cls, passages: Sequence[Passage]) -> "WordIndex":
        """Index passages in row order."""
        tokens = words([f"{passage.title}\n{passage.text}" for passage in passages])
        if not any(tokens):
            return cls(None)
        scores = bm25s.BM25()
        scores.index(tokens, show_progress=False)
        return cls(scores)

    def search(
        self, texts: Sequence[str], depth: int, admitted: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Return for every text the rows that share a word with it, best first; ties by row.

        Parameters
        ----------
        texts
            Queries.
        depth
            How many rows at most.
        admitted
            Rows that may be found; all when None.
        """
        return [self._search_one(tokens, depth, admitted) for tokens in words(texts)]

    def _search_one(self, tokens: list[str], depth: int, admitted: np.ndarray | None) -> np.ndarray:
        known = self._scores.get_tokens_ids(tokens) if self._scores is not None else []
        if self._scores is None or not known:
            return np.empty(0, dtype=np.int64)
        scores = self._scores.get_scores_from_ids(known)
        if admitted is not None:
            outside = np.ones(len(scores), dtype=bool)
            outside[admitted] = False
            scores[outside] = 0
        rows = (scores > 0).nonzero()[0]
        if len(rows) > depth:  # everything not below the last place, so that ties are cut by row
            rows = rows[scores[rows] >= np.partition(scores[rows], -depth)[-depth]]
        return rows[np.lexsort((rows, -scores[rows]))][:depth]

    def save(self, directory: Path) -> None:
        """Write the index; nothing when no passage has a word."""
        if self._scores is not None:
            self._scores.save(directory, show_progress=False)

    @classmethod
    def load(cls, directory: Path, count: int) -> "WordIndex":
        """Read an index over ``count`` passages.

        Raises
        ------
        StoreError
            When it cannot be read or is over another number of passages.
        """
        if not directory.is_dir():
            return cls(None)
        try:
            scores = bm25s.BM25.load(directory, show_progress=False)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"the word index cannot be read: {error}", where=str(directory), fix=REBUILD
            ) from error
        if scores.scores["num_docs"] != count:
            raise StoreError(
                f"the word index is over {scores.scores['num_docs']} passages, the store has {count}",
                where=str(directory),
                fix=REBUILD,
            )
        return cls(scores)
