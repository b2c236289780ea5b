"""What every algorithm's parameters share, and which arguments the program computes by itself.

An algorithm's section ``training`` holds its own parameters (a `TrainerParameters` subclass, see `trainers`)
and the arguments of the third-party class that it names. Left out: the table of those arguments
(`arguments`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from trainshed.config.arguments import NO_ARGUMENTS, ArgumentTable, load_table
from trainshed.config.schema import Section

#: arguments that may not be set by hand, and why
COMPUTED_ARGUMENTS: Mapping[str, str] = {
    "disable_tqdm": "progress is shown by this program",
    "do_eval": "a stage of kind `evaluate` evaluates",
    "do_predict": "a stage of kind `evaluate` evaluates",
    "do_train": "a stage of kind `train` trains",
    "local_rank": "the launcher gives each process its rank",
    "logging_dir": "logs lie in the run directory",
    "output_dir": "the run directory holds the checkpoints; set execution.output_dir",
    "parallelism_config": "it is an object of Accelerate that a YAML cannot hold",
    "project": "set execution.project",
    "report_to": "set execution.trackers",
    "resume_from_checkpoint": "a run goes on from its last checkpoint by itself",
    "run_name": "a run is called what its plan calls it",
    "seed": "set execution.seed",
    "use_cpu": "set execution.device",
}


class TrainerParameters(Section):
    """The own parameters of one algorithm; subclass it, and name the class of its other arguments.

    Attributes
    ----------
    arguments_table
        The third-party class whose fields ``training`` takes too, or None.
    hidden_arguments
        Fields of that class which may not be set by hand, with the reason.
    argument_defaults
        Our defaults over those of that class.
    reads
        Sections besides ``execution`` and ``training`` that decide the result.
    """

    arguments_table: ClassVar[str | None] = "transformers.TrainingArguments"
    hidden_arguments: ClassVar[Mapping[str, str]] = COMPUTED_ARGUMENTS
    argument_defaults: ClassVar[Mapping[str, Any]] = {"logging_steps": 10.0, "save_total_limit": 2}
    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})

    @classmethod
    def table(cls) -> ArgumentTable:
        """Return the table of the other arguments; a plug-in that brings its own overrides this."""
        return load_table(cls.arguments_table) if cls.arguments_table else NO_ARGUMENTS

    @classmethod
    def known_keys(cls) -> dict[str, str]:
        """Return every key that ``training`` takes for this algorithm, with its description."""
        own = {name: field.description or "" for name, field in cls.model_fields.items()}
        others = {
            name: field.help for name, field in cls.table().fields.items() if name not in cls.hidden_arguments
        }
        return {**others, **own}

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Check the keys of ``training`` and part them.

        Returns
        -------
        tuple
            The own parameters, and the arguments of the third-party class that were given or that have a
            default of ours; what is left to that class's defaults is not in it.

        Raises
        ------
        pydantic.ValidationError
            When a value does not fit or a key is unknown.
        """
        table = cls.table()
        arguments = {k: v for k, v in values.items() if k in table.fields and k not in cls.model_fields}
        own = cls.model_validate({k: v for k, v in values.items() if k not in arguments})
        checked = table.model().model_validate({**cls.argument_defaults, **arguments})
        return own, checked.model_dump(mode="json", exclude_unset=True)
