"""What every trainer that plays its own completions against others' shares in its tests: a short training."""

import copy

from trainshed.rewards.functions import WeightedRewards
from trainshed.rewards.matching import ExactMatch
from trainshed.trainers.base import TrainerSettings

SHORT = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 5,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_steps": 2,
}


def maker(trainer, parameters, llama, tokenizer, rows):
    """Return what makes a trainer, given its own parameters and arguments that differ from `SHORT`."""

    def made(own=None, *, path=None, arguments=None, **more):
        return trainer(
            copy.deepcopy(llama),
            tokenizer,
            rows[0],
            WeightedRewards({"exact_match": ExactMatch()}),
            eval_prompts=rows[1],
            parameters=parameters(**{"rollout_batch_size": 16, "max_new_tokens": 2, **(own or {})}),
            arguments={**SHORT, **(arguments or {})},
            seed=3,
            settings=TrainerSettings(
                directory=path and path / "checkpoints", resume=path is not None, device="cpu"
            ),
            **more,
        )

    return made
