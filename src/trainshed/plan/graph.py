"""Run and Plan: what will be executed, in which order, and where each run leaves what it makes.

A sweep is a plan without edges, a pipeline one with edges, a single run one node. Left out: expanding a
configuration into runs (`config.sweep`) and deciding which of them are done already (`plan.status`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed.config.resolved import stage_of
from trainshed.errors import ConfigError, RunError, did_you_mean
from trainshed.files import read_json, write_json
from trainshed.plan.directory import RunDirectory, utc_now
from trainshed.plan.keys import DigestCache, package_versions, run_key, source_digest

if TYPE_CHECKING:
    from trainshed.config.resolved import ResolvedRun

_REFERENCE = re.compile(r"\$\{stages\.([^}]+)\}")
_KEY_DIGITS = 8


@dataclass(frozen=True)
class Run:
    """One node of a plan.

    Parameters
    ----------
    id
        Name of its directory: ``lsr-<8 hex digits of the key>``, in a sweep ``lsr.003-<8 hex digits>``.
    name
        Name of its stage or algorithm; in a sweep with a number: ``lsr.3``.
    stage
        Kind of work, a name of `registry.STAGES`.
    needs
        Id of each upstream run by the name of its stage, as ``${stages.NAME}`` has it.
    config
        The whole resolved configuration as JSON, other stages still as ``${stages.NAME}``; empty when
        the plan was read from its file.
    hyper_parameters
        The part of it that decides the result.
    key
        Identity: see `plan.keys.run_key`.
    inputs
        Digest of each input file or directory by path.
    swept
        The values that tell this run from the others of its sweep.
    """

    id: str
    name: str
    stage: str
    needs: Mapping[str, str]
    config: Mapping[str, Any]
    hyper_parameters: Mapping[str, Any]
    key: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    swept: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Return what ``plan.json`` and ``run.json`` hold of it: all but the configuration."""
        return {
            "id": self.id,
            "name": self.name,
            "stage": self.stage,
            "needs": dict(self.needs),
            "key": self.key,
            "inputs": dict(self.inputs),
            "swept": dict(self.swept),
            "hyper_parameters": dict(self.hyper_parameters),
        }


@dataclass(frozen=True)
class Plan:
    """Runs in an order in which each comes after those it needs.

    Parameters
    ----------
    runs
        In topological order.
    output_dir
        The directory that holds a directory for each run.
    versions
        Of Python and the packages that compute results.
    source
        Digest of the program.
    imports
        Plug-in modules, or absolute paths of ``.py`` files, that workers import first.
    """

    runs: tuple[Run, ...]
    output_dir: Path
    versions: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    imports: tuple[str, ...] = ()

    def directory(self, run_id: str) -> RunDirectory:
        """Return the directory of the run with this id."""
        return RunDirectory(self.output_dir / run_id)

    def named(self, name: str) -> Run:
        """Return the run with this name or id; an unknown one is a `ConfigError`."""
        for run in self.runs:
            if name in (run.name, run.id):
                return run
        known = [run.name for run in self.runs]
        raise ConfigError(f"the plan has no run {name!r}", fix=did_you_mean(name, known))

    def worker_config(self, run: Run) -> Any:
        """Return the run's configuration with the outputs directories in place of ``${stages.NAME}``."""
        places = {name: str(self.directory(run_id).outputs) for name, run_id in run.needs.items()}
        return substitute(run.config, places)

    def worker_entry(self, run: Run) -> dict[str, Any]:
        """Return the frozen ``run.json`` of a run, all but the attempt."""
        return {
            **run.entry(),
            "versions": dict(self.versions),
            "source": self.source,
            "imports": list(self.imports),
        }

    def save(self) -> None:
        """Write ``plan.json``."""
        write_json(
            self.output_dir / "plan.json",
            {
                "launched": utc_now(),
                "versions": dict(self.versions),
                "source": self.source,
                "imports": list(self.imports),
                "runs": [run.entry() for run in self.runs],
            },
        )


def read_plan(output_dir: Path) -> Plan:
    """Read the plan that was launched into ``output_dir``.

    Raises
    ------
    RunError
        When nothing was launched there, or the file is damaged.
    """
    path = output_dir / "plan.json"
    try:
        value = read_json(path)
        runs = tuple(Run(config={}, **row) for row in value["runs"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            "no plan was launched here: there is no plan.json",
            where=str(output_dir),
            fix="give the output directory of `trainshed run`",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"plan.json is damaged: {error}", where=str(path), fix="run the same command again"
        ) from error
    return Plan(runs, output_dir, value["versions"], value["source"], tuple(value["imports"]))


def substitute(value: Any, places: Mapping[str, str]) -> Any:
    """Return ``value`` with each ``${stages.NAME}`` in its texts replaced by ``places[NAME]``."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: places.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {name: substitute(item, places) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, places) for item in value]
    return value


def make_plan(
    resolved: Sequence["ResolvedRun"],
    output_dir: Path,
    *,
    imports: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    cache: DigestCache | None = None,
) -> Plan:
    """Return the plan of resolved runs: order them, hash their inputs, and give each its key and directory.

    Parameters
    ----------
    resolved
        As `trainshed.config.sweep.expand` gives them.
    output_dir
        Absolute path of the directory that will hold the runs.
    imports
        Plug-in modules or files, which workers import.
    plugin_files
        Source files of these plug-ins, which are part of the program.
    cache
        Remembers digests; ``output_dir/.digests.json`` unless given.

    Raises
    ------
    ConfigError
        When a run needs one that is not there, or runs need each other in a circle.
    DataError
        When an input is not there.
    """
    cache = cache or DigestCache(output_dir / ".digests.json")
    versions = package_versions()
    source = source_digest(cache, plugin_files)
    ordered = in_order(resolved)
    inputs = {path: cache.input(Path(path)) for item in ordered for path in item.inputs}
    keys = _keys(ordered, inputs, versions)
    ids = _run_ids(keys, output_dir)
    runs = tuple(
        Run(
            id=ids[item.name],
            name=item.name,
            stage=item.stage,
            needs={stage_of(name): ids[name] for name in item.needs},
            config=item.config.to_json(),
            hyper_parameters=item.hyper_parameters,
            key=keys[item.name],
            inputs={path: inputs[path] for path in item.inputs},
            swept=item.swept,
        )
        for item in ordered
    )
    cache.save()
    return Plan(runs, output_dir, versions, source, tuple(imports))


def _keys(
    ordered: Iterable["ResolvedRun"], inputs: Mapping[str, str], versions: Mapping[str, str]
) -> dict[str, str]:
    """Return the key of each run by its name."""
    keys: dict[str, str] = {}
    for item in ordered:
        keys[item.name] = run_key(
            item.stage,
            item.hyper_parameters,
            inputs=[inputs[path] for path in item.inputs],
            upstream={stage_of(name): keys[name] for name in item.needs},
            versions=versions,
        )
    return keys


def _run_ids(keys: Mapping[str, str], output_dir: Path) -> dict[str, str]:
    """Return the id of each run; one of a sweep keeps its directory when the sweep grows around it."""
    there: dict[tuple[str, str], list[str]] = {}
    for path in sorted(output_dir.iterdir()) if output_dir.is_dir() else ():
        name, _, digits = path.name.rpartition("-")
        there.setdefault((stage_of(name), digits), []).append(path.name)
    ids = {name: _new_id(name, key) for name, key in keys.items()}
    taken = set(ids.values())
    unclaimed = {row: [name for name in names if name not in taken] for row, names in there.items()}
    for name, key in keys.items():
        row = stage_of(name), key[:_KEY_DIGITS]
        if ids[name] not in there.get(row, ()) and unclaimed.get(row):
            ids[name] = unclaimed[row].pop(0)
    return ids


def _new_id(name: str, key: str) -> str:
    stage = stage_of(name)
    number = name[len(stage) + 1 :]
    return f"{stage}.{int(number):03d}-{key[:_KEY_DIGITS]}" if number else f"{stage}-{key[:_KEY_DIGITS]}"


def in_order(resolved: Sequence["ResolvedRun"]) -> list["ResolvedRun"]:
    """Return the runs so that each comes after those it needs, otherwise in the order given."""
    by_name = {item.name: item for item in resolved}
    if len(by_name) != len(resolved):
        listed = [item.name for item in resolved]
        twice = next(name for name in listed if listed.count(name) > 1)
        raise ConfigError(f"two runs are named {twice!r}", fix="give each stage a name of its own")
    ordered: list[ResolvedRun] = []
    done: set[str] = set()
    for item in resolved:
        for need in item.needs:
            if need not in by_name:
                raise ConfigError(
                    f"stage {item.name!r} needs {need!r}, which is not there", fix=did_you_mean(need, by_name)
                )
    waiting = list(resolved)
    while waiting:
        ready = next((n for n, item in enumerate(waiting) if done.issuperset(item.needs)), None)
        if ready is None:
            circle = ", ".join(sorted(item.name for item in waiting))
            raise ConfigError(f"stages need each other in a circle: {circle}", fix="remove one `needs`")
        ordered.append(waiting.pop(ready))
        done.add(ordered[-1].name)
    return ordered


def mermaid(plan: Plan, notes: Mapping[str, str]) -> str:
    """Return the graph as Mermaid text; ``notes`` stand under the names, by run id."""
    lines = ["flowchart TD"]
    numbers = {run.id: f"n{number}" for number, run in enumerate(plan.runs)}
    for run in plan.runs:
        note = notes.get(run.id, "").replace('"', "'")
        lines.append(f'  {numbers[run.id]}["{run.name}<br/>{note}"]')
        lines += [f"  {numbers[need]} --> {numbers[run.id]}" for need in run.needs.values()]
    return "\n".join(lines) + "\n"
