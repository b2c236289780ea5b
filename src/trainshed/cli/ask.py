"""``trainshed ask``: one question to a trained RAG system. Left out: a server (`serving`)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainshed.cli.examples import ExampleCommand

if TYPE_CHECKING:
    from trainshed.rag.answers import RAGResponse

_QUOTE_CHARACTERS = 160


@click.command(
    "ask",
    cls=ExampleCommand,
    examples=(
        'trainshed ask outputs/demo "Which function concerns recursive, directories, glob?"',
        'trainshed ask outputs/demo "What is the default of indent in json.dumps?" --json',
    ),
)
@click.argument("system", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--top-k", type=click.IntRange(min=1), help="Passages to read instead of the system's own.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer and its citations as JSON.")
def command(system: Path, question: str, top_k: int | None, device: str, as_json: bool) -> None:
    """Answer QUESTION with the RAG system in SYSTEM, citing the passages that the answer rests on.

    SYSTEM is the output directory of a plan, the directory of one of its runs, or what RAGSystem.save wrote.
    """
    from dataclasses import replace

    from trainshed.rag.locating import find_system

    place = find_system(system)
    # heavy: only once there is a system
    from trainshed.rag.system import RAGSystem

    loaded = RAGSystem.load(place, device=device)
    if top_k is not None:
        loaded.rag_config = replace(loaded.rag_config, top_k=top_k)
    if as_json:
        click.echo(json.dumps(loaded.query(question).to_json(), indent=2, ensure_ascii=False))
        return
    stream = loaded.stream(question)
    for piece in stream:
        click.echo(piece, nl=False)
    click.echo()
    _show_citations(stream.response)


def _show_citations(response: "RAGResponse") -> None:
    for citation in response.citations:
        passage = citation.passage
        start, end = citation.document_span
        click.secho(
            f"\n[{citation.number}] {passage.title or passage.id}"
            f"  ({passage.source or passage.doc_id}, characters {start}–{end},"
            f" score {citation.score:.3f}, share of the answer {citation.share:.0%})",
            bold=True,
        )
        text = " ".join(passage.text.split())
        click.echo("    " + (text[:_QUOTE_CHARACTERS] + "…" if len(text) > _QUOTE_CHARACTERS else text))
