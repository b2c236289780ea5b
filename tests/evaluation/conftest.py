"""A small searchable corpus: bag-of-words vectors in a real store."""

import zlib
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.rag.stores.memory import InMemoryKnowledgeStore

TEXTS = {
    "os.path.join": "Join one or more path components.",
    "os.path.exists": "Return True if path refers to an existing path.",
    "json.dumps": "Serialize an object to a JSON formatted string.",
    "json.loads": "Deserialize a JSON document to an object.",
    "math.sqrt": "Return the square root of a number.",
    "math.pi": "The constant that is the ratio of a circle.",
}


class WordRetriever:
    """Encodes a text as the normalised sum of one random vector a word."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_queries(self, texts, *, batch_size=64, dtype=None, progress=None):
        self.batches.append(batch_size)
        rows = [sum(self._word(word) for word in text.lower().replace(".", " ").split()) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    def _word(self, word: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        return torch.randn(64, generator=generator)


class RecordingStore(InMemoryKnowledgeStore):
    """The in-memory store, which remembers how deep it was searched."""

    reached: int = 0

    def search(self, queries, k, *, where=None, texts=None):
        self.reached = k
        return super().search(queries, k, where=where, texts=texts)


def build(passages: Sequence[Passage]) -> SimpleNamespace:
    """Return a system whose store holds ``passages``."""
    retriever = WordRetriever()
    store = RecordingStore()
    store.add(passages, retriever.encode_queries([p.text for p in passages]))
    return SimpleNamespace(retriever=retriever, knowledge_store=store)


@pytest.fixture
def build_system():
    return build


@pytest.fixture
def system():
    return build([Passage(id=name, text=text, doc_id=name.split(".")[0]) for name, text in TEXTS.items()])


@pytest.fixture
def examples():
    """Every query is a passage's own text; the last one looks for the wrong passage."""
    rows = [
        RagExample(query=text, response=name, id=f"e{i}", passage_id=name, kind=name.split(".")[0])
        for i, (name, text) in enumerate(TEXTS.items())
    ]
    return [
        *rows,
        RagExample(query=TEXTS["math.pi"], response="none", id="e6", passage_id="os.path.join", kind="os"),
    ]
