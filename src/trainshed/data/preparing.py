"""What every language-model trainer does before its first step: load its rows, look at them, say so.

Left out: what the rows are for (`trainshed.trainers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainshed.config.formats import accepted_formats
from trainshed.config.resolved import RunConfig
from trainshed.data.conversion import Placed, convert
from trainshed.data.encoding import Treatment, treatment_of
from trainshed.data.inspection import check_before_training
from trainshed.data.loading import TRAIN, VALIDATION, TrainingRows, load_rows
from trainshed.errors import ConfigError, DataError
from trainshed.progress import say

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

    Rows of which the whole answer is beyond ``max_length`` are left out, with a line that says how many.

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
    batch_size = int(values.get("per_device_train_batch_size") or _BATCH_SIZE)
    loaded = load_rows(
        config.data,
        accepts=accepts or accepted_formats(algorithm),
        seed=config.execution.seed,
        batch_size=batch_size,
        splits=splits,
    )
    report = check_before_training(
        loaded,
        tokenizer,
        treatment or treatment_of(algorithm, values, loaded.format),
        directory=directory,
        tolerate=config.data.tolerate,
    )
    return without_rows(loaded, report.lost, seed=config.execution.seed, batch_size=batch_size)


def without_rows(
    loaded: TrainingRows, numbers: Mapping[str, Sequence[int]], *, seed: int, batch_size: int
) -> TrainingRows:
    """Return the rows without some of them, unpaired answers in an order that still mixes the classes.

    The trainers of `trl` drop rows of which the whole answer is beyond ``max_length`` after they were put in
    order, and form the batches of what is left: batches of one class would come back.

    Parameters
    ----------
    loaded
        Of a run.
    numbers
        By split, the rows to leave out, from 0.
    seed, batch_size
        As for `loading.load_rows`.

    Raises
    ------
    DataError
        When nothing is left to train on.
    """
    splits, places = dict(loaded.splits), dict(loaded.places)
    for split, dropped in numbers.items():
        if not dropped:
            continue
        out = set(dropped)
        kept: list[Placed] = [
            pair for n, pair in enumerate(zip(places[split], splits[split], strict=True)) if n not in out
        ]
        if not kept:
            raise DataError(
                f"no row of {split} keeps an answer within max_length",
                where="training.max_length",
                fix="a larger one, or shorter prompts",
            )
        if loaded.format.name == "unpaired":
            kept, _ = convert(kept, loaded.format, "unpaired", seed=seed, batch_size=batch_size)
        say(f"{split}: {len(out)} rows are left out, of which the whole answer is beyond max_length")
        splits[split], places[split] = [row for _, row in kept], [where for where, _ in kept]
    return replace(loaded, splits=splits, places=places)
