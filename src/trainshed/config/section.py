"""What every section of a configuration shares: strictness, the marks of keys, and common ranges.

Extras that a field may carry:

``setting``
    it does not decide the result, so it is no part of a run's identity;
``whole_plan``
    there is one for all runs, so it can be neither swept nor set in a stage;
``input``
    it may name a local file or directory, whose content decides the result.

Left out: the sections (`schema`).
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SETTING: dict[str, Any] = {"setting": True}
WHOLE_PLAN: dict[str, Any] = {"setting": True, "whole_plan": True}
INPUT: dict[str, Any] = {"input": True}

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(gt=0)]
HeldOut = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What every section shares: no unknown keys, no changes after checking, docstrings as descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )
