"""From a checked configuration to its runs: lists multiplied, each run fully resolved.

The algorithms of a list are separate experiments; every other axis multiplies within each of which it is a
key. A stage is multiplied by its own axes and by those of the stages that it needs; stages that share an axis
go together. The order is that of the file, the last axis fastest. Left out: what is already done (`plan`).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainshed.config.axes import Assignment, Axis
from trainshed.config.checking import Checked, InvalidSection, SectionDraft
from trainshed.config.documents import dotted
from trainshed.config.load import Config
from trainshed.config.problems import Problem, configuration_error
from trainshed.config.resolved import ResolvedRun, RunConfig
from trainshed.config.schema import SECTIONS
from trainshed.config.stages import StageDraft
from trainshed.config.yaml_source import KeyPath
from trainshed.errors import ConfigError
from trainshed.registry import TRAINER_PARAMETERS

_ALGORITHM = ("execution", "algorithm")


def expand(config: Config) -> list[ResolvedRun]:
    """Return the runs of a configuration, each after those that it needs.

    Raises
    ------
    ConfigError
        When values that are right by themselves do not go together.
    """
    expansion = _Expansion(config)
    runs = [run for stage in config.stages for run in expansion.stage(stage)]
    if expansion.problems:
        raise configuration_error(expansion.problems)
    return runs


class _Expansion:
    """Multiplies the stages one after the other."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.problems: list[Problem] = []
        self._axes: dict[KeyPath, Axis] = {}
        self._made: dict[str, list[tuple[Assignment, str]]] = {}
        self._rank = _ranks(config)

    def stage(self, stage: StageDraft) -> list[ResolvedRun]:
        """Return the runs of one stage."""
        rows = sorted(self._assignments(stage), key=self._order)
        names = _names(stage, rows)
        needed = [self._lookup(need) for need in stage.needs]
        runs = []
        for row, name in zip(rows, names, strict=True):
            needs = tuple(find(row) for find in needed)
            try:
                runs.append(self._run(stage, name, needs, row))
            except InvalidSection as error:
                self.problems += error.problems
        self._made[stage.name] = list(zip(rows, names, strict=True))
        return runs

    def _assignments(self, stage: StageDraft) -> list[Assignment]:
        upstream: list[Assignment] = [{}]
        for need in stage.needs:
            upstream = _natural_join(upstream, [row for row, _ in self._made[need]])
        rows: list[Assignment] = []
        for algorithm, choice in _algorithms(stage):
            axes = {axis.source: axis for axis in stage.axes(algorithm)}
            self._axes.update(axes)
            free = [axis for axis in axes.values() if axis.key != _ALGORITHM]
            rows += _natural_join(upstream, _product(choice, free))
        return rows

    def _order(self, row: Assignment) -> tuple[int, ...]:
        return tuple(row.get(source, -1) for source in self._rank)

    def _lookup(self, need: str) -> Any:
        """Return a function from an assignment to the run of ``need`` that it goes with."""
        made = self._made[need]
        shapes: dict[tuple[KeyPath, ...], dict[tuple[int, ...], str]] = defaultdict(dict)
        for row, name in made:
            sources = tuple(sorted(row, key=str))
            shapes[sources][tuple(row[s] for s in sources)] = name

        def find(row: Assignment) -> str:
            for sources, names in sorted(shapes.items(), key=lambda item: -len(item[0])):
                if all(s in row for s in sources):
                    name = names.get(tuple(row[s] for s in sources))
                    if name is not None:
                        return name
            raise AssertionError(f"no run of {need} goes with {row}")

        return find

    def _run(self, stage: StageDraft, name: str, needs: tuple[str, ...], row: Assignment) -> ResolvedRun:
        checked = {section: draft.at(row) for section, draft in stage.sections.items()}
        algorithm = checked["execution"].value.algorithm if stage.kind == "train" else None
        parameters = TRAINER_PARAMETERS.get(algorithm) if algorithm else None
        if algorithm:
            training = stage.training[TRAINER_PARAMETERS.canonical(algorithm)]
            checked["training"] = training.at(row)
            self._check_together(stage, training, checked)
        read = stage.reads(parameters)
        hyper: dict[str, Any] = {"stage": stage.kind}
        inputs: list[str] = []
        for section, part in checked.items():
            if section == "training":
                hyper[section] = part.hyper
                inputs += part.inputs.values()
            elif section in read:
                keys = read[section]
                hyper[section] = {k: v for k, v in part.hyper.items() if keys is None or k in keys}
                inputs += [path for k, path in part.inputs.items() if keys is None or k[0] in keys]
        templates = self._templates(stage, row, checked)
        swept = self._swept(stage, row)
        if settings_swept := self._swept_settings(stage, row, checked):
            hyper["swept_settings"] = settings_swept
        return ResolvedRun(
            name=name,
            stage=stage.kind,
            needs=needs,
            config=_run_config(stage.kind, name, checked, templates),
            hyper_parameters=hyper,
            settings=_settings(checked, templates),
            swept=swept,
            inputs=tuple(inputs),
        )

    def _check_together(
        self, stage: StageDraft, training: SectionDraft, checked: Mapping[str, Checked]
    ) -> None:
        """Raise `InvalidSection` when an algorithm's parameters do not go with the other sections."""
        sections = {name: checked[name].value for name in SECTIONS if name in checked}
        try:
            checked["training"].value.own.check_with(sections)
        except ConfigError as error:
            section, _, key = (error.where or "training").partition(".")
            draft = training if section == "training" else stage.sections[section]
            source = draft.locate((key,) if key else ())
            problem = Problem(error.what, self.config.document.place(source), dotted(source), error.fix)
            raise InvalidSection([problem]) from None

    def _value(self, axis: Axis, index: int) -> Any:
        """Return a swept value, or its text with ``${env:NAME}`` when it came from there."""
        return self.config.templates.get((*axis.source, index), axis.values[index])

    def _swept(self, stage: StageDraft, row: Assignment) -> dict[str, Any]:
        swept: dict[str, Any] = {}
        for source in self._rank:
            if source in row:
                path = source
                if path[0] == "pipeline":
                    path = path[2:] if path[1] == stage.name else path[1:]
                swept[dotted(path)] = self._value(self._axes[source], row[source])
        return swept

    def _swept_settings(
        self, stage: StageDraft, row: Assignment, checked: Mapping[str, Checked]
    ) -> dict[str, Any]:
        """Return the swept values that are settings: swept, they tell runs apart."""
        swept: dict[str, Any] = {}
        for section, part in checked.items():
            draft = _draft_of(stage, section, checked)
            for axis in draft.axes if draft is not None else ():
                if axis.source in row and axis.key[1] in part.settings:
                    swept[dotted(axis.key)] = self._value(axis, row[axis.source])
        return swept

    def _templates(
        self, stage: StageDraft, row: Assignment, checked: Mapping[str, Checked]
    ) -> dict[str, str]:
        """Return the templates of the settings that came from the environment, by their path in the run."""
        found: dict[str, str] = {}
        for source, template in self.config.templates.items():
            path = source
            if path[0] == "pipeline":
                if path[1] != stage.name:
                    continue
                path = path[2:]
            axis = self._axes.get(source[:-1])
            if axis is not None:
                if row.get(axis.source, 0) != source[-1]:
                    continue
                path = path[:-1]
            draft = _draft_of(stage, str(path[0]), checked)
            if draft is None or draft.locate(path[1:]) != (source[:-1] if axis else source):
                continue
            if dotted_path := _setting_path(path, checked):
                found[dotted_path] = template
        return found


def _ranks(config: Config) -> list[KeyPath]:
    """Return every axis in the order of the document; an axis of algorithms goes before all others."""
    sources: list[KeyPath] = []

    def walk(value: Any, path: KeyPath) -> None:
        for key, inner in value.items() if isinstance(value, dict) else ():
            walk(inner, (*path, key))
        if isinstance(value, list):
            sources.append(path)

    walk(config.document.data, ())
    return sorted(sources, key=lambda source: source[-2:] != _ALGORITHM)


def _algorithms(stage: StageDraft) -> Iterable[tuple[str | None, Assignment]]:
    axis = next((a for a in stage.sections["execution"].axes if a.key == _ALGORITHM), None)
    if stage.kind != "train":
        return [(None, {})]
    if axis is None:
        return [(stage.algorithms[0], {})]
    return [
        (TRAINER_PARAMETERS.canonical(name), {axis.source: index}) for index, name in enumerate(axis.values)
    ]


def _product(choice: Assignment, axes: Sequence[Axis]) -> list[Assignment]:
    sources = [axis.source for axis in axes]
    ranges = [range(len(axis.values)) for axis in axes]
    return [{**choice, **dict(zip(sources, row, strict=True))} for row in itertools.product(*ranges)]


def _natural_join(left: Sequence[Assignment], right: Sequence[Assignment]) -> list[Assignment]:
    """Return every pair that gives its shared axes the same values, joined."""
    if not left or not right:
        return []
    shared = {key for key in left[0] if all(key in row for row in (*left, *right))}
    keys = sorted(shared, key=str)
    buckets: dict[tuple[int, ...], list[Assignment]] = defaultdict(list)
    for row in right:
        buckets[tuple(row[k] for k in keys)].append(row)
    joined = {}
    for one in left:
        for other in buckets[tuple(one[k] for k in keys)]:
            if all(one[k] == v for k, v in other.items() if k in one):
                row = {**one, **other}
                joined[frozenset(row.items())] = row
    return list(joined.values())


def _names(stage: StageDraft, rows: Sequence[Assignment]) -> list[str]:
    """Return a name for each run; without a pipeline they are called after their algorithm."""
    axis = next((a for a in stage.sections["execution"].axes if a.key == _ALGORITHM), None)
    counts: dict[str, int] = defaultdict(int)
    names = []
    for row in rows:
        name = stage.name or (stage.algorithms[0] if stage.algorithms else stage.kind)
        if not stage.name and stage.algorithms and axis is not None:
            name = TRAINER_PARAMETERS.canonical(axis.values[row[axis.source]])
        names.append(f"{name}.{counts[name]}" if row else name)
        counts[name] += 1
    return names


def _run_config(kind: str, name: str, checked: Mapping[str, Checked], templates: dict[str, str]) -> RunConfig:
    values = {section: part.value for section, part in checked.items()}
    return RunConfig(name=name, stage=kind, templates=templates, **values)


def _settings(checked: Mapping[str, Checked], templates: Mapping[str, str]) -> dict[str, Any]:
    settings = {section: part.settings for section, part in checked.items() if part.settings}
    for path, template in templates.items():
        section, _, key = path.partition(".")
        key = key.removeprefix("own.").removeprefix("arguments.") if section == "training" else key
        settings[section] = {**settings[section], key: template}
    return settings


def _setting_path(path: KeyPath, checked: Mapping[str, Checked]) -> str | None:
    """Return where a setting stands in `RunConfig.to_json`, and None for what is no single setting."""
    section, key = str(path[0]), str(path[1])
    part = checked.get(section)
    if part is None or len(path) != 2 or key not in part.settings:
        return None
    if section != "training":
        return f"{section}.{key}"
    return f"training.{'own' if key in type(part.value.own).model_fields else 'arguments'}.{key}"


def _draft_of(stage: StageDraft, section: str, checked: Mapping[str, Checked]) -> SectionDraft | None:
    if section == "training":
        return stage.training[checked["training"].value.algorithm] if "training" in checked else None
    return stage.sections.get(section)
