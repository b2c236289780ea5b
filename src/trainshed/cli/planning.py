"""From a configuration file to a plan: what `run` and `plan` share."""

from collections.abc import Sequence
from pathlib import Path

import click

from trainshed.cli.plugins import absolute, import_plugins
from trainshed.cli.tables import table
from trainshed.config.load import Config, load_config
from trainshed.config.sweep import expand
from trainshed.errors import ConfigError, did_you_mean
from trainshed.files import disk_errors
from trainshed.plan.graph import Plan, make_plan
from trainshed.plan.keys import DigestCache
from trainshed.plan.status import Decision


def plan_of(
    config_path: Path,
    overrides: Sequence[str],
    output_dir: Path | None,
    imports: Sequence[str],
    *,
    create: bool = False,
) -> Plan:
    """Return the plan of a configuration file.

    Parameters
    ----------
    config_path
        The YAML.
    overrides
        ``key=value`` each.
    output_dir
        Where the runs go; else ``execution.output_dir``, else ``./outputs/<name of the file>``.
    imports
        Plug-ins to import first.
    create
        Make the output directory, once the plan stands, and remember there what was hashed.
    """
    imports = absolute(imports)
    plugin_files = import_plugins(imports)
    config = load_config(config_path, overrides)
    place = output_dir or config.output_dir or Path("outputs") / config_path.stem
    return plan_for(config, place, imports, plugin_files=plugin_files, create=create)


def plan_for(
    config: Config,
    place: Path,
    imports: Sequence[str] = (),
    *,
    plugin_files: Sequence[Path] = (),
    create: bool = False,
) -> Plan:
    """Return the plan of a checked configuration, for the directory ``place``; see `plan_of`."""
    resolved = expand(config)
    if not resolved:
        raise ConfigError("the configuration describes no run", where=config.name)
    place = place.resolve()
    cache = DigestCache(place / ".digests.json")
    plan = make_plan(resolved, place, imports=imports, plugin_files=plugin_files, cache=cache)
    if create:
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        cache.save()
    return plan


def forced_ids(plan: Plan, names: Sequence[str]) -> frozenset[str]:
    """Return the ids of the runs that ``--force`` names: runs, stages with all their runs, or ``all``."""
    if "all" in names:
        return frozenset(run.id for run in plan.runs)
    ids: set[str] = set()
    for name in names:
        found = {run.id for run in plan.runs if name in (run.name, run.id, run.name.partition(".")[0])}
        if not found:
            known = [run.name for run in plan.runs]
            raise ConfigError(f"--force: the plan has no run {name!r}", fix=did_you_mean(name, known))
        ids |= found
    return frozenset(ids)


def decisions_table(plan: Plan, decisions: Sequence[Decision]) -> str:
    """Return the table of a plan: run, what will happen to it and why, and what it needs."""
    names = {run.id: run.name for run in plan.runs}
    rows = []
    for decision in decisions:
        run = decision.run
        swept = " ".join(f"{key}={value}" for key, value in run.swept.items())
        needs = ", ".join(names[need] for need in run.needs.values())
        rows.append([run.id, decision.action, decision.reason, needs, swept])
    headers = ["run", "will", "why", "needs", "swept"]
    kept = [n for n in range(len(headers)) if n < 3 or any(row[n] for row in rows)]
    return table([headers[n] for n in kept], [[row[n] for n in kept] for row in rows])


def summary(decisions: Sequence[Decision]) -> str:
    """Return how many runs will do what, in one line."""
    actions = [decision.action for decision in decisions]
    counts = [f"{actions.count(a)} {a}" for a in ("run", "rerun", "resume", "skip", "running")]
    return ", ".join(count for count in counts if not count.startswith("0 "))


config_argument = click.argument(
    "config_path", metavar="CONFIG", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
overrides_argument = click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
output_dir_option = click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the runs go [default: execution.output_dir, or outputs/<name of CONFIG>].",
)
force_option = click.option(
    "--force",
    multiple=True,
    metavar="NAME",
    help="Execute this run whatever is there; several may be given; `all` means all.",
)
keep_stale_option = click.option(
    "--keep-stale",
    is_flag=True,
    help="Take results and checkpoints that an older source of this program made.",
)
