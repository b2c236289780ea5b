"""Whatever a file says, it makes runs or an error for the user, never a crash."""

from hypothesis import event, given, settings
from hypothesis import strategies as st

from trainshed.config.fields import all_trainer_parameters, training_keys
from trainshed.config.load import check_source
from trainshed.config.migrations import DROPPED, KEY_ALIASES
from trainshed.config.resolved import RunConfig
from trainshed.config.schema import SECTIONS
from trainshed.config.sweep import expand
from trainshed.config.yaml_source import Source
from trainshed.errors import ConfigError
from trainshed.files import canonical_json

KEYS = {
    **{name: [*model.model_fields, *KEY_ALIASES.get(name, {})] for name, model in SECTIONS.items()},
    "training": sorted({key for p in all_trainer_parameters().values() for key in training_keys(p)}),
    "hyper_params": ["batch_size", "learning_rate", *DROPPED["training"]],
    "system": ["device", "use_wandb", "wandb_project", "seed"],
    "environment": ["A", "B"],
    "slurm": ["nodes"],
    "x": ["y"],
}
WORDS = [
    "lsr",
    "pretrain",
    "index",
    "a",
    "${stages.a}",
    "${stages.b}/c",
    "${env:X}",
    "${",
    "~x",
    "/",
    "",
    "true",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.floats(),
    st.floats(0.01, 0.99),
    st.sampled_from(WORDS),
    st.text(max_size=3),
)
values = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=5,
    ),
)


def keys_of_section(name):
    return st.tuples(st.just(name), st.dictionaries(st.sampled_from(KEYS[name]), values, max_size=3) | values)


sections = st.lists(st.sampled_from(sorted(KEYS)).flatmap(keys_of_section), max_size=3).map(dict)
few = st.integers(1, 3)
quiet = st.fixed_dictionaries(
    {},
    optional={
        "execution": st.fixed_dictionaries({}, optional={"seed": few | st.lists(few)}),
        "training": st.fixed_dictionaries({}, optional={"max_steps": few | st.lists(few)}),
        "rag": st.fixed_dictionaries({}, optional={"top_k": few | st.lists(few)}),
    },
)
kinds = st.sampled_from(["train", "index", "evaluate", "corpus", "trian"])
links = st.lists(st.sampled_from(["a", "b", "c"]), max_size=2) | values
entries = st.tuples(
    sections | quiet, st.fixed_dictionaries({}, optional={"stage": kinds, "needs": links})
).map(lambda pair: {**pair[0], **pair[1]})
pipelines = st.dictionaries(st.sampled_from(["a", "b", "c", "d.e"]), entries | values, max_size=3)


@settings(max_examples=400, deadline=None)
@given(sections | quiet, st.none() | pipelines | values, st.sampled_from(["lsr", "pretrain", "[lsr, ralt]"]))
def test_a_file_makes_runs_or_an_error(data, pipeline, algorithm):
    if pipeline is not None:
        data = {**data, "pipeline": pipeline}
    try:
        runs = expand(
            check_source(Source("c.yaml", data, {}), [f"execution.algorithm={algorithm}"], environ={})
        )
    except ConfigError as error:
        event("an error")
        told = error.where is not None or "problems" in error.what
    else:
        event("runs")
        told = True
        names = [run.name for run in runs]
        assert len(set(names)) == len(names)
        for index, run in enumerate(runs):
            assert set(run.needs) <= set(names[:index])
            canonical_json([run.hyper_parameters, run.settings])
            assert RunConfig.from_json(run.config.to_json(), {}) == run.config
    assert told
