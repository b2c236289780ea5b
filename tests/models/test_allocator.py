"""Freed memory stays with the process, seen by the page faults of a child that frees and asks again."""

import platform
import subprocess
import sys

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
