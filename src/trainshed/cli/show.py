"""``trainshed show RUN``: everything about one run, from its directory alone."""

from pathlib import Path
from typing import Any

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.tables import duration, elapsed, number, size, sparkline, table
from trainshed.config.schema import SECTIONS
from trainshed.errors import RunError, did_you_mean
from trainshed.plan.directory import RunDirectory
from trainshed.plan.metrics import read_metrics, series
from trainshed.plan.status import differences
from trainshed.registry import TRAINER_PARAMETERS


@click.command(
    "show",
    cls=ExampleCommand,
    examples=(
        "trainshed show outputs/rag/lsr-1a2b3c4d",
        "trainshed show outputs/rag/lsr-1a2b3c4d --metric train/loss",
    ),
)
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--metric", metavar="NAME", help="Print every value of this metric.")
@click.option("--lines", default=10, show_default=True, help="Lines of the log to show.")
def command(run_dir: Path, metric: str | None, lines: int) -> None:
    """Show the run in the directory RUN: what its configuration sets, its metrics, outputs and log."""
    directory = RunDirectory(run_dir.resolve())
    rows = read_metrics(directory.metrics_path)
    if metric is not None:
        click.echo(_values(rows, metric, directory))
        return
    parts = [
        _headline(directory),
        _configuration(directory.config()),
        _metrics(directory, rows),
        _outputs(directory),
        _log(directory, lines),
    ]
    click.echo("\n\n".join(part for part in parts if part))


def _headline(directory: RunDirectory) -> str:
    entry, status, state = directory.entry(), directory.status(), directory.state()
    step = f", step {status.step}" + (f"/{status.total}" if status.total else "") if status.step else ""
    seconds = elapsed(status.started, status.ended)
    took = f", {duration(seconds)}" if seconds is not None and (status.ended or state == "running") else ""
    lines = [f"{entry['id']} ({entry['stage']}): {state}{step}{took}"]
    if status.started:
        ended = f", ended {status.ended}" if status.ended else ""
        lines.append(f"started {status.started}{ended}, process {status.pid} on {status.host}")
    lines.append(f"key {entry['key']}")
    if entry["needs"]:
        lines.append("needs " + ", ".join(entry["needs"].values()))
    if status.error and state == "failed":
        lines += [f"error: {status.error['what']}"]
        lines += [f"  {name}: {status.error[name]}" for name in ("where", "fix") if status.error.get(name)]
    return "\n".join(lines)


def defaults_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration of this algorithm would be if nothing had been set."""
    defaults: dict[str, Any] = {name: section().model_dump(mode="json") for name, section in SECTIONS.items()}
    training = config.get("training")
    if training:
        parameters = TRAINER_PARAMETERS.get(training["algorithm"])
        own = {
            name: field.get_default(call_default_factory=True)
            for name, field in parameters.model_fields.items()
            if not field.is_required()
        }
        defaults["training"] = {"algorithm": training["algorithm"], "own": own, "arguments": {}}
    return defaults


def _configuration(config: dict[str, Any]) -> str:
    defaults = defaults_of(config)
    given = {
        name: config[name] for name in (*SECTIONS, "training", "environment") if config[name] is not None
    }
    rows = [
        [name, new, old] for name, old, new in differences({"environment": {}, **defaults}, given) if name
    ]
    return table(["config", "value", "default"], rows) if rows else "config: all defaults"


def _metrics(directory: RunDirectory, rows: list[dict[str, Any]]) -> str:
    lines = []
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "time")))
    cells = []
    for name in names:
        values = [value for _, value in series(rows, name)]
        finite = [value for value in values if value == value]
        ends = [values[0], values[-1], min(finite, default=values[0]), max(finite, default=values[0])]
        cells.append([name, *(number(value) for value in ends), sparkline(values, 40)])
    if cells:
        lines.append(table(["metric", "first", "last", "lowest", "highest", "over time"], cells))
    final = directory.status().metrics
    if final:
        lines.append(table(["final", "value"], [[name, number(value)] for name, value in final.items()]))
    return "\n\n".join(lines)


def _values(rows: list[dict[str, Any]], name: str, directory: RunDirectory) -> str:
    pairs = series(rows, name)
    if not pairs:
        known = {key for row in rows for key in row} - {"step", "time"}
        raise RunError(
            f"this run has no metric {name!r}",
            where=str(directory.metrics_path),
            fix=did_you_mean(name, known),
        )
    body = table(["step", name], [[str(step), number(value)] for step, value in pairs])
    return f"{body}\n\n{sparkline([value for _, value in pairs])}"


def _outputs(directory: RunDirectory) -> str:
    outputs = directory.status().outputs
    rows = [[name, size(row["size"]), row["digest"][:12]] for name, row in outputs.items()]
    damage = directory.damage()
    told = [f"damaged: {damage}"] if damage else []
    return "\n".join([table(["output", "size", "digest"], rows), *told]) if rows else ""


def _log(directory: RunDirectory, lines: int) -> str:
    if not directory.log_path.exists() or lines <= 0:
        return ""
    with directory.log_path.open("rb") as file:
        # the end of the file is enough, however long it is
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 400 * lines))
        text = file.read().decode("utf-8", "replace")
    last = text.rstrip("\n").split("\n")[-lines:]
    return "\n".join([f"last lines of {directory.log_path}:", *last])
