"""Kind and name to class, loaded late.

A row is ``name -> "module:attribute"``, so that listing and validating names imports nothing. Inside the
package rows stand in the tables below; from outside, a decorator (`register_trainer`) or an entry point
adds one. Left out: what the classes do.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

from trainshed.errors import ConfigError, UnknownNameError, did_you_mean

T = TypeVar("T")


def load_attribute(path: str) -> Any:
    """Import ``"module:attribute"`` and return the attribute."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass
class Registry:
    """The known names of one kind.

    Parameters
    ----------
    kind
        What is registered, in the singular: ``"trainer"``.
    rows
        Built-in ``name -> "module:attribute"``.
    aliases
        Other names that mean the same.
    """

    kind: str
    rows: dict[str, str]
    aliases: dict[str, str] = field(default_factory=dict)
    _objects: dict[str, Any] = field(default_factory=dict)
    _scanned: bool = False

    @property
    def group(self) -> str:
        """Entry-point group that plug-ins use, such as ``trainshed.trainers``."""
        return f"trainshed.{self.kind}s"

    def _scan(self) -> None:
        if not self._scanned:
            self._scanned = True
            for point in entry_points(group=self.group):
                self.rows.setdefault(point.name, point.value)

    def names(self) -> list[str]:
        """Return every known name, sorted, without importing any of them."""
        self._scan()
        return sorted({*self.rows, *self._objects})

    def canonical(self, name: str) -> str:
        """Return the registered name that ``name`` stands for, or raise `UnknownNameError`."""
        self._scan()
        name = self.aliases.get(name, name)
        if name not in self.rows and name not in self._objects:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}", fix=did_you_mean(name, [*self.names(), *self.aliases])
            )
        return name

    def get(self, name: str) -> Any:
        """Return the class that ``name`` stands for, importing it now."""
        name = self.canonical(name)
        if name not in self._objects:
            self._objects[name] = load_attribute(self.rows[name])
        return self._objects[name]

    def add(self, name: str, value: Any) -> None:
        """Register an object under a name that is not yet taken by another one."""
        self._scan()
        taken = self._objects.get(name)
        same = taken is not None and getattr(taken, "__qualname__", taken) == getattr(
            value, "__qualname__", value
        )
        if (taken is not None and not same) or (taken is None and name in self.rows):
            raise ConfigError(f"the {self.kind} name {name!r} is taken", fix="register under another name")
        self._objects[name] = value


TRAINERS = Registry(
    "trainer",
    {
        "lsr": "trainshed.trainers.lsr:HuggingFaceTrainerForLSR",
        "pretrain": "trainshed.trainers.pretrain:PretrainTrainer",
        "rag": "trainshed.trainers.manager:HuggingFaceRAGTrainerManager",
        "ralt": "trainshed.trainers.ralt:HuggingFaceTrainerForRALT",
        "transformer": "trainshed.trainers.transformer:ClassifierTrainer",
    },
)
TRAINER_PARAMETERS = Registry(
    "trainer_parameter",
    {
        "lsr": "trainshed.config.trainers.lsr:LSRParameters",
        "pretrain": "trainshed.config.trainers.pretrain:PretrainParameters",
        "rag": "trainshed.config.trainers.rag:RAGParameters",
        "ralt": "trainshed.config.trainers.ralt:RALTParameters",
        "transformer": "trainshed.config.trainers.transformer:TransformerParameters",
    },
)
STORES = Registry(
    "store",
    {
        "faiss": "trainshed.rag.stores.faiss:FaissKnowledgeStore",
        "hybrid": "trainshed.rag.stores.hybrid:HybridKnowledgeStore",
        "memory": "trainshed.rag.stores.memory:InMemoryKnowledgeStore",
        "qdrant": "trainshed.rag.stores.qdrant:QdrantKnowledgeStore",
    },
)
STAGES = Registry(
    "stage",
    {
        "corpus": "trainshed.stages.corpus:run",
        "evaluate": "trainshed.stages.evaluate:run",
        "index": "trainshed.stages.index:run",
        "train": "trainshed.stages.train:run",
    },
)
TRACKERS = Registry(
    "tracker",
    {
        "mlflow": "transformers.integrations:MLflowCallback",
        "tensorboard": "transformers.integrations:TensorBoardCallback",
        "trackio": "transformers.integrations:TrackioCallback",
        "wandb": "transformers.integrations:WandbCallback",
    },
)
REGISTRIES: Mapping[str, Registry] = {
    "trainers": TRAINERS,
    "stores": STORES,
    "stages": STAGES,
    "trackers": TRACKERS,
}


def register_trainer(name: str, *, params: type) -> Callable[[type[T]], type[T]]:
    """Register a trainer class and its parameters from outside the package.

    Parameters
    ----------
    name
        What ``execution.algorithm`` calls it.
    params
        A `trainshed.config.parameters.TrainerParameters` subclass: the algorithm's own keys of ``training``.
    """

    def decorate(cls: type[T]) -> type[T]:
        TRAINERS.add(name, cls)
        TRAINER_PARAMETERS.add(name, params)
        return cls

    return decorate
