"""Hybrid search: fusion by hand, words where embeddings say nothing, BM25 in step with changes."""

import pytest
import torch

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.hybrid import HybridKnowledgeStore, fuse
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
from trainshed.rag.stores.sparse import WordIndex

TEXTS = ["apples grow on trees", "the engine needs oil", "oil and vinegar on apples", "zebra crossing"]
PASSAGES = [Passage(f"p{row}", text, metadata={"even": row % 2 == 0}) for row, text in enumerate(TEXTS)]
VECTORS = torch.eye(4)


def hybrid(**options) -> HybridKnowledgeStore:
    store = HybridKnowledgeStore(**options)
    store.add(PASSAGES, VECTORS)
    return store


def test_fusion_by_hand():
    # row 7: ranks 1 and 3; row 5: rank 2 and 1; rows 9 and 4 stand in one list each
    fused = fuse([[7, 5, 9], [5, 4, 7]])
    assert [row for row, _ in fused] == [5, 7, 4, 9]
    assert [score for _, score in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63])
    assert fuse([[3], [1]]) == [(1, 1 / 61), (3, 1 / 61)]
    assert fuse([[3, 1], []], rrf_k=1) == [(3, 1 / 2), (1, 1 / 3)]


def test_words_and_meaning_are_fused():
    query = torch.tensor([[0.9, 0.1, 0.0, 0.05]])  # by meaning: 0, 1, 3, 2; by words only 3
    result = hybrid().search(query, 4, texts=["where is the zebra?"])
    assert result.ids == [["p3", "p0", "p1", "p2"]]
    assert result.scores[0].tolist() == pytest.approx([1 / 63 + 1 / 61, 1 / 61, 1 / 62, 1 / 64])
    assert result.indices.tolist() == [[3, 0, 1, 2]]


def test_bm25_ranks_by_words():
    index = WordIndex.build(PASSAGES)
    found = index.search(["apples and oil", "zebra", "nothing here", "", "the of and"], 10)
    assert found[0].tolist() == [2, 0, 1] or found[0].tolist() == [2, 1, 0]
    assert [rows.tolist() for rows in found[1:]] == [[3], [], [], []]
    assert index.search(["apples"], 1)[0].tolist() in ([0], [2])
    assert WordIndex.build([Passage("x", "the of")]).search(["apples"], 3)[0].tolist() == []


def test_ties_of_words_are_cut_by_row():
    index = WordIndex.build([Passage(str(row), "same words") for row in range(50)])
    assert index.search(["same"], 7)[0].tolist() == list(range(7))


def test_changes_reach_the_words():
    store = hybrid()
    query, text = torch.tensor([[1.0, 0, 0, 0]]), ["zebra"]
    assert store.search(query, 1, texts=text).ids == [["p3"]]
    store.delete(["p3"])
    assert store.search(query, 1, texts=text).ids == [["p0"]]
    store.upsert([Passage("p1", "a zebra at last")], VECTORS[1:2])
    assert store.search(query, 1, texts=text).ids == [["p1"]]
    store.add([Passage("p3", "zebra zebra")], VECTORS[3:])
    assert set(store.search(query, 2, texts=text).ids[0]) <= {"p0", "p1", "p3"}
    store.clear()
    assert store.search(query, 1, texts=text).ids == [[]]


def test_filters_hold_for_both_lists():
    result = hybrid().search(
        torch.tensor([[0, 1.0, 0, 0]]), 4, where={"even": True}, texts=["zebra engine oil"]
    )
    assert sorted(result.ids[0]) == ["p0", "p2"]
    assert result.ids[0][0] == "p2"


@pytest.mark.parametrize("dense", ["memory", "faiss", "qdrant"])
def test_saved_with_its_words(tmp_path, dense):
    store = hybrid(dense=dense, rrf_k=10, depth=3, embedder_hash="abc")
    queries, texts = torch.eye(4)[:2], ["zebra", "vinegar"]
    wanted = store.search(queries, 3, texts=texts)
    store.save(tmp_path / "store")
    loaded = KnowledgeStore.load(tmp_path / "store", embedder_hash="abc")
    assert isinstance(loaded, HybridKnowledgeStore)
    assert (loaded.rrf_k, loaded.depth, loaded.dense.name) == (10, 3, dense)
    assert loaded._words is not None  # read, not built anew
    found = loaded.search(queries, 3, texts=texts)
    assert found.ids == wanted.ids
    assert torch.equal(found.scores, wanted.scores)


def test_takes_over_a_store_that_exists():
    dense = InMemoryKnowledgeStore(normalize=False, embedder_hash="abc")
    dense.add(PASSAGES, VECTORS)
    store = HybridKnowledgeStore(dense=dense)
    assert (store.normalize, store.embedder_hash, len(store)) == (False, "abc", 4)
    assert store.search(VECTORS[:1], 1, texts=["zebra"]).ids in ([["p0"]], [["p3"]])
    with pytest.raises(StoreError, match="has its settings already"):
        HybridKnowledgeStore(dense=dense, normalize=True)


def test_needs_texts():
    with pytest.raises(StoreError, match="got no query texts"):
        hybrid().search(VECTORS, 1)
    with pytest.raises(StoreError, match="4 queries came with 1 texts"):
        hybrid().search(VECTORS, 1, texts=["x"])
