"""The stage that trains: it makes the trainer that ``execution.algorithm`` names, and keeps what it learned.

``outputs/`` then holds what the trainer saves and reports. Left out: algorithms (`trainers`).
"""

from trainshed.errors import ConfigError
from trainshed.progress import say
from trainshed.registry import TRAINERS
from trainshed.stages.context import StageContext, StageResult


def run(context: StageContext) -> StageResult:
    """Train, or go on from the last checkpoint, and write the result into ``outputs/``.

    Returns
    -------
    StageResult
        What the trainer measured; ``eval/`` metrics where it has held-out data.
    """
    algorithm = context.config.execution.algorithm
    if algorithm is None:
        raise ConfigError("no algorithm is named", where="execution.algorithm", fix="such as lsr or ralt")
    trainer = TRAINERS.get(algorithm).from_run(context)
    result = trainer.train()
    context.stop.check()
    trainer.save(context.directory.outputs)
    metrics = dict(result.metrics)
    for row in reversed(result.history):
        for name, value in row.items():
            if name.startswith("eval/"):
                metrics.setdefault(name, value)
    metrics |= trainer.write_report(context.directory.outputs)
    say(f"{context.config.name}: {result.steps} steps, mean loss {result.loss:.4f}")
    return StageResult(metrics=metrics)
