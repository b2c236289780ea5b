"""When a launch says that it has more threads than idle cores, with numbers that are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.launch import threads
from trainshed.launch.threads import cgroup_cpus, crowding, thread_count


@pytest.mark.parametrize(
    ("runs", "cpus", "idle", "told", "better"),
    [
        ([2], 2, 2.0, None, None),
        ([2], 2, 1.4, None, None),
        ([2], 2, 1.0, "2 threads, CPUs that were idle in the last minute: 1.0 of 2", 1),
        ([2], 2, -3.0, "2 threads, CPUs that were idle in the last minute: 0.0 of 2", 1),
        ([1], 2, 0.0, None, None),
        ([4], 2, 2.0, "4 threads, usable CPUs: 2", 2),
        ([4], 2, 0.5, "4 threads, usable CPUs: 2", 1),
        ([16], 16, 14.0, None, None),
        ([16], 16, 12.0, "16 threads, CPUs that were idle in the last minute: 12.0 of 16", 12),
        ([2, 2], 4, 4.0, None, None),
        ([2, 2], 4, 2.5, "4 threads of 2 runs at once, CPUs that were idle in the last minute: 2.5 of 4", 1),
        ([3, 3, 2], 4, 4.0, "8 threads of 3 runs at once, usable CPUs: 4", 1),
        ([], 4, 4.0, None, None),
    ],
)
def test_the_line(runs, cpus, idle, told, better):
    line = crowding(runs, cpus=cpus, idle=idle)
    if told is None:
        assert line is None
    else:
        assert line.startswith(told)
        assert f"execution.threads: {better}" in line
        assert ("execution.jobs" in line) == (len(runs) > 1)


def test_runs_of_one_thread_can_only_be_fewer():
    line = crowding([1, 1, 1, 1], cpus=2, idle=2.0)
    assert line.startswith("4 threads of 4 runs at once, usable CPUs: 2")
    assert "lower execution.jobs" in line
    assert "execution.threads:" not in line


@given(
    runs=st.lists(st.integers(1, 300), max_size=20),
    cpus=st.integers(1, 300),
    idle=st.floats(-500, 300),
)
def test_what_fits_is_not_told_and_what_is_told_would_fit_better(runs, cpus, idle):
    line = crowding(runs, cpus=cpus, idle=min(idle, cpus))
    if sum(runs) <= min(idle, cpus):
        assert line is None
    if sum(runs) > cpus:
        assert line is not None
    if line is not None:
        assert "\n" not in line
        assert "execution.threads" in line or max(runs) == 1
        if "execution.threads: " in line:
            better = int(line.partition("execution.threads: ")[2].split()[0].rstrip(","))
            assert 1 <= better < max(runs)
            assert better * len(runs) <= max(min(idle, cpus), len(runs))


@pytest.mark.parametrize(
    ("quotas", "own", "expected"),
    [
        ({}, "0::/\n", None),
        ({"": "max 100000"}, "0::/\n", None),
        ({"": "200000 100000"}, "0::/\n", 2),
        ({"": "150000 100000"}, "0::/\n", 1),
        ({"": "50000 100000"}, "0::/\n", 1),
        ({"jobs/one": "400000 100000", "jobs": "300000 100000"}, "4:memory:/other\n0::/jobs/one\n", 3),
        ({"jobs/one": "400000 100000", "jobs": "max 100000"}, "0::/jobs/one\n", 4),
        ({"jobs/two": "100000 100000"}, "0::/jobs/one\n", None),
        ({"": "rubbish"}, "0::/\n", None),
        ({"": "1 0"}, "0::/\n", None),
        ({"": "100000 100000"}, None, None),
        ({"": "100000 100000"}, "4:memory:/other\n", None),
    ],
)
def test_the_quota_of_a_control_group(tmp_path, quotas, own, expected):
    root = tmp_path / "cgroup"
    for name, text in quotas.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "cpu.max").write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert cgroup_cpus(root, tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("configured", "variables", "default", "expected"),
    [
        (3, {"OMP_NUM_THREADS": "1"}, 8, 3),
        (None, {}, 8, 8),
        (None, {"OMP_NUM_THREADS": "2"}, 8, 2),
        (None, {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "4"}, 8, 4),
        (None, {"OMP_NUM_THREADS": "99"}, 8, 8),
        (None, {"OMP_NUM_THREADS": "4,2"}, 8, 4),
        (None, {"OMP_NUM_THREADS": "many"}, 8, 8),
        (None, {"OMP_NUM_THREADS": "0"}, 8, 8),
    ],
)
def test_the_threads_of_a_run(configured, variables, default, expected):
    assert thread_count(configured, variables, default) == expected


@pytest.fixture
def idle_machine(monkeypatch):
    """Four cores of which one is busy."""
    monkeypatch.setattr(threads, "usable_cpus", lambda: 4)
    monkeypatch.setattr(threads, "core_count", lambda: 4)
    monkeypatch.setattr(threads, "idle_cpus", lambda cpus: cpus - 1.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("jobs", "settings", "told"),
    [
        (1, [{}, {}], "4 threads, CPUs that were idle in the last minute: 3.0 of 4"),
        (1, [{"threads": 3}, {"threads": 2}], None),
        (1, [{"threads": 2}, {"threads": 9}], "9 threads, usable CPUs: 4"),
        (2, [{"threads": 2}, {"threads": 2}, {"threads": 1}], "4 threads of 2 runs at once"),
        (8, [{}, {}], None),
        (2, [{}, {}], "4 threads of 2 runs at once"),
        (1, [{"device": "cuda"}, {"device": "cuda:1", "threads": 9}, {"device": "mps"}], None),
    ],
)
def test_what_the_runs_of_a_plan_use_at_once(idle_machine, jobs, settings, told):
    configs = [{"execution": {"threads": None, "device": "auto", **s}, "environment": {}} for s in settings]
    line = threads.crowding_of(configs, jobs)
    assert line is None if told is None else line.startswith(told)


def test_this_machine_is_read():
    assert threads.usable_cpus() >= 1
    assert threads.core_count() >= 1
    assert threads.idle_cpus(2) <= 2
