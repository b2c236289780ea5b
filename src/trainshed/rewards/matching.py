"""Rewards that follow from the text alone: the right answer, the right form, the right length.

Left out: rewards that run something (`code_tests`, `reward_model`, `endpoint`).
"""

import re
import string
from collections.abc import Sequence
from typing import Any

from trainshed.config.rewards import ExactMatchOptions, FormatOptions, LengthOptions
from trainshed.rewards.functions import column, completion_text

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatch:
    """1 where the completion is the right answer, else 0.

    Parameters
    ----------
    options
        Which column holds the answer, and how the two are compared.
    """

    def __init__(self, options: ExactMatchOptions | None = None) -> None:
        self.options = options or ExactMatchOptions()
        self._extract = re.compile(self.options.extract) if self.options.extract else None

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """Judge completions; see `functions.RewardFunction`."""
        answers = column(self.options.answer_column, columns, "exact_match")
        return [
            float(self._right(completion_text(completion), _accepted(answer)))
            for completion, answer in zip(completions, answers, strict=True)
        ]

    def _right(self, text: str, accepted: Sequence[str]) -> bool:
        if self._extract is not None:
            found = list(self._extract.finditer(text))
            if not found:
                return False
            text = found[-1][1 if self._extract.groups else 0] or ""
        return any(self._same(text, answer) for answer in accepted)

    def _same(self, text: str, answer: str) -> bool:
        how = self.options.match
        if how == "exact":
            return text.strip() == answer.strip()
        if how == "number":
            one, other = last_number(text), last_number(answer)
            return one is not None and one == other
        one_text, other_text = plain_words(text), plain_words(answer)
        if how == "contains":
            return f" {other_text} " in f" {one_text} "
        return one_text == other_text


class Format:
    """1 where the completion has the asked form, else 0.

    Parameters
    ----------
    options
        A pattern for all of it, or tags that it must hold.
    """

    def __init__(self, options: FormatOptions) -> None:
        self.options = options
        self._pattern = re.compile(options.pattern or _tag_pattern(options.tags), re.DOTALL)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """Judge completions; see `functions.RewardFunction`."""
        return [float(self._fits(completion_text(completion).strip())) for completion in completions]

    def _fits(self, text: str) -> bool:
        once = all(text.count(f"<{tag}>") == 1 and text.count(f"</{tag}>") == 1 for tag in self.options.tags)
        return once and self._pattern.fullmatch(text) is not None


class Length:
    """1 where the completion has the asked number of words, falling to 0 beyond it.

    Parameters
    ----------
    options
        The bounds.
    """

    def __init__(self, options: LengthOptions | None = None) -> None:
        self.options = options or LengthOptions()

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """Judge completions; see `functions.RewardFunction`."""
        found = []
        for completion in completions:
            words = len(completion_text(completion).split())
            beyond = max(self.options.least - words, words - self.options.most, 0)
            found.append(max(0.0, 1.0 - beyond / self.options.slack))
        return found


def plain_words(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, its words one space apart.

    Where nothing would be left (``()``), it is compared as it stands in lower case.
    """
    plain = " ".join(text.lower().translate(_NO_PUNCTUATION).split())
    return plain or " ".join(text.lower().split())


def last_number(text: str) -> float | None:
    """Return the last number of a text, commas between thousands left out, or None."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _accepted(answer: Any) -> list[str]:
    return [str(item) for item in answer] if isinstance(answer, list | tuple) else [str(answer)]


def _tag_pattern(tags: Sequence[str]) -> str:
    return r"\s*".join(f"<{re.escape(tag)}>.*?</{re.escape(tag)}>" for tag in tags)
