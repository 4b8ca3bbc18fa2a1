"""Start a kernel that can write only below one folder, and read only what it needs (Linux; run by path).

The first argument is a JSON object: `scratch` (read and write), `readable` (read), `listable` (names only), `file_mb`
(the largest file); the second is the kernel's connection file. Uses Landlock, Linux's own sandbox for processes
without privileges, through three system calls; where there is none (macOS, old kernels) it starts unconfined.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446  # the same numbers on every architecture
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many file rights each version knows
NO_NEW_PRIVILEGES = 38


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """The version of Landlock that this system offers; 0: none."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(CREATE, None, 0, 1))


def gaps() -> list[str]:
    """What this system's kernel is too old to forbid a notebook, in words."""
    version = landlock_version()
    if not version:
        return ["cannot confine notebooks (no Landlock)"]
    return ["lets notebooks empty your files"] * (version < 3) + ["lets notebooks end your processes"] * (version < 6)


def confine(scratch: str, readable: Iterable[str], listable: Iterable[str]) -> bool:
    """Give up every right on files but these, on TCP and on signals to others, for this process and its children."""
    version = landlock_version()
    if not version:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    every = (1 << RIGHTS_OF_ABI[min(version, 5)]) - 1
    rules = _Ruleset(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)  # no signals, no abstract sockets
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(CREATE, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    on_a_file = EXECUTE | WRITE_FILE | READ_FILE | every & (1 << 14 | 1 << 15)  # truncate, ioctl
    granted = [(scratch, every), ("/dev/shm", every), ("/dev/null", on_a_file)]
    granted += [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    granted += [(path, READ_DIR) for path in listable]
    for path, rights in granted:
        with contextlib.suppress(OSError):
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = _Beneath(rights if os.path.isdir(path) else rights & on_a_file, folder)
            libc.syscall(ADD, ruleset, 1, ctypes.byref(rule), 0)
            os.close(folder)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return libc.syscall(RESTRICT, ruleset, 0) == 0


def main() -> None:
    import resource

    how = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (how["file_mb"] * 2**20,) * 2)
    if not confine(how["scratch"], how["readable"], how["listable"]) and landlock_version():
        sys.exit("this system offers Landlock, but refused to confine the notebook")

    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(["-f", sys.argv[2], "--HistoryManager.hist_file=:memory:"])


if __name__ == "__main__":
    main()
