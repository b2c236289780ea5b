"""One run, fully resolved: what the worker reads, what identifies it, and what does not.

Left out: how lists become several runs (`sweep`), and the key that is made of it (`plan`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from trainshed.config.interpolation import fill_environment, resolve_stage
from trainshed.config.parameters import READABLE_SECTIONS, TrainerParameters
from trainshed.config.schema import (
    SECTIONS,
    DataSection,
    EvaluationSection,
    ExecutionSection,
    ModelSection,
    RagSection,
)
from trainshed.errors import ConfigError
from trainshed.registry import TRAINER_PARAMETERS

#: version of the layout of `RunConfig.to_json`
FORMAT = 1

_CORPUS = frozenset({"dataset_name", "dataset_config", "columns", "max_passages", "documents"})
_CORPUS |= {"chunk_tokens", "chunk_overlap"}
_STORE = frozenset({"retriever", "query_encoder", "store", "store_url", "hybrid", "rrf_k"})
_STORE |= {"embed_batch_size", "embed_dtype"}
_SPLITS = frozenset({"train_split", "validation_split", "test_split"})

STAGE_READS: Mapping[str, Mapping[str, frozenset[str] | None]] = {
    "corpus": {
        "execution": frozenset({"seed"}),
        "data": _CORPUS | _SPLITS,
        "rag": frozenset({"retriever"}),
    },
    "index": {
        "execution": frozenset({"seed"}),
        "data": _CORPUS,
        "rag": _STORE,
    },
    "train": {"execution": frozenset({"seed", "algorithm"}), "model": None, "data": None, "rag": None},
    "evaluate": {
        "execution": frozenset({"seed"}),
        "model": None,
        "data": None,
        "rag": None,
        "evaluation": None,
    },
}
"""What decides the result of each kind of stage: section to keys, None for all. A training stage reads
``training`` and, of ``model``, ``data`` and ``rag``, what its algorithm declares
(`TrainerParameters.reads`); kinds from plug-ins read everything. What a stage reads and is not told here is
no part of its identity, and a result of another value is taken for its own."""


def stage_of(run: str) -> str:
    """Return the name of the stage that a run belongs to: ``lsr`` for ``lsr.3``."""
    return run.partition(".")[0]


def reads(kind: str, parameters: type[TrainerParameters] | None) -> dict[str, frozenset[str] | None]:
    """Return what a stage reads: section to keys, None for all of them."""
    known = dict(STAGE_READS.get(kind, dict.fromkeys(SECTIONS)))
    if kind == "train" and parameters is not None:
        for section in READABLE_SECTIONS:
            known.pop(section, None)
        known.update(parameters.sections_read())
    return known


@dataclass(frozen=True)
class TrainingSection:
    """The section ``training`` of one run, checked.

    Parameters
    ----------
    algorithm
        Registered name of the trainer.
    own
        The algorithm's own parameters.
    arguments
        Arguments of the third-party class (`TrainerParameters.arguments_table`) that were given or that have
        a default of ours.
    """

    algorithm: str
    own: TrainerParameters
    arguments: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "algorithm": self.algorithm,
            "own": self.own.model_dump(mode="json"),
            "arguments": dict(self.arguments),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        parameters = TRAINER_PARAMETERS.get(data["algorithm"])
        return cls(data["algorithm"], parameters.model_validate(data["own"]), dict(data["arguments"]))


@dataclass(frozen=True)
class RunConfig:
    """Everything that a worker needs to know to do one run.

    Parameters
    ----------
    name
        Name of the run, such as ``lsr`` or ``lsr.3``.
    stage
        Kind of work: ``corpus``, ``train``, ``index``, ``evaluate``.
    execution, model, data, rag, evaluation
        The sections, checked.
    training
        For stages that train, the section ``training``.
    environment
        Environment variables for the worker.
    templates
        Dotted path to the text with ``${env:NAME}`` of the values that `to_json` must not write out.
    """

    name: str
    stage: str
    execution: ExecutionSection = field(default_factory=ExecutionSection)
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    rag: RagSection = field(default_factory=RagSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    training: TrainingSection | None = None
    environment: dict[str, str] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data, with ``${env:NAME}`` in place of values that came from there."""
        data: dict[str, Any] = {"format": FORMAT, "name": self.name, "stage": self.stage}
        data.update({name: getattr(self, name).model_dump(mode="json") for name in SECTIONS})
        data["training"] = self.training.to_json() if self.training else None
        data["environment"] = dict(self.environment)
        for path, template in self.templates.items():
            _replace(data, path.split(".", _depth(path)), template)
        data["templates"] = dict(self.templates)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Self:
        """Return what `to_json` wrote; values that came from the environment are read from there again.

        Raises
        ------
        ConfigError
            When the data has another format, or an environment variable is not set here.
        """
        if data.get("format") != FORMAT:
            raise ConfigError(
                f"the run's configuration has format {data.get('format')!r}, this version reads {FORMAT}",
                fix="plan the run again with this version",
            )
        values = {name: dict(data[name]) for name in (*SECTIONS, "environment")}
        values["training"] = data["training"] and {k: v for k, v in data["training"].items()}
        if values["training"]:
            values["training"]["arguments"] = dict(values["training"]["arguments"])
            values["training"]["own"] = dict(values["training"]["own"])
        for path, template in data["templates"].items():
            try:
                filled = fill_environment(template, os.environ if environ is None else environ)
            except KeyError as error:
                raise ConfigError(
                    f"the environment variable {error.args[0]} is not set", where=path
                ) from None
            _replace(values, path.split(".", _depth(path)), filled)
        return cls(
            name=data["name"],
            stage=data["stage"],
            training=TrainingSection.from_json(values["training"]) if values["training"] else None,
            environment=values["environment"],
            templates=dict(data["templates"]),
            **{name: section.model_validate(values[name]) for name, section in SECTIONS.items()},  # type: ignore[arg-type]
        )

    def resolved(self, outputs: Mapping[str, Path]) -> Self:
        """Return it with each ``${stages.NAME}`` replaced by the directory of that stage's outputs."""
        training = self.training
        if training is not None:
            own = _resolve_section(training.own, outputs)
            training = replace(training, own=own)  # type: ignore[arg-type]
        return replace(
            self,
            training=training,
            **{name: _resolve_section(getattr(self, name), outputs) for name in SECTIONS},  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class ResolvedRun:
    """One run of an expanded configuration.

    Parameters
    ----------
    name
        Name of the stage, with ``.0``, ``.1`` … when it has several runs.
    stage
        Kind of work, a name in `registry.STAGES`.
    needs
        Names of the runs that must be complete before.
    config
        What the worker reads.
    hyper_parameters
        What decides the result, JSON-able: only the keys that this kind of stage reads. A local file or
        directory stands as ``${input:section.key}`` (its content counts, see `inputs`), another stage as
        ``${stages.NAME}``.
    settings
        What does not decide the result, JSON-able, without secrets.
    swept
        Dotted key to value of every axis that made this run.
    inputs
        Absolute paths of the local files and directories whose content decides the result, in the order of
        their keys.
    """

    name: str
    stage: str
    needs: tuple[str, ...]
    config: RunConfig
    hyper_parameters: dict[str, Any]
    settings: dict[str, Any]
    swept: dict[str, Any]
    inputs: tuple[str, ...]


def _depth(path: str) -> int:
    return 2 if path.startswith(("training.own.", "training.arguments.")) else 1


def _replace(data: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def _resolve_section(section: BaseModel, outputs: Mapping[str, Path]) -> BaseModel:
    changes: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, str):
            new: Any = resolve_stage(value, outputs)
        elif isinstance(value, dict):
            new = {k: resolve_stage(v, outputs) if isinstance(v, str) else v for k, v in value.items()}
        elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
            new = [_resolve_section(item, outputs) for item in value]
        else:
            continue
        if new != value:
            changes[name] = new
    return section.model_copy(update=changes) if changes else section
