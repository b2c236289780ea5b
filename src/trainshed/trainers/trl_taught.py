"""TRL's trainers in which a student learns from a teacher: loading the teacher, and whether they fit.

The teacher is frozen, in evaluation mode, and on the student's device while it trains. Left out: the
divergence and what it is computed on (`gkd`, `distillation`), the loop (see `trl_family`, `exact`).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainshed.config.trl import TaughtParameters
from trainshed.errors import ConfigError
from trainshed.models.causal_lm import load_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.trainers.base import TrainResult
from trainshed.trainers.trl_family import TRLTrainer, left_as_it_was

#: words that an error names of two vocabularies that differ
_WORDS_NAMED = 3


class TaughtTrainer(TRLTrainer):
    """Trains a student to predict as a teacher does; the parameters are those of `TRLTrainer`, and:

    Parameters
    ----------
    teacher
        A causal language model with the student's vocabulary, which is frozen; loaded as the parameters say
        when None.
    teacher_tokenizer
        Its tokenizer, to compare vocabularies; taken to be the student's when it is not given with a teacher.

    Raises
    ------
    ConfigError
        When there is no teacher, it is the student itself, or their vocabularies differ.
    """

    parameters: TaughtParameters

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Any,
        *,
        teacher: Any = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        **more: Any,
    ) -> None:
        super().__init__(model, tokenizer, train_dataset, **more)
        if teacher is None:
            teacher, teacher_tokenizer = load_teacher(self.parameters, str(self.device()))
        if teacher is model:
            raise ConfigError(
                "the student is its own teacher: there would be nothing to learn",
                where="training.teacher_name_or_path",
                fix="another model, or a copy of this one",
            )
        check_vocabularies(model, tokenizer, teacher, teacher_tokenizer)
        self.teacher = teacher.eval().requires_grad_(False)

    def deciding_parameters(self) -> dict[str, Any]:
        """Return the algorithm's own parameters, the teacher by its weights rather than by its place."""
        own = self.parameters.model_dump(mode="json", exclude={"teacher_name_or_path"})
        return {**own, "teacher": weights_hash(self.teacher)}

    def objects(self) -> dict[str, Any]:
        """Return the teacher."""
        return {"teacher_model": self.teacher}

    def train(self) -> TrainResult:
        """Train, or go on from the last checkpoint; see `LoopedTrainer.train`."""
        with teacher_as_it_was(self.teacher):
            return super().train()

    def evaluate(self) -> dict[str, float]:
        """Return TRL's metrics on the evaluation data; see `TRLTrainer.evaluate`."""
        with teacher_as_it_was(self.teacher):
            return super().evaluate()


def load_teacher(parameters: TaughtParameters, device: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the teacher that parameters name, with its tokenizer.

    Raises
    ------
    ConfigError
        When they name none.
    ModelError
        When it cannot be loaded.
    """
    if parameters.teacher_name_or_path is None:
        raise ConfigError(
            "there is no teacher",
            where="training.teacher_name_or_path",
            fix="a directory or hub name, or from Python a model as `teacher`",
        )
    return load_causal_lm(
        parameters.teacher_name_or_path,
        dtype=parameters.teacher_dtype,
        device=device,
        attn_implementation=parameters.teacher_attn_implementation,
        load_in_4bit=parameters.teacher_load_in_4bit,
        revision=parameters.teacher_revision,
        trust_remote_code=parameters.teacher_trust_remote_code,
    )


def check_vocabularies(
    student: Any,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Any,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Check that two models give probabilities to the same tokens under the same numbers.

    TRL compares sizes alone: of two vocabularies of one size it would teach one's words as the other's.

    Raises
    ------
    ConfigError
        When the sizes differ, or a token of the one is another or none with the other.
    """
    sizes = [model.config.get_text_config().vocab_size for model in (student, teacher)]
    where = "training.teacher_name_or_path"
    fix = "a teacher with the student's tokenizer; with another one, sft on its answers (stage `sft`)"
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the student's vocabulary has {sizes[0]} tokens and the teacher's {sizes[1]}: their "
            "probabilities cannot be compared",
            where=where,
            fix=fix,
        )
    if teacher_tokenizer is None:
        return
    own, other = tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    wrong = sorted(word for word in {*own, *other} if own.get(word) != other.get(word))
    if wrong:
        named = "; ".join(
            f"{word!r} is {_number(own, word)} of the student and {_number(other, word)} of the teacher"
            for word in wrong[:_WORDS_NAMED]
        )
        raise ConfigError(
            f"student and teacher have {sizes[0]} tokens each, but {len(wrong)} of them differ: {named}",
            where=where,
            fix=fix,
        )


def _number(vocabulary: dict[str, int], word: str) -> str:
    return f"token {vocabulary[word]}" if word in vocabulary else "no token"


@contextlib.contextmanager
def teacher_as_it_was(teacher: Any) -> Iterator[None]:
    """Take back what a loop changes on the teacher: where it is, and the autocast around its ``forward``."""
    place = next(teacher.parameters()).device
    try:
        with left_as_it_was(teacher):
            yield
    finally:
        teacher.__dict__.pop("_original_forward", None)
        teacher.eval()
        if not getattr(teacher, "is_loaded_in_4bit", False):
            teacher.to(place)
