"""The reference of configurations and commands, written into the documentation when it is built.

A hook of MkDocs (see ``mkdocs.yml``): in a page ``<!-- generated: configuration -->`` and
``<!-- generated: cli -->`` are replaced by text from the schema's docstrings and the commands' help, so that
the pages cannot be out of date. Left out: the fields of third-party argument classes, which
`trainshed schema` lists.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from trainshed.cli.main import VERBS
from trainshed.config.fields import keys_of
from trainshed.config.migrations import DROPPED, KEY_ALIASES, SECTION_ALIASES
from trainshed.config.parameters import COMPUTED_ARGUMENTS, TrainerParameters
from trainshed.config.resolved import STAGE_READS
from trainshed.config.schema import SECTIONS, StageEntry
from trainshed.registry import TRAINER_PARAMETERS, load_attribute

_TRAINING_TOP = """\
## `training`

What the algorithm of `execution.algorithm` takes: its own parameters, listed here, and the fields of
`transformers.TrainingArguments`, by their names there (`trainshed schema` lists them). Over that class's
defaults ours are {defaults}.
"""

_READ_NOTES = {
    "corpus": " (only to cut `data.documents`)",
    "train": "; of `model`, `data` and `rag` only what its algorithm reads, see there",
}


def configuration() -> str:
    """Return the reference of every section and key."""
    lines: list[str] = []
    for name, section in SECTIONS.items():
        lines += [f"## `{name}`\n", f"{section.__doc__}\n", *_table(section), ""]
    defaults = ", ".join(f"`{k}: {_value(v)}`" for k, v in TrainerParameters.argument_defaults.items())
    lines += [_TRAINING_TOP.format(defaults=defaults)]
    for name in sorted(TRAINER_PARAMETERS.rows):
        parameters = TRAINER_PARAMETERS.get(name)
        lines += [f"### `{name}`\n", f"{parameters.__doc__}\n", *_table(parameters), ""]
        lines += [f"Of the other sections it reads {_told(parameters.sections_read())}.\n"]
    lines += ["### What may not be set by hand\n", "| key | because |", "| :-- | :-- |"]
    lines += [f"| `{key}` | {why} |" for key, why in COMPUTED_ARGUMENTS.items()]
    lines += [
        "\n## `environment`\n",
        "Environment variables of the workers, `NAME: value`. All are settings.\n",
    ]
    lines += [
        "## `pipeline`\n",
        "Named stages. Besides sections of its own, laid over the shared ones, each has:\n",
    ]
    lines += [
        *_table(StageEntry),
        "",
        "What each kind of stage reads (a stage may set only that):\n",
        *_reads(),
        "",
    ]
    return "\n".join([*lines, *_names(), ""])


def _table(section: Any) -> Iterator[str]:
    yield "| key | type | default | |"
    yield "| :-- | :-- | :-- | :-- |"
    schema = section.model_json_schema()
    for key, spec in keys_of(section).items():
        field = section.model_fields[key]
        about = " ".join(spec.description.split())
        extra = field.json_schema_extra or {}
        mark = " *Setting.*" if extra.get("setting") else ""
        kind = _kind(schema["properties"][key], schema).replace("|", "\\|")
        default = _value(field.get_default()) if not _nested(field) else "see there"
        yield f"| `{key}` | {kind} | `{default}` | {about.replace('|', chr(92) + '|')}{mark} |"


def _nested(field: Any) -> bool:
    return isinstance(field.get_default(), TrainerParameters)


def _kind(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "keys of `" + schema["$ref"].rpartition("/")[2].removesuffix("Parameters").lower() + "`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(part, whole) for part in schema["anyOf"] if part.get("type") != "null")
    if schema.get("type") == "array":
        if "$ref" in schema["items"]:
            return "list of mappings"
        return f"list of {_kind(schema['items'], whole)}"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return ", ".join([names.get(schema.get("type", ""), "mapping"), *told])


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _reads() -> Iterator[str]:
    yield "| kind | reads |"
    yield "| :-- | :-- |"
    for kind, sections in STAGE_READS.items():
        yield f"| `{kind}` | {_told(sections)}{_READ_NOTES.get(kind, '')} |"


def _told(sections: Mapping[str, frozenset[str] | None]) -> str:
    """Return sections and their keys as text."""
    told = []
    for name, keys in sections.items():
        listed = "" if keys is None else ": " + ", ".join(f"`{key}`" for key in sorted(keys))
        told.append(f"**{name}**{listed}")
    return "; ".join(told)


def _names() -> Iterator[str]:
    yield "## Other names\n"
    yield "Sections and keys that other systems call otherwise, and names that the libraries dropped.\n"
    yield "| written | means |"
    yield "| :-- | :-- |"
    for old, new in SECTION_ALIASES.items():
        yield f"| section `{old}` | section `{new}` |"
    for section, keys in KEY_ALIASES.items():
        for old, new in keys.items():
            yield f"| `{section}.{old}` | `{new}` |"
    for section, dropped in DROPPED.items():
        for old, rule in dropped.items():
            told = f"`{rule.to}`, with a note" if rule.to else f"refused; instead: {rule.fix}"
            yield f"| `{section}.{old}` | {told} |"


def commands() -> str:
    """Return the help of every verb."""
    lines: list[str] = []
    for name, verb in VERBS.items():
        command = load_attribute(verb.target)
        info = click.Context(click.Group("trainshed"), info_name="trainshed")
        context = click.Context(
            command, info_name=name, parent=info, terminal_width=100, max_content_width=100
        )
        parts = list(command.commands.values()) if isinstance(command, click.Group) else []
        told = " Launchers call it; it is not listed." if verb.hidden else ""
        lines += [
            f"## `trainshed {name}`\n",
            f"{verb.help}{told}\n",
            "```text",
            command.get_help(context),
            "```\n",
        ]
        for part in parts:
            inner = click.Context(
                part, info_name=part.name, parent=context, terminal_width=100, max_content_width=100
            )
            lines += [f"### `trainshed {name} {part.name}`\n", "```text", part.get_help(inner), "```\n"]
    return "\n".join(lines)


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Put generated text in the place of its mark; MkDocs calls this for every page."""
    for name, make in {"configuration": configuration, "cli": commands}.items():
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
