"""How often the completions of one model win against those of another, as a judge sees it.

A judge is a reward function (the greater value wins) or one that is shown two completions. Such a judge may
favour the one it is shown first (arXiv 2306.05685, section 3.3), so it is asked in both orders and a win
counts half in each. Left out: rankings of more than two models.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from trainshed.errors import ConfigError, RunError
from trainshed.evaluation.language import LanguageScores
from trainshed.evaluation.significance import Resampling
from trainshed.rewards.functions import WeightedRewards

Verdict = Literal["first", "second", "tie"]
_WORTH: Mapping[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class JudgedPairs:
    """What a judge said about ``n`` pairs of completions.

    Parameters
    ----------
    wins
        For each, how far the first model won: 1, 0, ½ for a tie; with two orders also ¼ and ¾.
    details
        For each, what the judge said: the two scores, or its word in either order.
    consistent
        For each, whether both orders came to the same; None for a judge that scores.
    """

    wins: tuple[float, ...]
    details: tuple[dict[str, Any], ...]
    consistent: tuple[bool, ...] | None = None

    def scores(self, ids: Sequence[str], resampling: Resampling | None = None) -> LanguageScores:
        """Return ``win_rate``, ``ties`` and, for a judge that is shown pairs, ``consistency``."""
        wins = np.array(self.wins, dtype=np.float64)
        values = {"win_rate": wins, "ties": (wins == 0.5).astype(np.float64)}
        if self.consistent is not None:
            values["consistency"] = np.array(self.consistent, dtype=np.float64)
        return LanguageScores(tuple(ids), values, resampling=resampling or Resampling())


def judge_pairs(
    judge: Callable[..., Any],
    prompts: Sequence[Any],
    ours: Sequence[Any],
    theirs: Sequence[Any],
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    name: str = "judge",
) -> JudgedPairs:
    """Ask a judge which of two completions is better.

    Parameters
    ----------
    judge
        ``f(prompts, completions, **columns) -> list[float]``, or ``f(prompts, first, second) -> list`` of
        ``first``, ``second`` or ``tie``, which gets those columns that it has arguments for.
    prompts, ours, theirs
        ``n`` prompts, and a completion of each by either model.
    columns
        Further columns of the data, ``n`` values each.
    name
        What errors call the judge.

    Raises
    ------
    ConfigError
        When its arguments are those of neither.
    RunError
        When it says anything else, or not as often as it was asked.
    """
    columns = columns or {}
    if not _takes_pairs(judge, name):
        scorer = WeightedRewards({name: judge})
        own = scorer(prompts, ours, **columns).totals
        other = scorer(prompts, theirs, **columns).totals
        pairs = list(zip(own, other, strict=True))
        wins = tuple(1.0 if a > b else 0.0 if a < b else 0.5 for a, b in pairs)
        return JudgedPairs(wins, tuple({"score": a, "against": b} for a, b in pairs))
    kept = {key: list(value) for key, value in columns.items() if _takes(judge, key)}
    shown_first = _asked(judge, prompts, ours, theirs, kept, name)
    shown_second = _asked(judge, prompts, theirs, ours, kept, name)
    both = list(zip(shown_first, shown_second, strict=True))
    return JudgedPairs(
        tuple((_WORTH[one] + 1.0 - _WORTH[other]) / 2 for one, other in both),
        tuple({"shown_first": one, "shown_second": other} for one, other in both),
        tuple(_WORTH[one] == 1.0 - _WORTH[other] for one, other in both),
    )


def _takes_pairs(judge: Callable[..., Any], name: str) -> bool:
    names = set(inspect.signature(judge).parameters)
    if {"first", "second"} <= names:
        return True
    takes_rest = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(judge).parameters.values())
    if "completions" in names or takes_rest:
        return False
    raise ConfigError(
        f"the judge's arguments are {', '.join(sorted(names)) or 'none'}",
        where=f"evaluation.judge: {name}",
        fix="prompts, completions and **columns for one that scores; prompts, first and second for one that "
        "compares",
    )


def _takes(judge: Callable[..., Any], key: str) -> bool:
    parameters = inspect.signature(judge).parameters
    return key in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _asked(
    judge: Callable[..., Any],
    prompts: Sequence[Any],
    first: Sequence[Any],
    second: Sequence[Any],
    columns: Mapping[str, list[Any]],
    name: str,
) -> list[Verdict]:
    given = judge(prompts=list(prompts), first=list(first), second=list(second), **columns)
    words = get_args(Verdict)
    if not isinstance(given, list | tuple) or len(given) != len(prompts):
        count = f"{len(given)} values" if isinstance(given, list | tuple) else f"{given!r}"[:80]
        raise RunError(
            f"the judge gave {count} for {len(prompts)} pairs",
            where=name,
            fix=f"a list of {', '.join(words)}, one a pair",
        )
    wrong = next((word for word in given if word not in words), None)
    if wrong is not None:
        raise RunError(f"the judge said {wrong!r}"[:120], where=name, fix=f"one of {', '.join(words)}")
    return list(given)
