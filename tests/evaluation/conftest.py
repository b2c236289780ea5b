"""A small searchable corpus: bag-of-words vectors and an exact store with the interface of real ones."""

import zlib
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage

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


class ExactStore:
    """Passages and their vectors; searches all of them."""

    def __init__(self, passages: Sequence[Passage], vectors: torch.Tensor) -> None:
        self._passages, self._vectors = list(passages), vectors
        self.reached: list[int] = []

    @property
    def ids(self) -> list[str]:
        return [passage.id for passage in self._passages]

    def __len__(self) -> int:
        return len(self._passages)

    def passages(self):
        return iter(self._passages)

    def get(self, ids):
        by_id = {passage.id: passage for passage in self._passages}
        return [by_id[name] for name in ids]

    def replace_embeddings(self, embeddings):
        self._vectors = embeddings

    def search(self, queries, k, *, where=None, texts=None):
        assert texts is None or len(texts) == len(queries)
        self.reached.append(k)
        scores, indices = torch.topk(queries @ self._vectors.T, k)
        ids = [[self._passages[i].id for i in row] for row in indices.tolist()]
        return SimpleNamespace(indices=indices, scores=scores, ids=ids)


def build(passages: Sequence[Passage]) -> SimpleNamespace:
    """Return a system whose store holds ``passages``."""
    retriever = WordRetriever()
    store = ExactStore(passages, retriever.encode_queries([p.text for p in passages]))
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
