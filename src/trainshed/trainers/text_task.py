"""What a classification task is to its trainer: rows, losses, predictions, metrics.

Left out: the tasks themselves (`label_tasks`, `word_task`, `span_task`) and the loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.models.task_models import Reading
from trainshed.models.windows import MODEL_INPUTS, Window, collate_windows


@dataclass(frozen=True, slots=True)
class TextRow:
    """An example as the model reads it.

    Attributes
    ----------
    windows
        At least one.
    target
        What is to be predicted, as the task keeps it.
    example
        What it was made of.
    """

    windows: list[Window]
    target: Any
    example: Any

    def __len__(self) -> int:
        """Return the tokens of all windows."""
        return sum(map(len, self.windows))


@dataclass(frozen=True)
class Outcome:
    """What was predicted for every row, and how good it is.

    Attributes
    ----------
    metrics
        Plain name to value, or ``f1/<label>``.
    predictions
        A JSON-able row for each row, in order.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]


class TextTask(ABC):
    """One task.

    Parameters
    ----------
    tokenizer
        Of the model.
    reading
        How texts are read.
    names
        Of the labels.
    """

    #: metric that the best checkpoint is chosen by where the user names none
    headline: str
    #: metrics that are better when they are smaller
    smaller_is_better: ClassVar[frozenset[str]] = frozenset({"loss", "nll", "ece", "brier"})

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, reading: Reading, names: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.reading, self.names = tokenizer, reading, tuple(names)
        self.number = {name: index for index, name in enumerate(self.names)}

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that every evaluation gives."""

    def label_metrics(self, rows: Sequence["TextRow"]) -> set[str]:
        """Return names of further metrics that evaluating these rows gives, one a label."""
        return set()

    @abstractmethod
    def rows(self, examples: Sequence[Any]) -> list[TextRow]:
        """Return examples as the model reads them."""

    @abstractmethod
    def targets(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return the targets of a batch, by names that are no input of a model."""

    @abstractmethod
    def loss(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses of a batch."""

    @abstractmethod
    def weight(self, batch: dict[str, Tensor]) -> float:
        """Return the sum of the weights in `loss`."""

    @abstractmethod
    def collect(self, outputs: Any, batch: dict[str, Tensor], rows: Sequence[TextRow]) -> list[Any]:
        """Return what `outcome` needs to know of each row of a batch."""

    @abstractmethod
    def outcome(self, rows: Sequence[TextRow], collected: Sequence[Any]) -> Outcome:
        """Return predictions and metrics of all rows, given what `collect` returned for each."""

    def collate(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return a batch: the windows of all rows, which row each belongs to, and the targets."""
        owners = [number for number, row in enumerate(rows) for _ in row.windows]
        pad = self.tokenizer.pad_token_id
        assert isinstance(pad, int)
        return {
            **collate_windows([each for row in rows for each in row.windows], pad),
            "owners": torch.tensor(owners),
            **self.targets(rows),
        }

    @staticmethod
    def forward(model: Any, batch: dict[str, Tensor]) -> Any:
        """Return what the model makes of a batch's windows."""
        return model(**{name: batch[name] for name in MODEL_INPUTS if name in batch})


def split_by_owner(values: Tensor, owners: Tensor, count: int) -> list[Tensor]:
    """Return the rows of ``values`` by owner, on the CPU in float32; the owners are sorted."""
    sizes = torch.bincount(owners, minlength=count).tolist()
    return list(values.float().cpu().split(sizes))
