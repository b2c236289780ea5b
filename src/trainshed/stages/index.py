"""The stage that builds a knowledge store: it embeds passages with the retriever's passage encoder.

``outputs/`` then holds ``knowledge_store/`` and ``retriever/``, which belong together. A killed build goes on
with the passages that are not embedded yet. Left out: cutting documents into passages (stage ``corpus``).
"""

import shutil

from trainshed.progress import say
from trainshed.rag.retriever import Retriever
from trainshed.stages.context import StageContext, StageResult
from trainshed.trainers.rag_data import build_named_store, read_knowledge


def run(context: StageContext) -> StageResult:
    """Build the store that ``rag`` describes over the passages that ``data`` names.

    Returns
    -------
    StageResult
        ``index/passages``, ``index/dimension``, ``index/truncated`` (passages longer than the encoder reads)
        and, for an approximate index, ``index/recall`` against exact search.
    """
    rag = context.config.rag
    passages = read_knowledge(context.config.data, seed=context.config.execution.seed)
    retriever = Retriever.from_names(rag.retriever, rag.query_encoder, device=context.config.execution.device)
    truncated = retriever.passage_encoder.truncated([passage.text for passage in passages])
    if truncated:
        limit = retriever.passage_encoder.max_length
        say(f"index: {truncated} of {len(passages)} passages are longer than {limit} tokens and are cut")
    place = context.directory.checkpoints / "knowledge_store"
    store = build_named_store(rag, passages, retriever, directory=place)
    store.save(context.directory.outputs / "knowledge_store")
    retriever.save(context.directory.outputs / "retriever")
    shutil.rmtree(place)
    manifest = store.manifest
    say(f"index: {len(store)} passages, {manifest.index_type}, {manifest.dimension} dimensions")
    metrics = {"index/passages": float(len(store)), "index/dimension": float(manifest.dimension)}
    metrics["index/truncated"] = float(truncated)
    if manifest.recall is not None:
        metrics["index/recall"] = manifest.recall
    return StageResult(metrics=metrics)
