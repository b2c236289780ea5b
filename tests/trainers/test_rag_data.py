"""The store that a configuration describes is the same whichever stage builds it."""

import dataclasses

import pytest

from trainshed.config.resolved import RunConfig
from trainshed.config.schema import DataSection, ExecutionSection, RagSection
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import ConfigError
from trainshed.plan.directory import RunDirectory
from trainshed.rag.retriever import Retriever
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.hybrid import HybridKnowledgeStore
from trainshed.rag.stores.memory import InMemoryKnowledgeStore
from trainshed.registry import STORES
from trainshed.stages.context import StageContext
from trainshed.stages.index import run as build_index
from trainshed.trainers.rag_data import build_named_store, make_store


@pytest.fixture
def configured(tmp_path, passages, encoder_directory):
    """Return a function that makes the configuration of a run over tiny passages."""
    write_jsonl(tmp_path / "passages.jsonl", [passage.to_json() for passage in passages])

    def make(**rag):
        return RunConfig(
            name="run",
            stage="train",
            execution=ExecutionSection(device="cpu"),
            data=DataSection(documents=str(tmp_path / "passages.jsonl")),
            rag=RagSection(retriever=str(encoder_directory), **rag),
        )

    return make


@pytest.fixture
def retriever(encoder_directory):
    return Retriever.from_names(str(encoder_directory), None, device="cpu")


@pytest.mark.parametrize(
    ("rag", "dense", "rrf_k"),
    [
        ({}, "memory", None),
        ({"hybrid": True, "rrf_k": 7}, "memory", 7),
        ({"hybrid": True, "store": "faiss"}, "faiss", 60),
        ({"store": "hybrid", "rrf_k": 7}, "memory", 7),
        ({"store": "hybrid", "hybrid": True}, "memory", 60),
    ],
)
def test_a_training_builds_the_store_that_an_index_would(
    configured, retriever, passages, tmp_path, rag, dense, rrf_k
):
    config = configured(**rag)
    made = make_store(config, retriever)
    directory = RunDirectory(tmp_path / "run")
    directory.outputs.mkdir(parents=True)
    build_index(StageContext(directory, dataclasses.replace(config, stage="index")))
    built = KnowledgeStore.load(directory.outputs / "knowledge_store", embedder_hash=retriever.passage_hash())
    for store in (made, built):
        assert isinstance(store, HybridKnowledgeStore) is (rrf_k is not None)
        inner = store.dense if isinstance(store, HybridKnowledgeStore) else store
        assert type(inner) is STORES.get(dense)
        assert getattr(store, "rrf_k", None) == rrf_k
        assert store.ids == [passage.id for passage in passages]


class OnServer(InMemoryKnowledgeStore):
    """A store that takes an address."""

    def __init__(self, *, url=None, **common):
        super().__init__(**common)
        self.url = url


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setattr(STORES, "_objects", {**STORES._objects, "qdrant": OnServer})


def test_an_address_reaches_the_store(configured, retriever, passages, served):
    config = configured(store="qdrant", store_url="http://h:1")
    assert build_named_store(config.rag, passages, retriever).url == "http://h:1"
    joined = configured(store="qdrant", store_url="http://h:1", hybrid=True)
    assert build_named_store(joined.rag, passages, retriever).dense.url == "http://h:1"


def test_a_training_builds_no_store_on_a_server(configured, retriever, served):
    with pytest.raises(ConfigError, match="stage `index`") as caught:
        make_store(configured(store="qdrant", store_url="http://h:1"), retriever)
    assert caught.value.where == "rag.store_url"


@pytest.mark.parametrize("rag", [{}, {"hybrid": True}, {"store": "faiss"}, {"store": "hybrid"}])
def test_a_store_that_is_no_server_takes_no_address(configured, retriever, passages, rag):
    with pytest.raises(ConfigError, match=r"has no address(?s:.*)rag.store: qdrant"):
        build_named_store(configured(store_url="http://h:1", **rag).rag, passages, retriever)
