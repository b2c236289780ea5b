"""The best checkpoint: by which validation metric, and what else must be said for one to be found.

What `transformers` would refuse when a training starts, or would take for the best without being told, is
refused when the configuration is read. Left out: whether the evaluation measures a metric of that name, which
only a training knows (`trainshed.trainers.exact`).
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

#: where neither the configuration nor an algorithm says anything (`trainers.arguments`)
_SAVE_STEPS, _LOGGING_STEPS = 0.1, 10.0
#: ends of the names of metrics of which less is better; of others the library takes more for better
_LESS_IS_BETTER = ("loss", "nll", "perplexity", "bits_per_byte", "kl", "brier", "ece", "error")


def settled_best(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a choice of the best checkpoint adds to the arguments: a metric's own name, its direction.

    ``eval/x``, as ``metrics.jsonl`` calls it, is ``x``.
    """
    metric = arguments.get("metric_for_best_model")
    if not isinstance(metric, str):
        return {}
    name = metric.removeprefix("eval/")
    found = {"metric_for_best_model": name} if name != metric else {}
    if arguments.get("greater_is_better") is None and name.endswith(_LESS_IS_BETTER):
        return {**found, "greater_is_better": False}
    return found


def best_problems(arguments: Mapping[str, Any], *, has_default: bool) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) where arguments ask for the best checkpoint and cannot get it.

    Parameters
    ----------
    arguments
        Of `transformers.TrainingArguments`, those that are not left to its defaults.
    has_default
        Whether the algorithm has a validation metric of its own that it takes for the best one.
    """
    saves = arguments.get("save_strategy") or "steps"
    if not arguments.get("load_best_model_at_end") and saves != "best":
        return
    wanted = "load_best_model_at_end" if arguments.get("load_best_model_at_end") else "save_strategy: best"
    metric, evaluates = arguments.get("metric_for_best_model"), arguments.get("eval_strategy") or "no"
    if evaluates == "no":
        told = "`loss` here is that of held-out rows, and " if metric == "loss" else ""
        yield (
            "eval_strategy",
            f"{told}{wanted} compares what is measured on held-out rows, of which there is nothing while "
            "eval_strategy is `no`; set eval_strategy: steps, with eval_steps and save_steps",
        )
    if metric is None and not has_default:
        yield (
            "metric_for_best_model",
            f"{wanted} needs the validation metric that says which checkpoint is the best: set "
            "metric_for_best_model, such as loss for the loss on held-out rows (in metrics.jsonl they are "
            "called eval/...)",
        )
    if isinstance(metric, str) and metric.startswith(("train/", "train_")):
        yield (
            "metric_for_best_model",
            f"{metric!r} is measured on the rows that are trained on, of which the last checkpoint knows "
            f"most; name a validation metric, such as {metric[6:]}",
        )
    if arguments.get("load_best_model_at_end") and evaluates != "no" and saves != "best":
        yield from _steps_problems(arguments, evaluates, saves)


def _steps_problems(arguments: Mapping[str, Any], evaluates: str, saves: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong where checkpoints are not saved when they are evaluated."""
    if saves != evaluates:
        yield (
            "save_strategy",
            f"the best checkpoint must be saved when it is evaluated: save_strategy is {saves}, "
            f"eval_strategy is {evaluates}; make them the same",
        )
        return
    if evaluates != "steps":
        return
    every = arguments.get("eval_steps") or arguments.get("logging_steps") or _LOGGING_STEPS
    save = arguments.get("save_steps") or _SAVE_STEPS
    if (every < 1) != (save < 1) or Fraction(str(save)) % Fraction(str(every)):
        default = "" if arguments.get("save_steps") else " (the default)"
        yield (
            "save_steps",
            f"the best checkpoint must be saved when it is evaluated: save_steps {save:g}{default} is no "
            f"multiple of eval_steps {every:g}; set save_steps: {every:g}",
        )
