"""The main job on a small part of the built-in corpus, as a user runs it: six stages, one report."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from trainshed.cli.main import main

PIPELINE = """\
execution: {seed: 1, device: cpu, threads: 1}
rag:
  top_k: 2
  prompt: "{context}\\nQuestion: {query}\\nAnswer:"
  no_context_prompt: "Question: {query}\\nAnswer:"
  max_length: 192
  max_new_tokens: 8
data: {dataset_name: "${stages.corpus}"}
pipeline:
  corpus:
    stage: corpus
    data: {dataset_name: builtin, max_passages: 60}
  generator:
    execution: {algorithm: pretrain}
    data: {dataset_name: "${stages.corpus}/pretraining", max_train_samples: 40}
    model: {hidden_size: 32, num_layers: 2, num_heads: 2, intermediate_size: 64, vocab_size: 600}
    training: {block_size: 192, max_steps: 6, per_device_train_batch_size: 4, save_steps: 2}
  index: {stage: index}
  ralt:
    execution: {algorithm: ralt}
    model: {model_name_or_path: "${stages.generator}"}
    rag: {retriever: "${stages.index}/retriever", knowledge_store: "${stages.index}/knowledge_store"}
    training: {passages_per_question: 2, max_steps: 4, learning_rate: 5.0e-3, save_steps: 2}
  lsr:
    execution: {algorithm: lsr}
    model: {model_name_or_path: "${stages.ralt}"}
    rag: {retriever: "${stages.index}/retriever", knowledge_store: "${stages.index}/knowledge_store"}
    training: {candidates: 4, gate: false, max_steps: 4, learning_rate: 1.0e-5, save_steps: 2}
  report:
    stage: evaluate
    model: {model_name_or_path: "${stages.ralt}"}
    rag: {retriever: "${stages.lsr}/retriever", knowledge_store: "${stages.index}/knowledge_store"}
    evaluation:
      baseline_retriever: ${stages.index}/retriever
      baseline_generator: ${stages.generator}
      max_samples: 12
      bootstrap_samples: 50
"""
STAGES = ["corpus", "generator", "index", "ralt", "lsr", "report"]


class Job:
    """A directory with the pipeline, and the command that works in it."""

    def __init__(self, path, package):
        self.path, self.outputs = path, path / "outputs" / "tiny"
        self.environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        self.environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        (path / "tiny.yaml").write_text(PIPELINE)

    def __call__(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "trainshed.cli.main", *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def killed(self, stage, seconds):
        """Run until a stage has begun, wait, and kill everything."""
        process = subprocess.Popen(
            [sys.executable, "-m", "trainshed.cli.main", "run", "tiny.yaml"],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and not list(self.outputs.glob(f"{stage}-*")):
            time.sleep(0.01)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def report(self):
        return json.loads((self.outputs / "report.json").read_text())


@pytest.fixture(scope="module")
def job(tmp_path_factory, package):
    job = Job(tmp_path_factory.mktemp("job"), package)
    job("run", "tiny.yaml")
    return job


def test_the_report_has_every_number_with_its_interval(job):
    report = job.report()
    wanted = {
        "retrieval": (("before", "after"), ("mrr@10", "recall@1", "recall@5")),
        "generation": (("no_retrieval", "rag_before", "rag_after"), ("answer_nll", "f1")),
    }
    for group, (systems, metrics) in wanted.items():
        assert set(report[group]) - {"comparisons"} == set(systems)
        for system in systems:
            for metric in metrics:
                found = report[group][system]
                interval = found["intervals"][metric]
                assert interval["low"] <= found[metric] <= interval["high"]
                assert interval["mean"] == pytest.approx(found[metric])
    before, after = report["retrieval"]["before"], report["retrieval"]["after"]
    assert before["mrr@10"] > 0.5  # the packaged encoder finds something among 60 passages
    assert after["ndcg@10"] != before["ndcg@10"]
    values = [report["generation"][system]["answer_nll"] for system in wanted["generation"][0]]
    assert values[2] < min(values[:2])


def test_again_nothing_is_computed_and_every_stage_says_why(job):
    states = {path: path.stat().st_mtime_ns for path in job.outputs.glob("*/outputs/**/*")}
    told = job("run", "tiny.yaml")
    assert told.count("outputs intact") == len(STAGES)
    assert "nothing to do" in told
    assert {path: path.stat().st_mtime_ns for path in job.outputs.glob("*/outputs/**/*")} == states


def test_a_question_is_answered_with_citations(job, capsys):
    def ask(*options):
        with pytest.raises(SystemExit) as end:
            main(["ask", str(job.outputs), "What is the default of indent?", "--device", "cpu", *options])
        assert end.value.code == 0
        return capsys.readouterr().out

    told = ask()
    assert "\n[1] " in told
    assert "characters" in told
    answer = json.loads(ask("--json"))
    assert told.startswith(answer["response"])
    assert len(json.loads(ask("--json", "--top-k", "1"))["citations"]) == 1
    assert answer["citations"][0]["number"] == 1
    assert {"passage_id", "source", "score", "share", "span", "document_span"} <= set(answer["citations"][0])


def test_ask_and_evaluate_take_a_plan_or_its_run(job, tmp_path, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code

    (run,) = job.outputs.glob("report-*")
    (corpus,) = job.outputs.glob("corpus-*")
    written = tmp_path / "scores.json"
    measure = ["--data", corpus / "outputs", "--no-generation", "--samples", "20", "-o", written]
    answers, scores = [], []
    for place in (job.outputs, run, run / "outputs"):
        assert call("evaluate", place, *measure) == 0
        scores += json.loads(written.read_text())["retrieval"].values()
        capsys.readouterr()
        assert call("ask", place, "What is the default of indent?", "--device", "cpu", "--json") == 0
        answers.append(capsys.readouterr().out)
    assert scores == scores[:1] * 3
    assert answers == answers[:1] * 3
    for arguments in (["evaluate", corpus, *measure], ["ask", corpus, "Which?"]):
        assert call(*arguments) == 1
        assert "this run left no RAG system: its stage is corpus" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
def test_killed_at_a_random_point_and_run_again_it_reports_the_same(job, package, tmp_path, round_):
    draw = random.Random()
    kills = [(draw.choice(STAGES), draw.uniform(0, 4)) for _ in range(2)]
    other = Job(tmp_path, package)
    for stage, seconds in kills:
        other.killed(stage, seconds)
    other("run", "tiny.yaml")
    assert other.report() == job.report(), kills
