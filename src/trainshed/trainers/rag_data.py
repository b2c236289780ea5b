"""What the RAG trainers have in common: their datasets, and the parts that a run's configuration names.

Left out: the losses and loops (`lsr`, `ralt`).
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed.config.schema import DataSection, ModelSection, RagSection
from trainshed.data.builtin import build_corpus
from trainshed.data.examples import PASSAGES_FILE, RagExample, is_corpus, load_examples
from trainshed.data.passages import Passage, read_passages
from trainshed.data.rows import has_split
from trainshed.errors import ConfigError
from trainshed.models.precision import resolve_dtype
from trainshed.models.sections import load_section
from trainshed.rag.building import build_store
from trainshed.rag.generator import Generator, saved_template
from trainshed.rag.prompts import PromptTemplate
from trainshed.rag.reranking import CrossEncoderReranker
from trainshed.rag.retriever import Retriever
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.system import RAGConfig, RAGSystem
from trainshed.registry import STORES

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig


def as_examples(dataset: Any) -> list[RagExample]:
    """Return examples from what a user gives: examples, rows, a `datasets.Dataset`, or where they lie."""
    if isinstance(dataset, Sequence) and not isinstance(dataset, str):
        rows = list(dataset)
        if rows and all(isinstance(row, RagExample) for row in rows):
            return rows
    return load_examples(dataset)


def read_split(data: DataSection, split: str, *, limit: int | None) -> list[RagExample] | None:
    """Return the examples of one split, or None when the dataset has no such split.

    Parameters
    ----------
    data
        Names the dataset and its columns.
    split
        Its name in the dataset.
    limit
        The first so many; all when None.
    """
    if data.dataset_name is None:
        raise ConfigError(
            "no dataset is named", where="data.dataset_name", fix="a .jsonl file, a directory or `builtin`"
        )
    if split != data.train_split and not has_split(data.dataset_name, split, name=data.dataset_config):
        return None
    return load_examples(data.dataset_name, split=split, columns=data.columns, limit=limit)


def make_template(rag: RagSection, saved: PromptTemplate | None = None) -> PromptTemplate | None:
    """Return the template that a configuration names, else the one that was saved with the generator."""
    if rag.prompt is None:
        return saved
    return PromptTemplate(rag.prompt, no_context=rag.no_context_prompt)


def make_generator(
    model: ModelSection, rag: RagSection, *, device: str, seed: int, answers: bool = True
) -> Generator:
    """Load the generator that a configuration names; one that only learns computes in its own precision."""
    loaded, tokenizer = load_section(model, device=device, seed=seed)
    return Generator(
        loaded,
        tokenizer,
        template=make_template(rag, saved_template(model.model_name_or_path)),
        max_length=rag.max_length,
        dtype=rag.generator_dtype if answers else None,
    )


def make_retriever(rag: RagSection, *, device: str) -> Retriever:
    """Load the retriever that a configuration names."""
    return Retriever.from_names(rag.retriever, rag.query_encoder, device=device)


def read_knowledge(data: DataSection, *, seed: int) -> list[Passage]:
    """Return the passages that a configuration names: a file of them, a corpus, or the built-in corpus.

    Raises
    ------
    ConfigError
        When it names none; documents are cut into passages by a stage `corpus` before.
    """
    if data.documents is not None and not Path(data.documents).is_dir():
        return read_passages(Path(data.documents))[: data.max_passages]
    if data.documents is None and data.dataset_name == "builtin":
        return build_corpus(max_passages=data.max_passages, seed=seed).passages
    if data.documents is None and data.dataset_name and is_corpus(Path(data.dataset_name)):
        return read_passages(Path(data.dataset_name) / PASSAGES_FILE)[: data.max_passages]
    raise ConfigError(
        "there are no passages to build a knowledge store from",
        where="data.documents",
        fix="a .jsonl file of passages, or data.dataset_name: ${stages.NAME} of a stage `corpus`, which cuts "
        "documents into passages",
    )


def build_named_store(
    rag: RagSection,
    passages: Sequence[Passage],
    retriever: Retriever,
    *,
    directory: Path | None = None,
) -> KnowledgeStore:
    """Build the kind of store that a configuration names, whichever stage asks for it.

    Parameters
    ----------
    rag
        Names the kind of store, its address, and how passages are embedded.
    passages
        What it holds.
    retriever
        Its passage encoder embeds them.
    directory
        As in `build_store`: where the store is saved, None for nowhere.

    Raises
    ------
    ConfigError
        When an address is given for a kind of store that is on no server.
    """
    joined = rag.hybrid or rag.store == "hybrid"
    dense = "memory" if rag.store == "hybrid" else rag.store
    options: dict[str, Any] = {}
    if rag.store_url is not None:
        if "url" not in inspect.signature(STORES.get(dense)).parameters:
            raise ConfigError(
                f"a store of kind {dense!r} is on no server and has no address",
                where="rag.store_url",
                fix="rag.store: qdrant, with rag.hybrid: true for search by words too; or leave it out",
            )
        options = {"url": rag.store_url}
    if joined:
        options = {"dense": dense, "dense_options": options, "rrf_k": rag.rrf_k}
    return build_store(
        passages,
        retriever,
        store="hybrid" if joined else dense,
        directory=directory,
        batch_size=rag.embed_batch_size,
        dtype=resolve_dtype(rag.embed_dtype, retriever.passage_encoder.device),
        options=options,
    )


def make_store(config: "RunConfig", retriever: Retriever) -> KnowledgeStore:
    """Load the store that a configuration names, or build one of its passages that nothing else uses.

    Raises
    ------
    ConfigError
        When the one to build would be on a server.
    """
    rag, data = config.rag, config.data
    if rag.knowledge_store is not None:
        return KnowledgeStore.load(rag.knowledge_store, embedder_hash=retriever.passage_hash())
    if rag.store_url is not None:
        # every run and every restart would write into the one collection that is there
        raise ConfigError(
            "a store on a server is built once, by a stage `index`, and not by each run that uses it",
            where="rag.store_url",
            fix="rag.knowledge_store: ${stages.NAME}/knowledge_store of a stage `index`; or leave it out",
        )
    return build_named_store(rag, read_knowledge(data, seed=config.execution.seed), retriever)


def make_rag_config(rag: RagSection, seed: int) -> RAGConfig:
    """Return how a system retrieves and answers, as a configuration says."""
    return RAGConfig(
        top_k=rag.top_k,
        combine=rag.combine,
        retrieval_temperature=rag.retrieval_temperature,
        max_new_tokens=rag.max_new_tokens,
        seed=seed,
    )


def make_system(config: "RunConfig") -> RAGSystem:
    """Make the RAG system that a configuration describes."""
    system = make_learning_system(config, scores=True, retrieves=True)
    system.rag_config = make_rag_config(config.rag, config.execution.seed)
    return system


def make_learning_system(config: "RunConfig", *, scores: bool, retrieves: bool) -> RAGSystem:
    """Make the system as far as a training needs it: of the keys that only decide answers none is read.

    What is read here for an algorithm stands in its `TrainerParameters.reads`.

    Parameters
    ----------
    config
        Describes the system.
    scores
        The generator scores answers, in the precision that it answers with.
    retrieves
        The system retrieves, reranked where the configuration says so, and weighs what it finds.
    """
    device, seed, rag = config.execution.device, config.execution.seed, config.rag
    retriever = make_retriever(rag, device=device)
    system = RAGSystem(
        generator=make_generator(config.model, rag, device=device, seed=seed, answers=scores),
        retriever=retriever,
        knowledge_store=make_store(config, retriever),
        rag_config=RAGConfig(seed=seed),
    )
    if retrieves:
        system.rag_config = RAGConfig(retrieval_temperature=rag.retrieval_temperature, seed=seed)
        system.reranker = None if rag.reranker is None else CrossEncoderReranker(rag.reranker)
    return system
