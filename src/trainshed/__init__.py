"""Train every part of a retrieval-augmented, aligned language-model system from one YAML.

The public names, imported when they are first used: ``import trainshed`` alone imports nothing heavy. Inside
the package the defining modules are imported, never this one. Left out: everything that only a command needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from trainshed.config.load import load_config
    from trainshed.config.parameters import TrainerParameters
    from trainshed.data.examples import RagExample, load_examples
    from trainshed.data.passages import Passage
    from trainshed.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        MissingExtraError,
        ModelError,
        NotAvailableError,
        RunError,
        StoreError,
        StoreMismatchError,
        TrainshedError,
        UnknownNameError,
    )
    from trainshed.evaluation.pipeline import evaluate_rag_pipeline
    from trainshed.models.classifier import Classifier
    from trainshed.rag.building import build_store
    from trainshed.rag.generator import Generator
    from trainshed.rag.retriever import Retriever
    from trainshed.rag.stores.base import KnowledgeStore
    from trainshed.rag.system import RAGConfig, RAGSystem
    from trainshed.registry import register_reward, register_trainer
    from trainshed.trainers.base import Trainer, TrainResult
    from trainshed.trainers.lsr import HuggingFaceTrainerForLSR
    from trainshed.trainers.manager import HuggingFaceRAGTrainerManager
    from trainshed.trainers.ralt import HuggingFaceTrainerForRALT
    from trainshed.trainers.trained import load_model
    from trainshed.trainers.transformer import ClassifierTrainer

_MODULES = {
    "CheckpointError": "errors",
    "Classifier": "models.classifier",
    "ClassifierTrainer": "trainers.transformer",
    "ConfigError": "errors",
    "DataError": "errors",
    "Generator": "rag.generator",
    "HuggingFaceRAGTrainerManager": "trainers.manager",
    "HuggingFaceTrainerForLSR": "trainers.lsr",
    "HuggingFaceTrainerForRALT": "trainers.ralt",
    "KnowledgeStore": "rag.stores.base",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "NotAvailableError": "errors",
    "Passage": "data.passages",
    "RAGConfig": "rag.system",
    "RAGSystem": "rag.system",
    "RagExample": "data.examples",
    "Retriever": "rag.retriever",
    "RunError": "errors",
    "StoreError": "errors",
    "StoreMismatchError": "errors",
    "TrainResult": "trainers.base",
    "Trainer": "trainers.base",
    "TrainerParameters": "config.parameters",
    "TrainshedError": "errors",
    "UnknownNameError": "errors",
    "build_store": "rag.building",
    "evaluate_rag_pipeline": "evaluation.pipeline",
    "load_config": "config.load",
    "load_examples": "data.examples",
    "load_model": "trainers.trained",
    "register_reward": "registry",
    "register_trainer": "registry",
}

__all__ = [
    "CheckpointError",
    "Classifier",
    "ClassifierTrainer",
    "ConfigError",
    "DataError",
    "Generator",
    "HuggingFaceRAGTrainerManager",
    "HuggingFaceTrainerForLSR",
    "HuggingFaceTrainerForRALT",
    "KnowledgeStore",
    "MissingExtraError",
    "ModelError",
    "NotAvailableError",
    "Passage",
    "RAGConfig",
    "RAGSystem",
    "RagExample",
    "Retriever",
    "RunError",
    "StoreError",
    "StoreMismatchError",
    "TrainResult",
    "Trainer",
    "TrainerParameters",
    "TrainshedError",
    "UnknownNameError",
    "__version__",
    "build_store",
    "evaluate_rag_pipeline",
    "load_config",
    "load_examples",
    "load_model",
    "register_reward",
    "register_trainer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
