"""The command ``trainshed``: its verbs are imported when they are called, so that ``--help`` is instant.

Left out: what the verbs do; each is a file of its own beside this one.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from trainshed import __version__
from trainshed.cli.examples import write_examples
from trainshed.errors import TrainshedError, did_you_mean
from trainshed.models.allocator import use_huge_pages
from trainshed.registry import load_attribute


@dataclass(frozen=True)
class Verb:
    """A subcommand: where it is defined, and its line in the listing."""

    target: str
    help: str
    hidden: bool = False


VERBS = {
    "run": Verb("trainshed.cli.run:command", "Execute a configuration; what is done already is skipped."),
    "train": Verb("trainshed.cli.train:command", "Train a target by its default configuration or yours."),
    "list-targets": Verb("trainshed.cli.targets:list_targets", "List what `train` can make."),
    "history": Verb("trainshed.cli.targets:history", "List what `train` has run."),
    "plan": Verb("trainshed.cli.plan:command", "Say what `run` would do, and why."),
    "status": Verb("trainshed.cli.status:command", "Show how far the runs of an output directory are."),
    "show": Verb("trainshed.cli.show:command", "Show one run: configuration, metrics, outputs, log."),
    "evaluate": Verb("trainshed.cli.evaluate:command", "Score a ranking or a trained system."),
    "export": Verb("trainshed.cli.export:command", "Write a trained model for other programs."),
    "ask": Verb("trainshed.cli.ask:command", "Answer a question with citations."),
    "data": Verb("trainshed.cli.data:command", "Look at training data, or convert it."),
    "init": Verb("trainshed.cli.init:command", "Write a commented example configuration."),
    "schema": Verb("trainshed.cli.schema:command", "Print the JSON schema of configurations."),
    "list": Verb("trainshed.cli.list:command", "List the known trainers, stores, stages or trackers."),
    "doctor": Verb("trainshed.cli.doctor:command", "Check versions, devices, memory and what is missing."),
    "execute": Verb("trainshed.cli.execute:command", "Execute one frozen run directory.", hidden=True),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported only when called.

    Parameters
    ----------
    examples
        Lines of a section of the help.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command = load_attribute(verb.target)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or name the one that was meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            shown = [name for name, verb in VERBS.items() if not verb.hidden]
            raise click.UsageError(f"no such verb: {args[0]!r}; {did_you_mean(args[0], shown)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the listing from the table, importing nothing."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items() if not verb.hidden])


@dataclass(frozen=True)
class Settings:
    """What the options before the verb say: ``ctx.obj`` of every verb."""

    debug: bool = False
    imports: tuple[str, ...] = ()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "trainshed init rag.yaml",
        "trainshed plan rag.yaml",
        "trainshed run rag.yaml training.learning_rate=1e-5",
        "trainshed status outputs/rag",
    ),
    epilog="`trainshed VERB --help` says more and gives examples.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    help="Import a module or .py file that registers plug-ins first; several may be given.",
)
@click.version_option(__version__, prog_name="trainshed")
@click.pass_context
def cli(ctx: click.Context, debug: bool, imports: tuple[str, ...]) -> None:
    """Train every part of a retrieval-augmented, aligned language-model system from one YAML."""
    ctx.obj = Settings(debug, imports)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code: 0 when all is well, 1 for failures, 2 for wrong use."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    use_huge_pages()
    try:
        code = cli.main(args=given, prog_name="trainshed", standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.Abort:
        code = 130
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # whoever reads, such as `head`, has enough; keep Python from complaining when it flushes at exit
        sys.stdout = sys.stderr
        code = 141
    except TrainshedError as error:
        if "--debug" in given:
            traceback.print_exc()
        first, *rest = str(error).split("\n")
        click.secho(f"error: {first}", fg="red", err=True)
        for line in rest:
            click.echo(line, err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
