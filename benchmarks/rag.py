"""Time retrieval-augmented fine-tuning, beside FedRAG where an environment for it is given.

    python benchmarks/rag.py                                              # ours alone
    python benchmarks/rag.py --fedrag-python VENV/bin/python --fedrag-source FEDRAG/src -o rag.json

Parts: building a store of 2,000 passages; retrieving for 64 questions; searching 2,000 and 100,000 vectors
for 64 queries (ours in one call and one at a time, FedRAG's one at a time, as it offers no other way); an
epoch of LSR (64 questions, 8 passages each, 4 questions a step: with no score known, later epochs, and in
bfloat16); and an epoch of RALT. Each part runs in a process of its own, ours and FedRAG's by turns, on one
thread and on all; both sides train on eight questions before the clock starts, for memory that a process
touches for the first time costs as much as the work.
Compare CPU seconds where the machine is shared. Both sides read the same prompts; FedRAG's LSR moves no
weight, ours trains the question encoder.

Left out: quality (see the lab book).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rag_workload as workload

SIZES = {"search-2k": workload.N_PASSAGES, "search-100k": workload.LARGE_STORE}
ONE_BY_ONE = {f"{part}-one": part for part in SIZES}
PARTS = [
    *("build", "retrieve", *SIZES, *ONE_BY_ONE),
    *("lsr", "lsr-warm", "lsr-bf16", "ralt", "ralt-bf16"),
]
PEER_OF = {**ONE_BY_ONE, "lsr-warm": "lsr", "lsr-bf16": "lsr", "ralt-bf16": "ralt"}
RATES = {
    "build": ("passages", workload.N_PASSAGES),
    "retrieve": ("questions", workload.N_QUESTIONS),
    "search-2k": ("queries", workload.SEARCHES),
    "search-100k": ("queries", workload.SEARCHES),
    "lsr": ("scorings", workload.N_QUESTIONS * workload.TOP_K),
    "ralt": ("steps", workload.N_QUESTIONS // workload.QUESTIONS_PER_STEP),
}
# The prompt of FedRAG's trainers (fed_rag/data_collators/huggingface, Apache-2.0), so that the work is equal.
TEMPLATE = """
You are a helpful assistant. Given the user's question, provide a succinct
and accurate response. If context is provided, use it in your answer if it helps
you to create the most accurate response.

<warning>
Only use the the provided context if its relevant to answer the question. Otherwise,
ignore it and use your parametric knowledge to answer the question.
</warning>

<question>
{query}
</question>

<context>
{context}
</context>

<response>
"""
ENDING = "\n</response>\n"


def make_system(assets: Path, dtype: str | None = None) -> Any:
    """Return a RAG system over the workload's passages, in memory."""
    from trainshed.models.causal_lm import load_causal_lm
    from trainshed.rag.generator import Generator
    from trainshed.rag.prompts import PromptTemplate
    from trainshed.rag.retriever import Retriever
    from trainshed.rag.stores.memory import InMemoryKnowledgeStore
    from trainshed.rag.system import RAGConfig, RAGSystem

    model, tokenizer = load_causal_lm(str(workload.make_generator(assets)))
    generator = Generator(model, tokenizer, template=PromptTemplate(TEMPLATE, answer_prefix=""), dtype=dtype)
    retriever = Retriever.from_names(str(workload.retriever_path()))
    passages = make_passages(assets)
    texts = [passage.text for passage in passages]
    store = InMemoryKnowledgeStore(dimension=retriever.dimension)
    store.add(passages, workload.make_embeddings(assets, lambda: retriever.encode_passages(texts)))
    return RAGSystem(generator, retriever, store, RAGConfig(top_k=workload.TOP_K))


def make_passages(assets: Path) -> list[Any]:
    """Return the workload's passages."""
    from trainshed.data.passages import Passage

    texts = workload.make_corpus(assets)["passages"]
    return [Passage(id=str(row), text=text) for row, text in enumerate(texts)]


def measure_build(assets: Path, runs: int) -> list[dict[str, float]]:
    """Time embedding all passages and putting them into a store."""
    from trainshed.rag.building import build_store
    from trainshed.rag.retriever import Retriever

    retriever, passages = Retriever.from_names(str(workload.retriever_path())), make_passages(assets)
    retriever.encode_passages([passage.text for passage in passages[:8]])
    return [workload.measure(lambda: build_store(passages, retriever)) for _ in range(runs)]


def measure_retrieve(assets: Path, runs: int) -> list[dict[str, float]]:
    """Time encoding all questions and searching for them."""
    system = make_system(assets)
    queries = [question["query"] for question in workload.make_corpus(assets)["questions"]]

    def retrieve() -> None:
        vectors = system.retriever.encode_queries(queries)
        found = system.knowledge_store.search(vectors, workload.TOP_K)
        for ids in found.ids:
            system.knowledge_store.get(ids)

    retrieve()
    return [workload.measure(retrieve) for _ in range(runs)]


def measure_search(size: int, runs: int, *, at_once: int) -> list[dict[str, float]]:
    """Time the store alone, with so many queries in one call."""
    import torch

    from trainshed.data.passages import Passage
    from trainshed.rag.stores.memory import InMemoryKnowledgeStore

    vectors = torch.nn.functional.normalize(torch.randn(size, 384), dim=-1)
    store = InMemoryKnowledgeStore(dimension=384)
    store.add([Passage(id=str(row), text="x") for row in range(size)], vectors)
    queries = torch.nn.functional.normalize(torch.randn(workload.SEARCHES, 384), dim=-1)

    def search() -> None:
        for part in queries.split(at_once):
            for ids in store.search(part, workload.TOP_K).ids:
                store.get(ids)

    search()
    return [workload.measure(search) for _ in range(runs)]


def measure_training(part: str, assets: Path, runs: int) -> list[dict[str, float]]:
    """Time epochs of LSR or RALT over all questions."""
    dtype = "bfloat16" if part.endswith("bf16") else None
    system = make_system(assets, dtype)
    questions = workload.make_corpus(assets)["questions"]
    if part.startswith("ralt"):  # FedRAG trains on what stands behind the answer too
        questions = [{**question, "response": question["response"] + ENDING} for question in questions]
    make_training(part, system, questions[: workload.WARM_UP], bf16=dtype is not None)(1)
    times = []
    for _ in range(runs):
        train = make_training(part, system, questions, bf16=dtype is not None)
        one = workload.measure(lambda train=train: train(1))
        if part == "lsr-warm":  # what each epoch after the first adds
            three = workload.measure(lambda train=train: train(3))
            one = {name: (three[name] - one[name]) / 2 for name in ("wall_s", "cpu_s")} | {
                "peak_mib": three["peak_mib"]
            }
        times.append(one)
    return times


def make_training(
    part: str, system: Any, questions: list[dict[str, str]], *, bf16: bool
) -> Callable[[int], object]:
    """Return what trains for a number of epochs."""
    from trainshed.config.trainers.lsr import LSRParameters
    from trainshed.config.trainers.ralt import RALTParameters
    from trainshed.trainers.lsr import HuggingFaceTrainerForLSR
    from trainshed.trainers.ralt import HuggingFaceTrainerForRALT

    def train(epochs: int) -> object:
        arguments = {
            "num_train_epochs": epochs,
            "per_device_train_batch_size": workload.QUESTIONS_PER_STEP,
            "learning_rate": 1e-5,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "bf16": bf16,
        }
        if part.startswith("lsr"):
            parameters = LSRParameters(candidates=workload.TOP_K, gate=False)
            return HuggingFaceTrainerForLSR(system, questions, arguments, parameters=parameters).train()
        parameters = RALTParameters(passages_per_question=workload.TOP_K, packing=False)
        return HuggingFaceTrainerForRALT(system, questions, arguments, parameters=parameters).train()

    return train


def work(part: str, assets: Path, threads: int, runs: int) -> None:
    """Run one part of ours in this process and print its result."""
    from trainshed.models.allocator import use_huge_pages

    use_huge_pages()  # as the command `trainshed` does
    workload.offline()
    workload.prepare(threads)
    if part == "build":
        times = measure_build(assets, runs)
    elif part == "retrieve":
        times = measure_retrieve(assets, runs)
    elif part in SIZES:
        times = measure_search(SIZES[part], runs, at_once=workload.SEARCHES)
    elif part in ONE_BY_ONE:
        times = measure_search(SIZES[ONE_BY_ONE[part]], runs, at_once=1)
    else:
        times = measure_training(part, assets, runs)
    workload.report(times)


def run(command: list[str], threads: int) -> dict[str, Any]:
    """Run one side's part in a process of its own and return what it reported."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    sys.exit(f"failed: {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def best(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the least CPU and wall seconds over all runs (noise only adds) and the highest memory."""
    runs = [run for result in results for run in result["runs"]]
    return {
        "cpu_s": min(run["cpu_s"] for run in runs),
        "wall_s": min(run["wall_s"] for run in runs),
        "peak_mib": max(run["peak_mib"] for run in runs),
    }


def row(part: str, threads: int, ours: dict[str, float], peer: dict[str, float] | None) -> str:
    """Return one line of the table."""
    unit, count = RATES[PEER_OF.get(part, part)]
    line = (
        f"{part:15} {threads:2}  {ours['cpu_s']:9.3f} {ours['wall_s']:9.3f} {ours['peak_mib']:7.0f}"
        f"  {count / ours['cpu_s']:9.2f} {unit:9}"
    )
    if peer is None:
        return line
    speed, memory = peer["cpu_s"] / ours["cpu_s"], ours["peak_mib"] / peer["peak_mib"]
    return line + (
        f" {peer['cpu_s']:9.3f} {peer['wall_s']:9.3f} {peer['peak_mib']:7.0f}  {speed:6.2f}x"
        f" {peer['wall_s'] / ours['wall_s']:6.2f}x {memory:5.2f}"
    )


def main() -> None:
    """Run the parts that were asked for, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--runs", type=int, default=2, help="measurements in each process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, by turns")
    parser.add_argument("--assets", type=Path, default=Path(tempfile.gettempdir()) / "trainshed-benchmark")
    parser.add_argument("--fedrag-python", type=Path, help="interpreter of an environment for fed_rag")
    parser.add_argument("--fedrag-source", type=Path, help="directory that holds the package fed_rag")
    parser.add_argument("-o", "--output", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--work", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.assets, options.threads[0], options.runs)
        return
    if (options.fedrag_python is None) != (options.fedrag_source is None):
        parser.error("--fedrag-python and --fedrag-source go together")
    workload.offline()
    workload.make_generator(options.assets)
    here = Path(__file__).resolve()
    print(
        "part         threads      cpu_s    wall_s     MiB    per CPU-s" + " " * 11 + "FedRAG: cpu, wall, MiB"
    )
    print(" " * 60 + "then FedRAG/ours in CPU and wall seconds, and ours/FedRAG in memory")
    table, peers = [], {}
    for threads in options.threads:
        common = ["--assets", str(options.assets), "--threads", str(threads), "--runs", str(options.runs)]
        for part in options.parts:
            peer_part = PEER_OF.get(part, part)
            measure_peer = options.fedrag_python is not None and (peer_part, threads) not in peers
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(run([sys.executable, str(here), "--work", part, *common], threads))
                if measure_peer:
                    script = [str(options.fedrag_python), str(here.with_name("rag_fedrag.py")), peer_part]
                    theirs.append(run([*script, *common, "--source", str(options.fedrag_source)], threads))
            if theirs:
                peers[peer_part, threads] = best(theirs)
            peer = peers.get((peer_part, threads))
            table.append({"part": part, "threads": threads, "ours": best(ours), "fedrag": peer})
            print(row(part, threads, best(ours), peer), flush=True)
    if options.output:
        options.output.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
