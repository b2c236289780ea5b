"""``trainshed status``: how far the runs of an output directory are. Left out: one run in detail (`show`)."""

import json
from pathlib import Path
from typing import Any

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.tables import duration, elapsed, number, table
from trainshed.errors import RunError
from trainshed.plan.directory import RunStatus
from trainshed.plan.graph import Plan, Run, read_plan
from trainshed.plan.metrics import read_metrics

_METRICS_SHOWN = 3


@click.command(
    "status",
    cls=ExampleCommand,
    examples=(
        "trainshed status outputs/rag",
        "trainshed status outputs/rag --json",
    ),
)
@click.argument("output_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(output_dir: Path, as_json: bool) -> None:
    """Show the state of every run that was launched into OUTPUT_DIR: progress, time, last metrics, errors."""
    plan = read_plan(output_dir.resolve())
    rows = [describe(plan, run) for run in plan.runs]
    if as_json:
        click.echo(
            json.dumps({"output_dir": str(plan.output_dir), "runs": rows}, indent=2, ensure_ascii=False)
        )
        return
    click.echo(table(["run", "state", "step", "elapsed", "metrics"], [_cells(row) for row in rows]))
    for row in rows:
        error = row["error"]
        if error and row["state"] == "failed":
            click.secho(f"\n{row['id']}: {error['what']}", fg="red")
            for name in ("where", "fix"):
                if error.get(name):
                    click.echo(f"  {name}: {error[name]}")


def describe(plan: Plan, run: Run) -> dict[str, Any]:
    """Return what is known about a run now, as JSON."""
    directory = plan.directory(run.id)
    try:
        status, state = directory.status(), directory.state()
    except RunError as error:
        status = RunStatus(
            error={"type": "RunError", "what": error.what, "where": error.where, "fix": error.fix}
        )
        state = "failed"
    if status.key not in ("", run.key):
        status, state = RunStatus(), "pending"
    rows = read_metrics(directory.metrics_path)
    last = {name: value for name, value in (rows[-1] if rows else {}).items() if name not in ("step", "time")}
    return {
        "id": run.id,
        "name": run.name,
        "stage": run.stage,
        "state": state,
        "step": status.step,
        "total": status.total,
        "started": status.started,
        "ended": status.ended,
        "elapsed_s": elapsed(status.started, status.ended)
        if state != "interrupted" or status.ended
        else None,
        "metrics": status.metrics
        or {name: None if value != value else value for name, value in last.items()},
        "error": status.error,
        "directory": str(directory.path),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    step = "" if row["step"] is None else str(row["step"])
    if step and row["total"]:
        step += f"/{row['total']}"
    metrics = [
        f"{name} {'nan' if value is None else number(value)}" for name, value in row["metrics"].items()
    ]
    more = f" (+{len(metrics) - _METRICS_SHOWN})" if len(metrics) > _METRICS_SHOWN else ""
    spent = "" if row["elapsed_s"] is None else duration(row["elapsed_s"])
    return [row["id"], row["state"], step, spent, ", ".join(metrics[:_METRICS_SHOWN]) + more]
