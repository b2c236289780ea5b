"""Random changes and searches: every store answers as a dict that is searched in float64 does."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.checks import unit_rows
from trainshed.rag.stores.faiss import FaissKnowledgeStore
from trainshed.rag.stores.hybrid import HybridKnowledgeStore
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
from trainshed.rag.stores.qdrant import QdrantKnowledgeStore

IDS = [f"p{number}" for number in range(12)]
#: few distinct vectors, so that ties happen; a zero, and some that are not of length 1
VECTORS = torch.tensor(
    [
        [1.0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 1],
        [0.5, 0.25, 0.1, -1],
        [0, 0, 0, 0],
        [2, 0, 0, 0],
    ]
)
FILTERS = [
    (None, lambda passage: True),
    ({"lang": "en"}, lambda passage: passage.metadata["lang"] == "en"),
    ({"year": {"$gte": 2001, "$lt": 2004}}, lambda passage: 2001 <= passage.metadata["year"] < 2004),
    (
        {"doc_id": ["d0", "d2"], "lang": {"$ne": "de"}},
        lambda passage: passage.doc_id in ("d0", "d2") and passage.metadata["lang"] == "en",
    ),
    ({"tags": "b"}, lambda passage: "b" in passage.metadata["tags"]),
    ({"tags": None}, lambda passage: not passage.metadata["tags"]),
    ({"lang": {"$gt": "de"}}, lambda passage: passage.metadata["lang"] > "de"),
]
_batches = st.lists(
    st.tuples(st.sampled_from(IDS), st.integers(0, len(VECTORS) - 1)),
    max_size=6,
    unique_by=lambda item: item[0],
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _batches),
        st.tuples(st.just("upsert"), _batches),
        st.tuples(st.just("delete"), st.lists(st.sampled_from(IDS), max_size=5)),
        st.tuples(st.just("clear"), st.none()),
        st.tuples(st.just("replace"), st.integers(0, 100)),
        st.tuples(st.just("search"), st.integers(1, 15)),
    ),
    max_size=12,
)


def passage_of(identity: str, version: int) -> Passage:
    number = int(identity[1:]) + version
    return Passage(
        id=identity,
        text=f"{identity} version {version}",
        doc_id=f"d{number % 3}",
        metadata={
            "year": 2000 + number % 5,
            "lang": "en" if number % 2 else "de",
            "tags": ["a", "b"][: number % 3],
        },
    )


class NaiveStore:
    """A dict in order of addition."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Passage, torch.Tensor]] = {}

    def put(self, passages, vectors) -> None:
        for passage, vector in zip(passages, unit_rows(vectors), strict=True):
            self.rows[passage.id] = (passage, vector)

    def scores(self, query, admits):
        """Return [(id, score in float64 rounded to float32)], best first, ties in row order."""
        scored = [
            (identity, float((vector.double() @ query.double()).float()))
            for identity, (passage, vector) in self.rows.items()
            if admits(passage)
        ]
        return sorted(scored, key=lambda item: -item[1])


def assert_same_search(store, naive: NaiveStore, k: int, where, admits, *, bitwise: bool) -> None:
    result = store.search(VECTORS, k, where=where)
    assert result.indices.shape == result.scores.shape == (len(VECTORS), k)
    assert (result.indices.dtype, result.scores.dtype) == (torch.int64, torch.float32)
    ids = store.ids
    for query, found, rows, scores in zip(
        unit_rows(VECTORS), result.ids, result.indices.tolist(), result.scores.tolist(), strict=True
    ):
        wanted = naive.scores(query, admits)
        true = dict(wanted)
        assert [ids[row] for row in rows[: len(found)]] == found
        assert len(found) == len(set(found)) == min(k, len(wanted))
        assert rows[len(found) :] == [-1] * (k - len(found))
        assert scores[len(found) :] == [float("-inf")] * (k - len(found))
        if bitwise:
            assert list(zip(found, scores, strict=False)) == wanted[:k]
        else:  # ties in the last bits may come in another order
            assert scores[: len(found)] == pytest.approx([score for _, score in wanted[:k]], abs=1e-6)
            assert scores[: len(found)] == pytest.approx([true[identity] for identity in found], abs=1e-6)


def change(store, naive: NaiveStore, operation: str, argument) -> None:
    """Do one change on both."""
    if operation in ("add", "upsert"):
        passages = [passage_of(identity, number) for identity, number in argument]
        vectors = VECTORS[[number for _, number in argument]]
        if operation == "add" and any(passage.id in naive.rows for passage in passages):
            with pytest.raises(StoreError, match="in the store already"):
                store.add(passages, vectors)
        else:
            getattr(store, operation)(passages, vectors)
            naive.put(passages, vectors)
    elif operation == "delete":
        known = {identity for identity in argument if identity in naive.rows}
        assert store.delete(argument) == len(known)
        naive.rows = {key: value for key, value in naive.rows.items() if key not in known}
    elif operation == "clear":
        store.clear()
        naive.rows = {}
    else:
        vectors = VECTORS[(torch.arange(len(naive.rows)) + argument) % len(VECTORS)]
        store.replace_embeddings(vectors)
        naive.put([passage for passage, _ in naive.rows.values()], vectors)


def run_steps(store, steps, *, bitwise: bool) -> None:
    naive = NaiveStore()
    for operation, argument in [*steps, ("search", 3)]:
        if operation != "search":
            change(store, naive, operation, argument)
            assert len(store) == len(naive.rows)
            continue
        for where, admits in FILTERS:
            assert_same_search(store, naive, argument, where, admits, bitwise=bitwise)
    assert store.ids == list(naive.rows)
    assert list(store.passages()) == [passage for passage, _ in naive.rows.values()]
    wanted = [vector for _, vector in naive.rows.values()]
    assert torch.allclose(store.embeddings(), torch.stack(wanted) if wanted else torch.empty(0, 4), atol=1e-6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_memory(steps) -> None:
    run_steps(InMemoryKnowledgeStore(dimension=4), steps, bitwise=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_faiss(steps) -> None:
    run_steps(FaissKnowledgeStore(dimension=4), steps, bitwise=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_qdrant(steps) -> None:
    run_steps(QdrantKnowledgeStore(dimension=4), steps, bitwise=False)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_hybrid_keeps_both_indexes_in_step(steps) -> None:
    """After any change both halves know exactly the passages there are."""
    store, naive = HybridKnowledgeStore(dimension=4), NaiveStore()
    for operation, argument in steps:
        if operation != "search":
            change(store, naive, operation, argument)
            continue
        for where, admits in FILTERS:
            assert_same_search(store.dense, naive, argument, where, admits, bitwise=True)
            result = store.search(VECTORS[:1], argument, where=where, texts=["version"])
            admitted = [identity for identity, (passage, _) in naive.rows.items() if admits(passage)]
            assert sorted(result.ids[0]) == sorted(admitted) or len(result.ids[0]) == argument <= len(
                admitted
            )
    assert store.ids == store.dense.ids == list(naive.rows)
