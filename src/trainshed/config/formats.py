"""The formats of training rows, and which of them each language-model algorithm takes.

Torch-free, so that a configuration can be checked and documented without any library. Left out: recognising
and checking rows (`data.formats`) and converting them (`data.conversion`).
"""

from collections.abc import Mapping
from typing import Literal, get_args

from trainshed.errors import UnknownNameError, did_you_mean

FormatName = Literal["text", "messages", "prompt-completion", "preference", "unpaired", "prompt"]
FORMATS: tuple[str, ...] = get_args(FormatName)

#: the columns of each format; the prompt of a preference may also be the common start of its two answers
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt": ("prompt",),
}

_GENERATES = ("prompt",)
#: algorithm to formats, the one that it likes best first; anything else is converted where that has a meaning
ACCEPTS: Mapping[str, tuple[str, ...]] = {
    "bco": ("unpaired",),
    "cpo": ("preference",),
    "distillation": _GENERATES,
    "dpo": ("preference",),
    "gkd": ("prompt-completion",),
    "grpo": _GENERATES,
    "kto": ("unpaired",),
    "mamba": ("text", "prompt-completion"),
    "nash_md": _GENERATES,
    "online_dpo": _GENERATES,
    "orpo": ("preference",),
    "ppo": _GENERATES,
    "pretrain": ("text", "prompt-completion"),
    "reward": ("preference",),
    "rloo": _GENERATES,
    "sft": ("messages", "prompt-completion", "text"),
    "xpo": _GENERATES,
}
_OTHER_NAMES: Mapping[str, str] = {
    "dpo_online": "online_dpo",
    "grpo_rlvr": "grpo",
    "reward_modeling": "reward",
}


def accepted_formats(algorithm: str) -> tuple[str, ...]:
    """Return the formats that an algorithm takes, the one that it likes best first.

    Raises
    ------
    UnknownNameError
        When no language-model algorithm has that name.
    """
    name = _OTHER_NAMES.get(algorithm, algorithm)
    if name not in ACCEPTS:
        raise UnknownNameError(
            f"no language-model algorithm is called {algorithm!r}",
            fix=did_you_mean(algorithm, [*ACCEPTS, *_OTHER_NAMES]),
        )
    return ACCEPTS[name]


def describe_format(name: str) -> str:
    """Return a format with its columns, such as ``unpaired (prompt, completion, label)``."""
    return f"{name} ({', '.join(COLUMNS[name])})"
