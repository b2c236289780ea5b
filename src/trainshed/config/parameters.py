"""What every algorithm's parameters share, and which arguments the program computes by itself.

An algorithm's section ``training`` holds its own parameters (a `TrainerParameters` subclass, see `trainers`)
and the arguments of the third-party class that it names. Left out: the table of those arguments
(`arguments`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainshed.config.arguments import NO_ARGUMENTS, ArgumentTable, load_table
from trainshed.config.best import best_problems, settled_best
from trainshed.config.schema import SECTIONS, Section
from trainshed.errors import ConfigError, did_you_mean

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

#: sections of which an algorithm says what it reads; ``execution`` and ``training`` count for each
READABLE_SECTIONS = ("model", "data", "rag", "evaluation")
#: what a generator, a retriever and the store that they search are made of
RAG_PARTS = frozenset(
    f"rag.{key}"
    for key in (
        "retriever",
        "query_encoder",
        "knowledge_store",
        "store",
        "store_url",
        "hybrid",
        "rrf_k",
        "embed_batch_size",
        "embed_dtype",
        "prompt",
        "no_context_prompt",
        "max_length",
    )
)
#: what questions with passages are read from: neither mixed nor divided, and of no other format
QUESTION_DATA = frozenset(
    f"data.{key}"
    for key in (
        "dataset_name",
        "dataset_config",
        "train_split",
        "validation_split",
        "test_split",
        "columns",
        "max_train_samples",
        "max_eval_samples",
        "max_passages",
        "documents",
        "chunk_tokens",
        "chunk_overlap",
    )
)


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
        What decides the result besides ``execution`` and ``training``: names of whole sections, or of single
        keys such as ``rag.prompt``. A run is not repeated when any other key changes, so a key that is read
        and not named here makes results that are taken for those of another configuration.
    names_best_metric
        Whether the algorithm itself names the validation metric of the best checkpoint where the user does
        not.
    aliases
        Keys of ``training`` that mean one of the own parameters, such as those that a name of another system
        is read as for every algorithm.

    Raises
    ------
    ConfigError
        When a subclass names a section or key in ``reads`` that is not there.
    """

    arguments_table: ClassVar[str | None] = "transformers.TrainingArguments"
    hidden_arguments: ClassVar[Mapping[str, str]] = COMPUTED_ARGUMENTS
    argument_defaults: ClassVar[Mapping[str, Any]] = {"logging_steps": 10.0, "save_total_limit": 2}
    reads: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    names_best_metric: ClassVar[bool] = False
    aliases: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        known = {name: [f"{name}.{key}" for key in SECTIONS[name].model_fields] for name in READABLE_SECTIONS}
        names = [*known, *(key for keys in known.values() for key in keys)]
        for name in sorted(cls.reads - set(names)):
            # counted as nothing, it would leave the key that was meant out of a run's identity
            raise ConfigError(
                f"there is no section or key {name!r} to read",
                where=f"{cls.__name__}.reads",
                fix=did_you_mean(name, names if "." in name else known),
            )

    @classmethod
    def sections_read(cls) -> dict[str, frozenset[str] | None]:
        """Return `reads` by section: its keys, None for all of them."""
        found: dict[str, frozenset[str] | None] = {}
        for section in READABLE_SECTIONS:
            keys = {name.partition(".")[2] for name in cls.reads if name.partition(".")[0] == section}
            if keys:
                found[section] = None if section in cls.reads else frozenset(keys)
        return found

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
            When a value does not fit, a key is unknown, or the best checkpoint is asked for by no validation
            metric.
        """
        table = cls.table()
        arguments = {k: v for k, v in values.items() if k in table.fields and k not in cls.model_fields}
        own = cls.model_validate({k: v for k, v in values.items() if k not in arguments})
        checked = table.model().model_validate({**cls.argument_defaults, **arguments})
        given = checked.model_dump(mode="json", exclude_unset=True)
        wrong = [
            InitErrorDetails(
                type=PydanticCustomError("value_error", "{what}", {"what": what}), loc=(key,), input=None
            )
            for key, what in best_problems(given, has_default=cls.names_best_metric)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return own, {**given, **settled_best(given)}

    def check_with(self, sections: Mapping[str, Section]) -> None:
        """Check what these parameters and the other sections of a run decide together; nothing by default.

        Parameters
        ----------
        sections
            ``model``, ``data``, ``rag``, ``evaluation`` and ``execution`` of the run, each checked by itself.

        Raises
        ------
        ConfigError
            When they do not go together; ``where`` names the key, such as ``training.block_size``.
        """
