"""Prompts cut to a length, which TRL no longer does. Left out: whole rows (see `preparing`)."""

from typing import Any

from trainshed.errors import DataError
from trainshed.progress import say


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
