"""``trainshed export``: a trained model as a directory for other programs. Left out: other layouts."""

from pathlib import Path

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.errors import ConfigError


@click.command(
    "export",
    cls=ExampleCommand,
    examples=(
        "trainshed export checkpoints/dpo/best_model my-model",
        "trainshed export outputs/sft/sft-1a2b3c4d my-model --dtype bfloat16",
    ),
)
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("destination", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number type of the weights [default: as they were trained].",
)
@click.option("--keep-adapters", is_flag=True, help="Copy adapters instead of merging them into their base.")
@click.option("--force", is_flag=True, help="Replace the directory when it exists.")
def command(source: Path, destination: Path, *, dtype: str | None, keep_adapters: bool, force: bool) -> None:
    """Write the model in SOURCE, a run or what it left, to DESTINATION, with adapters merged."""
    if destination.exists() and not force:
        raise ConfigError(
            "the directory exists", where=str(destination), fix="another one, or --force to replace it"
        )
    place = source / "outputs" if (source / "run.json").is_file() else source
    # heavy: only once the places are right
    from trainshed.models.exporting import export_model

    done = export_model(place.resolve(), destination, dtype=dtype, merge=not keep_adapters)
    how = "adapters merged" if done.merged else "copied" if done.deviation is None else "converted"
    off = "" if done.deviation is None else f"; outputs differ by {done.deviation:.1g} standard deviations"
    click.echo(f"{place} -> {destination}: {how}{off}")
