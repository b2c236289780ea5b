"""Parameters of training retriever and generator under one manager. Left out: the manager itself."""

from typing import ClassVar, Literal

from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import Count
from trainshed.config.trainers.lsr import LSRParameters
from trainshed.config.trainers.ralt import RALTParameters


class RAGParameters(TrainerParameters):
    """What training a RAG system takes besides the arguments of `transformers.TrainingArguments`."""

    # both parts train one system, whichever of them the mode names
    reads: ClassVar[frozenset[str]] = LSRParameters.reads | RALTParameters.reads

    mode: Literal["retriever", "generator", "both"] = "retriever"
    """Part that learns; `both` trains one after the other in turns."""
    lsr: LSRParameters = LSRParameters()
    """Parameters of the retriever's training."""
    ralt: RALTParameters = RALTParameters()
    """Parameters of the generator's training."""
    cycles: Count = 1
    """With `both`, how often retriever and generator take their turn."""
