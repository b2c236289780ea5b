"""Parameters of RALT: the generator learns to answer with a retrieved passage before it.

RA-DIT (arXiv 2310.01352). Left out: the trainer.
"""

from typing import ClassVar

from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import Count, Share


class RALTParameters(TrainerParameters):
    """What RALT takes besides the arguments of `transformers.TrainingArguments`."""

    reads: ClassVar[frozenset[str]] = frozenset({"model", "data", "rag"})

    passages_per_question: Count = 4
    """Retrieved passages of a question, each in a training instance of its own, as in RA-DIT."""
    include_no_context: Share = 0.0
    """Share of the questions that also make an instance without a passage."""
    packing: bool = False
    """Put several short instances into one row, without attention between them; slower on a CPU."""
    weight_by_retrieval: bool = False
    """Weigh an instance by the retrieval probability of its passage, instead of equally as in RA-DIT."""
    max_length: Count | None = None
    """Longest instance in tokens; the passage is what is cut. `rag.max_length` when not set."""
