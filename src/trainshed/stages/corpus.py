"""The stage that prepares a corpus: passages to retrieve and questions in splits.

``outputs/`` then holds ``passages.jsonl``, ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and
``manifest.json``, as `data.corpus.write_corpus` writes them, and ``pretraining/`` with text for a generator.
Without a dataset or documents of one's own it is the built-in corpus. Left out: embedding the passages (stage
``index``).
"""

from pathlib import Path
from typing import Any

from trainshed.data.assembling import Sources, assemble_corpus
from trainshed.data.builtin import build_corpus
from trainshed.data.corpus import Corpus, read_corpus, write_corpus
from trainshed.data.examples import PASSAGES_FILE, is_corpus
from trainshed.data.exercises import pretraining_rows
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import ConfigError
from trainshed.models.encoders import load_encoder
from trainshed.progress import say
from trainshed.stages.context import StageContext, StageResult

_PRETRAINING_HELD_OUT = 50


def run(context: StageContext) -> StageResult:
    """Make the corpus that ``data`` describes and write it into ``outputs/``.

    Returns
    -------
    StageResult
        ``corpus/passages`` and, for each split, ``corpus/<split>_questions``.
    """
    corpus = _make(context)
    write_corpus(corpus, context.directory.outputs)
    _write_pretraining(corpus, context)
    metrics = {"corpus/passages": float(len(corpus.passages))}
    metrics |= {f"corpus/{name}_questions": float(len(rows)) for name, rows in corpus.splits.items()}
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in corpus.splits.items())
    say(
        f"corpus: {len(corpus.passages)} passages"
        + (f", questions: {counts}" if counts else ", no questions")
    )
    return StageResult(metrics=metrics)


def _write_pretraining(corpus: Corpus, context: StageContext) -> None:
    """Write text to pre-train a small generator on, made of passages alone; one in fifty is held out."""
    data = context.config.data
    held = (data.validation_split, data.test_split)
    asked = {example.passage_id or "" for name in held for example in corpus.splits.get(name, [])}
    rows = pretraining_rows(corpus.passages, without=asked, seed=context.config.execution.seed)
    held_out = len(rows) // _PRETRAINING_HELD_OUT
    place = context.directory.outputs / "pretraining"
    write_jsonl(place / "train.jsonl", rows[held_out:])
    if held_out:
        write_jsonl(place / "validation.jsonl", rows[:held_out])


def _make(context: StageContext) -> Corpus:
    data, seed = context.config.data, context.config.execution.seed
    builtin = data.dataset_name == "builtin"
    if builtin and data.documents:
        raise ConfigError(
            "the built-in questions are about the built-in passages, not about your documents",
            where="data.dataset_name, data.documents",
            fix="leave one of them out, or set data.dataset_name to questions about the documents",
        )
    if builtin or not (data.dataset_name or data.documents):
        say("building the built-in corpus from this Python installation")
        return build_corpus(max_passages=data.max_passages, seed=seed)
    documents = Path(data.documents).expanduser() if data.documents else None
    if documents is None and is_corpus(Path(str(data.dataset_name))):
        directory = Path(str(data.dataset_name))
        read_corpus(directory)  # raises when it is damaged
        documents = directory / PASSAGES_FILE
    sources = Sources(
        documents=documents,
        dataset=data.dataset_name,
        dataset_config=data.dataset_config,
        columns=data.columns,
        split_names={
            "train": data.train_split,
            "validation": data.validation_split,
            "test": data.test_split,
        },
        chunk_tokens=data.chunk_tokens,
        chunk_overlap=data.chunk_overlap,
    )

    def tokenizer() -> Any:
        return load_encoder(context.config.rag.retriever).tokenizer

    return assemble_corpus(sources, tokenizer=tokenizer, max_passages=data.max_passages, seed=seed)
