"""``trainshed data``: look at training data as a model will see it, and convert datasets.

Left out: formats and findings (`trainshed.data`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainshed.cli.examples import ExampleCommand, ExampleGroup
from trainshed.config.formats import FORMATS, accepted_formats
from trainshed.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig
    from trainshed.config.schema import DataSection
    from trainshed.data.report import DataReport

_CONFIGURATIONS = (".yaml", ".yml")
_FRACTION = click.FloatRange(0, 1, max_open=True)


@click.group(
    "data",
    cls=ExampleGroup,
    examples=(
        "trainshed data inspect dpo.yaml",
        "trainshed data inspect pairs.jsonl --algorithm kto --tokenizer models/base",
        "trainshed data convert pairs.jsonl data/unpaired --to unpaired --validation-fraction 0.1",
    ),
)
def command() -> None:
    """Look at training data as a model will see it, or convert datasets between formats."""


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        ours, sign, theirs = value.partition("=")
        if not (ours and sign and theirs):
            raise click.BadParameter(f"{value!r} is not like prompt=question", ctx, parameter)
        pairs[ours] = theirs
    return pairs


_columns = click.option(
    "--columns",
    multiple=True,
    metavar="OURS=THEIRS",
    callback=_pairs,
    help="Name of a column, ours to theirs; several may be given.",
)


@command.command(
    "inspect",
    cls=ExampleCommand,
    help="""Show what a model will see of its training data, and what is wrong with it.

    SOURCE is a configuration (.yaml), of which the first training run is inspected, or a dataset: a file, a
    directory, a hub name or `builtin`. Without a tokenizer only what can be told from text is. The exit code
    is 1 when something is certainly wrong.
    """,
    examples=(
        "trainshed data inspect dpo.yaml",
        "trainshed data inspect dpo.yaml --run dpo.3 --rows 10",
        "trainshed data inspect pairs.jsonl --algorithm kto --tokenizer models/base",
        "trainshed data inspect chats.jsonl --columns messages=conversation --json",
    ),
)
@click.argument("source")
@click.option("--tokenizer", help="Directory or hub name [default: that of the configuration's model].")
@click.option("--algorithm", help="What the data is for, such as dpo [default: the configuration's].")
@click.option("--run", "run_name", help="Which run of a configuration to inspect.")
@click.option("--max-length", type=click.IntRange(min=1), help="Most tokens of a prompt with its answer.")
@click.option("--rows", default=3, show_default=True, help="Rows of each split to show.")
@_columns
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def inspect(ctx: click.Context, /, source: str, **options: Any) -> None:
    """Inspect a configuration's data or a dataset."""
    report, tolerate = _inspected(source, options, ctx.obj.imports if ctx.obj else ())
    if options["as_json"]:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    if report.certain(tolerate):
        ctx.exit(1)


def _inspected(
    source: str, options: Mapping[str, Any], imports: tuple[str, ...]
) -> tuple["DataReport", list[str]]:
    """Return the report on a source, and the findings that its configuration tolerates."""
    from trainshed.config.schema import DataSection

    values: dict[str, Any] = {}
    algorithm, tokenizer, seed = options["algorithm"], options["tokenizer"], 0
    if source.endswith(_CONFIGURATIONS):
        if options["columns"]:
            raise click.UsageError("--columns is for a dataset; a configuration has data.columns")
        run = _training_run(Path(source), options["run_name"], imports)
        section, seed = run.data, run.execution.seed
        algorithm = algorithm or run.execution.algorithm
        tokenizer = tokenizer or run.model.tokenizer_name_or_path or run.model.model_name_or_path
        if run.training is not None:
            values = {**run.training.own.model_dump(), **run.training.arguments}
        _refuse_references(section, tokenizer)
    else:
        if options["run_name"]:
            raise click.UsageError("--run is for a configuration")
        section = DataSection(dataset_name=source, columns=options["columns"])
    if options["max_length"]:
        values = {**values, "max_length": options["max_length"], "block_size": options["max_length"]}
    accepts = accepted_formats(algorithm) if algorithm else ()
    # heavy: only once it is clear what to do
    from trainshed.data.encoding import treatment_of
    from trainshed.data.inspection import inspect_rows
    from trainshed.data.loading import load_rows

    batch_size = int(values.get("per_device_train_batch_size") or 8)
    loaded = load_rows(
        section, accepts=accepts, seed=seed, batch_size=batch_size, splits=("train", "validation", "test")
    )
    words = None
    if tokenizer:
        from trainshed.models.causal_lm import load_tokenizer

        words = load_tokenizer(tokenizer)
    treatment = treatment_of(algorithm, values, loaded.format)
    return inspect_rows(loaded, words, treatment, shown=options["rows"]), section.tolerate


def _training_run(path: Path, name: str | None, imports: tuple[str, ...]) -> "RunConfig":
    """Return the run that is named, or the first one that trains on such data."""
    from trainshed.cli.plugins import import_plugins
    from trainshed.config.formats import ACCEPTS
    from trainshed.config.load import load_config
    from trainshed.config.sweep import expand

    import_plugins(imports)
    runs = {run.name: run.config for run in expand(load_config(path)) if run.stage == "train"}
    if name is not None:
        if name not in runs:
            raise ConfigError(
                f"there is no training run {name!r}", where=str(path), fix=did_you_mean(name, runs)
            )
        return runs[name]
    fitting = [run for run in runs.values() if run.execution.algorithm in ACCEPTS]
    if not fitting:
        raise ConfigError(
            "no run of the configuration trains a language model on rows of data",
            where=str(path),
            fix=f"--run and --algorithm say which and what for; its runs: {', '.join(runs) or 'none'}",
        )
    return fitting[0]


def _refuse_references(section: "DataSection", tokenizer: str | None) -> None:
    named = [section.dataset_name, *(entry.dataset_name for entry in section.mixture), tokenizer]
    for name in named:
        if name is not None and name.startswith("${"):
            raise ConfigError(
                f"{name} is made by another stage",
                where="data.dataset_name, model",
                fix="run that stage, then inspect the directory of its outputs: trainshed data inspect "
                "DIRECTORY --algorithm … --tokenizer …",
            )


def _print(report: "DataReport") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(report.to_rich(), soft_wrap=True)
    else:
        click.echo(report.to_text())


@command.command(
    "convert",
    cls=ExampleCommand,
    help="""Convert a dataset to another format, and divide it into splits.

    INPUT is a file (.json, .jsonl, .parquet), a directory of them or of `datasets`, or a hub name. The files
    of a directory are read as one table unless all of them are called like splits. OUTPUT is a .jsonl file,
    or a directory with a file a split; nothing is overwritten. Every row is checked.
    """,
    examples=(
        "trainshed data convert alpaca.json chats.jsonl --to messages",
        "trainshed data convert raw/ data/pairs --validation-fraction 0.1 --test-fraction 0.1",
        "trainshed data convert pairs.jsonl data/kto --to unpaired --columns prompt=question",
        "trainshed data convert data/pairs nemo/ --nemo",
    ),
)
@click.argument("source", metavar="INPUT")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Choice(FORMATS), help="Format to make [default: as it is].")
@click.option("--validation-fraction", type=_FRACTION, default=0.0, show_default=True, help="Share to watch.")
@click.option("--test-fraction", type=_FRACTION, default=0.0, show_default=True, help="Share to hold out.")
@click.option("--seed", default=42, show_default=True, help="Of the division and of the order.")
@click.option("--batch-size", type=click.IntRange(min=2), default=8, show_default=True, help="For unpaired.")
@_columns
@click.option("--datasets", "as_datasets", is_flag=True, help="Write for datasets.load_from_disk.")
@click.option("--nemo", is_flag=True, help="Write rows as NeMo-RL reads them.")
def convert(source: str, output: Path, **options: Any) -> None:
    """Convert a dataset."""
    from trainshed.data.exporting import convert_dataset, nemo_row, nemo_target, write_dataset
    from trainshed.progress import say

    if options["nemo"] and (options["target"] or options["as_datasets"]):
        raise click.UsageError("--nemo says which format to write; leave out --to and --datasets")
    fractions = {"validation": options["validation_fraction"], "test": options["test_fraction"]}
    if sum(fractions.values()) >= 1:
        raise click.UsageError("the fractions leave nothing to train on")
    asked = {
        "columns": options["columns"],
        "fractions": fractions,
        "seed": options["seed"],
        "batch_size": options["batch_size"],
    }
    made = convert_dataset(source, target=options["target"], **asked)
    splits = made.splits
    if options["nemo"]:
        target = nemo_target(made.format.name)
        made = made if target == made.format.name else convert_dataset(source, target=target, **asked)
        splits = {name: [nemo_row(row, made.format) for row in rows] for name, rows in made.splits.items()}
    written = write_dataset(splits, output, as_datasets=options["as_datasets"])
    for note in made.notes:
        say(note)
    for name, rows in splits.items():
        say(f"{name}: {len(rows)} rows")
    for path in written:
        click.echo(str(path))
