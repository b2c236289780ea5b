"""Rewards in a YAML: names, mappings, options, the reward model, and what is wrong with them."""

import pytest

from trainshed.config.load import check_source
from trainshed.config.resolved import RunConfig
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import parse_yaml
from trainshed.errors import ConfigError


def runs(training):
    text = f"execution: {{algorithm: ppo}}\ndata: {{dataset_name: builtin}}\ntraining: {training}\n"
    return expand(check_source(parse_yaml(text, "test.yaml"), environ={}))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("exact_match", [("exact_match", 1.0, {})]),
        ("[exact_match, length]", [("exact_match", 1.0, {}), ("length", 1.0, {})]),
        ("{name: length, most: 5}", [("length", 1.0, {"most": 5})]),
        ("[{name: 'my:f', weight: 0.5, a: [1]}]", [("my:f", 0.5, {"a": [1]})]),
    ],
)
def test_ways_of_writing_them(written, expected):
    (run,) = runs(f"{{rewards: {written}}}")
    own = RunConfig.from_json(run.config.to_json()).training.own
    assert [(e.name, e.weight, e.options) for e in own.reward_entries()] == expected


def test_the_reward_model_is_a_reward():
    (run,) = runs("{reward_model: some/model}")
    assert [entry.name for entry in run.config.training.own.reward_entries()] == ["reward_model"]
    (run,) = runs("{reward_model: some/model, rewards: [{name: reward_model, weight: 2}, length]}")
    entries = run.config.training.own.reward_entries()
    assert [(entry.name, entry.weight) for entry in entries] == [("reward_model", 2.0), ("length", 1.0)]
    assert run.hyper_parameters["training"]["reward_model"] == "some/model"


def test_a_list_of_lists_is_swept():
    swept = runs("{rewards: [[exact_match], [length]]}")
    assert [run.config.training.own.rewards[0].name for run in swept] == ["exact_match", "length"]


@pytest.mark.parametrize(
    ("training", "match"),
    [
        ("{}", "nothing judges the completions"),
        ("{rewards: exact_mach}", "unknown reward 'exact_mach'; did you mean 'exact_match'"),
        ("{rewards: [{name: length, mots: 3}]}", "reward length: it has no option 'mots'"),
        ("{rewards: [{name: length, least: 9, most: 3}]}", "`least` 9 is more than `most` 3"),
        ("{rewards: [{name: format}]}", "either a pattern or tags"),
        ("{rewards: [{name: format, pattern: '('}]}", "no regular expression"),
        ("{rewards: [{name: http, url: ftp://x}]}", "reward http: url"),
        ("{rewards: reward_model}", "say which model it is"),
        ("{rewards: length, clip_range: 1.5}", "must be below 1"),
        ("{rewards: length, kl_coef: 0, kl_target: 1.0}", "cannot start at 0"),
        ("{rewards: length, train_sampling_strategy: random}", "order that follows from the seed"),
    ],
)
def test_what_cannot_be_meant(training, match):
    with pytest.raises(ConfigError, match=match):
        runs(training)
