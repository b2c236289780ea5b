"""Qdrant embedded in a directory: the collection is the store, and a manifest notices changes."""

import pytest
import torch

from trainshed.data.passages import Passage
from trainshed.errors import StoreError, StoreMismatchError
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
from trainshed.rag.stores.qdrant import QdrantKnowledgeStore


def vectors_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_a_directory_is_opened_again(tmp_path, passages_of):
    store = QdrantKnowledgeStore(path=tmp_path / "qdrant", batch_size=7, embedder_hash="abc")
    store.add(passages_of(30), vectors_of(30))
    store.delete(["p1", "p8"])
    store.upsert(passages_of(1, first=4), vectors_of(1, seed=1))
    store.save(tmp_path / "store")
    wanted = store.search(vectors_of(5, seed=2), 6, where={"lang": "de"})
    embeddings, passages = store.embeddings(), list(store.passages())
    with pytest.raises(StoreError, match=r"(?s)already accessed.*close it there"):
        KnowledgeStore.load(tmp_path / "store")
    store.close()
    loaded = KnowledgeStore.load(tmp_path / "store", embedder_hash="abc")
    assert list(loaded.passages()) == passages
    assert torch.equal(loaded.embeddings(), embeddings)
    found = loaded.search(vectors_of(5, seed=2), 6, where={"lang": "de"})
    assert torch.equal(found.indices, wanted.indices)
    assert torch.equal(found.scores, wanted.scores)
    loaded.close()
    # also without a manifest
    opened = QdrantKnowledgeStore(path=tmp_path / "qdrant")
    assert opened.ids == [passage.id for passage in passages]
    opened.add(passages_of(1, first=1), vectors_of(1))
    assert opened.ids[-1] == "p1"
    opened.close()


def test_a_collection_that_changed_since_is_refused(tmp_path, passages_of):
    store = QdrantKnowledgeStore(path=tmp_path / "qdrant", embedder_hash="abc")
    store.add(passages_of(3), vectors_of(3))
    store.save(tmp_path / "store")
    store.add(passages_of(1, first=3), vectors_of(1))
    store.close()
    with pytest.raises(
        StoreMismatchError, match=r"(?s)count is 4, expected 3; corpus_hash.*save the open store"
    ):
        KnowledgeStore.load(tmp_path / "store")
    again = QdrantKnowledgeStore(path=tmp_path / "qdrant", embedder_hash="abc")
    again.save(tmp_path / "store")
    again.replace_embeddings(vectors_of(4, seed=5), embedder_hash="new")  # and not saved
    again.close()
    with pytest.raises(
        StoreMismatchError, match="generation is 'trainshed-00000002', expected 'trainshed-00000001'"
    ):
        KnowledgeStore.load(tmp_path / "store", embedder_hash="abc")


def test_replacing_is_one_step(tmp_path, passages_of, monkeypatch):
    """A process that dies while it writes new embeddings leaves the old ones, and the next one tidies up."""
    store = QdrantKnowledgeStore(path=tmp_path / "qdrant", batch_size=2)
    store.add(passages_of(6), vectors_of(6))
    before = store.embeddings()
    send, calls = store._client.upsert, []

    def fail_at_the_second(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the machine dies")
        return send(*arguments, **keywords)

    monkeypatch.setattr(store._client, "upsert", fail_at_the_second)
    with pytest.raises(StoreError, match="the machine dies"):
        store.replace_embeddings(vectors_of(6, seed=1))
    assert torch.equal(store.embeddings(), before)
    store.close()
    opened = QdrantKnowledgeStore(path=tmp_path / "qdrant")
    assert torch.equal(opened.embeddings(), before)
    opened.replace_embeddings(vectors_of(6, seed=1))
    assert not torch.equal(opened.embeddings(), before)
    assert len(opened._client.get_collections().collections) == 1
    opened.close()


def test_a_failed_add_leaves_nothing(passages_of, monkeypatch):
    store = QdrantKnowledgeStore(batch_size=2)
    store.add(passages_of(2), vectors_of(2))
    send, calls = store._client.upsert, []

    def fail_at_the_second(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the machine dies")
        return send(*arguments, **keywords)

    monkeypatch.setattr(store._client, "upsert", fail_at_the_second)
    with pytest.raises(StoreError, match="the machine dies"):
        store.add(passages_of(5, first=2), vectors_of(5))
    monkeypatch.undo()
    assert len(store) == 2
    assert len(store.embeddings()) == 2
    store.add(passages_of(5, first=2), vectors_of(5))
    assert store.search(vectors_of(1), 7).ids[0].__len__() == 7


def test_a_foreign_collection_is_refused(tmp_path):
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(tmp_path / "qdrant"))
    client.create_collection(
        "trainshed", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE)
    )
    client.close()
    with pytest.raises(StoreMismatchError, match="was not made by this store"):
        QdrantKnowledgeStore(path=tmp_path / "qdrant")


def test_a_server_that_is_not_there():
    with pytest.raises(StoreError, match=r"(?s)Qdrant failed.*http://127.0.0.1:9"):
        QdrantKnowledgeStore(url="http://127.0.0.1:9")
    with pytest.raises(StoreError, match="a path or a url"):
        QdrantKnowledgeStore(url="http://127.0.0.1:9", path="x")


ODD = [
    {"n": 1, "s": "b", "flag": True, "a.b": 1, "wide": 2**60},
    {"n": 1.0, "s": "c", "flag": 1, "tags": ["u", "v"], "a.b": 2, "wide": 2**60 + 1},
    {"n": "1", "flag": False, "tags": [], "s": None},
    {"n": None, "tags": [1, "v"]},
    {},
]


@pytest.mark.parametrize(
    "where",
    [
        {"n": 1},
        {"n": 1.0},
        {"n": "1"},
        {"n": None},
        {"n": {"$ne": 1}},
        {"n": {"$nin": ["1", None]}},
        {"n": [1, "1", None]},
        {"n": {"$gt": 0.5, "$lte": 1}},
        {"s": {"$gte": "b", "$lt": "c"}},
        {"s": None},
        {"flag": True},
        {"flag": 1},
        {"flag": {"$ne": True}},
        {"tags": "v"},
        {"tags": 1},
        {"tags": None},
        {"tags": {"$ne": None}},
        {"tags": {"$nin": ["u", 1]}},
        {"a.b": 2},
        {"a.b": {"$gte": 2}},
        {"wide": 2**60},
        {"wide": {"$gt": 2**60}},
        {"missing": {"$ne": "x"}},
        {"missing": []},
        {"id": ["p0", "p3"], "chunk_id": 0},
        {"chunk_id": {"$gte": 1}, "title": "t1"},
    ],
)
def test_filters_mean_the_same_as_in_memory(where):
    passages = [
        Passage(f"p{number}", "t", title=f"t{number % 2}", chunk_id=number % 3, metadata=metadata)
        for number, metadata in enumerate(ODD)
    ]
    stores = [InMemoryKnowledgeStore(), QdrantKnowledgeStore()]
    found = []
    for store in stores:
        store.add(passages, vectors_of(5))
        found.append(sorted(store.search(vectors_of(1), 5, where=where).ids[0]))
    assert found[0] == found[1]
