"""On-policy distillation (arXiv 2306.13649): a student learns from a teacher, on its own completions.

Generation and divergence are TRL's. Left out: what TRL's loop gets wrong (`trl_distillation`), teachers
(`trl_taught`), and everything around them (`trl_family`).
"""

from typing import Any, ClassVar

from trainshed.config.trainers.distillation import DistillationParameters
from trainshed.config.trl import TRLParameters
from trainshed.data.prompts import as_prompts
from trainshed.trainers.arguments import default_of
from trainshed.trainers.trl_sampled import check_prompts, room_for_prompts
from trainshed.trainers.trl_taught import TaughtTrainer


class DistillationTrainer(TaughtTrainer):
    """Trains a student on prompts; see `TaughtTrainer` for the parameters.

    Raises
    ------
    ConfigError
        When completions leave no room for a prompt in what the student reads.
    DataError
        When a row has no prompt, or one that leaves no room for a completion.
    """

    algorithm: ClassVar[str] = "distillation"
    trl_class: ClassVar[str] = "trainshed.trainers.trl_distillation:MendedDistillationTrainer"
    arguments_class: ClassVar[str] = "trl:DistillationConfig"
    parameters_class: ClassVar[type[TRLParameters]] = DistillationParameters

    def __init__(self, model: Any, tokenizer: Any, train_dataset: Any, **more: Any) -> None:
        super().__init__(model, tokenizer, train_dataset, **more)
        name = "max_completion_length"
        longest = self.arguments.get(name, default_of(self.arguments_class, name))
        room = room_for_prompts(model, longest or 0, f"training.{name}")
        for what, rows in (("the training prompts", self._train), ("the validation prompts", self._eval)):
            check_prompts(tokenizer, as_prompts(rows or (), what), room, what)
