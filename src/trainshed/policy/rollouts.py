"""From prompts to the batches of a rollout: tokens, an endless order, and padding cut away.

Left out: sampling (`sampling`) and what is made of rollouts (`trainshed.trainers.online`).
"""

from typing import Any

import torch
from torch import Tensor

from trainshed.data.prompts import Prompt
from trainshed.models.seeds import derive_seed


class TokenizedPrompt:
    """A prompt and its tokens."""

    __slots__ = ("ids", "prompt")

    def __init__(self, prompt: Prompt, ids: tuple[int, ...]) -> None:
        self.prompt, self.ids = prompt, ids


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return a prompt's tokens: with the chat template and its start of an answer, or as the text stands."""
    if isinstance(prompt.prompt, str):
        return list(tokenizer(prompt.prompt)["input_ids"])
    return list(
        tokenizer.apply_chat_template(
            prompt.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    )


def stream(count: int, size: int, number: int, seed: int) -> list[int]:
    """Return the ``number``-th ``size`` indices of an endless stream: every index once, then all again.

    Each round has an order of its own that follows from the seed.
    """
    found: list[int] = []
    at = number * size
    while len(found) < size:
        turn, place = divmod(at + len(found), count)
        generator = torch.Generator().manual_seed(derive_seed(seed, "prompts", str(turn)))
        order = torch.randperm(count, generator=generator).tolist()
        found += order[place : place + size - len(found)]
    return found


def trimmed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out columns that are padding in every row, on the left of prompts and right of completions."""
    wide, right = batch["attention_mask"].shape[1], batch["mask"].shape[1]
    used = batch["mask"].any(0).nonzero()
    spare_right = right - 1 - int(used.max()) if len(used) else 0
    left = int(batch["attention_mask"].any(0).nonzero().min())
    whole = slice(left, wide - spare_right)
    found = {}
    for name, value in batch.items():
        if value.dim() == 2 and value.shape[1] == wide:
            found[name] = value[:, whole]
        elif value.dim() == 2 and value.shape[1] == right:
            found[name] = value[:, : right - spare_right]
        else:
            found[name] = value
    return found
