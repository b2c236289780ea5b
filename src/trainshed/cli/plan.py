"""``trainshed plan``: what would run, and why. Left out: running it."""

import json
from pathlib import Path

import click

from trainshed.cli import planning
from trainshed.cli.examples import ExampleCommand
from trainshed.plan.graph import Plan, mermaid
from trainshed.plan.status import Decision, decide


@click.command(
    "plan",
    cls=ExampleCommand,
    examples=(
        "trainshed plan rag.yaml",
        "trainshed plan rag.yaml 'training.learning_rate=[1e-5, 3e-5]'",
        "trainshed plan rag.yaml --graph > plan.mmd",
    ),
)
@planning.config_argument
@planning.overrides_argument
@planning.output_dir_option
@planning.force_option
@planning.keep_stale_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--graph", is_flag=True, help="Print the graph as Mermaid text.")
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path,
    overrides: tuple[str, ...],
    *,
    output_dir: Path | None,
    force: tuple[str, ...],
    keep_stale: bool,
    as_json: bool,
    graph: bool,
) -> None:
    """Say what `trainshed run` would do with CONFIG, and why; nothing is executed.

    A run will `run` when it has no result yet, `rerun` when it has one that holds no longer, `resume` when it
    goes on from a checkpoint, `skip` when it is done; `running` means that another process is at it.
    """
    plan = planning.plan_of(config_path, overrides, output_dir, ctx.obj.imports)
    decisions = decide(plan, force=planning.forced_ids(plan, force), keep_stale=keep_stale)
    if as_json:
        click.echo(json.dumps(_as_json(plan, decisions), indent=2, ensure_ascii=False))
    elif graph:
        click.echo(mermaid(plan, {d.run.id: f"{d.action}: {d.reason}" for d in decisions}), nl=False)
    else:
        click.echo(planning.decisions_table(plan, decisions))
        click.echo(f"\n{planning.summary(decisions)} in {plan.output_dir}")


def _as_json(plan: Plan, decisions: list[Decision]) -> dict[str, object]:
    rows = [
        {**decision.run.entry(), "will": decision.action, "why": decision.reason} for decision in decisions
    ]
    return {"output_dir": str(plan.output_dir), "versions": dict(plan.versions), "runs": rows}
