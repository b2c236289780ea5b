"""What a configuration may say about a Mamba, and what of it does not go together, told by the plan."""

import pytest

from trainshed.config.schema import ModelSection
from trainshed.config.trainers.mamba import Mamba2Shape, MambaParameters
from trainshed.errors import ConfigError

START = "execution: {algorithm: mamba}\ndata: {dataset_name: builtin}\n"


def shape(own=None, **model):
    return MambaParameters(**(own or {})).shape(ModelSection(**model))


def test_the_keys_of_the_seed_document_make_a_model(runs):
    """`configs/mamba_train.yaml` as MARK documents it."""
    (run,) = runs(
        START
        + "model: {vocab_size: 5000, d_model: 256, n_heads: 8, n_layers: 4, max_length: 512}\n"
        + "training: {batch_size: 8, num_epochs: 10, learning_rate: 0.0001, mixed_precision: true}\n"
    )
    made = run.config.training.own.shape(run.config.model)
    assert (made.hidden_size, made.num_layers, made.num_heads, made.head_dim) == (256, 4, 8, 64)
    assert run.config.training.arguments["num_train_epochs"] == 10


@pytest.mark.parametrize(
    ("own", "model", "heads", "head_dim"),
    [
        ({}, {}, 6, 64),
        ({}, {"hidden_size": 48}, 2, 48),
        ({}, {"hidden_size": 100}, 4, 50),
        ({"head_dim": 16}, {"hidden_size": 64}, 8, 16),
        ({"expand": 3}, {"hidden_size": 64, "num_heads": 4}, 4, 48),
        ({"head_dim": 32}, {"hidden_size": 64, "num_heads": 4}, 4, 32),
    ],
)
def test_heads_are_as_many_as_their_width_leaves_room_for(own, model, heads, head_dim):
    made = shape(own, **model)
    assert (made.num_heads, made.head_dim) == (heads, head_dim)
    assert made.num_heads * made.head_dim == made.inner_size


@pytest.mark.parametrize(
    ("line", "key", "what"),
    [
        ("training: {head_dim: 80}", "training.head_dim", r"2 x 192 does not divide into heads of 80"),
        ("training: {n_groups: 4}", "training.n_groups", r"6 heads do not divide into 4 groups"),
        ("model: {num_heads: 7}", "model.num_heads", r"does not divide into 7 heads"),
        ("model: {num_heads: 4}\ntraining: {head_dim: 64}", "training.head_dim", r"4 heads of 64"),
        ("model: {model_name_or_path: org/a}\ntraining: {state_size: 8}", "training.state_size", r"shapes a"),
        ("model: {max_length: 128}", "model.max_length", r"longer than model.max_length 128"),
        (
            "model: {max_length: 128}\ntraining: {block_size: 200}",
            "training.block_size",
            r"longer than model",
        ),
        ("training: {packing: true}", "training", r"leak into one another"),
        ("training: {overlap: 256}", "training", r"`overlap` 256 is not below `block_size` 256"),
        ("training: {overlap: 0}", "training.overlap", r"greater than or equal to 1"),
    ],
)
def test_what_does_not_go_together_is_told_with_its_place(runs, line, key, what):
    with pytest.raises(ConfigError, match=what) as caught:
        runs(START + line + "\n")
    assert key in str(caught.value)
    assert "c.yaml:" in str(caught.value)


@pytest.mark.parametrize("key", ["intermediate_size: 64", "load_in_4bit: true", "attn_implementation: sdpa"])
def test_keys_of_a_transformer_are_refused(runs, key):
    with pytest.raises(ConfigError, match="does not read model"):
        runs(f"pipeline:\n  m: {{execution: {{algorithm: mamba}}, model: {{{key}}}}}\n")


def test_each_value_of_a_sweep_is_checked(runs):
    with pytest.raises(ConfigError, match="heads of 80") as caught:
        runs(START + "training: {head_dim: [64, 80]}\n")
    assert "heads of 64" not in str(caught.value)
    assert len(runs(START + "training: {head_dim: [32, 64]}\n")) == 2


def test_a_planned_run_comes_back_with_a_checkpoint_to_start_from(runs):
    """Read back, every parameter is set: that must not count as shaping a model."""
    (run,) = runs(START + "model: {model_name_or_path: org/a}\ntraining: {block_size: 64}\n")
    again = type(run.config).from_json(run.config.to_json())
    assert again.training.own == run.config.training.own


def test_a_row_repeats_an_eighth_unless_told():
    assert [MambaParameters(block_size=size).repeated for size in (2, 64, 256)] == [1, 8, 32]
    assert MambaParameters(block_size=64, overlap=16).repeated == 16


def test_a_shape_is_checked_wherever_it_is_made():
    with pytest.raises(ConfigError, match="such as 48"):
        Mamba2Shape(hidden_size=48, head_dim=64)
