"""Where a training runs: on one device, or in several processes that share every step (floor 2)."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cxr_tutorial.errors import InputError
from cxr_tutorial.machine import end_with_parent

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def start_fabric(accelerator: str, devices: int, precision: str) -> Fabric:
    """Lightning Fabric, launched: with several devices the running command has been started once for each of them.

    Process 0 is the one that was called; it starts the others with the same command line (unless `torchrun` or Slurm
    did), so whatever stands before the training runs in each of them. If one ends, the others end.

    Parameters
    ----------
    accelerator, devices, precision : see `recipe.Recipe`.

    Raises
    ------
    InputError : the machine has no such device, not so many, or a notebook asks for more than one.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would name the precision at every call
    if not (isinstance(devices, int) and devices >= 1):
        raise InputError(f"devices must be a whole number >= 1, got {devices}")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise InputError(f"asked for {devices} CUDA devices, this machine has {torch.cuda.device_count()}")
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            precision=precision,  # type: ignore[arg-type]
            strategy="ddp" if devices > 1 else "auto",
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        advice = "; in a notebook only one device can be used: call `cxr-tutorial train --devices`" * (devices > 1)
        asked = f"{devices} x {accelerator!r} in {precision!r}"
        raise InputError(f"cannot train on {asked}: {error}{advice}") from error
    if not fabric.is_global_zero:
        end_with_parent()
    return fabric


def is_first_process() -> bool:
    """Whether this process is the one that reports and writes; True where there is only one.

    >>> is_first_process()
    True
    """
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def started_as_helper(devices: int) -> bool:
    """Whether Fabric, torchrun or Slurm started this process beside the first one; known before they have met.

    >>> started_as_helper(1)
    False
    """
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return devices > 1 and next((rank for rank in ranks if rank), "0") != "0"


def with_shared_norm(model: nn.Module, fabric: Fabric) -> nn.Module:
    """The model with batch normalisation over all processes' pictures; only CUDA devices can do that."""
    if fabric.device.type != "cuda":
        raise InputError(f"sync_norm needs CUDA devices, got {fabric.device.type!r}: use norm='group' instead")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """`torch.compile(model)`, tried on something small before: the model itself is rewritten in its first step."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"torch.compile does not work on this machine's {device.type}: {reason}; install what it names "
            "(on a CPU a C++ compiler such as g++, on a GPU Triton and a C compiler), or train without compile"
        ) from error
    return torch.compile(model)  # type: ignore[return-value]


def rows_where(x: Tensor, keep: Tensor) -> Tensor:
    """`x[keep]` for a mask `keep` on the CPU; a GPU is not waited for.

    >>> rows_where(torch.arange(3), torch.tensor([True, False, True])).tolist()
    [0, 2]
    """
    if keep.all():
        return x
    return x[keep.nonzero().squeeze(1).to(x.device, non_blocking=x.device.type == "cuda")]
