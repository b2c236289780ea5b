"""``trainshed init``: write a commented example configuration."""

from pathlib import Path

import click

from trainshed.cli.examples import ExampleCommand


@click.command(
    "init", cls=ExampleCommand, examples=("trainshed init", "trainshed init lsr.yaml --template lsr")
)
@click.argument("path", default="trainshed.yaml", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--template",
    default="rag",
    show_default=True,
    help="What it is about: rag, lsr, ralt or pretrain.",
)
@click.option("--force", is_flag=True, help="Replace the file when it exists.")
def command(path: Path, template: str, force: bool) -> None:
    """Write a commented example configuration to PATH [default: trainshed.yaml]."""
    from trainshed.config.example import example
    from trainshed.errors import ConfigError
    from trainshed.files import write_atomic

    text = example(template)
    if path.exists() and not force:
        raise ConfigError("the file exists", where=str(path), fix="another PATH, or --force to replace it")
    write_atomic(path, text)
    click.echo(f"wrote {path}; `trainshed plan {path}` says what it would do")
