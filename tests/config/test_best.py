"""The best checkpoint is one by a validation metric that is named, or the configuration is refused."""

import pytest

from trainshed.errors import ConfigError

GOOD = ["eval_strategy=steps", "eval_steps=5", "save_steps=10", "metric_for_best_model=loss"]


def arguments(runs, algorithm, given):
    more = {"grpo": "training.rewards=length"}.get(algorithm)
    overrides = [f"training.{each}" for each in given] + ([more] if more else [])
    (run,) = runs(f"execution: {{algorithm: {algorithm}}}\n", *overrides)
    return run.config.training.arguments


@pytest.mark.parametrize("algorithm", ["lsr", "pretrain", "sft", "dpo", "grpo"])
@pytest.mark.parametrize(
    ("given", "match"),
    [
        (GOOD[:3], "needs the validation metric that says which checkpoint is the best"),
        (GOOD[3:], "`loss` here is that of held-out rows, .* set eval_strategy: steps"),
        (["metric_for_best_model=accuracy"], "compares what is measured on held-out rows"),
        ([*GOOD[:3], "metric_for_best_model=train/loss"], "'train/loss' is measured on the rows"),
        ([*GOOD[:3], "metric_for_best_model=train_loss"], "name a validation metric, such as loss"),
        (
            [GOOD[0], GOOD[3], "eval_steps=5"],
            r"save_steps 0.1 \(the default\) is no multiple of eval_steps 5",
        ),
        ([GOOD[0], GOOD[3], "eval_steps=5", "save_steps=7"], "save_steps 7 is no multiple of eval_steps 5"),
        ([GOOD[3], "eval_strategy=epoch"], "save_strategy is steps, eval_strategy is epoch"),
    ],
)
def test_what_is_refused(runs, algorithm, given, match):
    with pytest.raises(ConfigError, match=match):
        arguments(runs, algorithm, ["load_best_model_at_end=true", *given])


@pytest.mark.parametrize(
    "given",
    [
        GOOD,
        ["eval_strategy=steps", "eval_steps=0.1", "save_steps=0.2", "metric_for_best_model=loss"],
        ["eval_strategy=epoch", "save_strategy=epoch", "metric_for_best_model=loss"],
        ["eval_strategy=steps", "eval_steps=5", "save_strategy=best", "metric_for_best_model=loss"],
    ],
)
def test_what_is_taken(runs, given):
    assert arguments(runs, "sft", ["load_best_model_at_end=true", *given])["metric_for_best_model"] == "loss"


def test_saving_the_best_needs_a_metric_too(runs):
    with pytest.raises(ConfigError, match="save_strategy: best needs the validation metric"):
        arguments(runs, "sft", ["save_strategy=best", "eval_strategy=epoch"])


@pytest.mark.parametrize(
    ("written", "name", "greater"),
    [
        ("eval/mrr@10", "mrr@10", None),
        ("eval_loss", "eval_loss", False),
        ("nll", "nll", False),
        ("kl", "kl", False),
        ("macro_f1", "macro_f1", None),
    ],
)
def test_names_and_directions(runs, written, name, greater):
    given = [*GOOD[:3], f"metric_for_best_model={written}", "load_best_model_at_end=true"]
    found = arguments(runs, "lsr", given)
    assert found["metric_for_best_model"] == name
    assert found.get("greater_is_better") is greater
    assert arguments(runs, "lsr", [*given, "greater_is_better=true"])["greater_is_better"] is True


def test_a_classifier_has_a_metric_of_its_own(runs):
    given = ["load_best_model_at_end=true", "eval_strategy=epoch", "save_strategy=epoch"]
    assert "metric_for_best_model" not in arguments(runs, "transformer", given)


def test_the_problem_stands_at_its_key(load):
    text = "execution: {algorithm: sft}\ntraining:\n  load_best_model_at_end: true\n"
    text += "  metric_for_best_model: train/loss\n"
    with pytest.raises(ConfigError) as caught:
        load(text + "  eval_strategy: epoch\n  save_strategy: epoch\n")
    assert caught.value.where == "c.yaml:4, training.metric_for_best_model"
