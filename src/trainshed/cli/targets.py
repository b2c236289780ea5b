"""``trainshed list-targets`` and ``trainshed history``: what `train` can make, and what it has made."""

import json
from pathlib import Path
from typing import Any

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.list import describe
from trainshed.cli.plugins import absolute, import_plugins
from trainshed.cli.tables import duration, elapsed, number, table
from trainshed.config.targets import default_path, get_target, target_names
from trainshed.plan.directory import RunDirectory
from trainshed.plan.publishing import past_runs
from trainshed.registry import TRAINERS

_METRICS_SHOWN = 3


@click.command("list-targets", cls=ExampleCommand, examples=("trainshed list-targets",))
@click.pass_context
def list_targets(ctx: click.Context) -> None:
    """List what `trainshed train --target` can make, with the default configuration of each."""
    import_plugins(absolute(ctx.obj.imports))
    rows = []
    for name in target_names():
        target = get_target(name)
        path = None if target.parts else default_path(target)
        default = "its parts'" if target.parts else "none: give --config" if path is None else f"{path.name}"
        rows.append([name, target.about or describe(TRAINERS, name), default])
    click.echo(table(["target", "what it is", "default"], rows))
    example = default_path(get_target("rag"))
    if example is not None:
        click.echo(f"\ndefaults lie in {example.parent}")


@click.command(
    "history",
    cls=ExampleCommand,
    examples=("trainshed history", "trainshed history --output-dir work --json"),
)
@click.option(
    "--output-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where checkpoints/ is [default: here].",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def history(output_dir: Path, as_json: bool) -> None:
    """List what `trainshed train` has run, the latest last."""
    rows = [_row(place, directory) for place, directory in past_runs(output_dir)]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        click.echo(table(["started", "target", "run", "state", "took", "metrics"], [_cells(r) for r in rows]))
    else:
        click.echo(f"nothing was trained in {output_dir.resolve()}; `trainshed train --target …` does it")


def _row(place: str, directory: RunDirectory) -> dict[str, Any]:
    status, state = directory.status(), directory.state()
    return {
        "target": place,
        "run": directory.path.name,
        "stage": status.stage,
        "state": state,
        "started": status.started,
        "elapsed_s": elapsed(status.started, status.ended) if status.ended or state == "running" else None,
        "metrics": status.metrics,
        "error": (status.error or {}).get("what") if state == "failed" else None,
        "directory": str(directory.path),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    metrics = [f"{name} {number(value)}" for name, value in row["metrics"].items()][:_METRICS_SHOWN]
    spent = "" if row["elapsed_s"] is None else duration(row["elapsed_s"])
    more = row["error"] or ", ".join(metrics)
    return [row["started"] or "", row["target"], row["run"], row["state"], spent, more]
