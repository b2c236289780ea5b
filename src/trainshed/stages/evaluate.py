"""The stage that measures a RAG system on held-out questions, beside what it was before training.

``outputs/`` then holds ``report.json``, ``report.txt`` (the table), ``answers.jsonl`` and ``system.json``,
with which `RAGSystem.load` makes the system. What is measured is kept as it comes, so that a killed
evaluation goes on. Left out: metrics (`evaluation`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainshed.config.schema import EvaluationSection
from trainshed.data.examples import RagExample
from trainshed.data.jsonl import jsonl_text
from trainshed.errors import CheckpointError, DataError
from trainshed.evaluation.generation import GenerationEvaluation, evaluate_generation
from trainshed.evaluation.report import comparison_table, write_report
from trainshed.evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval
from trainshed.evaluation.scores import Scores
from trainshed.evaluation.significance import Resampling
from trainshed.evaluation.system import citation_ids
from trainshed.files import read_json, write_atomic, write_json
from trainshed.progress import task
from trainshed.rag.generator import Generator
from trainshed.rag.retriever import Retriever
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.system import RAGSystem
from trainshed.stages.context import StageContext, StageResult
from trainshed.stages.evaluate_language import run as measure_language_model
from trainshed.trainers.rag_data import (
    make_generator,
    make_retriever,
    make_store,
    make_system,
    read_split,
)

_BATCH = 16
RETRIEVAL_ROWS = ("mrr@10", "recall@1", "recall@5")
GENERATION_ROWS = ("answer_nll", "token_nll", "f1", "exact_match")


@dataclass
class _Measuring:
    """Measures one thing after another, each once."""

    context: StageContext
    examples: list[RagExample]
    resampling: Resampling

    def retrieval(
        self, name: str, retriever: Callable[[], Retriever], store: Any, depths: list[int]
    ) -> Scores:
        """Return how well a retriever finds the passages that answer."""

        def measure() -> Scores:
            return evaluate_retrieval(
                (retriever(), store), self.examples, top_k_values=depths, resampling=self.resampling
            )

        return self._once(f"retrieval-{name}", RetrievalEvaluation, measure)

    def generation(
        self, name: str, answer: Callable[[list[RagExample]], dict[str, Any]], limit: int | None
    ) -> Scores:
        """Return how good answers are, and write them down."""

        def measure() -> Scores:
            examples = self.examples[:limit]
            found = _answers(f"answer questions: {name}", examples, answer)
            rows = [
                {"system": name, "id": e.id, "query": e.query, "expected": e.response, "answer": text}
                for e, text in zip(examples, found["texts"], strict=True)
            ]
            write_atomic(self._place(f"answers-{name}.jsonl"), jsonl_text(rows))
            return evaluate_generation(
                found["texts"],
                examples,
                nll=(np.asarray(found["nll"]), np.asarray(found["tokens"])),
                citations=found["citations"] or None,
                resampling=self.resampling,
            )

        return self._once(f"generation-{name}", GenerationEvaluation, measure)

    def answers(self) -> str:
        """Return every answer that was written down, as JSON lines."""
        return "".join(
            path.read_text(encoding="utf-8")
            for path in sorted(self.context.directory.checkpoints.glob("answers-*.jsonl"))
        )

    def _place(self, name: str) -> Path:
        return self.context.directory.checkpoints / name

    def _once(self, name: str, kind: type[Scores], measure: Callable[[], Scores]) -> Scores:
        place = self._place(f"{name}.json")
        if not place.exists():
            write_json(place, measure().to_json())
        # also what was measured just now is read back, so that a restart changes nothing
        try:
            return kind.from_json(read_json(place))
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise CheckpointError(
                f"what was measured before is damaged ({type(error).__name__})",
                where=str(place),
                fix="delete this file and run the same command again: it is measured anew",
            ) from error


def run(context: StageContext) -> StageResult:
    """Measure the system that ``model`` and ``rag`` name, and what ``evaluation`` names beside it.

    Where it names measures of a language model, that is measured alone (`evaluate_language`).

    Returns
    -------
    StageResult
        The headline metrics.
    """
    if context.config.evaluation.measures_language_model():
        return measure_language_model(context)
    config, section = context.config, context.config.evaluation
    examples = read_split(config.data, section.split, limit=section.max_samples)
    if not examples:
        raise DataError(
            f"the dataset has no questions in the split {section.split!r}",
            where="evaluation.split",
            fix="the name of a split that is there",
        )
    resampling = Resampling(
        samples=section.bootstrap_samples, confidence=section.confidence, seed=config.execution.seed
    )
    measuring = _Measuring(context, examples, resampling)
    if not section.generation and config.model.model_name_or_path is None:
        retriever = make_retriever(config.rag, device=config.execution.device)
        retrieval = _retrieval(measuring, retriever, make_store(config, retriever), section)
        if not retrieval:
            raise DataError(
                "no question names the passage that answers it, so there is nothing to measure",
                where="data.dataset_name",
                fix="questions with a passage_id",
            )
        _write(context, None, retrieval, {}, measuring.answers())
        return StageResult(metrics=_headline(retrieval, {}))
    system = make_system(config)
    retrieval = _retrieval(measuring, system.retriever, system.knowledge_store, section)
    generation = _generation(measuring, system, section) if section.generation else {}
    _write(context, system, retrieval, generation, measuring.answers())
    return StageResult(metrics=_headline(retrieval, generation))


def _retrieval(
    measuring: _Measuring, retriever: Retriever, store: KnowledgeStore, section: EvaluationSection
) -> dict[str, Scores]:
    if not any(example.passage_id is not None for example in measuring.examples):
        return {}
    depths = sorted({*section.top_k_values, 1, 5, 10})
    found: dict[str, Scores] = {}
    if section.baseline_retriever is not None:
        device = measuring.context.config.execution.device
        name = section.baseline_retriever
        found["before"] = measuring.retrieval(
            "before", lambda: Retriever.from_names(name, device=device), store, depths
        )
    found["after"] = measuring.retrieval("after", lambda: retriever, store, depths)
    return found


def _generation(measuring: _Measuring, system: RAGSystem, section: EvaluationSection) -> dict[str, Scores]:
    config, limit = measuring.context.config, section.max_generation_samples
    found: dict[str, Scores] = {}
    if section.baseline_generator is not None:
        model = config.model.model_copy(update={"model_name_or_path": section.baseline_generator})
        rag = config.rag
        if rag.prompt is None:
            template = system.generator.template
            update = {"prompt": template.text, "no_context_prompt": template.no_context}
            rag = rag.model_copy(update=update)
        device, seed = config.execution.device, config.execution.seed
        base = make_generator(model, rag, device=device, seed=seed)
        untrained = RAGSystem(
            base, system.retriever, system.knowledge_store, system.rag_config, system.reranker
        )
        found["no_retrieval"] = measuring.generation(
            "no_retrieval", _closed_book(base, system.rag_config.max_new_tokens), limit
        )
        found["rag_before"] = measuring.generation("rag_before", _with_retrieval(untrained), limit)
    found["rag_after"] = measuring.generation("rag_after", _with_retrieval(system), limit)
    return found


def _with_retrieval(system: RAGSystem) -> Callable[[list[RagExample]], dict[str, Any]]:
    def answer(batch: list[RagExample]) -> dict[str, Any]:
        queries = [example.query for example in batch]
        responses = system.batch_query(queries)
        nll, tokens = system.answer_nll(queries, [example.response for example in batch])
        return {
            "texts": [response.response for response in responses],
            "citations": [citation_ids(response.citations) for response in responses],
            "nll": nll.tolist(),
            "tokens": tokens.tolist(),
        }

    return answer


def _closed_book(generator: Generator, max_new_tokens: int) -> Callable[[list[RagExample]], dict[str, Any]]:
    def answer(batch: list[RagExample]) -> dict[str, Any]:
        queries = [example.query for example in batch]
        nothing: list[list[str]] = [[] for _ in batch]
        nll, tokens = generator.answer_nll(queries, nothing, [example.response for example in batch])
        texts = generator.generate(queries, nothing, max_new_tokens=max_new_tokens).texts
        return {"texts": texts, "citations": [], "nll": nll.tolist(), "tokens": tokens.tolist()}

    return answer


def _answers(
    what: str, examples: Sequence[RagExample], answer: Callable[[list[RagExample]], dict[str, Any]]
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"texts": [], "citations": [], "nll": [], "tokens": []}
    with task(what, len(examples)) as shown:
        for start in range(0, len(examples), _BATCH):
            batch = list(examples[start : start + _BATCH])
            for name, values in answer(batch).items():
                found[name] += values
            shown.advance(len(batch))
    return found


def _write(
    context: StageContext,
    system: RAGSystem | None,
    retrieval: dict[str, Scores],
    generation: dict[str, Scores],
    answers: str,
) -> None:
    outputs, config = context.directory.outputs, context.config
    parts: list[str] = []
    if retrieval:
        rows = [row for row in RETRIEVAL_ROWS if row in retrieval["after"].metrics]
        title = "Retrieval on held-out questions"
        parts.append(comparison_table(title, retrieval, rows, by_kind=["mrr@10"]))
    if generation:
        names = {
            "no_retrieval": "generator alone",
            "rag_before": "with retrieval",
            "rag_after": "after training",
        }
        shown = {names[name]: scores for name, scores in generation.items()}
        against = {"after training": "with retrieval"} if "with retrieval" in shown else {}
        title = "Answers to held-out questions"
        parts.append(comparison_table(title, shown, GENERATION_ROWS, against=against))
    write_atomic(outputs / "report.txt", "\n".join(parts))
    write_report(outputs / "report.json", {"retrieval": retrieval, "generation": generation})
    write_atomic(outputs / "answers.jsonl", answers)
    if system is not None and config.rag.knowledge_store and config.model.model_name_or_path:
        system.save_references(
            outputs,
            generator=Path(config.model.model_name_or_path),
            retriever=Path(config.rag.retriever),
            knowledge_store=Path(config.rag.knowledge_store),
        )


def _headline(retrieval: dict[str, Scores], generation: dict[str, Scores]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for group, systems, rows in (
        ("retrieval", retrieval, RETRIEVAL_ROWS),
        ("generation", generation, GENERATION_ROWS),
    ):
        for name, scores in systems.items():
            for row in rows:
                if row in scores.metrics:
                    metrics[f"{group}/{name}/{row}"] = scores.mean(row)
    return metrics
