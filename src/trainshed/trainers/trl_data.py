"""Rows for TRL's trainers from the section ``data``, and prompts cut to a length.

Left out: formats and their conversion.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from trainshed.config.schema import DataSection
from trainshed.data.rows import has_split, open_rows
from trainshed.errors import ConfigError, DataError
from trainshed.progress import say


def read_training_rows(
    section: DataSection, formats: Sequence[str], *, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Return the rows to learn from and the held-out ones, None where the dataset has none."""
    if section.dataset_name is None:
        raise ConfigError("no dataset is named", where="data.dataset_name", fix="a path or a hub name")
    found: list[Any] = []
    for split, limit in (
        (section.train_split, section.max_train_samples),
        (section.validation_split, section.max_eval_samples),
    ):
        if split == section.validation_split and not has_split(section.dataset_name, split):
            found.append(None)
            continue
        rows = open_rows(section.dataset_name, split=split, name=section.dataset_config)
        theirs = {name: ours for ours, name in section.columns.items()}
        found.append([{theirs.get(k, k): v for k, v in row.items()} for _, row in islice(rows, limit)])
    return found[0], found[1]


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
