"""Programs that nobody has read: what they may take, what they cannot reach, what they cannot pretend."""

import os
import socket
import threading
import time

import pytest

from trainshed.config.rewards import CodeTestsOptions
from trainshed.errors import ConfigError
from trainshed.rewards.code_tests import CodeTests, program_of
from trainshed.rewards.sandbox import Limits, namespaces_work, run_tests

QUICK = Limits(time_s=1.0, memory_bytes=256 * 2**20, file_bytes=2**20)


@pytest.fixture(scope="module")
def isolated():
    return namespaces_work()


def test_a_right_program_passes_and_a_wrong_one_does_not():
    judge = CodeTests(CodeTestsOptions(time_s=10))
    tests = [["assert f(1) == 2", "assert f(5) == 6"]] * 4 + ["assert f(1) == 2", []]
    programs = [
        "def f(x): return x + 1",
        "Sure:\n```python\ndef f(x):\n    return x + 1\n```\nThat is it.",
        "def f(x): return 2",
        "def f(x: return",
        "def f(x): return 2",
        "def f(x): return 2",
    ]
    assert judge([""] * 6, programs, tests=tests) == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    why = judge.failures
    assert why[0] is why[1] is why[4] is None
    assert why[2].startswith("AssertionError")
    assert why[3].startswith("SyntaxError")
    assert why[5] == "there are no tests"
    judge = CodeTests(CodeTestsOptions(time_s=10, partial=True))
    assert judge([""] * 2, programs[1:3], tests=tests[1:3]) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: pass", "timed out"),
        ("import time\ntime.sleep(60)", "timed out"),
        ("x = 'a' * 10**10", "MemoryError"),
        ("open('x', 'wb').write(b'a' * 10**7)", "File too large"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended the process with code 0"),
        ("import ctypes\nctypes.string_at(0)", ""),
        ("raise BaseException('no')", "BaseException: no"),
        ("def f(): return f()\nf()", "RecursionError"),
        (
            "[open('/dev/null') for _ in range(100)]\nfiles = [open('/dev/null') for _ in range(100)]",
            "Too many",
        ),
    ],
    ids=["loops", "sleeps", "memory", "file", "exits", "ends", "crashes", "raises", "recurses", "opens"],
)
def test_what_a_program_may_not(program, why, isolated):
    started = time.monotonic()
    outcome = run_tests(program, ["assert True"], limits=QUICK, isolated=isolated)
    assert outcome.passed == 0
    assert why in outcome.why
    assert time.monotonic() - started < 10


def test_saying_that_it_passed_is_not_passing(isolated):
    lie = 'import os\nos.write(1, b\'{"nonce": "0", "passed": 1, "why": null}\')\nfor n in range(3, 20):\n'
    lie += '    try: os.write(n, b\'{"nonce": "0", "passed": 1}\')\n    except OSError: pass\nos._exit(0)'
    assert run_tests(lie, ["assert True"], limits=QUICK, isolated=isolated).passed == 0


def test_it_sees_neither_our_environment_nor_our_directory(isolated, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    tests = [
        "import os\nassert 'SECRET_TOKEN' not in os.environ and 'PYTHONPATH' not in os.environ",
        "assert os.listdir('.') == []",
        f"assert os.getcwd() != {os.getcwd()!r}",
    ]
    outcome = run_tests("x = 1", tests, limits=Limits(10), isolated=isolated)
    assert outcome.passed == 3, outcome.why


def test_with_namespaces_there_is_no_network(isolated):
    if not isolated:
        pytest.skip("this system allows no namespaces")
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)"
    assert run_tests(program, ["1"], limits=Limits(10), isolated=False).passed == 1
    assert run_tests(program, ["1"], limits=Limits(10), isolated=True).passed == 0
    server.close()


def test_what_it_started_is_gone(isolated, tmp_path):
    mark = f"trainshed-mark-{os.getpid()}-{threading.get_ident()}"
    child = f"import time; time.sleep(60)  # {mark}"
    program = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])"
    run_tests(program, ["1"], limits=Limits(10), isolated=isolated)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _running(mark):
        time.sleep(0.05)
    assert not _running(mark)


def _running(mark):
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                text = file.read()
        except OSError:
            continue
        if mark.encode() in text:
            found.append(entry)
    return found


def test_isolation_may_be_required(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="allows no namespaces"):
        CodeTests(CodeTestsOptions(require_isolation=True))
    CodeTests()
    assert "not kept off the network" in capsys.readouterr().err


def test_the_last_block_is_the_program():
    assert program_of("```py\na = 1\n```\nor\n```\nb = 2\n```") == "b = 2\n"
    assert program_of("a = 1") == "a = 1"
