"""``trainshed schema``: the JSON schema of configurations, for editors."""

from pathlib import Path

import click

from trainshed.cli.examples import ExampleCommand


@click.command(
    "schema",
    cls=ExampleCommand,
    examples=("trainshed schema -o trainshed.schema.json", "trainshed schema --algorithm lsr"),
)
@click.option("--algorithm", metavar="NAME", help="Only the keys of `training` that this trainer takes.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file instead of printing it.",
)
def command(algorithm: str | None, output: Path | None) -> None:
    """Print the JSON schema that `trainshed` checks configurations against.

    An editor that knows YAML completes keys and shows their descriptions when the file begins with
    `# yaml-language-server: $schema=PATH`.
    """
    from trainshed.config.json_schema import schema_text
    from trainshed.files import write_atomic

    text = schema_text(algorithm)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text)
        click.echo(f"wrote {output}")
