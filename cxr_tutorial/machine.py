"""What this machine does best: its fast precision, memory that need not be fetched anew, no orphans (floor 0)."""

from __future__ import annotations

import ctypes
import signal
import sys

import torch


def best_precision(accelerator: str = "auto") -> str:
    """The fastest precision that trains as well as fp32: `"bf16-mixed"` where the machine computes in it, else fp32.

    Convolutions then run in bf16; weights, logits and losses stay in fp32.

    Parameters
    ----------
    accelerator : `"auto"`, `"cpu"`, `"cuda"` or `"mps"`, as in Lightning Fabric.

    >>> best_precision("mps")
    '32-true'
    """
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        native = torch.cuda.get_device_capability() >= (8, 0)
    elif is_cpu(accelerator):
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def is_cpu(accelerator: str) -> bool:
    """Whether this accelerator is the CPU, which `"auto"` is where there is nothing else.

    >>> is_cpu("cpu"), is_cpu("cuda")
    (True, False)
    """
    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    return accelerator == "cpu" or (accelerator == "auto" and not other)


def keep_freed_memory() -> None:
    """Ask glibc not to hand large freed buffers back to the kernel; elsewhere nothing is done.

    A training step frees and asks for the same megabytes again and again; given back, every page of them has
    to be fetched and cleared anew. The process then stays at its largest size.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it ends, however that came; elsewhere nothing is done.

    A helper whose parent was killed would otherwise wait for it, and hold its GPU.
    """
    if sys.platform.startswith("linux"):
        set_death_signal = 1  # <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
