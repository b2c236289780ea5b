"""Parameters of LSR: the retriever learns from which passages help the generator.

REPLUG LSR (arXiv 2301.12652) and RA-DIT (arXiv 2310.01352). Left out: the loss (`rag.losses`) and the
trainer.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainshed.config.parameters import QUESTION_DATA, RAG_PARTS, TrainerParameters
from trainshed.config.schema import SETTING, Count, Share, Temperature


class LSRParameters(TrainerParameters):
    """What LSR takes besides the arguments of `transformers.TrainingArguments`."""

    reads: ClassVar[frozenset[str]] = RAG_PARTS | QUESTION_DATA | {"model", "rag.generator_dtype"}

    retrieval_temperature: Temperature = 0.05
    """Divides the retriever's scores before the softmax over candidates (gamma in REPLUG, 0.1 there)."""
    lm_temperature: Temperature = 1.0
    """Divides the log-likelihoods of the answer before the softmax over candidates; REPLUG (beta, 0.1) and
    RA-DIT (tau) divide likelihoods."""
    candidates: Annotated[int, Field(ge=2)] = 12
    """Passages that are retrieved and scored for each question (REPLUG: 20)."""
    direction: Literal["reverse", "forward"] = "reverse"
    """`reverse` is KL(retriever || generator) as in both papers, `forward` the other way round."""
    length_normalise: bool = False
    """Divide the log-likelihood of an answer by its tokens."""
    train_passage_encoder: bool = False
    """Train the passage encoder too; RA-DIT keeps it frozen, so that nothing is embedded again."""
    refresh_steps: Count = 100
    """With `train_passage_encoder`, steps between two new embeddings of all passages (REPLUG: 3,000)."""
    gate: bool = True
    """Learn only from questions on which the generator shows that, and which, passage helps."""
    gate_margin: float = 4.0
    """How much more likely, in nats, the best passage must make the answer before a question counts."""
    gate_scale: Annotated[float, Field(gt=0)] = 8.0
    """How much more beyond the margin, in nats, makes a question count fully."""
    gate_min_mass: Share = 0.5
    """Smallest share of the target distribution that the best passage must hold."""
    gold_in_candidates: bool = False
    """Put the passage that a question is marked with among its candidates."""
    score_cache: bool = Field(default=True, json_schema_extra=SETTING)
    """Keep the generator's scores, so that a later epoch need not compute them again."""
    scoring_tokens_per_batch: Count | None = Field(default=None, json_schema_extra=SETTING)
    """Tokens that the generator scores at once; what the device likes when not set."""
