"""Texts with one class, or with any number of labels.

The loss is taken of the pooled prediction of a text's chunks, so that what is trained is what is used. One
class: cross-entropy with class weights and label smoothing as `torch.nn.functional.cross_entropy` defines
them. Several labels: binary cross-entropy, where a label's weight is that of the texts that have it (its
``pos_weight``). Left out: labels of words (`word_task`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainshed.data.labelled import LabelledExample, check_labels
from trainshed.errors import ConfigError, did_you_mean
from trainshed.evaluation.classification import classification_metrics, multi_label_metrics
from trainshed.models.pooling import class_log_probs, fit_temperature, label_log_probs
from trainshed.models.windows import text_windows
from trainshed.trainers.text_task import Outcome, TextRow, TextTask, split_by_owner

#: characters of a text that stand beside its prediction
_SHOWN_CHARACTERS = 200


class LabelTask(TextTask):
    """Texts with one class each.

    Parameters
    ----------
    *more
        As for `TextTask`.
    weights
        Of the labels' losses, in the order of the names.
    smoothing
        Share of the target that is spread over all labels.
    **named
        As for `TextTask`.
    """

    headline: str = "macro_f1"

    def __init__(
        self, *more: Any, weights: Sequence[float] | None = None, smoothing: float = 0.0, **named: Any
    ) -> None:
        super().__init__(*more, **named)
        self.weights = torch.tensor(weights or [1.0] * len(self.names))
        self.smoothing, self.temperature = smoothing, self.reading.temperature

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that every evaluation gives."""
        return ("loss", "accuracy", "macro_f1", "ece", "nll", "brier")

    def label_metrics(self, rows: Sequence[TextRow]) -> set[str]:
        """Return names of further metrics that evaluating these rows gives, one a label."""
        return {f"f1/{label}" for row in rows for label in row.example.labels}

    def rows(self, examples: Sequence[LabelledExample]) -> list[TextRow]:
        """Return examples as the model reads them; an unknown label is an error that names its row."""
        check_labels(examples, self.names)
        paired = bool(examples) and examples[0].pair is not None
        windows = text_windows(
            self.tokenizer,
            [example.text for example in examples],
            [example.pair or "" for example in examples] if paired else None,
            max_length=self.reading.max_length,
            overlap=self.reading.overlap,
            max_windows=self.reading.max_chunks,
        )
        return [
            TextRow(found, self.target(example), example)
            for found, example in zip(windows, examples, strict=True)
        ]

    def target(self, example: LabelledExample) -> Any:
        """Return what is to be predicted for an example."""
        return self.number[example.labels[0]]

    def targets(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return the numbers of the classes."""
        return {"labels": torch.tensor([row.target for row in rows])}

    def loss(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses of a batch."""
        log_probs = class_log_probs(
            outputs.logits, batch["owners"], len(batch["labels"]), pooling=self.reading.pooling
        )
        # log-probabilities are logits too: their softmax is what they are the logarithm of
        return functional.cross_entropy(
            log_probs,
            batch["labels"],
            weight=self.weights.to(log_probs),
            label_smoothing=self.smoothing,
            reduction="sum",
        )

    def weight(self, batch: dict[str, Tensor]) -> float:
        """Return the sum of the weights in `loss`."""
        return self.weights[batch["labels"].cpu()].sum().item()

    def collect(self, outputs: Any, batch: dict[str, Tensor], rows: Sequence[TextRow]) -> list[Tensor]:
        """Return the logits of each row's chunks."""
        return split_by_owner(outputs.logits, batch["owners"], len(rows))

    def outcome(self, rows: Sequence[TextRow], collected: Sequence[Tensor]) -> Outcome:
        """Return predictions and metrics of all rows."""
        table = self._log_probs(collected, self.temperature).exp()
        metrics = classification_metrics(table.numpy(), [row.target for row in rows], self.names)
        best = table.argmax(-1).tolist()
        predictions = [
            {
                "row": number,
                "text": row.example.text[:_SHOWN_CHARACTERS],
                "label": row.example.labels[0],
                "prediction": self.names[best[number - 1]],
                "probabilities": self._by_name(table[number - 1]),
            }
            for number, row in enumerate(rows, start=1)
        ]
        return Outcome(metrics, predictions)

    def calibrate(self, rows: Sequence[TextRow], collected: Sequence[Tensor]) -> float:
        """Fit the temperature to rows, use it from here on, and return it."""
        self.temperature = fit_temperature(lambda value: self._mean_nll(rows, collected, value))
        return self.temperature

    def _mean_nll(self, rows: Sequence[TextRow], collected: Sequence[Tensor], temperature: Tensor) -> Tensor:
        labels = torch.tensor([row.target for row in rows])
        return functional.nll_loss(self._log_probs(collected, temperature), labels)

    def _log_probs(self, collected: Sequence[Tensor], temperature: float | Tensor) -> Tensor:
        return class_log_probs(*_joined(collected), pooling=self.reading.pooling, temperature=temperature)

    def _by_name(self, row: Tensor) -> dict[str, float]:
        return {name: round(value, 6) for name, value in zip(self.names, row.tolist(), strict=True)}


class MultiLabelTask(LabelTask):
    """Texts with any number of labels each; see `LabelTask` for the arguments."""

    headline: str = "micro_f1"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that every evaluation gives."""
        return ("loss", "micro_f1", "macro_f1", "average_precision", "exact_match", "nll")

    def target(self, example: LabelledExample) -> list[float]:
        """Return 1 for each label that holds, else 0."""
        return [float(name in example.labels) for name in self.names]

    def loss(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses of a batch."""
        labels = batch["labels"]
        yes, no = label_log_probs(outputs.logits, batch["owners"], len(labels), pooling=self.reading.pooling)
        smooth = labels * (1 - self.smoothing) + self.smoothing / 2
        return -(self.weights.to(yes) * smooth * yes + (1 - smooth) * no).sum()

    def weight(self, batch: dict[str, Tensor]) -> float:
        """Return the number of decisions, as `torch.nn.BCEWithLogitsLoss` divides by."""
        return float(batch["labels"].numel())

    def outcome(self, rows: Sequence[TextRow], collected: Sequence[Tensor]) -> Outcome:
        """Return predictions and metrics of all rows."""
        yes, _ = label_log_probs(
            *_joined(collected), pooling=self.reading.pooling, temperature=self.temperature
        )
        table = yes.exp()
        metrics = multi_label_metrics(table.numpy(), [row.target for row in rows], self.names)
        predictions = [
            {
                "row": number,
                "text": row.example.text[:_SHOWN_CHARACTERS],
                "labels": list(row.example.labels),
                "predictions": [
                    name for name, p in zip(self.names, table[number - 1].tolist(), strict=True) if p > 0.5
                ],
                "probabilities": self._by_name(table[number - 1]),
            }
            for number, row in enumerate(rows, start=1)
        ]
        return Outcome(metrics, predictions)

    def _mean_nll(self, rows: Sequence[TextRow], collected: Sequence[Tensor], temperature: Tensor) -> Tensor:
        labels = torch.tensor([row.target for row in rows])
        yes, no = label_log_probs(*_joined(collected), pooling=self.reading.pooling, temperature=temperature)
        return -(labels * yes + (1 - labels) * no).mean()


def class_weights(
    wanted: str | Mapping[str, float], names: Sequence[str], counts: Counter[str], *, texts: int | None = None
) -> list[float] | None:
    """Return the weights of labels, or None when all are 1.

    Parameters
    ----------
    wanted
        ``none``, ``balanced``, or weights by label; labels that are not in it weigh 1.
    names
        Of the labels.
    counts
        How often each comes up.
    texts
        For labels of which any number may hold: how many texts there are. ``balanced`` is then the texts
        without a label over those with it, and otherwise ``total / (labels * count)`` as in scikit-learn.

    Raises
    ------
    ConfigError
        When a weight is for a label that does not come up.
    """
    if isinstance(wanted, Mapping):
        for label in wanted:
            if label not in names:
                raise ConfigError(
                    f"there is no label {label!r} to weigh",
                    where="training.class_weights",
                    fix=did_you_mean(label, names),
                )
        return [float(wanted.get(name, 1.0)) for name in names]
    if wanted == "none":
        return None
    if texts is not None:
        return [max(texts - counts[name], 1) / max(counts[name], 1) for name in names]
    total = sum(counts[name] for name in names)
    return [total / (len(names) * max(counts[name], 1)) for name in names]


def _joined(collected: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Return logits of all chunks, the row that each belongs to, and how many rows there are."""
    owners = torch.repeat_interleave(torch.tensor([len(each) for each in collected]))
    return torch.cat(list(collected)).double(), owners, len(collected)
