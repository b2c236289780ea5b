"""``section.key=value`` from the command line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.config.documents import Document, join
from trainshed.config.load import check_source
from trainshed.config.overrides import apply_overrides, parse_override, read_overrides
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import Source
from trainshed.errors import ConfigError

words = st.text("abc", min_size=1, max_size=2)
leaves = st.one_of(st.integers(0, 9), st.booleans(), st.lists(st.integers(0, 9), max_size=2))
trees = st.dictionaries(words, st.dictionaries(words, leaves, min_size=1, max_size=3), max_size=3)


@settings(deadline=None)
@given(trees, st.lists(st.tuples(words, words, leaves), max_size=5))
def test_overrides_are_laid_over_the_file_in_order(tree, changes):
    document = Document("c.yaml", json.loads(json.dumps(tree)))
    texts = [f"{section}.{key}={json.dumps(value)}" for section, key, value in changes]
    apply_overrides(document, read_overrides(texts))
    expected = tree
    for section, key, value in changes:
        expected = join(expected, {section: {key: value}})
        assert document.place((section, key)) == "command line"
    assert document.data == expected


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("rag.top_k=3", ("rag", "top_k"), 3),
        ("training.learning_rate=5e-6", ("training", "learning_rate"), 5e-6),
        ("training.learning_rate=[1e-5, 1e-6]", ("training", "learning_rate"), [1e-5, 1e-6]),
        ("rag.prompt={context} = {query}", ("rag", "prompt"), None),
        ("rag.store_url=http://h:1/?a=b", ("rag", "store_url"), "http://h:1/?a=b"),
        ("model.revision=", ("model", "revision"), None),
        ("model.revision='1'", ("model", "revision"), "1"),
        ("pipeline.lsr.training.gate=false", ("pipeline", "lsr", "training", "gate"), False),
    ],
)
def test_values_are_yaml(text, keys, value):
    if "{context}" in text:
        # braces are YAML too, so such a text needs quotes
        with pytest.raises(ConfigError, match="not valid YAML"):
            parse_override(text)
        return
    assert parse_override(text) == (keys, value)


@pytest.mark.parametrize("text", ["rag.top_k", "top_k=3", ".top_k=3", "rag.=3", "=3", "", "rag..top_k=3"])
def test_what_is_no_override(text):
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert caught.value.where == "command line"
    assert "section.key=value" in (caught.value.fix or "")


def test_syntax_errors_name_the_override():
    with pytest.raises(ConfigError) as caught:
        parse_override("rag.top_k=[1")
    assert (caught.value.where or "").startswith("command line, rag.top_k")


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("rag.topk=3", "unknown key 'topk'", "'top_k'"),
        ("rga.top_k=3", "unknown section 'rga'", "'rag'"),
        ("rag.top_k=x", "not 'x'", ""),
        ("pipeline.b.training.gate=true", "there is no stage 'b'", "known: a"),
        ("execution.output_dir=runs", "is relative", ""),
    ],
)
def test_problems_name_the_command_line(override, what, fix):
    data = {"execution": {"algorithm": "lsr"}, "pipeline": {"a": {}}}
    with pytest.raises(ConfigError) as caught:
        check_source(Source("c.yaml", data, {}), [override], environ={})
    assert what in caught.value.what
    assert (caught.value.where or "").startswith("command line")
    assert fix in (caught.value.fix or "")


def test_overrides_know_other_names_and_sweeps_and_stages(runs):
    text = "execution: {algorithm: lsr, device: cuda}\npipeline:\n  a: {}\n  b: {training: {candidates: 3}}\n"
    found = runs(
        text,
        "system.device=cpu",
        "rl_config_args.learning_rate=[1e-5, 1e-6]",
        "pipeline.b.training.candidates=5",
    )
    assert [run.config.execution.device for run in found] == ["cpu"] * 4
    assert [run.config.training.own.candidates for run in found] == [12, 12, 5, 5]
    assert [run.config.training.arguments["learning_rate"] for run in found] == [1e-5, 1e-6] * 2


def test_an_override_replaces_a_sweep(runs):
    text = "execution: {algorithm: lsr}\nrag: {max_length: [1, 2, 3]}\n"
    (run,) = runs(text, "rag.max_length=2")
    assert (run.config.rag.max_length, run.swept) == (2, {})


def test_an_override_of_a_mapping_goes_key_by_key(runs):
    text = "execution: {algorithm: lsr}\ndata: {columns: {query: q, response: r}}\n"
    (run,) = runs(text, "data.columns.query=question", "data.columns={passage: p}")
    assert run.config.data.columns == {"query": "question", "response": "r", "passage": "p"}


def test_the_later_override_wins():
    data = {"execution": {"algorithm": "lsr"}}
    source = Source("c.yaml", data, {})
    (run,) = expand(check_source(source, ["rag.top_k=1", "rag.top_k=2"], environ={}))
    assert run.config.rag.top_k == 2


def test_a_configuration_that_was_read_can_be_checked_again():
    data = {"execution": {"algorithm": "lsr", "project": "${env:P}"}, "rag": {"top_k": 1}}
    source = Source("c.yaml", data, {})
    for name in ("one", "two"):
        (run,) = expand(check_source(source, ["rag.top_k=2"], environ={"P": name}))
        assert run.config.execution.project == name
        assert run.config.to_json()["execution"]["project"] == "${env:P}"
    assert data == {"execution": {"algorithm": "lsr", "project": "${env:P}"}, "rag": {"top_k": 1}}
