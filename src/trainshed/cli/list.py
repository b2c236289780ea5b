"""``trainshed list KIND``: the names that a configuration may use; what they stand for is not imported."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.plugins import absolute, import_plugins
from trainshed.cli.tables import table
from trainshed.registry import REGISTRIES, Registry


@click.command(
    "list",
    cls=ExampleCommand,
    examples=(
        "trainshed list trainers",
        "trainshed list stores",
        "trainshed --import my_trainer.py list trainers",
    ),
)
@click.argument("kind", type=click.Choice(list(REGISTRIES)))
@click.pass_context
def command(ctx: click.Context, kind: str) -> None:
    """List what is known of a KIND, with a line about each."""
    import_plugins(absolute(ctx.obj.imports))
    registry = REGISTRIES[kind]
    rows = [[name, describe(registry, name)] for name in registry.names()]
    click.echo(table([registry.kind, "what it is"], rows))
    aliases = [f"{alias} = {name}" for alias, name in sorted(registry.aliases.items())]
    if aliases:
        click.echo("\nalso: " + ", ".join(aliases))


def describe(registry: Registry, name: str) -> str:
    """Return the first sentence of what a name stands for; a built-in or installed one is not imported."""
    target = registry.rows.get(name)
    if target is None:
        return _first_line(inspect.getdoc(registry.get(name)))
    module, _, attribute = target.partition(":")
    path = _source(module)
    if path is None:
        return f"not installed: {module}"
    tree = ast.parse(path.read_bytes())
    for node in tree.body:
        documented = ast.ClassDef | ast.FunctionDef
        if isinstance(node, documented) and node.name == attribute and ast.get_docstring(node):
            return _first_line(ast.get_docstring(node))
    own = module.partition(".")[0] == "trainshed"
    return _first_line(ast.get_docstring(tree)) if own else f"{attribute} of {module}"


def _first_line(text: str | None) -> str:
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    paragraph = re.sub(r"; (see|arguments as in) `\w+`[^;]*\.$", ".", paragraph)
    return paragraph if len(paragraph) <= 100 else f"{paragraph[:97]}..."


def _source(module: str) -> Path | None:
    """Return the source file of a module; `find_spec` of a submodule would import its parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for root in spec.submodule_search_locations or ():
        path = Path(root, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
