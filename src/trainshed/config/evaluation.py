"""What a YAML may say about measuring a language model alone, and which of it each measure reads.

These keys stand in the section ``evaluation`` beside those of a RAG system. Left out: the measures themselves
(`trainshed.evaluation`).
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from trainshed.config.interpolation import stage_reference
from trainshed.config.reward_entries import (
    OneReward,
    RewardEntry,
    RewardList,
    all_entries,
    check_reward_model,
)
from trainshed.config.section import INPUT, Count, Section

Measure = Literal["perplexity", "preference", "reward", "win_rate"]
MEASURES: tuple[str, ...] = get_args(Measure)
HARNESS = "harness_tasks"
NotNegative = Annotated[float, Field(ge=0)]

#: what says that a language model is measured
_CHOOSES = frozenset({"language_model", HARNESS})
#: keys of a RAG system's evaluation that every measure of a language model reads too
_SHARED = frozenset({"bootstrap_samples", "confidence", "baseline_generator"})
_ROWS = frozenset({"split", "max_samples", "max_length"})
_GENERATES = frozenset({"max_new_tokens", "temperature", "top_p", "batch_size"})
READ_BY: Mapping[str, frozenset[str]] = {
    "perplexity": _ROWS | {"stride"},
    "preference": _ROWS,
    "reward": _ROWS | _GENERATES | {"rewards", "reward_model"},
    "win_rate": _ROWS | _GENERATES | {"judge", "reward_model"},
    HARNESS: frozenset({"harness_path", "harness_limit", "harness_fewshot", "max_length", "batch_size"}),
}
"""What each measure reads besides `_SHARED`."""


def _directory(value: str) -> str:
    """Take what is always a path for one, whether it is there or not."""
    return value if not value or stage_reference(value) else str(Path(value).expanduser().absolute())


class LanguageEvaluation(Section):
    """The keys of ``evaluation`` that measure a language model alone."""

    language_model: list[Measure] = Field(default=[])
    """Measure `model` alone, in place of a RAG system: `perplexity` (of texts or completions), `preference`
    (which of two answers it finds likelier), `reward` (what its completions are worth), `win_rate` (how often
    its completions win against those of `baseline_generator`)."""
    max_length: Count | None = None
    """Most tokens that the model reads at once; what it can when not set."""
    stride: Count | None = None
    """`perplexity` of what is longer than `max_length`: tokens by which the window moves on. Fewer give each
    token more context and take longer; half a window when not set."""
    rewards: RewardList = Field(default=[])
    """`reward`: what judges completions, as in `training.rewards`."""
    reward_model: str | None = Field(default=None, json_schema_extra=INPUT)
    """Reward model: a directory, a hub name or `${stages.NAME}`; it is the reward named `reward_model`."""
    judge: OneReward = None
    """`win_rate`: what says which of two completions is better: a reward, or `module:function`, called as a
    reward (the greater value wins) or, where its arguments are `prompts, first, second`, with two completions
    of each prompt, for a list of `first`, `second` or `tie`."""
    max_new_tokens: Count = 64
    """Longest completion in tokens, with the token that ends it."""
    temperature: NotNegative = 0.0
    """Of the completions; 0 takes the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens with this much probability."""
    batch_size: Count = 16
    """Prompts that are completed at once."""
    harness_tasks: list[str] = Field(default=[])
    """Tasks, groups or tags of lm-evaluation-harness to measure `model` on; needs the extra `harness`."""
    harness_path: Annotated[str, AfterValidator(_directory)] | None = Field(
        default=None, json_schema_extra=INPUT
    )
    """Directory of task files of your own; data files that they name are looked for there too."""
    harness_limit: Count | None = None
    """Use only the first so many documents of each task."""
    harness_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples before each question; what the task says when not set."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if len(set(self.language_model)) < len(self.language_model):
            raise ValueError("`language_model` names a measure twice")
        if self.stride is not None and self.max_length is not None and self.stride >= self.max_length:
            raise ValueError(f"`stride` {self.stride} is not below `max_length` {self.max_length}")
        check_reward_model("rewards", self.rewards, self.reward_model)
        check_reward_model("judge", [self.judge] if self.judge else [], self.reward_model)
        if "reward" in self.language_model and not self.reward_entries():
            raise ValueError("`language_model` names reward; name `rewards`, or a `reward_model`")
        if "win_rate" in self.language_model:
            missing = [key for key in ("judge", "baseline_generator") if getattr(self, key, None) is None]
            if missing:
                raise ValueError(f"`language_model` names win_rate; name `{'` and `'.join(missing)}` too")
        return self

    def reward_entries(self) -> list[RewardEntry]:
        """Return every reward, the model of ``reward_model`` among them."""
        return all_entries(self.rewards, self.reward_model)

    def measures_language_model(self) -> bool:
        """Return whether a language model is measured alone, and not a RAG system."""
        return bool(self.language_model or self.harness_tasks)


def evaluation_reads(
    measures: Iterable[Collection[str]], keys: Collection[str]
) -> dict[str, frozenset[str] | None]:
    """Return what an evaluation reads of ``rag``, ``data`` and ``evaluation``: section to keys, None for all.

    Parameters
    ----------
    measures
        For each of its runs, what is measured: of `READ_BY`, or nothing for a RAG system.
    keys
        All keys of the section ``evaluation``.
    """
    found, sections = set(_CHOOSES | _SHARED), set()
    for chosen in measures:
        if chosen:
            found |= {key for measure in chosen for key in READ_BY.get(measure, ())}
            sections |= {"data"} if set(chosen) - {HARNESS} else set()
        else:
            found |= set(keys) - set(LanguageEvaluation.model_fields)
            sections |= {"data", "rag"}
    return {"evaluation": frozenset(found), **dict.fromkeys(sorted(sections))}


def measured(language_model: Any, harness_tasks: Any) -> frozenset[str]:
    """Return the measures that two values of these keys choose, of `READ_BY`."""
    listed = language_model if isinstance(language_model, list) else []
    names = {name for name in listed if isinstance(name, str)}
    return frozenset(names | ({HARNESS} if harness_tasks else set()))
