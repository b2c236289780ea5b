"""Where in a context the answer to a question stands (BERT, arXiv 1810.04805, section 4.2).

A long context is read in overlapping windows, each after the question. A window that does not hold the whole
answer is to point at its first token, which means "not here". Left out: answers that no context holds as they
are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from trainshed.data.labelled import SpanExample
from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.answers import exact_match, token_f1
from trainshed.models.task_models import Reading
from trainshed.models.windows import Window, encode, window
from trainshed.trainers.text_task import Outcome, TextRow, TextTask, split_by_owner

#: beginnings and ends that are combined; the best span is among them but for odd cases
_MOST_LIKELY = 20


@dataclass(frozen=True, slots=True)
class SpanTarget:
    """One window of a context.

    Attributes
    ----------
    start, end
        First and last token of the answer; both 0 when it does not stand here.
    spans
        For each token its characters of the context, None outside of the context.
    """

    start: int
    end: int
    spans: list[tuple[int, int] | None]


class SpanTask(TextTask):
    """Questions, and contexts that hold the answers.

    Parameters
    ----------
    tokenizer, reading
        As for `TextTask`.
    answerless
        Whether an empty answer may be right, as where the training data has questions without one.
    """

    headline: str = "f1"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, reading: Reading, *, answerless: bool = False
    ) -> None:
        super().__init__(tokenizer, reading)
        self.answerless = answerless

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that every evaluation gives."""
        return ("loss", "exact_match", "f1")

    def rows(self, examples: Sequence[SpanExample]) -> list[TextRow]:
        """Return examples as the model reads them.

        Raises
        ------
        DataError
            When a question leaves no room for its context; names the row.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"answers in a context need a tokenizer that knows where tokens stand, not "
                f"{type(self.tokenizer).__name__}",
                where="model.tokenizer_name_or_path",
                fix="a model that comes with tokenizer.json",
            )
        return [self._row(example) for example in examples]

    def _row(self, example: SpanExample) -> TextRow:
        reading, overlap = self.reading, self.reading.overlap or 0
        question = self.tokenizer(example.question, add_special_tokens=False, verbose=False)["input_ids"]
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        if reading.max_length - special - len(question) <= overlap:
            raise DataError(
                f"the question has {len(question)} tokens, which leaves no room for the context in windows "
                f"of {reading.max_length} that overlap by {overlap}",
                where=example.where,
                fix="a greater training.max_length, or a smaller training.chunk_overlap",
            )
        found = encode(
            self.tokenizer,
            example.question,
            example.context,
            max_length=reading.max_length,
            truncation="only_second",
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows: list[Window] = []
        targets: list[SpanTarget] = []
        for number in range(len(found["input_ids"])):
            windows.append(window(found, number))
            parts = found.sequence_ids(number)
            offsets = found["offset_mapping"][number]
            spans = [
                (int(first), int(last)) if part == 1 and last > first else None
                for part, (first, last) in zip(parts, offsets, strict=True)
            ]
            targets.append(SpanTarget(*_token_span(spans, example.start, example.end), spans))
        return TextRow(windows, targets, example)

    def targets(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return the first and the last token of the answer in each window, and which tokens there are."""
        found = [target for row in rows for target in row.target]
        return {
            "starts": torch.tensor([target.start for target in found]),
            "ends": torch.tensor([target.end for target in found]),
        }

    def loss(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum over windows of the mean loss of both ends."""
        padding = batch["attention_mask"] == 0
        total: Tensor = outputs.start_logits.new_zeros((), dtype=torch.float32)
        for logits, places in ((outputs.start_logits, batch["starts"]), (outputs.end_logits, batch["ends"])):
            masked = logits.float().masked_fill(padding, -1e4)
            total = total + functional.cross_entropy(masked, places, reduction="sum") / 2
        return total

    def weight(self, batch: dict[str, Tensor]) -> float:
        """Return the number of windows."""
        return float(len(batch["starts"]))

    def collect(
        self, outputs: Any, batch: dict[str, Tensor], rows: Sequence[TextRow]
    ) -> list[tuple[str, float]]:
        """Return the most probable answer of each row and its score: the sum of both ends' logits."""
        both = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
        parts = split_by_owner(both, batch["owners"], len(rows))
        return [self._best(row, logits) for row, logits in zip(rows, parts, strict=True)]

    def _best(self, row: TextRow, logits: Tensor) -> tuple[str, float]:
        """Return a row's best span, or an empty answer where "not here" scores higher in every window."""
        answer, best, nothing = (0, 0), float("-inf"), float("inf")
        for target, each in zip(row.target, logits, strict=True):
            nothing = min(nothing, float(each[0].sum()))
            known = torch.tensor([place for place, span in enumerate(target.spans) if span is not None])
            if not len(known):
                continue
            count = min(_MOST_LIKELY, len(known))
            starts, ends = (known[each[known, side].topk(count).indices].tolist() for side in (0, 1))
            for start in starts:
                for end in ends:
                    score = float(each[start, 0] + each[end, 1])
                    if start <= end < start + self.reading.max_answer_tokens and score > best:
                        best, answer = score, (target.spans[start][0], target.spans[end][1])
        if self.answerless and nothing > best:
            return "", nothing
        # the characters of a byte-level token begin with the space before it
        return row.example.context[slice(*answer)].strip(), best

    def outcome(self, rows: Sequence[TextRow], collected: Sequence[tuple[str, float]]) -> Outcome:
        """Return predictions and metrics of all rows."""
        exact, overlap, predictions = [], [], []
        for number, (row, (answer, score)) in enumerate(zip(rows, collected, strict=True), start=1):
            accepted = row.example.answers or ("",)
            exact.append(exact_match(answer, accepted))
            overlap.append(token_f1(answer, accepted) if row.example.answers else float(not answer))
            predictions.append(
                {
                    "row": number,
                    "id": row.example.id,
                    "question": row.example.question,
                    "answers": list(row.example.answers),
                    "prediction": answer,
                    "score": round(score, 4),
                }
            )
        count = max(len(exact), 1)
        return Outcome({"exact_match": sum(exact) / count, "f1": sum(overlap) / count}, predictions)


def _token_span(spans: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int]:
    """Return the first and last token of characters of a context, or (0, 0) when not all of them are here."""
    inside = [
        place for place, span in enumerate(spans) if span is not None and span[0] < end and span[1] > start
    ]
    if end <= start or not inside:
        return 0, 0
    first, last = spans[inside[0]], spans[inside[-1]]
    assert first is not None
    assert last is not None
    return (inside[0], inside[-1]) if first[0] <= start and last[1] >= end else (0, 0)
