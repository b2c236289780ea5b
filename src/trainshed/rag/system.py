"""A retrieval-augmented generation system: ask, and get an answer with the passages that it rests on.

Left out: training (`trainers`), measuring (`evaluation`), and an HTTP server.
"""

import asyncio
import dataclasses
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from trainshed.errors import ConfigError, ModelError, did_you_mean
from trainshed.files import atomic_directory, read_json, write_json
from trainshed.rag.answers import RAGResponse, RetrievedPassage, cite
from trainshed.rag.generator import Generator
from trainshed.rag.locating import SYSTEM_FILE
from trainshed.rag.losses import retrieval_log_probs
from trainshed.rag.reranking import CrossEncoderReranker
from trainshed.rag.retriever import Retriever
from trainshed.rag.stores.base import KnowledgeStore

_COMBINE = ("ensemble", "marginal", "concat")
_PARTS = ("generator", "retriever", "knowledge_store")


@dataclass(frozen=True)
class RAGConfig:
    """How a system retrieves and answers.

    Parameters
    ----------
    top_k
        Passages that are read for a question.
    combine
        ``ensemble`` reads each in a prompt of its own and mixes what is expected next (REPLUG, RA-DIT);
        ``marginal`` does so too, and lets passages lose weight that did not expect what was said so far
        (RAG-Sequence); ``concat`` joins all in one prompt.
    context_separator
        Stands between joined passages.
    retrieval_temperature
        Divides the scores before they become the weights of the mixture.
    max_new_tokens
        Longest answer.
    temperature
        0 answers with the likeliest token each time; above, tokens are drawn, seeded by ``seed``.
    rerank_from
        With a reranker, how many passages it orders anew.
    """

    top_k: int = 4
    combine: Literal["ensemble", "marginal", "concat"] = "ensemble"
    context_separator: str = "\n"
    retrieval_temperature: float = 0.05
    max_new_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0
    rerank_from: int = 32

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}", where="RAGConfig", fix="at least 1")
        if self.combine not in _COMBINE:
            raise ConfigError(
                f"unknown way to combine passages: {self.combine!r}",
                where="RAGConfig.combine",
                fix=did_you_mean(str(self.combine), _COMBINE),
            )
        if self.retrieval_temperature <= 0:
            raise ConfigError(
                "retrieval_temperature must be above 0", where="RAGConfig.retrieval_temperature"
            )


@dataclass
class RAGSystem:
    """Generator, retriever and knowledge store as one.

    Parameters
    ----------
    generator
        Answers.
    retriever
        Encodes questions (and passages, when a store is built).
    knowledge_store
        Holds the passages, embedded by the retriever's passage encoder.
    rag_config
        How it retrieves and answers.
    reranker
        Orders what the store found anew.
    """

    generator: Generator
    retriever: Retriever
    knowledge_store: KnowledgeStore
    rag_config: RAGConfig = field(default_factory=RAGConfig)
    reranker: CrossEncoderReranker | None = None

    # -- retrieving ------------------------------------------------------------------------------------

    def retrieve(self, query: str, top_k: int | None = None) -> list[RetrievedPassage]:
        """Return the best passages for one question, best first."""
        return self.batch_retrieve([query], top_k)[0]

    def batch_retrieve(
        self, queries: Sequence[str], top_k: int | None = None
    ) -> list[list[RetrievedPassage]]:
        """Return the best passages of each question, best first; fewer where the store has fewer."""
        k = top_k or self.rag_config.top_k
        if not queries:
            return []
        wanted = k if self.reranker is None else max(k, self.rag_config.rerank_from)
        vectors = self.retriever.encode_queries(list(queries))
        found = self.knowledge_store.search(vectors, wanted, texts=list(queries))
        if self.reranker is not None:
            found = self.reranker.rerank(list(queries), found, self.knowledge_store, k=k)
        lists = []
        for ids, scores in zip(found.ids, found.scores.tolist(), strict=True):
            pairs = zip(self.knowledge_store.get(ids), scores, strict=False)
            lists.append([RetrievedPassage(p, s, rank) for rank, (p, s) in enumerate(pairs, start=1)])
        return lists

    # -- answering -------------------------------------------------------------------------------------

    def query(self, query: str) -> RAGResponse:
        """Answer one question."""
        return self.batch_query([query])[0]

    def batch_query(self, queries: Sequence[str], *, batch_size: int = 16) -> list[RAGResponse]:
        """Answer many questions, ``batch_size`` at once."""
        responses: list[RAGResponse] = []
        for start in range(0, len(queries), batch_size):
            part = list(queries[start : start + batch_size])
            responses += self._answer(part, self.batch_retrieve(part))
        return responses

    def generate(self, query: str, context: str | None = None) -> str:
        """Answer a question from a given text, or from none, without retrieval."""
        contexts = [[] if context is None else [context]]
        return self.generator.generate([query], contexts, **self._decoding()).texts[0]

    async def aquery(self, query: str) -> RAGResponse:
        """Answer one question without blocking the event loop."""
        return await asyncio.to_thread(self.query, query)

    async def abatch_query(self, queries: Sequence[str]) -> list[RAGResponse]:
        """Answer many questions without blocking the event loop."""
        return await asyncio.to_thread(self.batch_query, queries)

    async def aretrieve(self, query: str, top_k: int | None = None) -> list[RetrievedPassage]:
        """Return the best passages for one question without blocking the event loop."""
        return await asyncio.to_thread(self.retrieve, query, top_k)

    def stream(self, query: str) -> "AnswerStream":
        """Answer one question piece by piece; the stream's ``response`` has citations once it is through."""
        return AnswerStream(self, query)

    def answer_nll(self, queries: Sequence[str], answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return how unlikely the system finds given answers.

        Returns
        -------
        tuple[Tensor, Tensor]
            ``[n]`` −log p(answer, end | question) in nats, retrieval included, and ``[n]`` answer tokens.
        """
        found = self.batch_retrieve(list(queries))
        marginal = self.rag_config.combine == "marginal"
        contexts, weights = self._contexts(found), self._log_weights(found)
        return self.generator.answer_nll(queries, contexts, answers, weights, marginal=marginal)

    def _answer(
        self, queries: Sequence[str], found: list[list[RetrievedPassage]], **more: Any
    ) -> list[RAGResponse]:
        generated = self.generator.generate(
            queries, self._contexts(found), self._log_weights(found), **self._decoding(), **more
        )
        return [
            RAGResponse(text, cite(text, passages, self._shares(posterior, passages)), passages)
            for text, posterior, passages in zip(generated.texts, generated.posteriors, found, strict=True)
        ]

    def _shares(self, posterior: Tensor, passages: list[RetrievedPassage]) -> list[float]:
        """Return each passage's share of the answer; joined passages share by retrieval."""
        if self.rag_config.combine == "concat" and passages:
            scores = torch.tensor([found.score for found in passages])
            return retrieval_log_probs(scores, self._temperature()).exp().tolist()
        return [] if not passages else posterior.tolist()

    def _contexts(self, found: list[list[RetrievedPassage]]) -> list[list[str]]:
        texts = [[candidate.passage.text for candidate in passages] for passages in found]
        if self.rag_config.combine == "concat":
            return [[self.rag_config.context_separator.join(part)] if part else [] for part in texts]
        return texts

    def _log_weights(self, found: list[list[RetrievedPassage]]) -> list[Tensor] | None:
        if self.rag_config.combine == "concat":
            return None
        temperature = self._temperature()
        scores = [torch.tensor([candidate.score for candidate in passages]) for passages in found]
        return [retrieval_log_probs(part, temperature) if len(part) else torch.zeros(1) for part in scores]

    def _temperature(self) -> float:
        # a cross-encoder's scores are logits already, those of a store are cosines
        return self.rag_config.retrieval_temperature if self.reranker is None else 1.0

    def _decoding(self) -> dict[str, Any]:
        config = self.rag_config
        return {
            "max_new_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
            "marginal": config.combine == "marginal",
        }

    # -- keeping ---------------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write the whole system into one directory, atomically."""
        with atomic_directory(Path(directory)) as partial:
            self.generator.save(partial / "generator")
            self.retriever.save(partial / "retriever")
            self.knowledge_store.save(partial / "knowledge_store")
            parts: dict[str, Any] = {name: name for name in _PARTS}
            write_json(partial / SYSTEM_FILE, {**parts, **self._fields()})

    def save_references(
        self, directory: str | Path, *, generator: Path, retriever: Path, knowledge_store: Path
    ) -> None:
        """Write a system whose parts lie elsewhere already; only their relative paths are written."""
        directory = Path(directory)
        places = {"generator": generator, "retriever": retriever, "knowledge_store": knowledge_store}
        parts = {name: os.path.relpath(place, directory) for name, place in places.items()}
        write_json(directory / SYSTEM_FILE, {**parts, **self._fields()})

    def _fields(self) -> dict[str, Any]:
        generator, reranker = self.generator, self.reranker
        return {
            "rag_config": dataclasses.asdict(self.rag_config),
            "reranker": None if reranker is None else reranker.name,
            "max_length": generator.max_length,
            "dtype": None if generator.dtype is None else str(generator.dtype).removeprefix("torch."),
        }

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Self:
        """Load what `save` or `save_references` wrote.

        Raises
        ------
        ModelError
            When it is no saved system.
        StoreMismatchError
            When the store was built by another passage encoder than the system's.
        """
        place = Path(directory)
        try:
            fields = read_json(place / SYSTEM_FILE)
        except (OSError, ValueError) as error:
            raise ModelError(
                "this directory holds no saved RAG system",
                where=str(place / SYSTEM_FILE),
                fix="what RAGSystem.save wrote, or the output directory of a run that evaluated one",
            ) from error
        retriever = Retriever.load(place / fields["retriever"], device=device)
        store = KnowledgeStore.load(place / fields["knowledge_store"], embedder_hash=retriever.passage_hash())
        generator = Generator.from_name(
            str((place / fields["generator"]).resolve()),
            device=device,
            max_length=fields["max_length"],
            dtype=fields["dtype"],
        )
        reranker = (
            None if fields["reranker"] is None else CrossEncoderReranker(fields["reranker"], device=device)
        )
        return cls(generator, retriever, store, RAGConfig(**fields["rag_config"]), reranker)


class AnswerStream(Iterator[str]):
    """The pieces of one answer as they are generated; afterwards the whole answer with its citations.

    Parameters
    ----------
    system
        Who answers.
    query
        The question.
    """

    def __init__(self, system: RAGSystem, query: str) -> None:
        self._system, self._query = system, query
        self._pieces: queue.Queue[str | None] = queue.Queue()
        self._tokens: list[int] = []
        self._shown = ""
        self._response: RAGResponse | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            found = self._system.batch_retrieve([self._query])
            self._response = self._system._answer([self._query], found, on_token=self._on_token)[0]
            self._show(self._response.response)
        except BaseException as error:  # noqa: BLE001 - raised in the reader's thread, not lost in this one
            self._error = error
        finally:
            self._pieces.put(None)

    def _on_token(self, token: int) -> None:
        self._tokens.append(token)
        # space at the end waits for what follows: an answer has none around it
        text = str(self._system.generator.tokenizer.decode(self._tokens, skip_special_tokens=True)).strip()
        # a character of several tokens shows as a replacement character until its last one
        if not text.endswith("\ufffd"):
            self._show(text)

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown):
            self._pieces.put(text[len(self._shown) :])
            self._shown = text

    def __next__(self) -> str:
        piece = self._pieces.get()
        if piece is None:
            self._pieces.put(None)
            self._thread.join()
            if self._error is not None:
                raise self._error
            raise StopIteration
        return piece

    @property
    def response(self) -> RAGResponse:
        """The whole answer; what was not read yet is skipped."""
        for _ in self:
            pass
        assert self._response is not None
        return self._response
