"""From a file and overrides to a checked configuration, with all its problems told at once.

Left out: multiplying lists into runs (`sweep`).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.config.documents import Document, dotted
from trainshed.config.fields import training_keys
from trainshed.config.interpolation import interpolate
from trainshed.config.migrations import SECTION_ALIASES, migrate
from trainshed.config.overrides import apply_overrides, read_overrides
from trainshed.config.problems import Problem, configuration_error
from trainshed.config.stages import StageDraft, StageReader, parameters_of
from trainshed.config.yaml_source import KeyPath, Source, read_source
from trainshed.errors import did_you_mean


@dataclass(frozen=True)
class Config:
    """A checked configuration; `sweep.expand` makes runs of it.

    Parameters
    ----------
    document
        Native names, overrides applied, with the place of every key.
    stages
        In an order in which each comes after what it needs.
    templates
        The text with ``${env:NAME}`` of each value that came from there, by its path in the document.
    notes
        What was read under a dropped name, and what has no effect, for the user.
    """

    document: Document
    stages: tuple[StageDraft, ...]
    templates: Mapping[KeyPath, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file that it came from, as it was given."""
        return self.document.name

    @property
    def output_dir(self) -> Path | None:
        """The directory that holds the runs, when the configuration names one."""
        for stage in self.stages:
            path = stage.sections["execution"].at({}).value.output_dir
            return Path(path) if path else None
        return None

    @property
    def jobs(self) -> int:
        """How many runs work at once."""
        return int(self.stages[0].sections["execution"].at({}).value.jobs)


def load_config(
    path: Path | str,
    overrides: Iterable[str] = (),
    *,
    stage: str = "train",
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    path
        A YAML file, or JSON when it ends in ``.json``.
    overrides
        ``section.key=value``, laid over the file.
    stage
        Kind of work when the file has no ``pipeline``.
    environ
        Environment that ``${env:NAME}`` reads; this process's own by default.

    Raises
    ------
    ConfigError
        With every problem that was found: file, line, key, and what would be right.
    """
    return check_source(read_source(path), overrides, stage=stage, environ=environ)


def check_source(
    source: Source,
    overrides: Iterable[str] = (),
    *,
    stage: str = "train",
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Check a configuration that was already read; see `load_config`."""
    return check_documents(
        Document.from_source(source), read_overrides(overrides), stage=stage, environ=environ
    )


#: lays one document over another, in place: ``shape(document, laid, whole)``
Shape = Callable[[Document, Document, bool], None]


def _plain(document: Document, laid: Document, whole: bool) -> None:
    apply_overrides(document, laid)


def check_documents(
    written: Document,
    above: Document,
    *,
    layers: Sequence[Document] = (),
    stage: str = "train",
    environ: Mapping[str, str] | None = None,
    shape: Shape = _plain,
    prune: Callable[[Document], None] = lambda document: None,
) -> Config:
    """Check a configuration made of several documents.

    Parameters
    ----------
    written
        The lowest.
    above
        Overrides, laid over everything.
    layers
        Documents between the two, each laid over those before it.
    stage
        Kind of work when there is no ``pipeline``.
    environ
        Environment that ``${env:NAME}`` reads; this process's own by default.
    shape
        Lays a layer (``whole`` is True) or the overrides (False) over a document, all under native names.
    prune
        Takes out of the joined document what it does not need.

    Raises
    ------
    ConfigError
        With every problem that was found.
    """
    own_keys = set().union(*(_algorithm_keys(document) for document in (written, *layers, above)))
    document, notes, problems = migrate(written, own_keys)
    for layer in layers:
        laid, more_notes, more_problems = migrate(layer, own_keys)
        notes, problems = [*notes, *more_notes], [*problems, *more_problems]
        shape(document, laid, True)
    laid, more_notes, more_problems = migrate(above, own_keys)
    problems += _unknown_stages(document, laid)
    shape(document, laid, False)
    prune(document)
    templates, unset = interpolate(document, os.environ if environ is None else environ)
    reader = StageReader(document, stage)
    stages = reader.read()
    notes += [*more_notes, *reader.notes]
    problems += [*more_problems, *unset, *reader.problems]
    # a list that its own stage does not read is told already
    known = {problem.key for problem in problems}
    problems += [problem for problem in _idle_axes(stages, document) if problem.key not in known]
    ordered, cycle = _in_order(stages, document)
    if cycle is not None:
        problems.append(cycle)
    if problems:
        raise configuration_error(problems)
    _say(notes)
    return Config(document, tuple(ordered), templates, tuple(notes))


def _unknown_stages(document: Document, overrides: Document) -> list[Problem]:
    """Return the stages that overrides would add: a misspelt name must not become a stage of its own."""
    known, given = (d.data.get("pipeline") for d in (document, overrides))
    names = list(known) if isinstance(known, dict) else []
    fix = "overrides change stages and add none; {}"
    return [
        Problem(
            f"there is no stage {name!r}",
            overrides.place(("pipeline", name)),
            f"pipeline.{name}",
            fix.format(did_you_mean(name, names) if names else "the file has no pipeline"),
        )
        for name in (given if isinstance(given, dict) else ())
        if name not in names
    ]


def _idle_axes(stages: list[StageDraft], document: Document) -> list[Problem]:
    """Return the lists that were meant as sweeps of keys that no stage reads."""
    read = {
        axis.source for stage in stages for name in stage.algorithms or (None,) for axis in stage.axes(name)
    }
    idle = {axis.source for stage in stages for draft in stage.drafts() for axis in draft.axes} - read
    what = "the list makes no runs: no stage reads this key"
    return [
        Problem(what, document.place(source), dotted(source), "give one value") for source in sorted(idle)
    ]


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        from trainshed.progress import say  # Rich is needed only when there is something to say

        say(note)


def _algorithm_keys(document: Document) -> set[str]:
    """Return the keys that the algorithms named anywhere in a document know, before names are migrated."""
    pipeline = document.data.get("pipeline")
    entries = [document.data, *(pipeline.values() if isinstance(pipeline, dict) else ())]
    sections = ["execution", *(old for old, new in SECTION_ALIASES.items() if new == "execution")]
    found: set[str] = set()
    for entry in entries:
        for section in sections if isinstance(entry, dict) else ():
            execution = entry.get(section)
            names = execution.get("algorithm") if isinstance(execution, dict) else None
            for parameters in parameters_of(names).values():
                found.update(training_keys(parameters))
    return found


def _in_order(stages: list[StageDraft], document: Document) -> tuple[list[StageDraft], Problem | None]:
    """Return the stages so that each follows what it needs, else in their order; or the cycle."""
    left, done, ordered = list(stages), {""}, []
    names = {stage.name for stage in stages}
    while left:
        ready = next((s for s in left if all(n in done or n not in names for n in s.needs)), None)
        if ready is None:
            return stages, _cycle(left, document)
        left.remove(ready)
        done.add(ready.name)
        ordered.append(ready)
    return ordered, None


def _cycle(stages: list[StageDraft], document: Document) -> Problem:
    needs = {stage.name: [n for n in stage.needs if any(s.name == n for s in stages)] for stage in stages}
    walk = [stages[0].name]
    while walk[-1] not in walk[:-1]:
        walk.append(needs[walk[-1]][0])
    loop = walk[walk.index(walk[-1]) :]
    path = ("pipeline", loop[0])
    what = f"stages need each other in a circle: {' -> '.join(loop)}"
    return Problem(what, document.place(path), f"pipeline.{loop[0]}", "take one of these needs away")
