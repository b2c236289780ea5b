"""Parameters of the classifiers: one label, several labels, a label for each word, the span of an answer.

Left out: the trainer.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import Count


def _text_keys(value: Any) -> Any:
    """Take labels that are numbers in the YAML by the names that they get in the data."""
    return {str(key): weight for key, weight in value.items()} if isinstance(value, dict) else value


LabelWeights = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_text_keys)]


class TransformerParameters(TrainerParameters):
    """What training a classifier takes besides the arguments of `transformers.TrainingArguments`."""

    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    # the task's own, such as macro F1
    names_best_metric: ClassVar[bool] = True

    task: Literal["single_label", "multi_label", "token", "extractive_qa"] = "single_label"
    """`single_label`: one class a text. `multi_label`: any number of them. `token`: a label for each word.
    `extractive_qa`: where in a context the answer to a question stands."""
    text_column: str = "text"
    """Column of the text, or for `token` of the list of words; a list of paragraphs is joined by newlines."""
    text_pair_column: str | None = None
    """Column of a second text that is read with the first, such as a question about it."""
    label_column: str = "label"
    """Column of the label: text or a whole number; a list of them for `multi_label` and `token`."""
    max_length: Annotated[int, Field(ge=8)] = 128
    """Tokens that the model reads at once."""
    long_documents: Literal["truncate", "chunk"] = "truncate"
    """What happens to a text of more than `max_length` tokens: its end is left out, or it is read in
    overlapping chunks whose predictions are pooled, in training as in use. `token` and `extractive_qa`
    always read overlapping chunks."""
    chunk_overlap: Annotated[int, Field(ge=0)] | None = None
    """Tokens that a chunk shares with the one before; a quarter of `max_length` when not set."""
    chunk_pooling: Literal["logits", "max", "mean"] = "logits"
    """How the chunks of a text become one prediction: the mean of their logits, each class's greatest logit
    (`max`: one chunk is enough), or the `mean` of their probabilities."""
    max_chunks: Count = 16
    """Chunks of a text that are read; what comes after is left out."""
    class_weights: Literal["none", "balanced"] | LabelWeights = "none"
    """Weight of each label's loss. `balanced`: inverse to how often the label comes up in the training data.
    A mapping gives weights by label; labels that are not in it weigh 1. For `multi_label` it weighs the texts
    that have the label against those that do not."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all labels (arXiv 1512.00567, section 7)."""
    calibration: Literal["none", "temperature"] = "none"
    """`temperature`: after training, one number that divides the logits is fitted on the validation split,
    so that probabilities are right as often as they say (arXiv 1706.04599, section 4.2)."""
    max_answer_tokens: Count = 30
    """For `extractive_qa`: longest answer."""

    @property
    def overlap(self) -> int:
        """Tokens that a chunk shares with the one before."""
        return self.max_length // 4 if self.chunk_overlap is None else self.chunk_overlap

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        """Refuse what would have no effect."""
        if self.overlap >= self.max_length - 4:
            raise ValueError(
                f"chunk_overlap {self.chunk_overlap} leaves no room in chunks of {self.max_length} tokens"
            )
        classifies = self.task in ("single_label", "multi_label")
        without = {
            "calibration": (classifies, "none"),
            "text_pair_column": (classifies, None),
            "long_documents": (classifies, "truncate"),
            "class_weights": (self.task != "extractive_qa", "none"),
            "label_smoothing": (self.task != "extractive_qa", 0.0),
        }
        for name, (has_use, default) in without.items():
            if not has_use and getattr(self, name) != default:
                raise ValueError(f"{name} has no use with task: {self.task}; leave it out")
        return self
