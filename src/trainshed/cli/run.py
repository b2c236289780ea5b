"""``trainshed run``: plan a configuration and execute it on this machine. Left out: other machines."""

from pathlib import Path

import click

from trainshed.cli import planning
from trainshed.cli.examples import ExampleCommand
from trainshed.cli.tables import duration, table
from trainshed.errors import RunError
from trainshed.files import read_json, write_json
from trainshed.launch.contract import LaunchOptions, LaunchResult
from trainshed.launch.local import launch
from trainshed.plan.graph import Plan
from trainshed.plan.status import decide

#: reports that are printed in full
_REPORTS_SHOWN = 4


@click.command(
    "run",
    cls=ExampleCommand,
    examples=(
        "trainshed run rag.yaml",
        "trainshed run rag.yaml training.learning_rate=1e-5 --output-dir runs/try",
        "trainshed run sweep.yaml --jobs 4 --keep-going",
        "trainshed run rag.yaml --force lsr",
    ),
)
@planning.config_argument
@planning.overrides_argument
@planning.output_dir_option
@click.option("--jobs", type=click.IntRange(min=1), help="Runs that work at once [default: execution.jobs].")
@planning.force_option
@planning.keep_stale_option
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@click.option("--keep-going", is_flag=True, help="After a failure run what does not depend on it.")
@click.pass_context
def command(  # noqa: PLR0913 - click gives each option as an argument
    ctx: click.Context,
    config_path: Path,
    overrides: tuple[str, ...],
    *,
    output_dir: Path | None,
    jobs: int | None,
    force: tuple[str, ...],
    keep_stale: bool,
    dry_run: bool,
    keep_going: bool,
) -> None:
    """Execute CONFIG. Runs that are done are skipped, stopped ones go on from their last checkpoint."""
    plan = planning.plan_of(config_path, overrides, output_dir, ctx.obj.imports, create=not dry_run)
    options = LaunchOptions(
        jobs=jobs or configured_jobs(plan),
        force=planning.forced_ids(plan, force),
        keep_going=keep_going,
        keep_stale=keep_stale,
    )
    result = carry_out(plan, options, dry_run=dry_run, debug=ctx.obj.debug)
    if result is not None:
        ctx.exit(result.exit_code)


def carry_out(
    plan: Plan, options: LaunchOptions, *, dry_run: bool = False, debug: bool = False
) -> LaunchResult | None:
    """Say what will happen, let it happen, and say what did; None when it was only to be said."""
    decisions = decide(plan, force=options.force, keep_stale=options.keep_stale)
    click.echo(planning.decisions_table(plan, decisions))
    click.echo(f"\n{planning.summary(decisions)} in {plan.output_dir}")
    if dry_run:
        return None
    from trainshed.cli.execute import execute_run

    result = launch(plan, lambda path: execute_run(path, debug=debug), options)
    finish(plan, result)
    return result


def configured_jobs(plan: Plan) -> int:
    """Return what the configuration says about ``execution.jobs``."""
    return int(plan.runs[0].config["execution"]["jobs"])


def finish(plan: Plan, result: LaunchResult) -> None:
    """Print a line for each run, and the reports that the runs left."""
    worked = any(outcome.action != "skip" for outcome in result.outcomes)
    rows = [
        [
            outcome.run.name,
            "skipped" if outcome.action == "skip" else outcome.state,
            duration(outcome.seconds) if outcome.seconds else "",
            _where(plan, outcome.run.id) if outcome.state != "not run" else outcome.reason,
        ]
        for outcome in result.outcomes
    ]
    click.echo("\n" + table(["run", "state", "took", "where"], rows) if worked else "nothing to do")
    publish_reports(plan, [outcome.run.id for outcome in result.outcomes if outcome.state == "done"])
    if result.interrupted is not None:
        click.echo("stopped; run the same command again to go on", err=True)


def _where(plan: Plan, run_id: str) -> str:
    path = plan.directory(run_id).path
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def publish_reports(plan: Plan, done: list[str]) -> None:
    """Print the ``outputs/report.txt`` of the runs and gather every ``outputs/report.json`` in one.

    One report stands in ``report.json`` as it is; several stand there under ``runs``, by the ids of the runs.
    """
    texts = [path for run_id in done if (path := plan.directory(run_id).outputs / "report.txt").is_file()]
    for path in texts[:_REPORTS_SHOWN]:
        click.echo("\n" + path.read_text(encoding="utf-8").rstrip("\n"))
    if len(texts) > _REPORTS_SHOWN:
        click.echo(f"\n{len(texts) - _REPORTS_SHOWN} more reports in {plan.output_dir}/*/outputs/report.txt")
    reports = {}
    for run_id in done:
        path = plan.directory(run_id).outputs / "report.json"
        if path.is_file():
            try:
                reports[run_id] = read_json(path)
            except ValueError as error:
                raise RunError(f"a run left a damaged report: {error}", where=str(path)) from error
    if reports:
        one = len(reports) == 1
        write_json(
            plan.output_dir / "report.json", next(iter(reports.values())) if one else {"runs": reports}
        )
        click.echo(f"\nreport: {plan.output_dir / 'report.json'}")
