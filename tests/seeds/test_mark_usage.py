"""The evaluation that MARK's documentation shows ("Custom Evaluation"), on a real system."""

import json

import pytest

SNIPPET = """
from trainshed.evaluation.pipeline import evaluate_rag_pipeline

metrics = evaluate_rag_pipeline(indexer, eval_file, top_k_values=[1, 3, 5])
print(metrics)
"""


@pytest.fixture
def system(make_system):
    return make_system()


@pytest.fixture
def eval_file(examples, tmp_path):
    path = tmp_path / "eval.jsonl"
    rows = [{"query": e.query, "relevant_docs": [e.passage_id]} for e in examples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["system", "pair"])
def test_the_snippet_runs_on_a_system(system, eval_file, examples, kind, capsys):
    indexer = system if kind == "system" else (system.retriever, system.knowledge_store)
    names = {"indexer": indexer, "eval_file": str(eval_file)}
    exec(compile(SNIPPET, "<snippet>", "exec"), names)
    metrics = names["metrics"]
    assert capsys.readouterr().out.strip() == str(metrics)
    assert set(metrics) == {f"{stem}@{k}" for stem in ("recall", "ndcg") for k in (1, 3, 5)} | {"mrr"}
    ranks = []
    for example in examples:
        found = [candidate.passage.id for candidate in system.retrieve(example.query, 5)]
        ranks.append(found.index(example.passage_id) + 1 if example.passage_id in found else 99)
    assert 0 < metrics["recall@5"] < 1
    for k in (1, 3, 5):
        assert metrics[f"recall@{k}"] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))
    assert metrics["mrr"] == pytest.approx(sum(1 / r for r in ranks if r <= 5) / len(ranks))


def test_documents_of_a_system_count_once(system, examples, tmp_path):
    path = tmp_path / "eval.jsonl"
    rows = [{"query": e.query, "relevant_docs": [f"d{row // 4}"]} for row, e in enumerate(examples)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"indexer": system, "eval_file": path}
    exec(compile(SNIPPET, "<snippet>", "exec"), names)
    assert names["metrics"]["recall@1"] <= names["metrics"]["recall@5"] <= 1
