"""Parameters of Nash-MD (arXiv 2312.00886). Left out: the trainer."""

from typing import Literal

from trainshed.config.online import NotNegative, OnlineParameters
from trainshed.config.schema import Share, Temperature


class NashMDParameters(OnlineParameters):
    """What Nash-MD takes besides the arguments of `transformers.TrainingArguments`."""

    tau: NotNegative = 0.01
    """How strongly the reference holds."""
    mixture_weight: Share = 0.5
    """Share of the reference in the geometric mixture that the policy plays against."""
    preference: Literal["bradley_terry", "hard"] = "bradley_terry"
    """Probability to be preferred, from two scores: the logistic function of the difference, or 1, ½, 0."""
    preference_temperature: Temperature = 1.0
    """Divides the difference of scores, with `bradley_terry`."""
