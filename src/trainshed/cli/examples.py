"""Commands whose ``--help`` ends with examples, printed as they are written."""

from collections.abc import Sequence
from typing import Any

import click


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write a section of command lines."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


class ExampleCommand(click.Command):
    """A command with examples in its help: ``@click.command(cls=ExampleCommand, examples=("trainshed …",))``.

    Parameters
    ----------
    examples
        Lines of the section.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class ExampleGroup(click.Group):
    """A group of commands with examples in its help.

    Parameters
    ----------
    examples
        Lines of the section.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)
