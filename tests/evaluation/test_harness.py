"""lm-evaluation-harness on local tasks, beside asking the model itself and our own perplexity; an extra."""

import json
import random

import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra `harness`")

from tiny_language import NUMBERS, make_model, make_tokenizer
from trainshed.data.formats import RowFormat
from trainshed.errors import ConfigError, DataError
from trainshed.evaluation.harness import HarnessResult, run_harness
from trainshed.evaluation.language import LanguageModel
from trainshed.evaluation.perplexity import measure_perplexity

TASK = """\
task: successors
dataset_path: json
dataset_kwargs: {data_files: {test: successors.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "after {{number}} is"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
PERPLEXITY = """\
task: chains
dataset_path: json
dataset_kwargs: {data_files: {test: successors.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "after {{number}} is {{choices[0]}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
"""


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(make_model(), make_tokenizer())


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A directory with two tasks and their data, and caches of the library that are empty."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "successors.yaml").write_text(TASK)
    (place / "chains.yaml").write_text(PERPLEXITY)
    chance = random.Random(0)
    rows = [
        {
            "number": f"n{number % 10}",
            "choices": chance.sample(NUMBERS, 3),
            "answer": number % 3,
        }
        for number in range(12)
    ]
    (place / "successors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "broken.yaml").write_text(TASK.replace("successors", "broken"))
    return place, rows


@torch.no_grad()
def right(lm, row):
    ids = lm.tokenizer(f"after {row['number']} is")["input_ids"]
    logits = lm.model(torch.tensor([ids])).logits[0, -1]
    values = [logits[lm.tokenizer(choice)["input_ids"][0]].item() for choice in row["choices"]]
    return values.index(max(values)) == row["answer"]


def test_a_local_task(lm, tasks):
    place, rows = tasks
    state = torch.random.get_rng_state()
    found = run_harness(lm, ["successors", "chains"], path=place, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    wanted = [float(right(lm, row)) for row in rows]
    assert found.documents["successors"]["values"]["acc"] == wanted
    assert found.metrics["successors"] == {"acc": pytest.approx(sum(wanted) / 12)}
    assert 0 < found.standard_errors["successors"]["acc"] < 0.2
    # what is no mean over documents has no values by document; every word is a token here
    texts = [{"text": f"after {row['number']} is {row['choices'][0]}"} for row in rows]
    ours = measure_perplexity(lm, texts, [""] * 12, RowFormat("text"))
    assert found.metrics["chains"] == {
        "word_perplexity": pytest.approx(ours.mean("perplexity"), rel=1e-5),
        "byte_perplexity": pytest.approx(2 ** ours.mean("bits_per_byte"), rel=1e-5),
        "bits_per_byte": pytest.approx(ours.mean("bits_per_byte"), rel=1e-5),
    }
    assert "chains" not in found.documents
    again = HarnessResult.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.scores("successors").mean("acc") == pytest.approx(sum(wanted) / 12)


def test_only_the_first_documents(lm, tasks):
    place, _ = tasks
    found = run_harness(lm, ["successors"], path=place, limit=5)
    assert found.documents["successors"]["ids"] == [f"doc{number}" for number in range(5)]


def test_what_cannot_be_measured(lm, tasks):
    place, _ = tasks
    with pytest.raises(ConfigError, match="knows no task 'succesors'") as caught:
        run_harness(lm, ["succesors"], path=place)
    assert "did you mean 'successors'" in caught.value.fix
    with pytest.raises(DataError, match="the task cannot be made") as caught:
        run_harness(lm, ["broken"], path=place)
    assert caught.value.where == "evaluation.harness_tasks: broken"
