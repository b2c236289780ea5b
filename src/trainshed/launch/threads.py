"""Whether the runs of a launch use more threads than there are idle cores, in a line that says so.

PyTorch's threads wait for each other at every operation, so a thread without a core of its own holds up all:
two on a busy machine can be many times slower than one. Left out: setting them (see `cli.execute`), and what
the runs would use on a GPU.
"""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: fewer idle cores than threads by this share, and by one at least, is told
_CLEARLY = 0.25
_CPUS = Path("/sys/devices/system/cpu")


def crowding_of(configs: Sequence[Mapping[str, Any]], jobs: int) -> str | None:
    """Return the line about a launch on this machine as it is now, or None.

    Parameters
    ----------
    configs
        The configuration of each run.
    jobs
        How many of them work at once; the ones with the most threads are counted.
    """
    cpus = usable_cpus()
    default = core_count() if jobs == 1 or len(configs) == 1 else share_of(jobs)
    counts = [
        thread_count(config["execution"]["threads"], {**os.environ, **config["environment"]}, default)
        for config in configs
        if not config["execution"]["device"].startswith(("cuda", "mps"))
    ]
    return crowding(sorted(counts, reverse=True)[:jobs], cpus=cpus, idle=idle_cpus(cpus))


def crowding(runs: Sequence[int], *, cpus: int, idle: float) -> str | None:
    """Return a line when runs have too many threads and could have fewer, or None.

    Parameters
    ----------
    runs
        Threads of each run that works at once.
    cpus
        CPUs that the runs may use.
    idle
        How many of them are idle.
    """
    total, idle = sum(runs), max(0.0, min(idle, cpus))
    if total <= 1:
        return None
    if total > cpus:
        found = f"usable CPUs: {cpus}"
    elif total - idle >= max(1.0, _CLEARLY * total):
        found = f"CPUs that were idle in the last minute: {idle:.1f} of {cpus}"
    else:
        return None
    better = max(1, math.floor(idle) // len(runs))
    at_once = f" of {len(runs)} runs at once" if len(runs) > 1 else ""
    fewer = [f"set execution.threads: {better}"] if better < max(runs) else []
    fewer += ["lower execution.jobs"] if len(runs) > 1 else []
    slow = "this can be many times slower than fewer threads"
    return f"{total} threads{at_once}, {found}; {slow}: {', or '.join(fewer)}"


def thread_count(configured: int | None, variables: Mapping[str, str], default: int) -> int:
    """Return how many threads a run uses: what is configured, else what the libraries take from variables."""
    if configured is not None:
        return configured
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        with contextlib.suppress(KeyError, ValueError):
            # a list is for nested parallel regions
            asked = int(variables[name].split(",")[0])
            if asked > 0:
                return min(asked, default)
    return default


def share_of(jobs: int) -> int:
    """Return how many threads each of several runs at once has when nothing is configured."""
    return max(1, usable_cpus() // jobs)


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and the quota of its control group."""
    cpus = len(_affinity())
    quota = cgroup_cpus()
    return cpus if quota is None else min(cpus, quota)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def core_count() -> int:
    """Return how many threads PyTorch takes by itself: one for each physical core, whatever the quota."""
    cpus = _affinity()
    try:
        return len({(_CPUS / f"cpu{n}/topology/thread_siblings_list").read_text() for n in cpus})
    except OSError:
        return len(cpus)


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the whole CPUs that the quotas of this process's control groups leave, or None."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    place = next((line[3:] for line in lines if line.startswith("0::")), None)
    if place is None:
        return None
    # the quota of each group that holds this one counts too
    group = root / place.strip("/")
    found = []
    for directory in (group, *group.parents):
        if directory.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = (directory / "cpu.max").read_text(encoding="utf-8").split()
                # "max", no quota, is no number
                found.append(max(1, int(quota) // int(period)))
    return min(found, default=None)


def idle_cpus(cpus: int) -> float:
    """Return how many of the CPUs that this process may use were idle in the last minute."""
    with contextlib.suppress(OSError, AttributeError):
        # the load is that of the whole machine
        return min(cpus, (os.cpu_count() or 1) - os.getloadavg()[0])
    return cpus
