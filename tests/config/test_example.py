"""Example configurations load, and so do all the keys that they show."""

import re

import pytest

from trainshed.config.example import COMMON_ARGUMENTS, TEMPLATES, example
from trainshed.config.fields import all_trainer_parameters
from trainshed.errors import ConfigError


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_example_loads(runs, template):
    found = runs(example(template))
    assert template in {run.config.training.algorithm for run in found if run.config.training}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_keys_behind_a_mark_stand_at_their_defaults(runs, template):
    text = example(template)
    uncommented = re.sub(r"^( +)#(\w+:)", r"\1\2", text, flags=re.MULTILINE)
    assert uncommented.count("\n") == text.count("\n")
    shown = re.findall(r"^ +#(\w+):", text, flags=re.MULTILINE)
    assert len(shown) > 40
    before, after = runs(text), runs(re.sub(r"(?m)^  algorithm: null\n", "", uncommented))
    for one, other in zip(before, after, strict=True):
        assert one.name == other.name
        for section in ("execution", "model", "data", "rag", "evaluation"):
            assert getattr(one.config, section) == getattr(other.config, section)
        assert (one.config.training is None) == (other.config.training is None)
        if one.config.training is not None:
            assert one.config.training.own == other.config.training.own


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_example_shows_every_own_parameter(template):
    text = example(template)
    for name in all_trainer_parameters()[TEMPLATES[template].algorithm].model_fields:
        assert re.search(rf"^ +#?{name}:", text, flags=re.MULTILINE), name
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_stage_finds_what_it_reads(runs, template):
    """Language models read text, trainers of RAG systems and evaluation a store that a stage built."""
    for run in runs(example(template)):
        training = run.config.training
        if training is not None and training.algorithm == "pretrain":
            assert run.config.data.dataset_name == "${stages.corpus}/pretraining"
        elif training is not None or run.config.stage == "evaluate":
            assert run.config.rag.knowledge_store == "${stages.index}/knowledge_store"
            assert run.config.model.model_name_or_path


def test_common_arguments_exist():
    assert set(COMMON_ARGUMENTS) <= set(all_trainer_parameters()["lsr"].known_keys())


def test_an_unknown_template_is_told():
    with pytest.raises(ConfigError, match="did you mean 'ralt'"):
        example("rlat")
