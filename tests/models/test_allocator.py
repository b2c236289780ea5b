"""Freed memory stays with the process, and large tensors lie in large pages, as a child process sees it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import resource, sys
from trainshed.models.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import ctypes
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def touch():
    size = 48 << 20
    block = library.malloc(size)
    ctypes.memset(ctypes.c_void_p(block), 1, size)
    library.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_are_reused():
    def faults(how):
        done = subprocess.run([sys.executable, "-c", _CODE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 100
    assert faults("leave") > 500


_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE = """
import sys
from trainshed.cli.main import main
try:
    main(["--version"])
except SystemExit:
    pass
import torch
block = torch.ones(64 << 20, dtype=torch.int8)
sizes = [line.split()[1] for line in open("/proc/self/smaps") if line.startswith("AnonHugePages")]
print(sum(map(int, sizes)))
"""


@pytest.mark.skipif(
    not _THP.is_file() or "[never]" in _THP.read_text(), reason="this kernel has no pages of 2 MiB to give"
)
def test_the_command_uses_huge_pages():
    def kibibytes(**environment):
        inherited = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
        done = subprocess.run(
            [sys.executable, "-c", _HUGE],
            capture_output=True,
            text=True,
            check=True,
            env={**inherited, **environment},
        )
        return int(done.stdout.split()[-1])

    assert kibibytes() >= 32 << 10
    if "[madvise]" in _THP.read_text():  # otherwise the kernel gives them unasked
        assert kibibytes(THP_MEM_ALLOC_ENABLE="0") < 32 << 10
