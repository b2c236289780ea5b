"""What holds for every store: refusals, saving, loading, and that no crash or damage leaves a part."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from trainshed.data.passages import Passage
from trainshed.errors import StoreError, StoreMismatchError, TrainshedError
from trainshed.rag.stores import manifest, saving
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.faiss import FaissKnowledgeStore
from trainshed.rag.stores.hybrid import HybridKnowledgeStore
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
from trainshed.rag.stores.qdrant import QdrantKnowledgeStore

STORES = [InMemoryKnowledgeStore, FaissKnowledgeStore, QdrantKnowledgeStore, HybridKnowledgeStore]
each_store = pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)


def vectors_of(count: int, dimension: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def search(store: KnowledgeStore, queries: torch.Tensor, k: int, **arguments):
    return store.search(queries, k, texts=["passage number 3"] * len(queries), **arguments)


@each_store
def test_empty(kind, tmp_path):
    store = kind()
    result = search(store, torch.ones(2, 5), 3)
    assert result.indices.tolist() == [[-1] * 3] * 2
    assert bool(result.scores.isneginf().all())
    assert result.ids == [[], []]
    assert (len(store), store.ids, store.delete(["x"]), list(store.passages())) == (0, [], 0, [])
    store.save(tmp_path / "store")
    loaded = KnowledgeStore.load(tmp_path / "store")
    assert type(loaded) is kind
    assert len(loaded) == 0
    assert search(loaded, torch.ones(1, 5), 2).ids == [[]]


@each_store
def test_save_and_load(kind, tmp_path, passages_of):
    store = kind(embedder="tiny", embedder_hash="abc", chunker={"max_tokens": 64})
    store.add(passages_of(30), vectors_of(30))
    store.delete(["p3", "p7"])
    store.upsert(passages_of(2, first=9), vectors_of(2, seed=1))
    store.save(tmp_path / "store")
    loaded = KnowledgeStore.load(
        tmp_path / "store", embedder_hash="abc", dimension=8, normalize=True, chunker={"max_tokens": 64}
    )
    assert type(loaded) is kind
    assert list(loaded.passages()) == list(store.passages())
    assert torch.equal(loaded.embeddings(), store.embeddings())
    for where in (None, {"lang": "en"}):
        before, after = (
            search(store, vectors_of(5, seed=2), 4, where=where),
            search(loaded, vectors_of(5, seed=2), 4, where=where),
        )
        assert torch.equal(before.indices, after.indices)
        assert torch.equal(before.scores, after.scores)
        assert before.ids == after.ids
    saved = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert (saved["store"], saved["embedder"], saved["embedder_hash"]) == (kind.name, "tiny", "abc")
    assert (saved["count"], saved["dimension"], saved["metric"]) == (28, 8, "cosine")
    assert saved["corpus_hash"] == manifest.corpus_hash(reversed(list(store.passages())))
    # a loaded store goes on as the first would
    loaded.add(passages_of(1, first=3), vectors_of(1))
    assert loaded.ids[-1] == "p3"


@each_store
def test_refuses_what_does_not_fit(kind, passages_of):
    store = kind()
    store.add(passages_of(3), vectors_of(3))
    before = store.embeddings()
    new = passages_of(2, first=3)
    broken = vectors_of(2)
    broken[1, 2] = float("nan")
    cases = [
        (passages_of(1), vectors_of(1), "'p0' is in the store already"),
        ([new[0], new[0]], vectors_of(2), "'p3' stands twice"),
        (new, vectors_of(3), "2 passages came with 3 embeddings"),
        (new, vectors_of(2, dimension=9), r"shape \[2, 9\], expected \[n, 8\]"),
        (new, broken, r"not finite\n.*row 1, passage 'p4'"),
        ([Passage("x", "t", metadata={"a": {1, 2}})], vectors_of(1), "(?s)not JSON.*'x'"),
    ]
    for passages, vectors, message in cases:
        with pytest.raises(StoreError, match=message):
            store.add(passages, vectors)
    for queries, message in (
        (torch.ones(1, 9), "shape"),
        (torch.ones(8), "shape"),
        (torch.full((1, 8), float("inf")), "row 0"),
    ):
        with pytest.raises(StoreError, match=message):
            search(store, queries, 1)
    with pytest.raises(StoreError, match="k is 0"):
        search(store, torch.ones(1, 8), 0)
    with pytest.raises(StoreError, match="no passage 'nobody'"):
        store.get(["p0", "nobody"])
    with pytest.raises(StoreError, match="unknown operator"):
        search(store, torch.ones(1, 8), 1, where={"year": {"$like": 1}})
    with pytest.raises(StoreError, match="3 passages came with 2 embeddings"):
        store.replace_embeddings(vectors_of(2))
    assert torch.equal(store.embeddings(), before)
    assert store.get(["p2", "p0"]) == [passages_of(3)[2], passages_of(3)[0]]


@each_store
@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"embedder_hash": "other"}, "embedder_hash is 'abc', expected 'other'"),
        ({"dimension": 9}, "dimension is 8, expected 9"),
        ({"normalize": False}, "normalize is True, expected False"),
        ({"chunker": {"max_tokens": 1}}, r"chunker is \{\}, expected \{'max_tokens': 1\}"),
        ({"corpus_hash": "0"}, "corpus_hash is '[0-9a-f]{32}', expected '0'"),
        ({"embedder_hash": "x", "dimension": 9}, "embedder_hash.*; dimension"),
    ],
)
def test_mismatch_refuses_and_says_how_to_rebuild(kind, tmp_path, passages_of, expected, message):
    store = kind(embedder_hash="abc")
    store.add(passages_of(3), vectors_of(3))
    store.save(tmp_path / "store")
    with pytest.raises(StoreMismatchError, match=f"(?s){message}.*where.*store.*build_store"):
        KnowledgeStore.load(tmp_path / "store", **expected)
    with pytest.raises(StoreError, match="did you mean 'embedder'"):
        KnowledgeStore.load(tmp_path / "store", embeder="x")


def test_another_kind_of_store_is_refused(tmp_path, passages_of):
    store = InMemoryKnowledgeStore()
    store.add(passages_of(1), vectors_of(1))
    store.save(tmp_path / "store")
    with pytest.raises(StoreMismatchError, match="'memory' store, not 'qdrant'"):
        QdrantKnowledgeStore.load(tmp_path / "store")


def test_replacing_embeddings_forgets_the_embedder(tmp_path, passages_of):
    store = InMemoryKnowledgeStore(embedder_hash="old")
    store.add(passages_of(3), vectors_of(3))
    store.replace_embeddings(vectors_of(3, seed=1), embedder_hash="new")
    assert store.manifest.embedder_hash == "new"
    store.replace_embeddings(vectors_of(3, seed=2))
    store.save(tmp_path / "store")
    with pytest.raises(StoreMismatchError, match="embedder_hash is '', expected 'new'"):
        KnowledgeStore.load(tmp_path / "store", embedder_hash="new")


@each_store
def test_damage_is_found_before_anything_is_read(kind, tmp_path, passages_of):
    store = kind()
    store.add(passages_of(20), vectors_of(20))
    store.save(tmp_path / "store")
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", bytes([content[0] ^ 1]) + content[1:], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(StoreError):
                KnowledgeStore.load(tmp_path / "store")
        path.write_bytes(content)
    assert len(KnowledgeStore.load(tmp_path / "store")) == 20


def test_files_that_agree_with_a_wrong_manifest_are_refused(tmp_path, passages_of):
    store = InMemoryKnowledgeStore()
    store.add(passages_of(4), vectors_of(4))
    store.save(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"count": 5}, "not those of the manifest"),
        ({"dimension": 9}, r"the manifest says \[4, 9\]"),
        ({"format_version": 99}, "format 99"),
        ({"surprise": 1}, "manifest is damaged"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(StoreError, match=message):
            KnowledgeStore.load(tmp_path / "store")


@each_store
@pytest.mark.parametrize("function", ["write_manifest", "_write_files"])
def test_a_failed_save_leaves_the_one_before(kind, tmp_path, passages_of, monkeypatch, function):
    store = kind()
    store.add(passages_of(5), vectors_of(5))
    store.save(tmp_path / "store")
    store.add(passages_of(5, first=5), vectors_of(5))

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving if function == "write_manifest" else kind, function, fail)
        with pytest.raises(TrainshedError, match="disk is full"):
            store.save(tmp_path / "store")
    assert len(KnowledgeStore.load(tmp_path / "store")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    store.save(tmp_path / "store")
    assert len(KnowledgeStore.load(tmp_path / "store")) == 10


def test_a_kill_during_save_leaves_the_one_before(tmp_path):
    script = """
import os, signal, sys, torch
from trainshed.data.passages import Passage
from trainshed.rag.stores import saving
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
store = InMemoryKnowledgeStore()
store.add([Passage("a", "t")], torch.ones(1, 4))
store.save(sys.argv[1])
store.add([Passage("b", "t")], torch.ones(1, 4))
def kill(directory, manifest):
    os.kill(os.getpid(), signal.SIGKILL)
saving.write_manifest = kill
store.save(sys.argv[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], env={**os.environ}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # what was half written lies beside the store
    store = KnowledgeStore.load(tmp_path / "store")
    assert store.ids == ["a"]
    store.save(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_cosine_and_inner_product(kind, passages_of):
    long, short = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    scaled = kind()
    scaled.add(passages_of(2), torch.cat([long, short]))
    assert torch.allclose(scaled.embeddings(), torch.tensor([[0.6, 0.8], [1, 0]]))
    dense = getattr(scaled, "dense", scaled)
    assert dense.search(2 * long, 2).scores[0].tolist() == pytest.approx([1.0, 0.6])
    plain = kind(normalize=False)
    plain.add(passages_of(2), torch.cat([long, short]))
    assert torch.equal(plain.embeddings(), torch.cat([long, short]))
    dense = getattr(plain, "dense", plain)
    assert dense.search(2 * long, 2).scores[0].tolist() == pytest.approx([50.0, 6.0])
    assert plain.manifest.metric == "inner_product"


def test_searches_during_changes_see_whole_states(passages_of):
    """A store of ones or of twos: no search may see a mixture."""
    store = InMemoryKnowledgeStore(normalize=False)
    store.add(passages_of(200), torch.ones(200, 4))
    stop, seen = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            seen.append(set(store.search(torch.ones(3, 4), 200).scores.flatten().tolist()))

    thread = threading.Thread(target=look)
    thread.start()
    for value in (2.0, 1.0) * 30:
        store.replace_embeddings(torch.full((200, 4), value))
    stop.set()
    thread.join()
    assert seen
    assert all(scores in ({4.0}, {8.0}) for scores in seen)
