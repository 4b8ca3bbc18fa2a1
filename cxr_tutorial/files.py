"""Files and folders that are whole or not there, and one process at a place (floor 0)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_tutorial.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file that gets its name when it is whole; until then, and after an error, the one before it stays.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "table.csv"
    >>> with whole_file(place) as arriving:
    ...     _ = arriving.write_text("id,dice")
    >>> [one.name for one in place.parent.iterdir()]
    ['table.csv']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arriving = path.with_name(path.name + ".unfinished")
    try:
        yield arriving
        os.replace(arriving, path)
    except BaseException:
        arriving.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: str | Path) -> Iterator[Path]:
    """A folder that gets its name only when it is whole.

    What is written goes to `.NAME.unfinished` beside `target`. If the block is left early, by an error or
    a kill, nothing stands under `target`, and the next call finds the unfinished folder as it was left. A link is
    followed.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "run"
    >>> with whole_folder(place) as folder:
    ...     _ = (folder / "run.json").write_text("{}")
    >>> (place / "run.json").exists()
    True
    """
    target = Path(target).resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} is there already: choose another folder, or remove it first")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {target} cannot be made ({error.strerror}): choose another") from error
    yield unfinished
    os.replace(unfinished, target)


@contextmanager
def only_process(file: Path, wait: bool = False) -> Iterator[None]:
    """Be the only process at the folder of this file, which is there meanwhile, and stays after an error.

    A process that is killed holds nothing any more. Without `fcntl` (on Windows) nothing is held.

    Parameters
    ----------
    file : what is locked. wait : for another process that holds it, and do not refuse.

    Raises
    ------
    InputError : another process holds it.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / ".lock"
    >>> with only_process(place):
    ...     with only_process(place):  # doctest: +IGNORE_EXCEPTION_DETAIL
    ...         pass
    Traceback (most recent call last):
    InputError: ... is being run by another process: wait for it, or choose another folder
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with file.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise InputError(
                    f"{file.parent} is being run by another process: wait for it, or choose another folder"
                ) from None
            if os.fstat(held.fileno()).st_nlink == 0:
                continue  # whoever held it has taken the file away
            yield
            file.unlink(missing_ok=True)
            return
