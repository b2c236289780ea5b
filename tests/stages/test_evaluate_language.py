"""Measuring a language model as a stage: beside what it began from, and on after a kill."""

import json

import pytest
import torch

from tiny_language import completions, make_model, make_tokenizer, successors
from trainshed.config.resolved import RunConfig
from trainshed.config.schema import DataSection, EvaluationSection, ExecutionSection, ModelSection
from trainshed.data.jsonl import write_jsonl
from trainshed.errors import CheckpointError, DataError, MissingExtraError
from trainshed.evaluation.language import LanguageModel
from trainshed.evaluation.perplexity import measure_perplexity
from trainshed.models.causal_lm import save_causal_lm
from trainshed.plan.directory import RunDirectory
from trainshed.stages import evaluate_language
from trainshed.stages.context import StageContext
from trainshed.stages.evaluate import run
from trainshed.stages.evaluate_language import read_evaluation_rows


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models: one as it comes, and one that has learnt a little of the language."""
    place = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer()
    save_causal_lm(make_model(), tokenizer, place / "before")
    model = make_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts = [row["prompt"] + row["chosen"] + "</s>" for row in successors(64, seed=5)]
    ids = tokenizer(texts, return_tensors="pt")["input_ids"]
    for _ in range(60):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_causal_lm(model.eval(), tokenizer, place / "after")
    return place


@pytest.fixture
def make(models, tmp_path):
    """Return a function that makes the context of a run over 12 held-out pairs."""
    rows = successors(12, seed=9)
    write_jsonl(tmp_path / "pairs" / "test.jsonl", [{**row, "answer": row["chosen"].strip()} for row in rows])
    write_jsonl(tmp_path / "pairs" / "train.jsonl", successors(5))
    write_jsonl(tmp_path / "answers" / "other.jsonl", completions(rows))

    def context(name="run", *, data="pairs", baseline=True, **evaluation):
        directory = RunDirectory(tmp_path / name)
        for path in (directory.outputs, directory.checkpoints):
            path.mkdir(parents=True, exist_ok=True)
        given = {"baseline_generator": str(models / "before")} if baseline else {}
        config = RunConfig(
            name=name,
            stage="evaluate",
            execution=ExecutionSection(seed=4, device="cpu"),
            model=ModelSection(model_name_or_path=str(models / "after")),
            data=DataSection(dataset_name=str(tmp_path / data)),
            evaluation=EvaluationSection(
                **{"bootstrap_samples": 50, "max_new_tokens": 3, "batch_size": 5, **given, **evaluation}
            ),
        )
        return StageContext(directory, config)

    return context


EVERYTHING = {
    "language_model": ["perplexity", "preference", "reward", "win_rate"],
    "rewards": [{"name": "exact_match"}, {"name": "length", "most": 1, "slack": 1, "weight": 0.5}],
    "judge": {"name": "exact_match"},
}


def test_everything_at_once(make):
    context = make(**EVERYTHING)
    metrics = run(context).metrics
    outputs = context.directory.outputs
    assert metrics["perplexity/after/perplexity"] < metrics["perplexity/before/perplexity"] / 2
    assert metrics["preference/after/likelihood_accuracy"] > metrics["preference/before/likelihood_accuracy"]
    assert metrics["preference/after/reward_margin"] == pytest.approx(
        metrics["preference/after/likelihood_margin"] - metrics["preference/before/likelihood_margin"],
        abs=1e-5,
    )
    assert "preference/before/reward_margin" not in metrics
    assert metrics["reward/after/exact_match"] > metrics["reward/before/exact_match"]
    assert metrics["reward/after/score"] == pytest.approx(
        metrics["reward/after/exact_match"] + 0.5 * metrics["reward/after/length"]
    )
    assert metrics["reward/after/kl"] > 0.1
    assert "reward/before/kl" not in metrics
    report = json.loads((outputs / "report.json").read_text())
    assert list(report) == EVERYTHING["language_model"]
    difference = report["perplexity"]["comparisons"]["after - before"]["perplexity"]
    assert difference["high"] < 0
    assert difference["excludes_zero"]
    assert difference["mean"] == pytest.approx(
        metrics["perplexity/after/perplexity"] - metrics["perplexity/before/perplexity"]
    )
    judged = [json.loads(line) for line in (outputs / "judged.jsonl").read_text().splitlines()]
    assert len(judged) == 12
    assert metrics["win_rate/after/win_rate"] == pytest.approx(sum(row["win"] for row in judged) / 12)
    assert all(row["win"] == 0.5 + 0.5 * (row["score"] - row["against"]) for row in judged)
    said = [json.loads(line) for line in (outputs / "completions.jsonl").read_text().splitlines()]
    assert [row["system"] for row in said] == ["before"] * 12 + ["after"] * 12
    assert sum(row["exact_match"] for row in said[12:]) / 12 == metrics["reward/after/exact_match"]
    assert said[12]["text"] == judged[0]["after"]
    table = (outputs / "report.txt").read_text()
    for part in ("perplexity", "bits_per_byte", "reward_accuracy", "win_rate", "12 rows", "▲"):
        assert part in table


def test_the_numbers_are_those_of_the_measures(make, models):
    metrics = run(make(language_model=["perplexity"], data="answers", split="other", max_samples=7)).metrics
    model, tokenizer = make_model(), make_tokenizer()
    rows = completions(successors(12, seed=9))[:7]
    from trainshed.data.formats import RowFormat

    found = measure_perplexity(
        LanguageModel(model, tokenizer), rows, [""] * 7, RowFormat("prompt-completion")
    )
    assert metrics["perplexity/before/perplexity"] == pytest.approx(found.mean("perplexity"), rel=1e-5)


def test_a_model_by_itself(make):
    metrics = run(make(baseline=False, language_model=["preference", "reward"], rewards=["length"])).metrics
    assert set(metrics) == {
        *(f"preference/after/likelihood_{name}" for name in ("accuracy", "margin")),
        *(f"reward/after/{name}" for name in ("score", "length", "tokens", "unfinished")),
    }


def test_on_after_a_kill(make, monkeypatch):
    context = make("whole", **EVERYTHING)
    whole = run(context).metrics

    def killed(*given, **options):
        raise OSError("killed")

    again = make("killed", **EVERYTHING)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_language, "judge_pairs", killed)
        with pytest.raises(OSError, match="killed"):
            run(again)
    kept = {path.name for path in again.directory.checkpoints.iterdir()}
    assert {"perplexity-before.json", "reward-after.json", "completions-before.json"} <= kept
    # nothing is measured twice
    for name in ("measure_perplexity", "measure_preferences", "complete_prompts"):
        monkeypatch.setattr(evaluate_language, name, killed)
    assert run(again).metrics == whole
    for name in ("report.json", "report.txt", "judged.jsonl", "completions.jsonl"):
        assert (again.directory.outputs / name).read_text() == (context.directory.outputs / name).read_text()


def test_damaged_measurements_are_told_and_left(make):
    context = make(language_model=["perplexity"])
    place = context.directory.checkpoints / "perplexity-before.json"
    place.write_text('{"counts": ')
    with pytest.raises(CheckpointError, match="damaged") as caught:
        run(context)
    assert caught.value.where == str(place)
    assert place.read_text() == '{"counts": '


def test_rows_of_a_split(make, tmp_path):
    context = make(language_model=["perplexity"])
    loaded, split = read_evaluation_rows(context, ("prompt",))
    assert (split, len(loaded.rows(split))) == ("test", 12)
    assert loaded.rows(split)[0]["answer"] == successors(12, seed=9)[0]["chosen"].strip()
    train, split = read_evaluation_rows(make(language_model=["perplexity"], split="train"), ("preference",))
    assert (split, len(train.rows(split))) == ("train", 5)
    with pytest.raises(DataError, match="no rows in the split validation"):
        read_evaluation_rows(make(language_model=["perplexity"], split="validation"), ("preference",))


def test_other_tokens_have_no_kl(make, models, tmp_path, capsys):
    more = make_tokenizer()
    more.add_tokens(["new"])
    model = make_model(3)
    model.resize_token_embeddings(len(more))
    save_causal_lm(model, more, tmp_path / "wider")
    context = make(
        baseline=False,
        language_model=["perplexity", "reward"],
        rewards=["length"],
        baseline_generator=str(tmp_path / "wider"),
    )
    metrics = run(context).metrics
    assert "reward/after/kl" not in metrics
    assert "there is no KL to evaluation.baseline_generator" in capsys.readouterr().err


def test_the_harness_is_asked_for_before_anything_is_loaded(make, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="lm_eval") as caught:
        run(make(harness_tasks=["x"]))
    assert caught.value.fix == "pip install 'trainshed[harness]'"


def test_harness_tasks_beside_the_rest(make, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="needs the extra `harness`")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "tasks"
    rows = [
        {"prompt": row["prompt"], "choices": [row["rejected"].strip(), row["chosen"].strip()]}
        for row in successors(20, seed=3)
    ]
    write_jsonl(place / "rows.jsonl", rows)
    (place / "next.yaml").write_text(
        "task: next\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{prompt}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: 1\nmetric_list: [{metric: acc}]\n"
    )
    context = make(harness_tasks=["next"], harness_path=str(place), language_model=["perplexity"])
    metrics = run(context).metrics
    assert metrics["harness/next/acc"] > metrics["harness/before/next/acc"]
    report = json.loads((context.directory.outputs / "report.json").read_text())
    assert report["harness"]["after"]["metrics"]["next"]["acc"] == metrics["harness/next/acc"]
    assert "lm-evaluation-harness: next" in (context.directory.outputs / "report.txt").read_text()
