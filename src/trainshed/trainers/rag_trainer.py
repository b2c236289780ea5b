"""The base of trainers that train a part of a `RAGSystem` on questions and answers.

Left out: what the parts learn from (`lsr`, `ralt`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainingArguments

from trainshed.config.parameters import TrainerParameters
from trainshed.data.examples import RagExample
from trainshed.errors import ConfigError, DataError
from trainshed.rag.system import RAGSystem
from trainshed.trainers.base import RunContext, TrainerSettings, TrainResult
from trainshed.trainers.rag_data import as_examples, make_system, read_split
from trainshed.trainers.transformers_family import TransformersTrainer

if TYPE_CHECKING:
    from trainshed.config.resolved import RunConfig


class RAGPartTrainer(TransformersTrainer):
    """Trains one part of a RAG system.

    Parameters
    ----------
    rag_system
        The system; training changes the part in place.
    train_dataset
        Questions and answers (columns ``query`` and ``response``): a `datasets.Dataset`, rows, examples, or a
        path. It may also be given later, to `train` or to the manager.
    training_arguments
        Of `transformers.TrainingArguments`, as a dict or such an object.
    eval_dataset
        The same, held out.
    parameters
        The algorithm's own.
    **more
        What `TransformersTrainer` takes: ``seed``, ``settings``, ``callbacks``.
    """

    #: the class of ``parameters``
    parameters_class: type[TrainerParameters]
    parameters: Any

    def __init__(
        self,
        rag_system: RAGSystem,
        train_dataset: Any = None,
        training_arguments: Mapping[str, Any] | TrainingArguments | None = None,
        *,
        eval_dataset: Any = None,
        parameters: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(arguments=training_arguments, **more)
        if not isinstance(rag_system, RAGSystem):
            raise ConfigError(
                f"a {type(rag_system).__name__} is not a RAG system",
                where=type(self).__name__,
                fix="trainshed.rag.system.RAGSystem(generator, retriever, knowledge_store)",
            )
        self.rag_system = rag_system
        self.parameters = parameters or self.parameters_class()
        self._train_examples = None if train_dataset is None else as_examples(train_dataset)
        self._eval_examples = None if eval_dataset is None else as_examples(eval_dataset)

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes."""
        config = context.config
        training = config.training
        if training is None or not isinstance(training.own, cls.parameters_class):
            raise ConfigError(f"the run has no parameters of {cls.algorithm}", where="training")
        data = config.data
        return cls(
            cls.make_system(config),
            read_split(data, data.train_split, limit=data.max_train_samples),
            training.arguments,
            eval_dataset=read_split(data, data.validation_split, limit=data.max_eval_samples),
            parameters=training.own,
            seed=config.execution.seed,
            settings=TrainerSettings.from_context(context),
        )

    @classmethod
    def make_system(cls, config: "RunConfig") -> RAGSystem:
        """Make the system to train, of the keys of ``rag`` that the parameters declare: here of all."""
        return make_system(config)

    @property
    def train_dataset(self) -> list[RagExample] | None:
        """The questions to learn from; assign anything that the constructor takes."""
        return self._train_examples

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        self._train_examples = None if dataset is None else as_examples(dataset)
        self.forget()

    def forget(self) -> None:
        """Drop what was computed from the dataset or from the system's other parts."""

    def examples(self) -> list[RagExample]:
        """Return the questions to learn from.

        Raises
        ------
        DataError
            When no dataset was given, or it is empty.
        """
        if self._train_examples is None:
            raise DataError(
                "there is no dataset to train on",
                where=type(self).__name__,
                fix="give train_dataset to the trainer, to its manager, or to train()",
            )
        if not self._train_examples:
            raise DataError("the dataset to train on is empty", where=type(self).__name__)
        if not len(self.rag_system.knowledge_store):
            raise DataError("the knowledge store is empty", where=type(self).__name__, fix="add passages")
        return self._train_examples

    def train(self, train_dataset: Any = None) -> TrainResult:
        """Train the part.

        Parameters
        ----------
        train_dataset
            Replaces the constructor's.
        """
        if train_dataset is not None:
            self.train_dataset = train_dataset
        self.forget()
        return super().train()
