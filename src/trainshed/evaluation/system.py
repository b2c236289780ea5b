"""A whole RAG system on held-out questions: what it retrieves, what it answers, and answer likelihoods.

Left out: training it (`trainers`), and the metrics (`retrieval`, `generation`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainshed.data.examples import RagExample
from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.generation import GenerationEvaluation, evaluate_generation
from trainshed.evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval
from trainshed.evaluation.significance import Resampling
from trainshed.progress import task
from trainshed.rag.locating import find_system

if TYPE_CHECKING:
    from trainshed.rag.system import RAGSystem


@dataclass(frozen=True)
class SystemEvaluation:
    """What `evaluate_system` found; a part is None when it was not asked for or had nothing to score."""

    retrieval: RetrievalEvaluation | None
    generation: GenerationEvaluation | None

    @property
    def parts(self) -> list[RetrievalEvaluation | GenerationEvaluation]:
        """The parts that are there: one column of `trainshed.evaluation.report.comparison_table`."""
        return [part for part in (self.retrieval, self.generation) if part is not None]

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics."""
        return [metric for part in self.parts for metric in part.metrics]

    def to_json(self, *, per_example: bool = True) -> dict[str, Any]:
        """Return ``{"retrieval": ..., "generation": ...}`` as `Scores.to_json` gives them."""
        named = (("retrieval", self.retrieval), ("generation", self.generation))
        return {name: part.to_json(per_example=per_example) for name, part in named if part is not None}


def load_system(path: Path) -> "RAGSystem":
    """Load a saved system, or the one that a run or a plan left.

    Parameters
    ----------
    path
        What `RAGSystem.save` wrote, the directory of a run, or the output directory of a plan.

    Raises
    ------
    ModelError
        There is no system, or there are several.
    """
    place = find_system(path)
    from trainshed.rag.system import RAGSystem

    return RAGSystem.load(place)


def evaluate_system(
    system: "RAGSystem",
    examples: Sequence[RagExample],
    *,
    top_k_values: Iterable[int] = (1, 3, 5, 10),
    generation: bool = True,
    bootstrap_samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 16,
) -> SystemEvaluation:
    """Score a system's retrieval and its answers on some examples.

    Parameters
    ----------
    system
        The system; nothing in it changes.
    examples
        Held-out questions. Retrieval is scored where at least one names its ``passage_id``.
    top_k_values
        Cut-offs of the ranking metrics.
    generation
        Answer the questions too (the slow part).
    bootstrap_samples, confidence, seed
        How intervals are computed.
    batch_size
        Questions answered at once.

    Raises
    ------
    DataError
        There is no example, or nothing to score.
    """
    resampling = Resampling(samples=bootstrap_samples, confidence=confidence, seed=seed)
    if not examples:
        raise DataError("there is no example to evaluate on", fix="a split with at least one question")
    located = any(example.passage_id is not None for example in examples)
    if not located and not generation:
        raise DataError("no example names its passage, and answers are not to be scored", fix="passage_id")
    retrieval = None
    if located:
        retrieval = evaluate_retrieval(system, examples, top_k_values=top_k_values, resampling=resampling)
    answered = _answer(system, examples, batch_size, resampling) if generation else None
    return SystemEvaluation(retrieval, answered)


def citation_ids(citations: Iterable[Any]) -> list[str]:
    """Return the passage ids of some citations: strings, or objects with ``passage_id`` or ``passage``.

    Raises
    ------
    ConfigError
        A citation names no passage.
    """
    return [_citation_id(citation) for citation in citations]


def _citation_id(citation: Any) -> str:
    if isinstance(citation, str):
        return citation
    if hasattr(citation, "passage_id"):
        return str(citation.passage_id)
    passage = getattr(citation, "passage", citation)
    if not hasattr(passage, "id"):
        raise ConfigError(f"the citation {citation!r} names no passage", fix="an object with passage_id")
    return str(passage.id)


def _answer(
    system: "RAGSystem", examples: Sequence[RagExample], batch_size: int, resampling: Resampling
) -> GenerationEvaluation:
    texts: list[str] = []
    cited: list[list[str]] = []
    totals: list[NDArray[np.float64]] = []
    tokens: list[NDArray[np.float64]] = []
    with task("answer questions", len(examples)) as shown:
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            queries = [example.query for example in batch]
            for response in system.batch_query(queries):
                texts.append(response.response)
                cited.append(citation_ids(response.citations))
            total, count = system.answer_nll(queries, [example.response for example in batch])
            totals.append(np.asarray(total, dtype=np.float64))
            tokens.append(np.asarray(count, dtype=np.float64))
            shown.advance(len(batch))
    nll = (np.concatenate(totals), np.concatenate(tokens))
    return evaluate_generation(texts, examples, nll=nll, citations=cited, resampling=resampling)
