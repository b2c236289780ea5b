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
        "bco": "trainshed.trainers.bco:BCOTrainer",
        "cpo": "trainshed.trainers.cpo:CPOTrainer",
        "distillation": "trainshed.trainers.distillation:DistillationTrainer",
        "dpo": "trainshed.trainers.dpo:DPOTrainer",
        "gkd": "trainshed.trainers.gkd:GKDTrainer",
        "grpo": "trainshed.trainers.grpo:GRPOTrainer",
        "kto": "trainshed.trainers.kto:KTOTrainer",
        "lsr": "trainshed.trainers.lsr:HuggingFaceTrainerForLSR",
        "mamba": "trainshed.trainers.mamba:MambaTrainer",
        "nash_md": "trainshed.trainers.nash_md:NashMDTrainer",
        "online_dpo": "trainshed.trainers.online_dpo:OnlineDPOTrainer",
        "orpo": "trainshed.trainers.orpo:ORPOTrainer",
        "ppo": "trainshed.trainers.ppo:PPOTrainer",
        "pretrain": "trainshed.trainers.pretrain:PretrainTrainer",
        "rag": "trainshed.trainers.manager:HuggingFaceRAGTrainerManager",
        "ralt": "trainshed.trainers.ralt:HuggingFaceTrainerForRALT",
        "reward": "trainshed.trainers.reward:RewardTrainer",
        "rl": "trainshed.trainers.rl:RLTrainer",
        "rloo": "trainshed.trainers.rloo:RLOOTrainer",
        "sft": "trainshed.trainers.sft:SFTTrainer",
        "transformer": "trainshed.trainers.transformer:ClassifierTrainer",
        "xpo": "trainshed.trainers.xpo:XPOTrainer",
    },
    aliases={"dpo_online": "online_dpo", "grpo_rlvr": "grpo", "reward_modeling": "reward"},
)
TRAINER_PARAMETERS = Registry(
    "trainer_parameter",
    {
        "bco": "trainshed.config.trainers.bco:BCOParameters",
        "cpo": "trainshed.config.trainers.cpo:CPOParameters",
        "distillation": "trainshed.config.trainers.distillation:DistillationParameters",
        "dpo": "trainshed.config.trainers.dpo:DPOParameters",
        "gkd": "trainshed.config.trainers.gkd:GKDParameters",
        "grpo": "trainshed.config.trainers.grpo:GRPOParameters",
        "kto": "trainshed.config.trainers.kto:KTOParameters",
        "lsr": "trainshed.config.trainers.lsr:LSRParameters",
        "mamba": "trainshed.config.trainers.mamba:MambaParameters",
        "nash_md": "trainshed.config.trainers.nash_md:NashMDParameters",
        "online_dpo": "trainshed.config.trainers.online_dpo:OnlineDPOParameters",
        "orpo": "trainshed.config.trainers.orpo:ORPOParameters",
        "ppo": "trainshed.config.trainers.ppo:PPOParameters",
        "pretrain": "trainshed.config.trainers.pretrain:PretrainParameters",
        "rag": "trainshed.config.trainers.rag:RAGParameters",
        "ralt": "trainshed.config.trainers.ralt:RALTParameters",
        "reward": "trainshed.config.trainers.reward:RewardParameters",
        "rl": "trainshed.config.trainers.rl:RLParameters",
        "rloo": "trainshed.config.trainers.rloo:RLOOParameters",
        "sft": "trainshed.config.trainers.sft:SFTParameters",
        "transformer": "trainshed.config.trainers.transformer:TransformerParameters",
        "xpo": "trainshed.config.trainers.xpo:XPOParameters",
    },
    aliases={"dpo_online": "online_dpo", "grpo_rlvr": "grpo", "reward_modeling": "reward"},
)
REWARDS = Registry(
    "reward",
    {
        "code_tests": "trainshed.rewards.code_tests:CodeTests",
        "exact_match": "trainshed.rewards.matching:ExactMatch",
        "format": "trainshed.rewards.matching:Format",
        "http": "trainshed.rewards.endpoint:HTTPReward",
        "length": "trainshed.rewards.matching:Length",
        "reward_model": "trainshed.rewards.reward_model:RewardModel",
    },
)
REWARD_PARAMETERS = Registry(
    "reward_parameter",
    {
        "code_tests": "trainshed.config.rewards:CodeTestsOptions",
        "exact_match": "trainshed.config.rewards:ExactMatchOptions",
        "format": "trainshed.config.rewards:FormatOptions",
        "http": "trainshed.config.rewards:HTTPOptions",
        "length": "trainshed.config.rewards:LengthOptions",
        "reward_model": "trainshed.config.rewards:RewardModelOptions",
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
    "rewards": REWARDS,
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


def register_reward(name: str, *, params: type | None = None) -> Callable[[T], T]:
    """Register a reward function from outside the package.

    Parameters
    ----------
    name
        What ``training.rewards`` calls it.
    params
        A `trainshed.config.rewards.RewardOptions` subclass, an object of which is what the registered class
        or function is called with; without it, what is registered is the function
        ``f(prompts, completions, **columns) -> list[float]`` itself, and gets the options as keywords.
    """

    def decorate(value: T) -> T:
        REWARDS.add(name, value)
        if params is not None:
            REWARD_PARAMETERS.add(name, params)
        return value

    return decorate
