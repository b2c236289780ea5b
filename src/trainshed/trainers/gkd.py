"""Generalized knowledge distillation (arXiv 2306.13649): a student learns a teacher's distribution, partly on
completions of its own.

The divergence is TRL's. Left out: batches, sampling and what TRL's loop gets wrong (`trl_gkd`), teachers
(`trl_taught`), and everything around them (`trl_family`).
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from trainshed.config.formats import accepted_formats
from trainshed.config.trainers.gkd import GKDParameters
from trainshed.config.trl import TRLParameters
from trainshed.data.conversion import choose_target, convert
from trainshed.data.encoding import Treatment, encode_rows
from trainshed.data.reading import read_checked
from trainshed.errors import DataError
from trainshed.progress import say
from trainshed.trainers.arguments import default_of
from trainshed.trainers.trl_sampled import reading_length, room_for_prompts
from trainshed.trainers.trl_taught import TaughtTrainer


class GKDTrainer(TaughtTrainer):
    """Trains a student on prompts with completions, and on its own; see `TaughtTrainer` for the parameters.

    Rows are prompts with completions, conversations (the last turn of the assistant is the completion), or
    what can be made into these.

    Raises
    ------
    ConfigError
        When completions leave no room for a prompt in what the student reads.
    DataError
        When rows have no prompt and completion, or no row keeps both within ``max_length``.
    """

    algorithm: ClassVar[str] = "gkd"
    trl_class: ClassVar[str] = "trainshed.trainers.trl_gkd:MendedGKDTrainer"
    arguments_class: ClassVar[str] = "trl.experimental.gkd:GKDConfig"
    parameters_class: ClassVar[type[TRLParameters]] = GKDParameters

    def __init__(self, model: Any, tokenizer: Any, train_dataset: Any, **more: Any) -> None:
        super().__init__(model, tokenizer, train_dataset, **more)
        given = {
            name: self.arguments.get(name, default_of(self.arguments_class, name))
            for name in ("max_length", "max_new_tokens", "lmbda", "seq_kd")
        }
        samples = given["max_new_tokens"] if given["lmbda"] or given["seq_kd"] else 0
        room = room_for_prompts(model, samples, "training.max_new_tokens")
        bounds = (given["max_length"], reading_length(model))
        longest = min((bound for bound in bounds if bound is not None), default=None)
        self._train = tokenized_pairs(
            self._train, tokenizer, "the training data", max_length=longest, max_prompt=room
        )
        if self._eval:
            self._eval = tokenized_pairs(
                self._eval, tokenizer, "the validation data", max_length=longest, max_prompt=room
            )

    def objects(self) -> dict[str, Any]:
        """Return the teacher, and what makes batches."""
        from trainshed.trainers.trl_gkd import collator

        return {**super().objects(), "data_collator": collator(self.tokenizer.pad_token_id)}


def tokenized_pairs(
    rows: Iterable[Any],
    tokenizer: PreTrainedTokenizerBase,
    what: str,
    *,
    max_length: int | None = None,
    max_prompt: int | None = None,
) -> list[dict[str, Any]]:
    """Return prompts with completions as tokens, the beginning of prompts cut where they are too long.

    A row whose completion leaves no token of its prompt is left out, which a line tells.

    Parameters
    ----------
    rows
        In the format ``prompt-completion``, or one that can be made into it.
    tokenizer
        Of the student.
    what
        What messages call the rows.
    max_length, max_prompt
        Most tokens of a row, and of its prompt.

    Returns
    -------
    list of dict
        ``input_ids``, and ``prompt_length``, how many of them are the prompt's.

    Raises
    ------
    DataError
        When a row is wrong, or none is left.
    """
    accepts = accepted_formats("gkd")
    placed, fmt, _ = read_checked(
        ((f"{what}, row {n}", row) for n, row in enumerate(rows, start=1)), where=what, accepts=accepts
    )
    placed, fmt = convert(placed, fmt, choose_target(fmt.name, accepts))
    treatment = Treatment(max_length=max_length, overlong="keep_end")
    places, values = [where for where, _ in placed], [row for _, row in placed]
    kept = []
    for _, (one,) in encode_rows(values, places, fmt, tokenizer, treatment):
        over = 0 if max_length is None else max(0, len(one.ids) - max_length)
        if max_prompt is not None:
            over = max(over, one.start - max_prompt)
        if over < one.start < len(one.ids):
            kept.append({"input_ids": one.ids[over:], "prompt_length": one.start - over})
    if not kept:
        raise DataError(
            f"no row keeps a token of its prompt before its completion within {max_length} tokens",
            where=what,
            fix="a larger training.max_length, or shorter completions",
        )
    if len(kept) < len(placed):
        say(f"{what}: {len(placed) - len(kept)} rows are left out, whose completion leaves no prompt")
    return kept
