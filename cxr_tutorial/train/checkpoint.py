"""Files of a training: checkpoints to resume from, weights to use (floor 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from cxr_tutorial.errors import InputError
from cxr_tutorial.files import whole_file
from cxr_tutorial.nets.discriminator import Discriminator
from cxr_tutorial.nets.segmentor import Segmentor

Net = TypeVar("Net", Segmentor, Discriminator)


@contextmanager
def _arriving(path: Path) -> Iterator[Path]:
    """`whole_file`, which says of what cannot be written why."""
    from safetensors import SafetensorError

    try:
        with whole_file(path) as unfinished:
            yield unfinished
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} could not be written ({error}): is the disk full, or read-only?") from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write all that a training needs to go on; a crash in the middle leaves the file before it whole."""
    with _arriving(path) as unfinished:
        torch.save(state, unfinished)


def load_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint and refuse one that belongs to another run.

    `run` is what makes two trainings the same (recipe, budget, data fingerprint).
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: a checkpoint is one file, such as {path / 'checkpoint.pt'}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known = dict(state["run"])
    except Exception as error:
        raise InputError(f"{path} cannot be read as a checkpoint ({error!r}): remove it to start afresh") from error
    differing = [key for key in {**known, **run} if run and known.get(key) != run.get(key)]
    if differing:
        raise InputError(
            f"{path} belongs to another run: {differing[0]} was {known.get(differing[0])!r} and is "
            f"now {run.get(differing[0])!r}; remove the file or choose another folder"
        )
    return dict(state)


def trained_seconds(path: Path) -> float:
    """How long the training of this checkpoint has taken, over all calls that went on with it; 0 if there is none."""
    return float(load_checkpoint(path, {})["seconds"]) if path.exists() else 0.0


def digest(model: Segmentor | Discriminator) -> str:
    """Tells networks apart: other for other options or weights.

    >>> torch.manual_seed(0) and digest(Segmentor("tiny")) == digest(Segmentor("tiny"))
    False
    """
    found = hashlib.sha256(repr(sorted(model.options.items())).encode())
    for name, values in sorted(model.state_dict().items()):
        found.update(name.encode() + values.cpu().numpy().tobytes())
    return found.hexdigest()[:20]


def save_weights(path: str | Path, model: Segmentor | Discriminator) -> None:
    """Write a network's weights, with what is needed to build it again, as one safetensors file.

    What it does not hold is how pictures were prepared: the size of the training, and `data.images.standardize`.

    Raises
    ------
    InputError : something else than these networks, compiled or not, such as a `Fit` (its `model` is one); the file
        cannot be written.

    Introduced in chapter 9.
    """
    from safetensors.torch import save_file

    plain = getattr(model, "_orig_mod", model)  # of torch.compile
    kind = next((kind for kind in (Segmentor, Discriminator) if isinstance(plain, kind)), None)
    if kind is None:
        raise InputError(
            f"{path}: save_weights writes a Segmentor or a Discriminator, got {type(model).__name__}: of a finished "
            "training, give `fit.model`"
        )
    tensors = {name: value.contiguous() for name, value in plain.state_dict().items()}
    with _arriving(Path(path)) as unfinished:
        save_file(tensors, unfinished, metadata={kind.__name__.lower(): json.dumps(plain.options)})


def load_weights(path: str | Path) -> Segmentor:
    """Build the segmentor that `save_weights` wrote, ready for use.

    Introduced in chapter 9.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tiny.safetensors"
    >>> save_weights(file, Segmentor("tiny", pyramid=False))
    >>> load_weights(file).pyramid
    False
    """
    return _load(path, Segmentor)


def load_discriminator(path: str | Path) -> Discriminator:
    """Build the discriminator that `save_weights` wrote, ready for use."""
    return _load(path, Discriminator)


def _load(path: str | Path, kind: type[Net]) -> Net:
    from safetensors import SafetensorError, safe_open

    name = kind.__name__.lower()
    try:
        with safe_open(str(path), framework="pt") as file:
            options = (file.metadata() or {}).get(name)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error})") from error
    if options is None:
        raise InputError(
            f"{path} was not written by save_weights, or holds no {name}: it does not say how to build one"
        )
    try:
        model = kind(**json.loads(options))
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} holds a {name} that this version of cxr-tutorial cannot build ({error}): expected what its own "
            "save_weights wrote"
        ) from error
    return model.eval()
