"""Stages that cost nothing and leave what a real one leaves; imported with ``--import``.

``fake_source`` writes a number of lines; ``fake_train`` goes through ``data.max_train_samples`` steps, each
hashing its state with the seed and what the stages before it left, with a checkpoint every third step.
Environment variables that the configuration sets: FAKE_PAUSE_S a step, FAKE_TRACE a file that each execution
appends a line to, FAKE_FAIL the kind of failure.
"""

import errno
import hashlib
import os
import sys
import time

from trainshed.errors import DataError
from trainshed.files import digest_tree, read_json, write_atomic, write_json
from trainshed.registry import STAGES
from trainshed.stages.context import StageContext, StageResult


def _trace(context: StageContext, what: str) -> None:
    path = os.environ.get("FAKE_TRACE")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{context.config.name} {what} {os.getpid()}\n")


def _fail(context: StageContext) -> None:
    name, _, kind = os.environ.get("FAKE_FAIL", "").partition(":")
    if name != context.config.name:
        return
    if kind == "data":
        raise DataError("the dataset is empty", where="rows.jsonl", fix="give one with rows")
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if kind == "kill":
        os.kill(os.getpid(), 9)


def source(context: StageContext) -> StageResult:
    """Write a file of lines."""
    _trace(context, "start")
    _fail(context)
    count = context.config.data.max_passages or 3
    write_atomic(context.directory.outputs / "lines.txt", "".join(f"line {n}\n" for n in range(count)))
    return StageResult({"source/lines": count})


def train(context: StageContext) -> StageResult:
    """Go through steps that depend on each other."""
    directory, total = context.directory, context.config.data.max_train_samples or 10
    newest = max(directory.checkpoints.glob("*.json"), key=lambda path: path.name, default=None)
    state, step = "", 0
    if newest is not None:
        saved = read_json(newest)
        state, step = saved["state"], saved["step"]
    _trace(context, f"start at {step}")
    print(f"{context.config.name} starts at {step}, threads {os.environ.get('OMP_NUM_THREADS')}")
    seen = "".join(digest_tree(path) for _, path in sorted(context.inputs.items()))
    log = directory.metrics()
    log.truncate_after(step)

    def save() -> None:
        write_json(directory.checkpoints / f"{step:05d}.json", {"state": state, "step": step})

    with context.stop.graceful():
        while step < total:
            step += 1
            state = hashlib.blake2b(
                f"{state}{step}{seen}{context.config.execution.seed}".encode()
            ).hexdigest()
            log.write(step, {"train/loss": 1 / step})
            directory.progress(step, total)
            time.sleep(float(os.environ.get("FAKE_PAUSE_S", "0")))
            if step % 3 == 0 or context.stop.requested:
                save()
            context.stop.check()
    _fail(context)
    write_atomic(directory.outputs / "model" / "weights.txt", state)
    write_json(directory.outputs / "report.json", {"state": state, "steps": total})
    write_atomic(directory.outputs / "report.txt", f"{context.config.name} went through {total} steps\n")
    return StageResult({"train/loss": 1 / total})


STAGES.add("fake_source", source)
STAGES.add("fake_train", train)
assert "torch" not in sys.modules
