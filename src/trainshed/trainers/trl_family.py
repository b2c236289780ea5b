"""The base of trainers that are TRL's: its losses and batches on our exact loop.

A subclass names the classes of TRL and says what they get besides model, tokenizer and data. Checkpoints,
resuming, guards, metrics and settings are those of every other trainer (`looped`, `exact`). Importing this
file does not import TRL, which takes seconds. Left out: formats of data (see `data.preparing`).
"""

import contextlib
import copy
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from trainshed.config.resolved import RunConfig
from trainshed.config.trl import TRLParameters
from trainshed.data.cutting import cut_prompts
from trainshed.data.preparing import prepare_rows
from trainshed.errors import ConfigError, DataError, require_extra
from trainshed.models.causal_lm import load_causal_lm, save_causal_lm
from trainshed.models.quiet import no_library_bars
from trainshed.models.sections import load_section
from trainshed.models.seeds import derive_seed
from trainshed.registry import load_attribute
from trainshed.trainers.base import RunContext, TrainerSettings, isolated_random_state
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.exact import ExactTraining
from trainshed.trainers.looped import LoopedTrainer
from trainshed.trainers.trl_sampled import OrderedPrompts

_REFERENCE = "ref"
#: where TRL's trainers gather what they measure until it is logged
_GATHERED = ("_metrics", "_stored_metrics")


class TRLTrainer(LoopedTrainer):
    """Trains a model with a trainer of TRL.

    Parameters
    ----------
    model
        A Transformers model, plain or with adapters.
    tokenizer
        Its tokenizer.
    train_dataset
        Rows (dicts) in a format that the algorithm takes, or a `datasets.Dataset`.
    eval_dataset
        The same, held out.
    parameters
        What the algorithm takes besides TRL's arguments.
    **more
        What `LoopedTrainer` takes: ``arguments``, ``seed``, ``settings``, ``callbacks``.

    Raises
    ------
    MissingExtraError
        When TRL is not installed.
    """

    #: ``"module:attribute"`` of TRL's trainer
    trl_class: ClassVar[str]
    parameters_class: ClassVar[type[TRLParameters]]
    argument_defaults: ClassVar[Mapping[str, Any]] = {"bf16": "auto"}

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Any,
        *,
        eval_dataset: Any = None,
        parameters: TRLParameters | None = None,
        **more: Any,
    ) -> None:
        require_extra("trl", "trl")
        with quiet_experiments():
            super().__init__(**more)
        if self.device().type == "cpu":
            # TRL computes activations twice to save memory, of which a CPU has more than time
            self.arguments.setdefault("gradient_checkpointing", False)
        self.model, self.tokenizer = model, tokenizer
        self.parameters: Any = parameters or self.parameters_class()
        self._train = train_dataset
        self._eval = eval_dataset

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""
        config = context.config
        training = config.training
        if training is None or not isinstance(training.own, cls.parameters_class):
            raise ConfigError(f"the run has no parameters of {cls.algorithm}", where="training")
        seed = config.execution.seed
        model, tokenizer = cls.load(config.model, seed=derive_seed(seed, cls.algorithm, "adapters"))
        rows = prepare_rows(config, tokenizer, directory=context.directory.path)
        return cls(
            model,
            tokenizer,
            rows.rows("train"),
            eval_dataset=rows.rows("validation") or None,
            parameters=training.own,
            arguments=training.arguments,
            seed=seed,
            settings=TrainerSettings.from_context(context),
            **cls.objects_of_run(config),
        )

    @classmethod
    def objects_of_run(cls, config: RunConfig) -> dict[str, Any]:
        """Return what else the constructor gets from a configuration."""
        return {}

    @classmethod
    def load(cls, section: Any, *, seed: int) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load what a section ``model`` names: a causal language model, unless a subclass says otherwise."""
        return load_section(section, seed=seed)

    # -- what the loop asks ----------------------------------------------------------------------------

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def train_data(self) -> Sequence[Any]:
        """Return the rows to learn from."""
        return self._train

    def eval_data(self) -> Sequence[Any] | None:
        """Return the held-out rows."""
        return self._eval

    def deciding_parameters(self) -> dict[str, Any]:
        """Return what the algorithm takes besides TRL's arguments."""
        return dict(self.parameters.model_dump(mode="json"))

    def objects(self) -> dict[str, Any]:
        """Return what TRL's constructor gets besides model, arguments, data and tokenizer."""
        return {}

    def make_loop(self, args: Any, callbacks: list[TrainerCallback]) -> ExactTraining:
        """Return TRL's trainer, made exact."""
        with quiet_experiments(), no_library_bars():
            return exact_class(load_attribute(self.trl_class))(
                self,
                model=self.model,
                args=args,
                train_dataset=as_dataset(self.train_data(), "training"),
                eval_dataset=None if self._eval is None else as_dataset(self._eval, "validation"),
                processing_class=self.tokenizer,
                callbacks=callbacks,
                **self.objects(),
            )

    def train(self) -> Any:
        """Train, or go on from the last checkpoint; see `LoopedTrainer.train`."""
        with left_as_it_was(self.model):
            return super().train()

    def evaluate(self) -> dict[str, float]:
        """Return TRL's metrics on the evaluation data: ``eval/loss`` and those of the algorithm.

        Raises
        ------
        ConfigError
            When there is no data to evaluate on.
        """
        if not self._eval:
            raise ConfigError("there is no data to evaluate on", fix="give an evaluation dataset")
        with contextlib.ExitStack() as stack:
            stack.enter_context(isolated_random_state())
            stack.enter_context(left_as_it_was(self.model))
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trainshed-")))
            made = self.make_arguments({**self.arguments, "eval_strategy": "no"}, directory)
            loop: Any = self.make_loop(made, [])
            with no_library_bars():
                found = loop.evaluate()
        self.model.eval()
        return {
            "eval/" + name.removeprefix("eval_").replace("/", "_"): float(value)
            for name, value in found.items()
            if not name.endswith(("runtime", "per_second", "model_preparation_time"))
        }

    def save(self, path: str | Path) -> None:
        """Write weights (or adapters) and tokenizer in the Hugging Face layout."""
        with written_into(Path(path)) as partial:
            save_causal_lm(self.model, self.tokenizer, partial)


class ReferencedTrainer(TRLTrainer):
    """Trains a policy that is kept near a reference model; the parameters are those of `TRLTrainer`, and:

    Parameters
    ----------
    reference_model
        What the policy is kept near; its first weights when None (adapters are then switched off).
    """

    def __init__(self, model: Any, *given: Any, reference_model: Any = None, **more: Any) -> None:
        super().__init__(model, *given, **more)
        named = self.parameters.reference_model
        if reference_model is None and named is not None:
            reference_model, _ = load_causal_lm(named)
        self.reference_model = frozen_copy(model) if reference_model is None else reference_model
        self._train = cut_prompts(self._train, self.tokenizer, self.parameters.max_prompt_length)
        self._eval = cut_prompts(self._eval, self.tokenizer, self.parameters.max_prompt_length)

    def objects(self) -> dict[str, Any]:
        """Return the reference model."""
        return {"ref_model": self.reference_model}


def exact_class(kind: type) -> Any:
    """Return a class that is ``kind``, a trainer of TRL, with exact checkpoints, means and guards."""

    class ExactTRL(ExactTraining, OrderedPrompts, kind):  # type: ignore[misc, valid-type]
        def __init__(self, owner: LoopedTrainer, **options: Any) -> None:
            self.prepare(owner)
            super().__init__(**options)
            self.remove_callback(PrinterCallback)

        def _send_telemetry(self) -> None:
            """Send nothing: no account and no network is ever needed."""

        def counts(self) -> dict[str, Any]:
            """Return TRL's counts of tokens, and what it measured since the last log line."""
            return {
                "tokens": float(getattr(self, "_total_train_tokens", 0)),
                "micro_batches": int(getattr(self, "_step", 0)),
                **{name: _plain(getattr(self, name)["train"]) for name in _GATHERED if hasattr(self, name)},
            }

        def buffers(self) -> dict[str, Tensor]:
            """Return the completions that are still to be learnt from."""
            parts = getattr(self, "_buffered_inputs", None) or []
            return {
                f"{place}/{name}": torch.as_tensor(value).clone().contiguous()
                for place, part in enumerate(parts)
                for name, value in part.items()
                if value is not None
            }

        def restore_buffers(self, values: dict[str, Tensor]) -> None:
            """Take what `buffers` returned."""
            parts: dict[int, dict[str, Tensor]] = {}
            for key, value in values.items():
                place, _, name = key.partition("/")
                parts.setdefault(int(place), {})[name] = value.to(self.args.device)
            self._buffered_inputs = [parts[place] for place in sorted(parts)] or None

        def restore_counts(self, values: dict[str, Any]) -> None:
            """Take what `counts` returned."""
            if hasattr(self, "_total_train_tokens"):
                self._total_train_tokens = values["tokens"]
            if hasattr(self, "_step"):
                self._step = values["micro_batches"]
            for name in _GATHERED:
                if hasattr(self, name):
                    getattr(self, name)["train"].update(values[name])

    ExactTRL.__name__ = ExactTRL.__qualname__ = f"Exact{kind.__name__}"
    return ExactTRL


def as_dataset(rows: Any, what: str) -> Any:
    """Return rows as a `datasets.Dataset`; of dicts, only the keys that all of them have.

    Raises
    ------
    DataError
        When there are no rows.
    """
    import datasets

    if isinstance(rows, datasets.Dataset):
        return rows
    rows = list(rows)
    if not rows:
        raise DataError(f"there are no {what} rows", fix="give a dataset that has rows")
    common = [key for key in rows[0] if all(key in row for row in rows)]
    return datasets.Dataset.from_list([{key: row[key] for key in common} for row in rows])


def frozen_copy(model: Any) -> Any | None:
    """Return the model as it is, frozen, to stay near to.

    Returns
    -------
    Any
        The copy; None for a model with adapters, of which TRL keeps the first ones beside.
    """
    return None if hasattr(model, "peft_config") else first_weights(model)


def first_weights(model: Any) -> Any:
    """Return a frozen copy of the model as it is, with its adapters where it has some."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _plain(gathered: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in gathered.items()}


@contextlib.contextmanager
def quiet_experiments() -> Iterator[None]:
    """Keep TRL from warning that its experimental trainers may change: their versions are pinned."""
    before = os.environ.get("TRL_EXPERIMENTAL_SILENCE")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRL_EXPERIMENTAL_SILENCE"]
        else:
            os.environ["TRL_EXPERIMENTAL_SILENCE"] = before


@contextlib.contextmanager
def left_as_it_was(model: Any) -> Iterator[None]:
    """Take back what TRL changes on a model: ``forward``, dropout, and a second adapter to compare with.

    Warnings about names that TRL gives to transformers are not shown.
    """
    part = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = part.__dict__.get("forward")
    dropouts = [(inner, inner.p) for inner in model.modules() if isinstance(inner, nn.Dropout)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        part.__dict__.pop("forward", None)
        if before is not None:
            part.__dict__["forward"] = before
        for inner, share in dropouts:
            inner.p = share
        if _REFERENCE in getattr(model, "peft_config", {}):
            model.delete_adapter(_REFERENCE)
