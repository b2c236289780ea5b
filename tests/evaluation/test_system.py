"""A whole system on questions: what is asked of it, and what is scored."""

from types import SimpleNamespace

import pytest
import torch

from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.evaluation.system import citation_ids, evaluate_system, load_system


@pytest.fixture
def answering(system):
    """The searchable system, with an answer to everything: the id of the first passage it finds."""

    def batch_query(queries):
        found = system.knowledge_store.search(system.retriever.encode_queries(queries), 1).ids
        return [
            SimpleNamespace(response=ids[0], citations=[SimpleNamespace(passage_id=ids[0])]) for ids in found
        ]

    def answer_nll(queries, answers):
        lengths = torch.tensor([len(answer) for answer in answers])
        return lengths * 0.5, lengths

    return SimpleNamespace(**vars(system), batch_query=batch_query, answer_nll=answer_nll)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_retrieval_and_answers_are_scored(answering, examples, batch_size):
    scored = evaluate_system(
        answering, examples, top_k_values=(1, 5), bootstrap_samples=50, batch_size=batch_size
    )
    assert scored.retrieval.mean("recall@1") == pytest.approx(6 / 7)
    assert scored.generation.mean("exact_match") == pytest.approx(6 / 7)
    assert scored.generation.mean("citation_precision") == pytest.approx(6 / 7)
    assert scored.generation.mean("answer_nll") == pytest.approx(0.5)
    assert scored.retrieval.resampling.samples == 50
    assert {"mrr@5", "f1", "token_nll"} <= set(scored.metrics)
    assert set(scored.to_json()) == {"retrieval", "generation"}
    assert scored.retrieval.ids == scored.generation.ids


def test_parts_that_are_not_asked_for_or_have_nothing_to_score(answering, examples):
    assert evaluate_system(answering, examples, generation=False).generation is None
    open_questions = [RagExample(query="square root", response="math.sqrt")]
    scored = evaluate_system(answering, open_questions)
    assert scored.retrieval is None
    assert scored.generation.mean("exact_match") == 1.0
    with pytest.raises(DataError, match="passage_id"):
        evaluate_system(answering, open_questions, generation=False)
    with pytest.raises(DataError, match="no example"):
        evaluate_system(answering, [])
    with pytest.raises(DataError, match="no example"):
        evaluate_system(answering, [], generation=False)


def test_every_form_of_a_citation():
    passage = Passage(id="p", text="x")
    forms = ["p", passage, SimpleNamespace(passage=passage), SimpleNamespace(passage_id="p")]
    assert citation_ids(forms) == ["p"] * 4
    with pytest.raises(ConfigError, match="passage_id"):
        citation_ids([3])


def test_a_system_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_system(tmp_path / "none")
