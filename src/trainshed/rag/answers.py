"""What a RAG system gives back: retrieved passages, an answer, what it rests on. Left out: how it is made."""

from dataclasses import dataclass, field
from typing import Any

from trainshed.data.passages import Passage


@dataclass(frozen=True)
class RetrievedPassage:
    """A passage that was found for a question.

    Parameters
    ----------
    passage
        The passage.
    score
        What the store scored it with; higher is better.
    rank
        From 1.
    """

    passage: Passage
    score: float
    rank: int = 1


@dataclass(frozen=True)
class Citation:
    """A passage that an answer rests on.

    Parameters
    ----------
    passage
        The passage.
    score
        Its retrieval score.
    share
        Share of the answer's probability that it brought, 0 to 1: p(passage | question, answer).
    span
        Where the answer stands in the passage's text, as characters; None when it is not there word by word.
    number
        How the answer's reader may refer to it, from 1.
    """

    passage: Passage
    score: float
    share: float
    span: tuple[int, int] | None = None
    number: int = 1

    @property
    def passage_id(self) -> str:
        """Identifier of the passage."""
        return self.passage.id

    @property
    def document_span(self) -> tuple[int, int]:
        """Where that is in the passage's document: the answer's characters, or the passage's."""
        start = self.passage.start
        if self.span is None:
            return start, self.passage.end or start + len(self.passage.text)
        return start + self.span[0], start + self.span[1]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        found = self.passage
        return {
            "number": self.number,
            "passage_id": found.id,
            "doc_id": found.doc_id,
            "title": found.title,
            "source": found.source,
            "score": self.score,
            "share": self.share,
            "span": self.span,
            "document_span": self.document_span,
            "text": found.text,
        }


@dataclass(frozen=True)
class RAGResponse:
    """An answer.

    Parameters
    ----------
    response
        Its text.
    citations
        Passages that it rests on, the one that spoke for it most first.
    source_nodes
        Every passage that was read, best first.
    """

    response: str
    citations: list[Citation] = field(default_factory=list)
    source_nodes: list[RetrievedPassage] = field(default_factory=list)

    def __str__(self) -> str:
        return self.response

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"response": self.response, "citations": [citation.to_json() for citation in self.citations]}


def cite(
    response: str, found: list[RetrievedPassage], shares: list[float], *, min_share: float = 0.1
) -> list[Citation]:
    """Return the passages that an answer rests on.

    Parameters
    ----------
    response
        The answer's text.
    found
        The passages that were read.
    shares
        Of each, the share of the answer's probability that it brought.
    min_share
        Passages below are not cited, except the one with the largest share.
    """
    order = sorted(range(len(found)), key=lambda i: (-shares[i], i))
    kept = [i for place, i in enumerate(order) if place == 0 or shares[i] >= min_share]
    return [
        Citation(found[i].passage, found[i].score, shares[i], _span(response, found[i].passage.text), number)
        for number, i in enumerate(kept, start=1)
    ]


def _span(answer: str, text: str) -> tuple[int, int] | None:
    """Return where ``answer`` stands in ``text``, letter case aside."""
    wanted = answer.strip().rstrip(".")
    start = text.find(wanted) if wanted else -1
    if start < 0 and wanted and len(text.lower()) == len(text):
        start = text.lower().find(wanted.lower())
    return None if start < 0 else (start, start + len(wanted))
