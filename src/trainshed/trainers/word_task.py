"""A label for each word: the first token of a word carries its label.

Long texts are read in overlapping windows. A word that stands in two windows is learned in the first one
only, and predicted from the mean of its logits. Left out: labels of whole texts (`label_tasks`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from trainshed.data.labelled import WordsExample, check_labels
from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.classification import accuracy, macro_f1
from trainshed.evaluation.entities import OUTSIDE, entity_metrics, is_bio
from trainshed.models.task_models import Reading
from trainshed.models.windows import Window, encode, window
from trainshed.trainers.text_task import Outcome, TextRow, TextTask, split_by_owner

#: what carries no label, as the library and PyTorch have it
IGNORED = -100


class WordTask(TextTask):
    """Words with a label each.

    Parameters
    ----------
    tokenizer, reading, names
        As for `TextTask`.
    weights
        Of the labels' losses, in the order of the names.
    smoothing
        Share of the target that is spread over all labels.
    """

    headline: str = "macro_f1"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        reading: Reading,
        names: Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(tokenizer, reading, names)
        if not tokenizer.is_fast:
            raise ConfigError(
                f"labels of words need a tokenizer that tells words apart, not {type(tokenizer).__name__}",
                where="model.tokenizer_name_or_path",
                fix="a model that comes with tokenizer.json",
            )
        self.weights = torch.tensor(weights or [1.0] * len(self.names))
        self.smoothing = smoothing
        if is_bio(self.names):
            self.headline = "entity_f1"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that every evaluation gives."""
        plain = ("loss", "accuracy", "macro_f1")
        return (*plain, "entity_precision", "entity_recall", "entity_f1") if is_bio(self.names) else plain

    def label_metrics(self, rows: Sequence[TextRow]) -> set[str]:
        """Return names of further metrics that evaluating these rows gives, one a type of entity."""
        found = {label for row in rows for label in row.example.labels}
        return {f"f1/{label[2:]}" for label in found if is_bio(self.names) and label != OUTSIDE}

    def rows(self, examples: Sequence[WordsExample]) -> list[TextRow]:
        """Return examples as the model reads them; an unknown label is an error that names its row."""
        check_labels(examples, self.names)
        return [self._row(example) for example in examples]

    def _row(self, example: WordsExample) -> TextRow:
        found = encode(
            self.tokenizer,
            list(example.words),
            max_length=self.reading.max_length,
            is_split_into_words=True,
            truncation=True,
            stride=self.reading.overlap or 0,
            return_overflowing_tokens=True,
        )
        windows: list[Window] = []
        places: list[list[int]] = []  # of each window's tokens: the word that a token begins, else -1
        for number in range(len(found["input_ids"])):
            windows.append(window(found, number))
            places.append(self._first_tokens(found.word_ids(number)))
        missing = set(range(len(example.words))) - {word for each in places for word in each}
        if missing:
            raise DataError(
                f"the tokenizer makes no token of the word {example.words[min(missing)]!r}",
                where=example.where,
                fix="leave out words that are blank or control characters",
            )
        return TextRow(windows, places, example)

    @staticmethod
    def _first_tokens(words: Sequence[int | None]) -> list[int]:
        before: int | None = None
        places = []
        for word in words:
            places.append(-1 if word is None or word == before else word)
            before = word
        return places

    def targets(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return the numbers of the labels where a token begins a word that is not learned elsewhere."""
        length = max(len(each) for row in rows for each in row.windows)
        count = sum(len(row.windows) for row in rows)
        labels = torch.full((count, length), IGNORED)
        line = 0
        for row in rows:
            learned: set[int] = set()
            for places in row.target:
                for place, word in enumerate(places):
                    if word >= 0 and word not in learned:
                        learned.add(word)
                        labels[line, place] = self.number[row.example.labels[word]]
                line += 1
        return {"labels": labels}

    def loss(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses of a batch."""
        logits = outputs.logits.float()
        return functional.cross_entropy(
            logits.flatten(0, 1),
            batch["labels"].flatten(),
            weight=self.weights.to(logits),
            label_smoothing=self.smoothing,
            ignore_index=IGNORED,
            reduction="sum",
        )

    def weight(self, batch: dict[str, Tensor]) -> float:
        """Return the sum of the weights in `loss`."""
        labels = batch["labels"].cpu()
        return self.weights[labels[labels != IGNORED]].sum().item()

    def collect(self, outputs: Any, batch: dict[str, Tensor], rows: Sequence[TextRow]) -> list[Tensor]:
        """Return the mean logits of each row's words."""
        found = []
        for row, logits in zip(rows, split_by_owner(outputs.logits, batch["owners"], len(rows)), strict=True):
            words = logits.new_zeros(len(row.example.words), len(self.names))
            times = logits.new_zeros(len(row.example.words), 1)
            for places, each in zip(row.target, logits, strict=True):
                first = torch.tensor([place for place, word in enumerate(places) if word >= 0])
                word = torch.tensor([word for word in places if word >= 0])
                words.index_add_(0, word, each[first])
                times.index_add_(0, word, torch.ones(len(word), 1))
            found.append(words / times)
        return found

    def outcome(self, rows: Sequence[TextRow], collected: Sequence[Tensor]) -> Outcome:
        """Return predictions and metrics of all rows."""
        predicted = [[self.names[i] for i in words.argmax(-1).tolist()] for words in collected]
        expected = [list(row.example.labels) for row in rows]
        truth = [self.number[label] for labels in expected for label in labels]
        guess = [self.number[label] for labels in predicted for label in labels]
        metrics = {
            "accuracy": accuracy(truth, guess),
            "macro_f1": macro_f1(truth, guess, len(self.names)),
        }
        if is_bio(self.names):
            metrics |= entity_metrics(expected, predicted)
        predictions = [
            {"row": number, "words": list(row.example.words), "labels": labels, "predictions": guesses}
            for number, (row, labels, guesses) in enumerate(
                zip(rows, expected, predicted, strict=True), start=1
            )
        ]
        return Outcome(metrics, predictions)
