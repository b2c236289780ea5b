"""Rows for language-model trainers: loaded, inspected before the first step, and prompts cut to a length.

Left out: formats, conversion and inspection themselves (see `data.loading`, `data.inspection`).
"""

from typing import Any

from trainshed.config.formats import accepted_formats
from trainshed.data.encoding import Treatment
from trainshed.data.inspection import check_before_training
from trainshed.data.loading import TrainingRows, load_rows
from trainshed.errors import ConfigError, DataError
from trainshed.progress import say
from trainshed.trainers.base import RunContext


def checked_rows(context: RunContext, algorithm: str, tokenizer: Any, treatment: Treatment) -> TrainingRows:
    """Load a run's rows in a format that the algorithm takes, and show what the model will see of them.

    The inspection is written into the run directory as ``data_report.json``.

    Raises
    ------
    ConfigError
        When no dataset is named.
    DataError
        When rows are wrong, or what a model would see of them is.
    """
    config = context.config
    if config.training is None:
        raise ConfigError("the run trains nothing", where="training")
    loaded = load_rows(
        config.data,
        accepts=accepted_formats(algorithm),
        seed=config.execution.seed,
        batch_size=config.training.argument("per_device_train_batch_size"),
    )
    check_before_training(
        loaded, tokenizer, treatment, directory=context.directory.path, tolerate=config.data.tolerate
    )
    return loaded


def cut_prompts(rows: Any, tokenizer: Any, limit: int | None) -> Any:
    """Return rows whose prompts have at most so many tokens, their ends; None leaves them as they are.

    Raises
    ------
    DataError
        When a prompt is a conversation, which cannot be cut by tokens.
    """
    if limit is None or rows is None:
        return rows
    cut, count = [], 0
    for number, row in enumerate(rows, start=1):
        prompt = row.get("prompt", "")
        if not isinstance(prompt, str):
            raise DataError(
                "a prompt that is a conversation cannot be cut",
                where=f"training.max_prompt_length, row {number}",
                fix="leave it out; training.max_length bounds prompt and answer together",
            )
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) > limit:
            prompt, count = tokenizer.decode(ids[-limit:]), count + 1
        cut.append({**row, "prompt": prompt} if "prompt" in row else row)
    if count:
        say(f"{count} of {len(cut)} prompts were cut to their last {limit} tokens")
    return cut
