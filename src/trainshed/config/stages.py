"""The stages of a configuration, each with its sections laid over the shared ones, lists not yet multiplied.

A configuration without ``pipeline`` is one stage. Left out: running a stage, and multiplying lists (`sweep`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.config.axes import Axis
from trainshed.config.checking import (
    SectionDraft,
    check_environment,
    check_section,
    check_training,
)
from trainshed.config.documents import Document, dotted, join
from trainshed.config.evaluation import HARNESS, evaluation_reads, measured
from trainshed.config.fields import (
    all_trainer_parameters,
    canonical_algorithm,
    keys_of,
    suggestion,
    training_keys,
)
from trainshed.config.interpolation import stage_reference
from trainshed.config.parameters import TrainerParameters
from trainshed.config.problems import Problem
from trainshed.config.resolved import reads
from trainshed.config.schema import SECTIONS, StageEntry
from trainshed.config.unread import find_unread
from trainshed.config.yaml_source import KeyPath
from trainshed.errors import UnknownNameError, nearest
from trainshed.registry import STAGES, TRAINER_PARAMETERS

#: sections that the design has and this version does not
PLANNED_SECTIONS = frozenset({"agents", "federation", "protocol", "scenario"})
#: keys of ``execution`` that the design has and this version does not
PLANNED_KEYS = frozenset({"launcher", "sweep"})
#: what says how jobs run on a cluster, for which this version writes none: it changes no result, so a
#: configuration that has it is taken, with a note
CLUSTER_SECTION, CLUSTER_KEYS = "slurm", frozenset({"distributed_config", "venv"})

NOT_AVAILABLE = "is not available in this version"
NOT_WRITTEN = "this version does not write; here it has no effect"
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SECTION_NAMES = (*SECTIONS, "training", "environment")


@dataclass
class StageDraft:
    """One stage before its axes are multiplied.

    Parameters
    ----------
    name
        Its name under ``pipeline``, or ``""`` for a configuration without one.
    kind
        A name in `registry.STAGES`.
    needs
        Stages that must be complete before, named or referred to.
    sections
        Every section but ``training``, by its native name.
    training
        ``training`` for each algorithm of the stage.
    """

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    sections: dict[str, SectionDraft] = field(default_factory=dict)
    training: dict[str, SectionDraft] = field(default_factory=dict)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms of a training stage, in order."""
        return tuple(self.training)

    def reads(self, parameters: type[TrainerParameters] | None) -> dict[str, frozenset[str] | None]:
        """Return what this stage reads, given what it says: section to keys, None for all of them."""
        read = reads(self.kind, parameters)
        if self.kind == "corpus" and not self.sections["data"].gives("documents"):
            # documents are cut by the retriever's tokens; without any it is not asked
            del read["rag"]
        if self.kind == "evaluate":
            del read["data"], read["rag"]
            read |= evaluation_reads(self.measured(), keys_of(SECTIONS["evaluation"]))
        return read

    def measured(self) -> list[frozenset[str]]:
        """Return what is measured, in each of the runs that its lists make; nothing is a RAG system."""
        draft = self.sections["evaluation"]
        models, tasks = draft.each_value("language_model"), draft.each_value(HARNESS)
        return list(dict.fromkeys(measured(model, names) for model in models for names in tasks))

    def axes(self, algorithm: str | None) -> Iterator[Axis]:
        """Return the axes that multiply this stage for an algorithm: those of the keys that it reads."""
        read = self.reads(TRAINER_PARAMETERS.get(algorithm) if algorithm else None)
        active = self.kind in ("train", "evaluate")
        for name, draft in self.sections.items():
            for axis in draft.axes:
                key = str(axis.key[1])
                wanted = name in read and ((keys := read[name]) is None or key in keys)
                setting = name == "environment" or keys_of(SECTIONS[name])[key].setting
                if axis.key == ("execution", "algorithm"):
                    wanted = self.kind == "train"
                if wanted or (setting and active):
                    yield axis
        if algorithm:
            yield from self.training[algorithm].axes

    def drafts(self) -> Iterator[SectionDraft]:
        """Return every section, and ``training`` for each algorithm."""
        yield from self.sections.values()
        yield from self.training.values()


def parameters_of(names: Any) -> dict[str, type[TrainerParameters]]:
    """Return the parameters of the algorithms that ``execution.algorithm`` names, unknown ones left out."""
    found: dict[str, type[TrainerParameters]] = {}
    for name in names if isinstance(names, list) else [names]:
        if isinstance(name, str):
            try:
                found[TRAINER_PARAMETERS.canonical(name)] = TRAINER_PARAMETERS.get(name)
            except UnknownNameError:
                continue
    return found


class StageReader:
    """Reads the stages of a document, gathers what is wrong with them, and notes what has no effect."""

    def __init__(self, document: Document, default_kind: str) -> None:
        self.document, self.default_kind = document, default_kind
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.shared = {k: v for k, v in document.data.items() if k in _SECTION_NAMES}

    def read(self) -> list[StageDraft]:
        """Return the stages in the order of the document."""
        self._section_names((), self.document.data, {"pipeline"})
        pipeline = self.document.data.get("pipeline")
        if pipeline is not None and (not isinstance(pipeline, dict) or not pipeline):
            self._add(
                "pipeline must map names to stages", ("pipeline",), "pipeline: {name: {stage: train, …}}"
            )
            return []
        entries: Mapping[str, Any] = pipeline or {"": {"stage": self.default_kind}}
        stages = [self._stage(name, entry, entries) for name, entry in entries.items()]
        self._shared_training([stage for stage in stages if stage is not None])
        return [stage for stage in stages if stage is not None]

    def _add(self, what: str, path: KeyPath, fix: str | None = None) -> None:
        self.problems.append(Problem(what, self.document.place(path), dotted(path), fix))

    def _section_names(self, prefix: KeyPath, data: Mapping[str, Any], others: set[str]) -> None:
        for name, content in data.items():
            path = (*prefix, name)
            if name == CLUSTER_SECTION and (content is None or isinstance(content, dict)):
                self._of_a_cluster(path)
            elif name in PLANNED_SECTIONS:
                self._add(f"the section {name!r} {NOT_AVAILABLE}", path, "leave it out")
            elif name not in _SECTION_NAMES and name not in others:
                known = sorted({*_SECTION_NAMES, *others})
                near = nearest(name, known)
                fix = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
                owners = [s for s, m in SECTIONS.items() if name in m.model_fields]
                fix = f"write it under {' or '.join(owners)}" if owners else fix
                self._add(f"unknown section {name!r}", path, fix)
            elif name in _SECTION_NAMES and content is not None and not isinstance(content, dict):
                self._add(f"the section {name!r} must hold keys", path, f"{name}: {{key: value}}")

    def _stage(self, name: str, entry: Any, entries: Mapping[str, Any]) -> StageDraft | None:
        path: KeyPath = ("pipeline", name) if name else ()
        if name and not _STAGE_NAME.fullmatch(name):
            self._add(f"{name!r} cannot be the name of a stage", path, "letters, digits, `_` and `-`")
            return None
        if not isinstance(entry, dict):
            if entry is not None:
                self._add("a stage must hold keys", path, f"{name}: {{stage: train}}")
                return None
            entry = {}
        if name:
            self._section_names(path, entry, set(StageEntry.model_fields))
        kind = self._kind(entry.get("stage", "train"), path)
        if kind is None:
            return None
        own = {k: v for k, v in entry.items() if k in _SECTION_NAMES and isinstance(v, dict)}
        shared = {k: v for k, v in self.shared.items() if isinstance(v, dict)}
        merged: dict[str, Any] = join(shared, own)
        stage = StageDraft(name, kind)
        self._fill(stage, merged, own, path)
        self._own_keys(stage, own if path else shared, path)
        self._missing_keys(stage, path)
        stage.needs = self._needs(stage, entry, entries, path)
        return stage

    def _kind(self, kind: Any, path: KeyPath) -> str | None:
        try:
            return STAGES.canonical(str(kind))
        except UnknownNameError as error:
            self._add(error.what, (*path, "stage"), error.fix)
            return None

    def _fill(
        self, stage: StageDraft, merged: Mapping[str, Any], own: Mapping[str, Any], path: KeyPath
    ) -> None:
        def locate(key: KeyPath) -> KeyPath:
            return (*path, *key) if path and _holds(own, key) else key

        for name in (*SECTIONS, "environment"):
            values = dict(merged.get(name, {}))
            if name == "execution":
                values = self._without_planned(values, locate)
            stage.sections[name] = SectionDraft(
                name,
                values,
                specs=None if name == "environment" else keys_of(SECTIONS[name]),
                check=check_environment if name == "environment" else _section_check(name),
                document=self.document,
                locate=locate,
            )
        if stage.kind == "train":
            self._fill_training(stage, merged, locate)
        for draft in stage.drafts():
            self.problems += draft.check_each()

    def _of_a_cluster(self, path: KeyPath) -> None:
        note = f"{self.document.place(path)}: {dotted(path)} is for jobs on a cluster, which {NOT_WRITTEN}"
        if note not in self.notes:
            self.notes.append(note)

    def _without_planned(self, values: dict[str, Any], locate: Any) -> dict[str, Any]:
        for key in sorted(CLUSTER_KEYS & values.keys()):
            self._of_a_cluster(locate(("execution", key)))
        values = {key: value for key, value in values.items() if key not in CLUSTER_KEYS}
        for key in sorted(PLANNED_KEYS & values.keys()):
            self._add(f"execution.{key} {NOT_AVAILABLE}", locate(("execution", key)), "leave it out")
        return {key: value for key, value in values.items() if key not in PLANNED_KEYS}

    def _fill_training(self, stage: StageDraft, merged: Mapping[str, Any], locate: Any) -> None:
        names = merged.get("execution", {}).get("algorithm")
        source = locate(("execution", "algorithm"))
        if names is None:
            where = f"pipeline.{stage.name}.execution.algorithm" if stage.name else "execution.algorithm"
            fix = f"one of: {', '.join(TRAINER_PARAMETERS.names())}"
            place = self.document.place(("pipeline", stage.name) if stage.name else ("execution",))
            self.problems.append(Problem("a training stage needs an algorithm", place, where, fix))
            return
        listed = names if isinstance(names, list) else [names]
        for index, name in enumerate(listed):
            try:
                algorithm = canonical_algorithm(name if isinstance(name, str) else repr(name))
            except UnknownNameError as error:
                position = (*source, index) if isinstance(names, list) else source
                self.problems.append(
                    Problem(error.what, self.document.place(position), dotted(source), error.fix)
                )
                continue
            parameters = TRAINER_PARAMETERS.get(algorithm)
            known = training_keys(parameters)
            given = merged.get("training", {})
            # an own name goes before another name for the same
            names_given = {parameters.aliases.get(k, k): k for k in given} | {k: k for k in given}
            values = {name: given[key] for name, key in names_given.items() if name in known}
            stage.training[algorithm] = SectionDraft(
                "training",
                values,
                specs=known,
                check=_training_check(algorithm, parameters),
                document=self.document,
                locate=_under_given_names(locate, names_given),
            )

    def _own_keys(self, stage: StageDraft, own: Mapping[str, Any], path: KeyPath) -> None:
        """Check that a stage sets nothing that it does not read."""
        for key in own.get("execution", {}):
            spec = keys_of(SECTIONS["execution"]).get(key)
            if path and spec is not None and spec.whole_plan:
                self._add(
                    f"{key} is one for all runs", (*path, "execution", key), f"set execution.{key} above"
                )
        parameters = parameters_of(list(stage.algorithms))
        if stage.kind == "train" and not parameters:
            return
        read = [stage.reads(p) for p in parameters.values()] or [stage.reads(None)]
        chosen = stage.measured() if stage.kind == "evaluate" else []
        for unread in find_unread(stage.kind, read, own, parameters, chosen):
            if path:
                self._add(unread.what, (*path, *unread.path), unread.fix)
            else:
                # not refused: without a pipeline one file serves several algorithms in turn
                place = self.document.place(unread.path)
                self.notes.append(f"{place}: {unread.what}, so it has no effect; {unread.fix}")
        if path and stage.training:
            self._training_keys((*path, "training"), own.get("training", {}), parameters)

    def _missing_keys(self, stage: StageDraft, path: KeyPath) -> None:
        """Check that a stage which measures a language model names it, and rows to measure it on."""
        chosen: set[str] = set().union(*stage.measured()) if stage.kind == "evaluate" else set()
        wanted: dict[str, tuple[str, ...]] = {"model": ("model_name_or_path",)} if chosen else {}
        if chosen - {HARNESS}:
            wanted["data"] = ("dataset_name", "mixture")
        for section, keys in wanted.items():
            if not any(stage.sections[section].gives(key) for key in keys):
                what = f"nothing says which {section} to measure with: {', '.join(sorted(chosen))}"
                self._add(what, (*path, section), f"set {section}.{' or '.join(keys)}")

    def _shared_training(self, stages: list[StageDraft]) -> None:
        values = self.document.data.get("training")
        if isinstance(values, dict):
            names = [name for stage in stages for name in stage.algorithms]
            self._training_keys(("training",), values, parameters_of(names) or all_trainer_parameters())

    def _training_keys(
        self, path: KeyPath, values: Mapping[str, Any], parameters: Mapping[str, type[TrainerParameters]]
    ) -> None:
        known = {key: spec for p in parameters.values() for key, spec in training_keys(p).items()}
        hidden = {key: reason for p in parameters.values() for key, reason in p.hidden_arguments.items()}
        others = {key for p in parameters.values() for key in p.aliases}
        for key, value in values.items():
            if key in known or key in others or (key in hidden and value is None):
                continue
            if key in hidden:
                self._add(f"{key} may not be set by hand: {hidden[key]}", (*path, key), "leave it out")
            else:
                self._add(f"unknown key {key!r}", (*path, key), suggestion("training", key, known))

    def _needs(
        self, stage: StageDraft, entry: Mapping[str, Any], entries: Mapping[str, Any], path: KeyPath
    ) -> tuple[str, ...]:
        listed = entry.get("needs") or []
        needs = [listed] if isinstance(listed, str) else listed
        if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
            self._add("needs must be a list of stages", (*path, "needs"))
            needs = []
        places: dict[str, KeyPath] = {}
        for index, need in enumerate(needs):
            places.setdefault(need, (*path, "needs", index))
        for need, source in self._references(stage):
            places.setdefault(need, source)
        for need, source in places.items():
            if need not in entries or not need:
                names = [name for name in entries if name]
                near = nearest(need, names)
                fix = f"did you mean {near!r}?" if near else f"stages: {', '.join(names) or 'none'}"
                self._add(f"there is no stage {need!r}", source, fix)
        return tuple(need for need in places if need in entries)

    def _references(self, stage: StageDraft) -> Iterator[tuple[str, KeyPath]]:
        """Return the stages that values refer to, as far as this kind of stage reads those values."""
        parameters = parameters_of(list(stage.algorithms)).values()
        read = [stage.reads(p) for p in parameters] or [stage.reads(None)]
        for draft in stage.drafts():
            for key, value in draft.every_value():
                wanted = draft.section in ("training", "environment") or any(
                    draft.section in r and ((keys := r[draft.section]) is None or key[0] in keys)
                    for r in read
                )
                for below, text in _texts(value):
                    reference = stage_reference(text)
                    if wanted and reference:
                        yield reference[0], draft.locate((*key, *below))


def _texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Return every text within a value, with its path there."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, (*path, name))


def _under_given_names(locate: Callable[[KeyPath], KeyPath], names: Mapping[str, str]) -> Any:
    """Return a function that finds a key of ``training`` in the document under the name that it has there."""

    def found(key: KeyPath) -> KeyPath:
        return locate((key[0], names.get(str(key[1]), key[1]), *key[2:]) if len(key) > 1 else key)

    return found


def _holds(data: Mapping[str, Any], path: KeyPath) -> bool:
    value: Any = data
    for key in path:
        in_list = isinstance(value, list) and isinstance(key, int) and key < len(value)
        if not in_list and not (isinstance(value, Mapping) and key in value):
            return False
        value = value[key]
    return True


def _section_check(name: str) -> Any:
    return lambda values: check_section(name, values)


def _training_check(algorithm: str, parameters: type[TrainerParameters]) -> Any:
    return lambda values: check_training(algorithm, parameters, values)
