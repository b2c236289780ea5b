"""``trainshed evaluate``: runs by judgements, systems on questions, JSON, and one clear error each."""

import json
import sys

import pytest
from click.testing import CliRunner

from trainshed.cli.evaluate import command
from trainshed.cli.main import main
from trainshed.data.examples import RagExample, write_examples
from trainshed.data.passages import Passage
from trainshed.evaluation.beir import write_beir
from trainshed.evaluation.scores import Scores
from trainshed.evaluation.system import SystemEvaluation, evaluate_system
from trainshed.evaluation.trec import write_qrels, write_run

QRELS = {f"q{i}": {"right": 1, "half": 0} for i in range(8)}


@pytest.fixture
def files(tmp_path):
    write_qrels(tmp_path / "qrels.txt", QRELS)
    good = {query: {"right": 2.0, "half": 1.0} for query in QRELS}
    bad = {query: {"half": 2.0, "right": 1.0} for query in list(QRELS)[:7]}
    write_run(tmp_path / "after.trec", good)
    write_run(tmp_path / "before.trec", bad)
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_a_run_against_another_one(files):
    output = files / "out" / "report.json"
    result = invoke(
        "--run", files / "after.trec", "--against", files / "before.trec", "--qrels", files / "qrels.txt",
        "-o", output, "--style", "plain",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "1.000 [1.000, 1.000]" in result.stdout
    assert "▲" in result.stdout
    assert "before: 8 queries, 0 without relevant, 1 without results, 0 not judged" in result.stdout
    report = json.loads(output.read_text())["retrieval"]
    assert report["after"]["recall@1"] == 1.0
    assert report["before"]["mrr@10"] == pytest.approx(7 / 16)
    assert report["comparisons"]["after - before"]["mrr@10"]["mean"] == pytest.approx(9 / 16)
    again = Scores.from_json(report["after"])
    assert again.difference(Scores.from_json(report["before"]), "mrr@10").excludes_zero


def test_a_beir_folder_and_chosen_metrics(files):
    write_beir(
        files / "set",
        passages=[Passage(id="right", text="x")],
        queries=dict.fromkeys(QRELS, "?"),
        qrels=QRELS,
        split="dev",
    )
    arguments = (
        "--beir",
        files / "set",
        "--split",
        "dev",
        "--run",
        files / "after.trec",
        "--style",
        "markdown",
    )
    result = invoke(*arguments, "-m", "nDCG@3", "-m", "P@2")
    assert [
        line.split(" | ")[0]
        for line in result.stdout.splitlines()
        if line.startswith("| ") and ":--" not in line
    ] == [
        "| metric",
        "| ndcg@3",
        "| precision@2",
    ]
    table = files / "set" / "qrels" / "dev.tsv"
    assert "map@10" in invoke("--qrels", table, "--run", files / "after.trec").stdout


def test_a_system_on_questions(files, monkeypatch):
    data = files / "questions.jsonl"
    examples = [RagExample(query=f"question {i}?", response="x", id=f"e{i}", kind="k") for i in range(4)]
    write_examples(data, examples)
    seen = []

    def evaluate(system, given, **options):
        seen.append((system, [example.query for example in given], options))
        from trainshed.evaluation.generation import evaluate_generation

        return SystemEvaluation(None, evaluate_generation(["x" if system == "a" else "y"] * 4, given))

    module = sys.modules[evaluate_system.__module__]
    monkeypatch.setattr(module, "load_system", lambda path: path.name)
    monkeypatch.setattr(module, "evaluate_system", evaluate)
    output = files / "r.json"
    result = invoke(
        files / "a",
        "--against",
        files / "b",
        "--data",
        data,
        "-k",
        "1,3",
        "--seed",
        7,
        "-o",
        output,
        "--by-kind",
    )
    assert [name for name, _, _ in seen] == ["b", "a"]
    assert seen[0][1] == [example.query for example in examples]
    assert seen[0][2]["top_k_values"] == [1, 3]
    assert seen[0][2]["seed"] == 7
    assert "exact_match" in result.stdout
    assert "k (n = 4)" in result.stdout
    assert json.loads(output.read_text())["generation"]["a"]["f1"] == 1.0


def test_the_help_has_examples():
    result = invoke("--help")
    assert (
        "trainshed evaluate --run after.trec --against before.trec --qrels qrels.txt -o report.json"
        in result.output
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--run"),
        (["--run", "a"], "--qrels FILE or --beir DIR"),
        (["--run", "a", "--qrels", "b", "--beir", "c"], "--qrels FILE or --beir DIR"),
        (["--run", "a", "--qrels", "b", "--data", "c"], "--data"),
        (["dir"], "--data FILE"),
        (["dir", "--run", "a"], "score a run"),
        (["--run", "a", "--qrels", "b", "-k", "five"], "'five'"),
        (["--run", "a", "--qrels", "b", "--style", "html"], "markdown"),
    ],
)
def test_wrong_use_says_what_would_be_right(files, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    (files / "b").write_text("q 0 d 1\n")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--run", "none.trec", "--qrels", "qrels.txt"], "none.trec", 1),
        (["--run", "after.trec", "--qrels", "broken.txt"], "broken.txt, line 2", 1),
        (["--run", "after.trec", "--qrels", "qrels.txt", "-m", "recal@5"], "did you mean 'recall@5'", 2),
        (["--run", "after.trec", "--qrels", "qrels.txt", "--against", "after.trec"], "same", 2),
        (["--beir", "set", "--run", "after.trec"], "test.tsv", 1),
        (["none", "--data", "none.jsonl"], "none.jsonl", 1),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(files, monkeypatch, capsys, arguments, message, code):
    monkeypatch.chdir(files)
    (files / "broken.txt").write_text("q1 0 d 1\nq1 0\n")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *arguments, "-o", "out.json"])
    assert stopped.value.code == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert not (files / "out.json").exists()
