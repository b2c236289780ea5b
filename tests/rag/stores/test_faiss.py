"""FAISS: the index by size, its measured recall, changes under every index type, and the global switch."""

import faiss
import pytest
import torch

from trainshed.errors import StoreError
from trainshed.rag.stores import faiss_index
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.exact import exact_search
from trainshed.rag.stores.faiss import FaissKnowledgeStore
from trainshed.rag.stores.faiss_index import blas, choose_kind, factory_string
from trainshed.rag.stores.memory import InMemoryKnowledgeStore

KINDS = ("flat", "pq", "hnsw", "ivf")


def clustered(count: int, seed: int = 0, dimension: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, dimension, generator=torch.Generator().manual_seed(99))
    chosen = centres[torch.randint(0, 40, (count,), generator=generator)]
    return torch.nn.functional.normalize(
        chosen + 0.5 * torch.randn(count, dimension, generator=generator), dim=1
    )


def agreement(store: FaissKnowledgeStore, queries: torch.Tensor) -> float:
    """Recall@10 against a memory store with the same content; scores of what was found must be exact."""
    exact = InMemoryKnowledgeStore()
    exact.add(list(store.passages()), store.embeddings())
    found, wanted = store.search(queries, 10), exact.search(queries, 10)
    own = store.embeddings()
    for query, rows, scores in zip(queries, found.indices, found.scores, strict=True):
        true = (own[rows].double() @ torch.nn.functional.normalize(query, dim=0).double()).float()
        assert torch.allclose(scores, true, atol=1e-6)
        assert torch.equal(scores, scores.sort(descending=True).values)
    return sum(len(set(a) & set(b)) for a, b in zip(found.ids, wanted.ids, strict=True)) / (10 * len(queries))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_and_reload(kind, passages_of, tmp_path):
    store = FaissKnowledgeStore(index_type=kind)
    store.add(passages_of(2000), clustered(2000))
    assert store.index_type == kind
    measured = store.manifest
    assert measured.recall is not None
    assert measured.recall >= 0.95
    assert measured.recall_queries == 256
    queries = clustered(50, seed=1)
    assert agreement(store, queries) >= 0.95
    store.upsert(passages_of(300, first=1900), clustered(300, seed=2))
    store.delete([f"p{number}" for number in range(0, 600, 2)])
    assert agreement(store, queries) >= 0.95
    gone = {f"p{number}" for number in range(0, 600, 2)}
    assert not gone & {identity for ids in store.search(queries, 50).ids for identity in ids}
    # an upserted passage is found by its new embedding, first
    assert store.search(clustered(300, seed=2)[:1], 1).ids == [["p1900"]]
    store.save(tmp_path / "store")
    loaded = KnowledgeStore.load(tmp_path / "store")
    before, after = store.search(queries, 10), loaded.search(queries, 10)
    assert torch.equal(before.indices, after.indices)
    assert torch.equal(before.scores, after.scores)
    assert loaded.manifest.recall == store.manifest.recall
    loaded.delete(list(loaded.ids)[:900])
    assert agreement(loaded, queries) >= 0.95


@pytest.mark.parametrize("kind", ["pq", "hnsw", "ivf"])
def test_a_whole_neighbourhood_deleted(kind, passages_of):
    """The nearest 300 are dead slots: the ones behind them must still be found."""
    vectors = torch.nn.functional.normalize(
        torch.randn(2000, 32, generator=torch.Generator().manual_seed(1)), dim=1
    )
    near = torch.nn.functional.normalize(
        vectors[0] + 0.05 * torch.randn(300, 32, generator=torch.Generator().manual_seed(2)), dim=1
    )
    store = FaissKnowledgeStore(index_type=kind)
    store.add(passages_of(2300), torch.cat([near, vectors]))
    store.build_index()
    store.delete([f"p{number}" for number in range(300)])
    result = store.search(vectors[:1], 10)
    assert result.ids[0][0] == "p300"
    assert len(result.ids[0]) == 10
    assert agreement(store, vectors[:1]) >= 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_filters_are_exact(kind, passages_of):
    store, exact = FaissKnowledgeStore(index_type=kind), InMemoryKnowledgeStore()
    for each in (store, exact):
        each.add(passages_of(1500), clustered(1500))
    queries, where = clustered(20, seed=3), {"year": {"$gte": 2003}, "doc_id": "d1"}
    found, wanted = store.search(queries, 10, where=where), exact.search(queries, 10, where=where)
    assert torch.equal(found.indices, wanted.indices)
    assert torch.equal(found.scores, wanted.scores)


def test_choice_by_size():
    assert [choose_kind(count) for count in (1, 200_000, 200_001, 2_000_000, 2_000_001)] == [
        "flat",
        "flat",
        "pq",
        "pq",
        "ivf",
    ]
    assert factory_string("pq", 384, 500_000) == "PQ192x4fs"
    assert factory_string("pq", 33, 500_000) == "SQ8"
    assert factory_string("ivf", 384, 4_000_000) == "IVF8000,PQ192x4fs"


def test_auto_moves_to_an_index_and_prints_it(passages_of, monkeypatch, capsys):
    monkeypatch.setattr(faiss_index, "EXACT_UP_TO", 1200)
    store = FaissKnowledgeStore()
    store.add(passages_of(1000), clustered(1000))
    assert store.index_type == "flat"
    store.add(passages_of(1500, first=1000), clustered(1500, seed=1))
    assert store.index_type == "pq"
    assert "faiss index: pq, 2500 passages, recall@10" in capsys.readouterr().err
    assert agreement(store, clustered(30, seed=2)) >= 0.95


def test_recall_below_the_bound_fails_and_keeps_what_was(passages_of, monkeypatch):
    store = FaissKnowledgeStore(index_type="pq", min_recall=1.0, candidates=1)
    noise = torch.randn(3000, 32, generator=torch.Generator().manual_seed(0))
    store.add(passages_of(3000), noise)
    monkeypatch.setattr("trainshed.rag.stores.faiss._MAX_EFFORT", 1)
    with pytest.raises(
        StoreError, match=r"(?s)recall@10 of the 'pq' index is 0\.\d+ on 256 queries, below 1.0.*flat"
    ):
        store.build_index()
    store.min_recall = 0.1
    store.build_index()
    before = store.embeddings()
    store.min_recall = 1.0
    with pytest.raises(StoreError, match="recall@10"):
        store.replace_embeddings(-noise)
    assert torch.equal(store.embeddings(), before)
    assert store.search(noise[:1], 1).ids == [["p0"]]


def test_effort_rises_until_recall_suffices(passages_of):
    store = FaissKnowledgeStore(index_type="pq", min_recall=0.95, candidates=2)
    store.add(passages_of(3000), torch.randn(3000, 32, generator=torch.Generator().manual_seed(0)))
    store.build_index()
    assert store.manifest.details["effort"] > 1
    assert store.manifest.recall >= 0.95


def test_global_switch_is_put_back(passages_of):
    before = faiss.cvar.distance_compute_blas_threshold
    store = FaissKnowledgeStore()
    store.add(passages_of(100), clustered(100))
    store.search(clustered(64), 5)
    assert faiss.cvar.distance_compute_blas_threshold == before

    def fail() -> None:
        with blas(True):
            assert faiss.cvar.distance_compute_blas_threshold == 1
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert faiss.cvar.distance_compute_blas_threshold == before


@pytest.mark.parametrize("queries", [1, 40])
def test_exact_by_faiss_itself(passages_of, monkeypatch, queries):
    """Where the CPU has no fast small types FAISS searches; duplicates must still come in row order."""
    monkeypatch.setattr("trainshed.rag.stores.vectors.VectorMatrix.fastest", lambda self, count: "float32")
    store = FaissKnowledgeStore(index_type="flat")
    vectors = torch.cat([clustered(500), clustered(1).expand(200, -1)])
    store.add(passages_of(700), vectors)
    asked = clustered(700)[:queries]
    found = store.search(asked, 20)
    rows, scores = exact_search(store._vectors(), asked, 20)
    assert torch.equal(found.indices, rows)
    assert torch.equal(found.scores, scores)


def test_unknown_index_type():
    with pytest.raises(StoreError, match=r"(?s)unknown index type 'hsnw'.*did you mean 'hnsw'"):
        FaissKnowledgeStore(index_type="hsnw")
