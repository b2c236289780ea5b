"""How memory is asked for and kept while a CPU trains.

glibc gives every block above 32 MiB back to the kernel when it is freed, and asks for it again a step later;
the kernel then clears each page anew, 11,000 of them for the gradient of a 30,000-word embedding: 26 ms a
step. Kept blocks save that as long as no small block settles in them; in pages of 2 MiB it takes 7 ms, and
both together 3. Left out: other C libraries, other allocators (`LD_PRELOAD` one, and this does nothing to
it).
"""

import ctypes
import os
import platform

#: what torch reads once, before its first tensor
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed blocks of any size instead of giving them back; True where that is done.

    The process then keeps its peak memory until it ends. Calling it again changes nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_M_MMAP_MAX, 0)) and bool(library.mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MiB for large tensors on the CPU, unless the environment says otherwise.

    It must be called before torch is imported; child processes inherit it. Where the kernel has no such
    pages, nothing changes.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
