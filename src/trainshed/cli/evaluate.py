"""``trainshed evaluate``: score a ranking, or a trained system, and compare two of them.

Left out: the metrics and what they mean (``docs/metrics.md``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainshed.cli.examples import ExampleCommand

if TYPE_CHECKING:
    from trainshed.evaluation.scores import Scores
    from trainshed.evaluation.significance import Resampling

_FILE = click.Path(path_type=Path)
_ANSWER_METRICS = ("exact_match", "f1", "rouge_l", "answer_nll", "citation_precision", "citation_recall")


@click.command(
    "evaluate",
    cls=ExampleCommand,
    help="""Score a ranking, or a trained system, on held-out questions.

    SYSTEM is the output directory of a plan, the directory of one of its runs, or what RAGSystem.save wrote;
    so is what --against names. Without SYSTEM, --run names a ranking.
    """,
    short_help="Measure retrieval and answers of a RAG system.",
    examples=(
        "trainshed evaluate outputs/demo --data questions.jsonl",
        "trainshed evaluate outputs/after --against outputs/before --data corpus/ --split test --by-kind",
        "trainshed evaluate --run after.trec --against before.trec --qrels qrels.txt -o report.json",
        "trainshed evaluate --beir scifact --split test --run bm25.trec -m ndcg@10 -m recall@100",
    ),
)
@click.argument("system", required=False, type=_FILE)
@click.option("--run", "run_file", type=_FILE, help="TREC run: query Q0 document rank score tag.")
@click.option("--qrels", type=_FILE, help="Judgements: TREC (query 0 document grade) or a BEIR table.")
@click.option("--beir", type=_FILE, help="BEIR folder whose judgements to use.")
@click.option("--against", type=_FILE, help="Ranking, or system, to compare with question by question.")
@click.option("--data", help="Questions: a file, a directory, a hub name, or 'builtin'.")
@click.option("--split", help="Split of --beir or --data: by default test, or the whole of a single file.")
@click.option("--metric", "-m", "metrics", multiple=True, help="Metric such as ndcg@10; may be repeated.")
@click.option("--top-k", "-k", default="1,5,10", show_default=True, help="Cut-offs, separated by commas.")
@click.option("--generation/--no-generation", default=True, show_default=True, help="Score answers too.")
@click.option("--by-kind", is_flag=True, help="Add a section for each kind of question.")
@click.option("--samples", default=2000, show_default=True, help="Bootstrap samples.")
@click.option("--confidence", default=0.95, show_default=True, help="Of the intervals.")
@click.option("--seed", default=0, show_default=True, help="Of the resampling.")
@click.option("--output", "-o", type=_FILE, help="Write all numbers as JSON here.")
@click.option(
    "--style",
    type=click.Choice(["rich", "plain", "markdown"]),
    default="rich",
    show_default=True,
    help="Of the table.",
)
def command(system: Path | None, **options: Any) -> None:
    """Score what the arguments name, print a table, and write JSON when asked."""
    from trainshed.evaluation.significance import Resampling

    _check_usage(system, options)
    resampling = Resampling(
        samples=options["samples"], confidence=options["confidence"], seed=options["seed"]
    )
    if system is None:
        title, columns, shown = _score_runs(options, resampling)
    else:
        title, columns, shown = _score_systems(system, options)
    _show(title, columns, shown, options)


def _check_usage(system: Path | None, options: Mapping[str, Any]) -> None:
    judgements = [name for name in ("qrels", "beir") if options[name]]
    if system is None:
        if not options["run_file"]:
            raise click.UsageError("give the directory of a trained system, or --run with --qrels or --beir")
        if len(judgements) != 1:
            raise click.UsageError("--run needs the judgements: --qrels FILE or --beir DIR")
        if options["data"]:
            raise click.UsageError("--data belongs to a trained system, not to --run")
        return
    if options["run_file"] or judgements:
        raise click.UsageError("a trained system is scored on --data; --run, --qrels and --beir score a run")
    if not options["data"]:
        raise click.UsageError("a trained system needs the questions: --data FILE")


def _cutoffs(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not like 1,5,10", param_hint="--top-k") from None


def _score_runs(
    options: Mapping[str, Any], resampling: "Resampling"
) -> tuple[str, dict[str, list["Scores"]], list[str]]:
    from trainshed.evaluation.beir import read_any_qrels, read_beir_qrels
    from trainshed.evaluation.ranking import default_metrics, headline_metrics, metric_name
    from trainshed.evaluation.retrieval import evaluate_run
    from trainshed.evaluation.trec import read_run

    cutoffs = _cutoffs(options["top_k"])
    metrics = [metric_name(name) for name in options["metrics"]]
    source = options["beir"] or options["qrels"]
    qrels = (
        read_beir_qrels(source, split=options["split"] or "test")
        if options["beir"]
        else read_any_qrels(source)
    )
    columns: dict[str, list[Scores]] = {}
    for name, path in _named(options["against"], options["run_file"]).items():
        wanted = metrics or default_metrics(cutoffs)
        columns[name] = [evaluate_run(read_run(path), qrels, metrics=wanted, resampling=resampling)]
    return f"Retrieval on {source.name}", columns, metrics or headline_metrics(cutoffs)


def _score_systems(
    path: Path, options: Mapping[str, Any]
) -> tuple[str, dict[str, list["Scores"]], list[str]]:
    from trainshed.data.examples import load_examples
    from trainshed.evaluation.ranking import headline_metrics
    from trainshed.evaluation.system import evaluate_system, load_system

    cutoffs = _cutoffs(options["top_k"])
    split = options["split"] or (None if Path(options["data"]).is_file() else "test")
    examples = load_examples(options["data"], split=split)
    columns: dict[str, list[Scores]] = {}
    for name, directory in _named(options["against"], path).items():
        scored = evaluate_system(
            load_system(directory),
            examples,
            top_k_values=cutoffs,
            generation=options["generation"],
            bootstrap_samples=options["samples"],
            confidence=options["confidence"],
            seed=options["seed"],
        )
        columns[name] = list(scored.parts)
    there = {metric for column in columns.values() for part in column for metric in part.metrics}
    shown = list(options["metrics"]) or [
        metric for metric in (*headline_metrics(cutoffs), *_ANSWER_METRICS) if metric in there
    ]
    return f"{options['data']}, {split}" if split else str(options["data"]), columns, shown


def _named(against: Path | None, path: Path) -> dict[str, Path]:
    """Return a column name for each path, the one to compare with first; full paths where names are equal."""
    paths = [path] if against is None else [against, path]
    names = [p.stem if p.suffix else p.name for p in paths]
    if len(set(names)) < len(paths) or not all(names):
        names = [str(p) for p in paths]
    if len(set(names)) < len(paths):
        raise click.UsageError("--against names the same thing; give another one to compare with")
    return dict(zip(names, paths, strict=True))


def _show(
    title: str, columns: Mapping[str, list["Scores"]], shown: list[str], options: Mapping[str, Any]
) -> None:
    from trainshed.evaluation.report import comparison_table, scores_json
    from trainshed.evaluation.retrieval import RetrievalEvaluation
    from trainshed.files import write_json
    from trainshed.progress import say

    table = comparison_table(title, columns, shown, by_kind=options["by_kind"], style=options["style"])
    click.echo(table, nl=False)
    for name, column in columns.items():
        for part in column:
            said = ", ".join(
                f"{count} {key.removeprefix('n_').replace('_', ' ')}" for key, count in part.counts.items()
            )
            click.echo(f"{name}: {said}")
    if options["output"] is None:
        return
    report: dict[str, dict[str, Scores]] = {}
    for name, column in columns.items():
        for part in column:
            section = "retrieval" if isinstance(part, RetrievalEvaluation) else "generation"
            report.setdefault(section, {})[name] = part
    written = {section: scores_json(systems, per_example=True) for section, systems in report.items()}
    write_json(options["output"], written)
    say(f"wrote {options['output']}")
