"""Tasks of lm-evaluation-harness (arXiv 2405.14782), measured on a model that is loaded already.

The library is an extra. Local tasks need no network; a task of the library needs its dataset on this machine
or a network to get it from. Left out: tasks that run code that a model wrote, which the library refuses.
"""

import contextlib
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainshed.errors import ConfigError, DataError, did_you_mean, require_extra
from trainshed.evaluation.language import LanguageModel, LanguageScores
from trainshed.evaluation.report import scores_json
from trainshed.evaluation.significance import Resampling

_NO_FILTER = "none"


@dataclass(frozen=True)
class HarnessResult:
    """What the library measured.

    Parameters
    ----------
    metrics
        Task (or group) to metric to value, as the library aggregates it. A metric behind a filter is called
        ``metric/filter``.
    standard_errors
        The same for the library's standard errors, where it has one.
    documents
        Task to ids and values of the documents, of those metrics that are means over documents.
    version
        Of the library.
    """

    metrics: dict[str, dict[str, float]]
    standard_errors: dict[str, dict[str, float]]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "metrics": self.metrics,
            "standard_errors": self.standard_errors,
            "documents": self.documents,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HarnessResult":
        """Return what `to_json` wrote."""
        return cls(**value)

    def scores(self, task: str, resampling: Resampling | None = None) -> LanguageScores:
        """Return the values of a task's documents, to compare two models on."""
        found = self.documents[task]
        values = {name: np.array(column, dtype=np.float64) for name, column in found["values"].items()}
        return LanguageScores(tuple(found["ids"]), values, resampling=resampling or Resampling())


def run_harness(
    lm: LanguageModel,
    tasks: Sequence[str],
    *,
    path: str | Path | None = None,
    limit: int | None = None,
    fewshot: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> HarnessResult:
    """Measure a model on tasks of lm-evaluation-harness.

    Parameters
    ----------
    lm
        The model.
    tasks
        Names of tasks, groups or tags.
    path
        Directory of task files of your own; relative paths in them, such as ``dataset_kwargs.data_files``,
        start here.
    limit
        Only the first so many documents of each task.
    fewshot
        Examples before each question; what the task says when None.
    batch_size
        Requests at once.
    seed
        Of the examples before a question, and of what is sampled.

    Raises
    ------
    MissingExtraError
        When the library is not installed.
    ConfigError
        When a task is not known.
    DataError
        When a task cannot be made, such as for want of its dataset.
    """
    require_extra("lm_eval", "harness")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    place = None if path is None else Path(path).expanduser().resolve()
    with _quiet(), _kept_random_state(), _inside(place):
        manager = TaskManager(include_path=place, include_defaults=False)
        if not set(tasks) <= set(manager.all_subtasks):
            # the library's thousands of tasks take seconds to look through
            manager = TaskManager(include_path=place)
        _check_names(tasks, manager.all_tasks)
        wrapped = HFLM(
            pretrained=lm.model, tokenizer=lm.tokenizer, max_length=lm.limit, batch_size=batch_size
        )
        _check_tasks(manager, tasks)
        found = lm_eval.simple_evaluate(
            model=wrapped,
            tasks=list(tasks),
            num_fewshot=fewshot,
            limit=limit,
            task_manager=manager,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            bootstrap_iters=1000,
        )
    return _result(found, lm_eval.__version__)


def task_scores(
    results: Mapping[str, HarnessResult], resampling: Resampling | None = None
) -> dict[str, dict[str, LanguageScores]]:
    """Return the scores of each task that has values by document: task to model to scores."""
    tasks = sorted({task for result in results.values() for task in result.documents})
    return {
        task: {
            name: result.scores(task, resampling)
            for name, result in results.items()
            if task in result.documents
        }
        for task in tasks
    }


def harness_report(
    results: Mapping[str, HarnessResult], tasks: Mapping[str, Mapping[str, LanguageScores]]
) -> dict[str, Any]:
    """Return as JSON what the library says of each model, and under ``tasks`` the models compared."""
    said = {
        name: {
            "metrics": result.metrics,
            "standard_errors": result.standard_errors,
            "version": result.version,
        }
        for name, result in results.items()
    }
    return {**said, "tasks": {task: scores_json(systems) for task, systems in tasks.items()}}


def _check_names(tasks: Sequence[str], known: Sequence[str]) -> None:
    for name in tasks:
        if name not in known:
            near = did_you_mean(name, known).partition(" Known:")[0]
            fix = near if near.startswith("did you mean") else "a name that `lm-eval ls tasks` shows"
            raise ConfigError(
                f"lm-evaluation-harness knows no task {name!r}",
                where="evaluation.harness_tasks",
                fix=f"{fix}, or a task of your own in evaluation.harness_path",
            )


def _check_tasks(manager: Any, tasks: Sequence[str]) -> None:
    """Make each task once, so that what is wrong with one names it."""
    for name in tasks:
        try:
            manager.load([name])
        except Exception as error:
            told = (str(error).strip() or repr(error)).splitlines()[0]
            raise DataError(
                f"the task cannot be made: {type(error).__name__}: {told}",
                where=f"evaluation.harness_tasks: {name}",
                fix="a dataset that is on this machine: dataset_path: json with dataset_kwargs.data_files, "
                "relative to evaluation.harness_path",
            ) from error


def _result(found: Mapping[str, Any], version: str) -> HarnessResult:
    metrics: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for task, row in found["results"].items():
        for key, value in row.items():
            name, comma, filtered = key.partition(",")
            if not comma or not isinstance(value, int | float):
                continue
            table = errors if name.endswith("_stderr") else metrics
            table.setdefault(task, {})[_named(name.removesuffix("_stderr"), filtered)] = float(value)
    documents = {
        task: rows
        for task, samples in (found.get("samples") or {}).items()
        if (rows := _documents(samples, metrics.get(task, {})))["values"]
    }
    return HarnessResult(metrics, errors, documents, version)


def _documents(samples: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return ids and values of the documents, of those metrics whose mean is what the library says."""
    columns: dict[str, dict[int, float]] = defaultdict(dict)
    for sample in samples:
        for name in sample["metrics"]:
            value = sample.get(name)
            if isinstance(value, int | float | np.number | np.bool_):
                columns[_named(name, sample["filter"])][int(sample["doc_id"])] = float(value)
    numbers = sorted({number for column in columns.values() for number in column})
    kept = {
        name: [column[number] for number in numbers]
        for name, column in columns.items()
        if len(column) == len(numbers)
        and np.isclose(np.mean(list(column.values())), metrics.get(name, np.nan), atol=1e-6)
    }
    return {"ids": [f"doc{number}" for number in numbers], "values": kept}


def _named(metric: str, filtered: str) -> str:
    return metric if filtered in ("", _NO_FILTER) else f"{metric}/{filtered}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings about what is meant here from the user."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _kept_random_state() -> Iterator[None]:
    """Put the global random states back that the library seeds."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


@contextlib.contextmanager
def _inside(path: Path | None) -> Iterator[None]:
    """Work in a directory while the block runs, where one is given."""
    if path is None:
        yield
        return
    with contextlib.chdir(path):
        yield
