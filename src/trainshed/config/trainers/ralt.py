"""Parameters of RALT: the generator learns to answer with a retrieved passage before it.

RA-DIT (arXiv 2310.01352). Left out: the trainer.
"""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from trainshed.config.parameters import QUESTION_DATA, RAG_PARTS, TrainerParameters
from trainshed.config.schema import Count, Share


class RALTParameters(TrainerParameters):
    """What RALT takes besides the arguments of `transformers.TrainingArguments`."""

    reads: ClassVar[frozenset[str]] = (
        RAG_PARTS
        | QUESTION_DATA
        | {
            "model",
            "rag.reranker",
            "rag.retrieval_temperature",
        }
    )

    passages_per_question: Count = 4
    """Retrieved passages of a question, each in a training instance of its own, as in RA-DIT."""
    include_no_context: Share = 0.0
    """Share of the questions that also make an instance without a passage."""
    objective: Literal["each", "marginal"] = "each"
    """`each`: every passage is to give the answer, as in RA-DIT. `marginal`: the likelihood of the answer is
    summed over passages by their retrieval probability (RAG-Sequence, arXiv 2005.11401), so that a passage
    which does not hold the answer teaches little; fits `rag.combine: marginal`, costs a forward pass more."""
    packing: bool = False
    """Put several short instances into one row, without attention between them; slower on a CPU."""
    weight_by_retrieval: bool = False
    """Weigh an instance by the retrieval probability of its passage, instead of equally as in RA-DIT."""
    max_length: Count | None = None
    """Longest instance in tokens; the passage is what is cut. `rag.max_length` when not set."""

    @model_validator(mode="after")
    def _marginal_stands_alone(self) -> Self:
        """Refuse what would change the mixture that `marginal` is defined over."""
        if self.objective == "marginal":
            for name in ("include_no_context", "packing", "weight_by_retrieval"):
                if getattr(self, name):
                    raise ValueError(
                        f"objective: marginal sums over a question's passages, where {name} has no place; "
                        f"leave {name} out, or use objective: each"
                    )
        return self
