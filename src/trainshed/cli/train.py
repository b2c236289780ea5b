"""``trainshed train``: one command over all targets, each with a default configuration.

A finished target is skipped and a stopped one goes on from its last checkpoint, as with `run`. Left out: what
the targets are (`config.targets`), and where their results lie (`plan.publishing`).
"""

from pathlib import Path

import click

from trainshed.cli import planning
from trainshed.cli.examples import ExampleCommand
from trainshed.cli.plugins import absolute, import_plugins
from trainshed.cli.run import carry_out, configured_jobs
from trainshed.config.targets import Target, get_target, load_target
from trainshed.errors import CheckpointError
from trainshed.launch.contract import LaunchOptions
from trainshed.plan.graph import Plan
from trainshed.plan.publishing import Place, publish_log, publish_outputs
from trainshed.plan.status import decide


@click.command(
    "train",
    cls=ExampleCommand,
    examples=(
        "trainshed train --target mamba",
        "trainshed train --target transformer --config my_config.yaml --device cuda",
        "trainshed train --target dpo training.learning_rate=1e-6",
        "trainshed train --target rag --evaluate",
        "trainshed train --target rl --resume",
    ),
)
@click.option("--target", "name", required=True, help="What to train, as `trainshed list-targets` shows it.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What differs from the target's default, or a whole configuration.",
)
@planning.overrides_argument
@click.option("--device", help="Where tensors live: auto, cpu, cuda, cuda:1, mps.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint; an error when there is none.")
@click.option("--evaluate", is_flag=True, help="Also measure what was made, for targets that have a measure.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where checkpoints/ and logs/ are made [default: here].",
)
@click.option("--force", is_flag=True, help="Train anew whatever is there.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@click.pass_context
def command(  # noqa: PLR0913 - click gives each option as an argument
    ctx: click.Context,
    name: str,
    config_path: Path | None,
    overrides: tuple[str, ...],
    *,
    device: str | None,
    resume: bool,
    evaluate: bool,
    output_dir: Path,
    force: bool,
    dry_run: bool,
) -> None:
    """Train a target; its results are found in checkpoints/TARGET, its log in logs/TARGET."""
    imports = absolute(ctx.obj.imports)
    plugin_files = import_plugins(imports)
    target = get_target(name)
    if target.parts and config_path is not None:
        raise click.UsageError(
            f"{target.name} has a configuration for each of its parts; give them one by one"
        )
    if device is not None:
        overrides = (*overrides, f"execution.device={device}")
    # every part is checked before the first one runs
    parts = [get_target(part) for part in target.parts] or [target]
    plans = []
    for part in parts:
        wanted = evaluate and (not target.parts or part.evaluation is not None)
        config = load_target(part, config_path, overrides, evaluate=wanted)
        place = Place(output_dir.resolve(), part.place)
        plan = planning.plan_for(config, place.runs, imports, plugin_files=plugin_files, create=not dry_run)
        plans.append((part, place, plan))
    for part, place, plan in plans:
        if len(plans) > 1:
            click.echo(f"\n== {part.name}")
        code = _train(ctx, part, place, plan, resume=resume, force=force, dry_run=dry_run)
        if code:
            ctx.exit(code)


def _train(
    ctx: click.Context,
    target: Target,
    place: Place,
    plan: Plan,
    *,
    resume: bool,
    force: bool,
    dry_run: bool,
) -> int:
    """Carry out one target's plan, link what it made, and return the exit code."""
    if resume and not any(decision.action in ("resume", "skip") for decision in decide(plan)):
        raise CheckpointError(
            f"there is no checkpoint of {target.name} with this configuration to go on from",
            where=str(place.runs),
            fix="leave --resume out; a stopped training goes on by itself",
        )
    forced = frozenset(run.id for run in plan.runs) if force else frozenset()
    if not dry_run:
        publish_log(place, plan, target.links)
    options = LaunchOptions(jobs=configured_jobs(plan), force=forced)
    result = carry_out(plan, options, dry_run=dry_run, debug=ctx.obj.debug)
    if result is None or result.exit_code:
        return 0 if result is None else result.exit_code
    made = publish_outputs(place, plan, target.links)
    shown = [path.relative_to(place.root) for path in [*made, place.log]]
    click.echo(f"\n{target.name}: " + ", ".join(str(path) for path in shown))
    return 0
