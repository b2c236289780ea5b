"""Classifiers: an encoder with a head learns labels of texts, labels of words, or where an answer stands.

The head, fresh unless the checkpoint has it, is that of the library's `AutoModelForSequenceClassification`,
`...TokenClassification` or `...QuestionAnswering` (BERT, arXiv 1810.04805, section 4). What differs between
the tasks is in `label_tasks`, `word_task` and `span_task`. Left out: using what was trained (see
`models.classifier`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from trainshed.config.trainers.transformer import TransformerParameters
from trainshed.data.jsonl import write_jsonl
from trainshed.data.labelled import AnyExample
from trainshed.errors import ConfigError, did_you_mean
from trainshed.files import write_json
from trainshed.models.task_models import longest_input, save_task_model
from trainshed.progress import say
from trainshed.trainers.base import RunContext, TrainerSettings, TrainResult
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.classifier_parts import make_model, make_reading, make_task, read_examples
from trainshed.trainers.label_tasks import LabelTask
from trainshed.trainers.text_task import Outcome, TextRow
from trainshed.trainers.transformers_family import TransformersTrainer


class ClassifierTrainer(TransformersTrainer):
    """Trains an encoder with a head.

    Parameters
    ----------
    model
        With the head of the task, as `models.task_models.load_task_model` returns it; ``config.id2label``
        names the labels.
    tokenizer
        Its tokenizer.
    train_dataset
        Examples of the task: `data.labelled.LabelledExample`, `WordsExample` or `SpanExample`.
    eval_dataset
        The same, to watch while training; the best checkpoint and the temperature are found on it.
    test_dataset
        The same, held out to the end.
    parameters
        The task, and how texts are read.
    **more
        What `TransformersTrainer` takes: ``arguments``, ``seed``, ``settings``, ``callbacks``.

    Raises
    ------
    ConfigError
        When arguments do not fit the task or the model.
    DataError
        When a label is not one of the model's; names the row and the label.
    """

    algorithm: ClassVar[str] = "transformer"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        train_dataset: Sequence[AnyExample],
        *,
        eval_dataset: Sequence[AnyExample] | None = None,
        test_dataset: Sequence[AnyExample] | None = None,
        parameters: TransformerParameters | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model, self.tokenizer = model, tokenizer
        self.parameters = parameters or TransformerParameters()
        self._check_length()
        reading = make_reading(self.parameters)
        reading.store(self.model.config)
        self.task = make_task(self.parameters, tokenizer, reading, self._names(), train=train_dataset)
        self._train = self.task.rows(train_dataset)
        self._eval = self._held_out(eval_dataset)
        self._test = self._held_out(test_dataset)
        if self.parameters.calibration == "temperature" and not self._eval:
            raise ConfigError(
                "there is no data to fit the temperature on",
                where="training.calibration",
                fix="give a validation split, or calibration: none",
            )
        self._choose_best()

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes, building tokenizer and model if need be."""
        config, training = context.config, context.config.training
        if training is None or not isinstance(training.own, TransformerParameters):
            raise ConfigError("the run has no parameters of transformer", where="training")
        splits = read_examples(config.data, training.own)
        model, tokenizer = make_model(
            config.model,
            training.own,
            splits["train"],
            seed=config.execution.seed,
            device=config.execution.device,
        )
        return cls(
            model,
            tokenizer,
            splits["train"],
            eval_dataset=splits.get("validation"),
            test_dataset=splits.get("test"),
            parameters=training.own,
            arguments=training.arguments,
            seed=config.execution.seed,
            settings=TrainerSettings.from_context(context),
        )

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def train_data(self) -> Sequence[TextRow]:
        """Return the rows to learn from."""
        return self._train

    def eval_data(self) -> Sequence[TextRow] | None:
        """Return the rows to watch."""
        return self._eval

    def lengths(self, data: Sequence[TextRow]) -> Sequence[int]:
        """Return the tokens of each row."""
        return [len(row) for row in data]

    def collate(self, rows: Sequence[TextRow]) -> dict[str, Tensor]:
        """Return a batch."""
        return self.task.collate(rows)

    def loss_sum(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses of a batch."""
        return self.task.loss(self.task.forward(model, batch), batch)

    def loss_weight(self, batch: dict[str, Tensor]) -> float:
        """Return the sum of the weights in `loss_sum`."""
        return self.task.weight(batch)

    def deciding_parameters(self) -> dict[str, Any]:
        """Return the parameters; how the result is calibrated afterwards does not count."""
        return self.parameters.model_dump(mode="json", exclude={"calibration"})

    def train(self) -> TrainResult:
        """Train, or go on from the last checkpoint, and then fit the temperature if one is wanted."""
        result = super().train()
        if self.parameters.calibration == "temperature" and self._eval and isinstance(self.task, LabelTask):
            _, collected = self._run(self._eval)
            temperature = self.task.calibrate(self._eval, collected)
            replace(self.task.reading, temperature=temperature).store(self.model.config)
            say(f"temperature fitted on {len(self._eval)} validation rows: {temperature:.3f}")
        return result

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on the rows to watch: ``eval/<metric>``, and ``f1/<label>`` for each label."""
        if not self._eval:
            raise ConfigError("there is no data to evaluate on", fix="give an evaluation dataset")
        return _grouped(self._outcome(self._eval).metrics, "eval")

    def save(self, path: str | Path) -> None:
        """Write weights and tokenizer in the Hugging Face layout; adapters are merged, and kept besides."""
        with written_into(Path(path)) as partial:
            save_task_model(self.model, self.tokenizer, partial)

    def write_report(self, path: Path) -> dict[str, float]:
        """Write ``predictions-<split>.jsonl`` and ``report.json`` for the rows to watch and those held out.

        Returns
        -------
        dict
            ``eval/<metric>`` and ``test/<metric>``.
        """
        found: dict[str, dict[str, float]] = {}
        for split, rows in (("validation", self._eval), ("test", self._test)):
            if rows:
                outcome = self._outcome(rows)
                write_jsonl(path / f"predictions-{split}.jsonl", outcome.predictions)
                found[split] = outcome.metrics
        write_json(path / "report.json", found)
        metrics: dict[str, float] = {}
        for split, group in (("validation", "eval"), ("test", "test")):
            shown = {name: value for name, value in found.get(split, {}).items() if "/" not in name}
            metrics |= _grouped(shown, group)
        return metrics

    # -- inside ----------------------------------------------------------------------------------------

    def _names(self) -> tuple[str, ...]:
        if self.parameters.task == "extractive_qa":
            return ()
        return tuple(self.model.config.id2label[n] for n in range(self.model.config.num_labels))

    def _held_out(self, examples: Sequence[AnyExample] | None) -> list[TextRow] | None:
        return self.task.rows(examples) if examples else None

    def _check_length(self) -> None:
        limit, asked = longest_input(self.model), self.parameters.max_length
        if limit is not None and asked > limit:
            raise ConfigError(
                f"the model reads at most {limit} tokens, not {asked}",
                where="training.max_length",
                fix=f"at most {limit}, with long_documents: chunk for longer texts",
            )

    def _choose_best(self) -> None:
        """Say by which metric the best checkpoint is chosen, and refuse one that no evaluation gives."""
        if not self.arguments.get("load_best_model_at_end") and not self.arguments.get(
            "metric_for_best_model"
        ):
            return
        name = str(self.arguments.get("metric_for_best_model") or self.task.headline).removeprefix("eval_")
        known = [*self.task.metric_names, *self.task.label_metrics(self._eval or [])]
        if name not in known:
            raise ConfigError(
                f"no evaluation gives the metric {name!r}",
                where="training.metric_for_best_model",
                fix=did_you_mean(name, known),
            )
        self.arguments["metric_for_best_model"] = name
        if self.arguments.get("greater_is_better") is None:
            self.arguments["greater_is_better"] = name not in self.task.smaller_is_better

    def _outcome(self, rows: Sequence[TextRow]) -> Outcome:
        loss, collected = self._run(rows)
        outcome = self.task.outcome(rows, collected)
        return replace(outcome, metrics={"loss": loss, **outcome.metrics})

    def _run(self, rows: Sequence[TextRow]) -> tuple[float, list[Any]]:
        """Return the mean loss on rows, and what the task collects of each."""
        collected: list[Any] = [None] * len(rows)
        losses, weights = [], []

        def use(places: list[int], batch: dict[str, Tensor]) -> None:
            outputs = self.task.forward(self.model, batch)
            losses.append(self.task.loss(outputs, batch).item())
            weights.append(self.task.weight(batch))
            found = self.task.collect(outputs, batch, [rows[place] for place in places])
            for place, each in zip(places, found, strict=True):
                collected[place] = each

        self.for_batches(rows, use)
        return float(np.sum(losses) / np.sum(weights)), collected


def _grouped(metrics: Mapping[str, float], group: str) -> dict[str, float]:
    return {name if "/" in name else f"{group}/{name}": value for name, value in metrics.items()}
