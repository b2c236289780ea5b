"""What every language-model trainer does before its first step: load its rows, look at them, say so.

Left out: what the rows are for (`trainshed.trainers`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainshed.config.formats import accepted_formats
from trainshed.config.resolved import RunConfig
from trainshed.data.encoding import Treatment, treatment_of
from trainshed.data.inspection import check_before_training
from trainshed.data.loading import TRAIN, VALIDATION, TrainingRows, load_rows
from trainshed.errors import ConfigError

#: of `transformers.TrainingArguments`, where the configuration does not say
_BATCH_SIZE = 8


def prepare_rows(
    config: RunConfig,
    tokenizer: Any,
    *,
    directory: Path | None = None,
    accepts: Sequence[str] = (),
    treatment: Treatment | None = None,
    splits: Sequence[str] = (TRAIN, VALIDATION),
) -> TrainingRows:
    """Return the checked rows of a run, after printing and storing what the model will see of them.

    Parameters
    ----------
    config
        Of the run: its data, seed, algorithm and training arguments.
    tokenizer
        Of the model that is trained.
    directory
        Where ``data_report.json`` goes; None writes none.
    accepts
        Formats that the algorithm takes, the best first; those of `config.formats` when empty.
    treatment
        What the trainer does with the rows; what its arguments say when None.
    splits
        Which to return.

    Raises
    ------
    ConfigError
        When the run has no algorithm.
    DataError
        When a row is wrong, or the inspection finds what is certainly wrong and ``data.tolerate`` does not
        name it.
    """
    algorithm, training = config.execution.algorithm, config.training
    if algorithm is None or training is None:
        raise ConfigError("the run trains nothing", where="execution.algorithm", fix="name an algorithm")
    values = {**training.own.model_dump(), **training.arguments}
    loaded = load_rows(
        config.data,
        accepts=accepts or accepted_formats(algorithm),
        seed=config.execution.seed,
        batch_size=int(values.get("per_device_train_batch_size") or _BATCH_SIZE),
        splits=splits,
    )
    check_before_training(
        loaded,
        tokenizer,
        treatment or treatment_of(algorithm, values, loaded.format),
        directory=directory,
        tolerate=config.data.tolerate,
    )
    return loaded
