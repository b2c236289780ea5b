"""Training retriever and generator of one RAG system under one manager.

``mode`` says which part `HuggingFaceRAGTrainerManager.train` trains; ``both`` trains the retriever, then the
generator, in turns, so that each learns from what the other has learned. Left out: how a part is trained
(`lsr`, `ralt`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from trainshed.config.trainers.rag import RAGParameters
from trainshed.errors import ConfigError, did_you_mean
from trainshed.trainers.base import RunContext, Trainer, TrainerSettings, TrainResult
from trainshed.trainers.lsr import HuggingFaceTrainerForLSR
from trainshed.trainers.rag_data import make_learning_system, read_split
from trainshed.trainers.rag_trainer import RAGPartTrainer
from trainshed.trainers.ralt import HuggingFaceTrainerForRALT

Mode = Literal["retriever", "generator", "both"]


class HuggingFaceRAGTrainerManager(Trainer):
    """Trains the parts of a RAG system.

    Parameters
    ----------
    mode
        ``retriever``, ``generator`` or ``both``; may be changed between calls of `train`.
    retriever_trainer, generator_trainer
        Of the same system; the one that ``mode`` does not need may be missing.
    train_dataset
        For the trainers that have none of their own.
    cycles
        With ``both``, how often each part is trained, with its trainer's seed in the first cycle, the next
        one in the second, and so on.
    seed
        Kept for what asks a trainer for its seed; the parts have their own.
    settings
        For the trainers that have none of their own, each in a directory of its part's name.

    Raises
    ------
    ConfigError
        When the mode is unknown, the trainer that it needs is missing, or their systems differ.
    """

    def __init__(
        self,
        mode: Mode = "retriever",
        *,
        retriever_trainer: HuggingFaceTrainerForLSR | None = None,
        generator_trainer: HuggingFaceTrainerForRALT | None = None,
        train_dataset: Any = None,
        cycles: int = 1,
        seed: int = 0,
        settings: TrainerSettings | None = None,
    ) -> None:
        super().__init__(seed=seed, settings=settings)
        self.retriever_trainer, self.generator_trainer = retriever_trainer, generator_trainer
        if cycles < 1:
            raise ConfigError(f"cycles is {cycles}", where=type(self).__name__, fix="at least 1")
        self.cycles = cycles
        systems = {id(trainer.rag_system) for trainer in (retriever_trainer, generator_trainer) if trainer}
        if len(systems) > 1:
            raise ConfigError(
                "the two trainers have different RAG systems",
                where=type(self).__name__,
                fix="give the same rag_system object to both",
            )
        self.mode = mode
        if train_dataset is not None:
            self._give(train_dataset, only_missing=True)
        for name, trainer in (("retriever", retriever_trainer), ("generator", generator_trainer)):
            if trainer is not None and settings is not None and trainer.settings == TrainerSettings():
                place = settings.directory
                trainer.settings = replace(settings, directory=None if place is None else place / name)

    @property
    def mode(self) -> Mode:
        """Which part `train` trains."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        known = get_args(Mode)
        if mode not in known:
            raise ConfigError(
                f"unknown mode {mode!r}", where=type(self).__name__, fix=did_you_mean(str(mode), known)
            )
        wanted = [("retriever", self.retriever_trainer), ("generator", self.generator_trainer)]
        for name, trainer in wanted:
            if mode in (name, "both") and trainer is None:
                raise ConfigError(
                    f"mode {mode!r} needs a {name} trainer",
                    where=type(self).__name__,
                    fix=f"give {name}_trainer",
                )
        self._mode: Mode = mode

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the manager that a run's configuration describes; both parts take the run's arguments."""
        config, training = context.config, context.config.training
        if training is None or not isinstance(training.own, RAGParameters):
            raise ConfigError("the run has no parameters of rag", where="training")
        own, data, seed = training.own, config.data, config.execution.seed
        system = make_learning_system(config, scores=True, retrieves=True)
        train = read_split(data, data.train_split, limit=data.max_train_samples)
        held_out = read_split(data, data.validation_split, limit=data.max_eval_samples)
        settings = TrainerSettings.from_context(context)
        shared: dict[str, Any] = {"seed": seed, "settings": settings, "eval_dataset": held_out}
        lsr = own.lsr
        ralt = own.ralt
        return cls(
            own.mode,
            retriever_trainer=HuggingFaceTrainerForLSR(
                system, train, training.arguments, parameters=lsr, **shared
            ),
            generator_trainer=HuggingFaceTrainerForRALT(
                system, train, training.arguments, parameters=ralt, **shared
            ),
            cycles=own.cycles,
            seed=seed,
            settings=settings,
        )

    def train(self, train_dataset: Any = None) -> TrainResult:
        """Train the part that `mode` names, or both in turns.

        Parameters
        ----------
        train_dataset
            Replaces the trainers' own.

        Returns
        -------
        TrainResult
            Of the part. With ``both``: the loss is that of the last generator training, metrics and history
            are those of all turns under ``cycle<n>/<part>/``, steps are all together.
        """
        if train_dataset is not None:
            self._give(train_dataset, only_missing=False)
        if self.mode != "both":
            return self._part(self.mode).train()
        results: list[tuple[str, TrainResult]] = []
        for cycle in range(self.cycles):
            for name in ("retriever", "generator"):
                trainer = self._part(name)
                settings, seed = trainer.settings, trainer.seed
                trainer.settings = self._in_turn(settings, cycle, name)
                trainer.set_seed(seed + cycle)
                try:
                    results.append((f"cycle{cycle + 1}/{name}", trainer.train()))
                finally:
                    trainer.settings = settings
                    trainer.set_seed(seed)
        return _joined(results)

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the part (or parts) that `mode` names, on their held-out questions."""
        names = ("retriever", "generator") if self.mode == "both" else (self.mode,)
        metrics: dict[str, float] = {}
        for name in names:
            metrics |= {f"{name}/{key}": value for key, value in self._part(name).evaluate().items()}
        return metrics

    def save(self, path: str | Path) -> None:
        """Write what `mode` trains: ``retriever/`` (``knowledge_store/`` if it changed), ``generator/``."""
        if self.mode in ("retriever", "both"):
            self._part("retriever").save(path)
        if self.mode in ("generator", "both"):
            self._part("generator").save(Path(path) / "generator")

    def get_federated_task(self) -> Any:
        """Return the federated form of the current mode's training: not in this version."""
        return self._part("generator" if self.mode == "generator" else "retriever").get_federated_task()

    # -- inside ----------------------------------------------------------------------------------------

    def _part(self, name: str) -> RAGPartTrainer:
        trainer = self.retriever_trainer if name == "retriever" else self.generator_trainer
        assert trainer is not None, "the mode's setter checks it"
        return trainer

    def _give(self, dataset: Any, *, only_missing: bool) -> None:
        for trainer in (self.retriever_trainer, self.generator_trainer):
            if trainer is not None and not (only_missing and trainer.train_dataset is not None):
                trainer.train_dataset = dataset

    def _in_turn(self, settings: TrainerSettings, cycle: int, name: str) -> TrainerSettings:
        """Return settings with a directory of its own, so that a finished turn is not repeated."""
        directory = settings.directory
        place = None if directory is None else directory / f"cycle{cycle + 1}-{name}"
        return replace(settings, directory=place, name=f"{name}, cycle {cycle + 1} of {self.cycles}")


def _joined(results: Sequence[tuple[str, TrainResult]]) -> TrainResult:
    metrics: dict[str, float] = {}
    history: list[dict[str, float]] = []
    steps = 0
    for name, result in results:
        metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
        for row in result.history:
            named = {f"{name}/{key}": value for key, value in row.items() if key != "step"}
            history.append({"step": steps + row["step"], **named})
        steps += result.steps
    return TrainResult(results[-1][1].loss, metrics, steps, history)
