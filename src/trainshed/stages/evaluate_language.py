"""The stage ``evaluate`` of a language model alone, beside what it was before training.

``outputs/`` then holds ``report.json``, ``report.txt`` (the tables), ``completions.jsonl`` where prompts were
completed, and ``judged.jsonl`` where a judge compared them. What is measured is kept as it comes, so that a
killed evaluation goes on. Left out: the measures (`evaluation`), and RAG systems (`evaluate`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trainshed.data.formats import Row
from trainshed.data.jsonl import jsonl_text
from trainshed.data.loading import TEST, TRAIN, VALIDATION, TrainingRows, load_rows
from trainshed.data.prompts import Prompt, as_prompts
from trainshed.errors import CheckpointError, DataError, require_extra
from trainshed.evaluation.completions import (
    Completion,
    as_answers,
    complete_prompts,
    completion_kl,
    judge_completions,
    prompt_columns,
    reward_scores,
)
from trainshed.evaluation.harness import HarnessResult, harness_report, run_harness, task_scores
from trainshed.evaluation.language import LanguageModel, LanguageScores, row_ids
from trainshed.evaluation.perplexity import ACCEPTS, measure_perplexity
from trainshed.evaluation.preferences import measure_preferences
from trainshed.evaluation.report import comparison_table, write_report
from trainshed.evaluation.significance import Resampling
from trainshed.evaluation.win_rate import judge_pairs
from trainshed.files import read_json, write_atomic, write_json
from trainshed.models.sections import load_section
from trainshed.progress import say
from trainshed.rewards.functions import build_rewards, make_reward
from trainshed.stages.context import StageContext, StageResult

T = TypeVar("T")
#: systems in the order in which they are shown
BEFORE, AFTER = "before", "after"
_TITLES = {
    "perplexity": "Perplexity on held-out rows",
    "preference": "Preference between held-out answers",
    "reward": "Completions of held-out prompts",
    "win_rate": "Wins against the model before",
}
_Systems = dict[str, LanguageScores]


@dataclass
class _Models:
    """The models, each loaded when it is first asked for."""

    context: StageContext
    loaded: dict[str, LanguageModel] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The models that there are, the one before training first."""
        given = self.context.config.evaluation.baseline_generator is not None
        return [BEFORE, AFTER] if given else [AFTER]

    def __getitem__(self, name: str) -> LanguageModel:
        if name not in self.loaded:
            config = self.context.config
            section, execution = config.model, config.execution
            if name == BEFORE:
                update = {"model_name_or_path": config.evaluation.baseline_generator}
                section = section.model_copy(update=update)
            model, tokenizer = load_section(section, device=execution.device, seed=execution.seed)
            self.loaded[name] = LanguageModel(model, tokenizer, config.evaluation.max_length)
        return self.loaded[name]


class _Measuring:
    """Measures one thing after another, each once."""

    def __init__(self, context: StageContext) -> None:
        self.context, self.section = context, context.config.evaluation
        self.seed = context.config.execution.seed
        self.models = _Models(context)
        self.resampling = Resampling(
            samples=self.section.bootstrap_samples, confidence=self.section.confidence, seed=self.seed
        )
        self._asked: tuple[list[Prompt], tuple[str, ...]] | None = None
        self._said: set[str] = set()

    def perplexity(self) -> _Systems:
        """Return how well each model predicts the rows."""
        rows = self._rows(ACCEPTS)

        def measure(name: str) -> LanguageScores:
            return measure_perplexity(
                self.models[name], *rows, stride=self.section.stride, resampling=self.resampling
            )

        return self._each("perplexity", measure)

    def preference(self) -> _Systems:
        """Return which of two answers each model finds likelier."""
        rows, places, _ = self._rows(("preference",))
        found: _Systems = {}

        def measure(name: str) -> LanguageScores:
            return measure_preferences(
                self.models[name], rows, places, reference=found.get(BEFORE), resampling=self.resampling
            )

        for name in self.models.names:
            found[name] = self._scores(f"preference-{name}", partial(measure, name))
        return found

    def reward(self) -> _Systems:
        """Return what each model's completions are worth, and how far the one after has gone."""
        prompts, ids = self._prompts()
        rewards = build_rewards(
            self.section.reward_entries(),
            reward_model=self.section.reward_model,
            device=self.context.config.execution.device,
            where="evaluation.rewards",
        )

        def measure(name: str) -> LanguageScores:
            completions = self.completions(name, prompts)
            judged = judge_completions(rewards, prompts, completions)
            kl = self._kl(completions) if name == AFTER else None
            return reward_scores(ids, judged, completions, kl=kl, resampling=self.resampling)

        return self._each("reward", measure)

    def win_rate(self) -> _Systems:
        """Return how often the model's completions win, and write down what the judge said."""
        prompts, ids = self._prompts()
        entry = self.section.judge
        assert entry is not None  # the configuration was checked

        def measure() -> LanguageScores:
            judge = make_reward(
                entry,
                reward_model=self.section.reward_model,
                device=self.context.config.execution.device,
                where="evaluation.judge",
            )
            ours, theirs = (as_answers(prompts, self.completions(name, prompts)) for name in (AFTER, BEFORE))
            asked = [prompt.prompt for prompt in prompts]
            found = judge_pairs(judge, asked, ours, theirs, columns=prompt_columns(prompts), name=entry.name)
            rows = [
                {"id": i, "prompt": prompt, AFTER: one, BEFORE: other, "win": win, **details}
                for i, prompt, one, other, win, details in zip(
                    ids, asked, ours, theirs, found.wins, found.details, strict=True
                )
            ]
            write_atomic(self.place("judged.jsonl"), jsonl_text(rows))
            return found.scores(ids, self.resampling)

        return {AFTER: self._scores("win_rate-after", measure)}

    def harness(self) -> dict[str, HarnessResult]:
        """Return what lm-evaluation-harness measures of each model."""
        section = self.section

        def measure(name: str) -> dict[str, Any]:
            found = run_harness(
                self.models[name],
                section.harness_tasks,
                path=section.harness_path,
                limit=section.harness_limit,
                fewshot=section.harness_fewshot,
                batch_size=section.batch_size,
                seed=self.seed,
            )
            return found.to_json()

        return {
            name: self._once(f"harness-{name}", HarnessResult.from_json, partial(measure, name))
            for name in self.models.names
        }

    def completions(self, name: str, prompts: list[Prompt]) -> list[Completion]:
        """Return what a model says to the prompts; asked once for all measures."""
        section = self.section

        def complete() -> list[dict[str, Any]]:
            found = complete_prompts(
                self.models[name],
                prompts,
                max_new_tokens=section.max_new_tokens,
                temperature=section.temperature,
                top_p=section.top_p,
                batch_size=section.batch_size,
                seed=self.seed,
            )
            return [completion.to_json() for completion in found]

        return self._once(
            f"completions-{name}", lambda rows: [Completion.from_json(row) for row in rows], complete
        )

    def place(self, name: str) -> Path:
        """Return where something is kept that was measured."""
        return self.context.directory.checkpoints / name

    def completed(self) -> str:
        """Return every completion that was asked for, as JSON lines."""
        prompts, ids = self._prompts()
        rows = []
        for name in self.models.names:
            scores = self.place(f"reward-{name}.json")
            table = read_json(scores)["per_example"]["values"] if scores.exists() else {}
            for row, completion in enumerate(self.completions(name, prompts)):
                values = {metric: column[row] for metric, column in table.items()}
                said = {"text": completion.text, "ended": completion.ended}
                rows.append({"system": name, "id": ids[row], "prompt": prompts[row].prompt, **said, **values})
        return jsonl_text(rows)

    def _kl(self, completions: list[Completion]) -> list[float] | None:
        if BEFORE not in self.models.names:
            return None
        policy, reference = self.models[AFTER], self.models[BEFORE]
        if not policy.shares_tokens_with(reference):
            say("reward: there is no KL to evaluation.baseline_generator, which has other tokens")
            return None
        return completion_kl(policy, reference, completions, batch_size=self.section.batch_size)

    def _rows(self, accepts: tuple[str, ...]) -> tuple[list[Row], list[str], Any]:
        """Return rows in the best of some formats, where they came from, and their format."""
        loaded, split = read_evaluation_rows(self.context, accepts)
        for note in loaded.notes:
            if note not in self._said:
                say(note)
        self._said.update(loaded.notes)
        limit = self.section.max_samples
        return loaded.rows(split)[:limit], loaded.places[split][:limit], loaded.format

    def _prompts(self) -> tuple[list[Prompt], tuple[str, ...]]:
        if self._asked is None:
            rows, _, _ = self._rows(("prompt",))
            self._asked = as_prompts(rows), row_ids(rows)
        return self._asked

    def _each(self, measure: str, do: Callable[[str], LanguageScores]) -> _Systems:
        return {name: self._scores(f"{measure}-{name}", partial(do, name)) for name in self.models.names}

    def _scores(self, name: str, measure: Callable[[], LanguageScores]) -> LanguageScores:
        return self._once(name, LanguageScores.from_json, lambda: measure().to_json())

    def _once(self, name: str, read: Callable[[Any], T], measure: Callable[[], Any]) -> T:
        place = self.place(f"{name}.json")
        if not place.exists():
            write_json(place, measure())
            self.context.stop.check()
        # also what was measured just now is read back, so that a restart changes nothing
        try:
            return read(read_json(place))
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise CheckpointError(
                f"what was measured before is damaged ({type(error).__name__})",
                where=str(place),
                fix="delete this file and run the same command again: it is measured anew",
            ) from error


def run(context: StageContext) -> StageResult:
    """Measure the model that ``model`` names, as ``evaluation.language_model`` and ``harness_tasks`` say.

    Returns
    -------
    StageResult
        The headline metrics, ``<measure>/<system>/<metric>``, and ``harness/<task>/<metric>``.
    """
    section = context.config.evaluation
    if section.harness_tasks:
        require_extra("lm_eval", "harness")
    measuring = _Measuring(context)
    found: dict[str, _Systems] = {name: getattr(measuring, name)() for name in section.language_model}
    harness = measuring.harness() if section.harness_tasks else {}
    tasks = task_scores(harness, measuring.resampling)
    tables = [_table(_TITLES[name], systems, "rows") for name, systems in found.items()]
    tables += [
        _table(f"lm-evaluation-harness: {task}", systems, "documents") for task, systems in tasks.items()
    ]
    outputs = context.directory.outputs
    write_atomic(outputs / "report.txt", "\n".join(tables))
    more = {"harness": harness_report(harness, tasks)} if harness else {}
    write_report(outputs / "report.json", {**found, **more})
    if {"reward", "win_rate"} & set(section.language_model):
        write_atomic(outputs / "completions.jsonl", measuring.completed())
    if "win_rate" in section.language_model:
        write_atomic(outputs / "judged.jsonl", measuring.place("judged.jsonl").read_text(encoding="utf-8"))
    return StageResult(metrics=_headline(found, harness))


def read_evaluation_rows(context: StageContext, accepts: tuple[str, ...]) -> tuple[TrainingRows, str]:
    """Return the rows of ``evaluation.split`` in the best of some formats, and under which split they are.

    Raises
    ------
    DataError
        When the dataset has no such split, or its rows cannot be made into any of the formats.
    """
    data, section = context.config.data, context.config.evaluation
    split = section.split
    if split not in (TRAIN, VALIDATION, TEST):
        split = TEST  # stands for the dataset's own name of it
        named = {"test_split": section.split}
        mixture = [source.model_copy(update=named) for source in data.mixture]
        data = data.model_copy(update={**named, "test_fraction": None, "mixture": mixture})
    return load_rows(data, accepts=accepts, seed=context.config.execution.seed, splits=(split,)), split


def _table(title: str, systems: Mapping[str, LanguageScores], unit: str) -> str:
    metrics = list(dict.fromkeys(metric for scores in systems.values() for metric in scores.metrics))
    return comparison_table(title, systems, metrics, unit=unit)


def _headline(
    found: Mapping[str, Mapping[str, LanguageScores]], harness: Mapping[str, HarnessResult]
) -> dict[str, float]:
    metrics = {
        f"{measure}/{name}/{metric}": scores.mean(metric)
        for measure, systems in found.items()
        for name, scores in systems.items()
        for metric in scores.metrics
    }
    for name, result in harness.items():
        group = "harness" if name == AFTER else f"harness/{name}"
        for task, values in result.metrics.items():
            metrics |= {f"{group}/{task}/{metric}": value for metric, value in values.items()}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
