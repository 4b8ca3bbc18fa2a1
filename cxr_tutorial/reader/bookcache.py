"""Chapters run side by side before the book is read, and say how long they took (floor 2).

myst-nb runs notebooks one after the other, each when its turn to be read comes. Here those that its cache lacks are run
first, as many at a time as there are cores, so that it finds them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def execute_side_by_side(app: Any, env: Any, docnames: Iterable[str]) -> None:
    """Sphinx's `env-before-read-docs`: run the notebooks about to be read that the cache lacks.

    One that fails is not kept: myst-nb then runs it again in its turn and reports its error as ever.
    """
    if app.config.nb_execution_mode == "cache":
        paths = [Path(env.doc2path(name)) for name in docnames]
        fill_cache(
            [path for path in paths if path.suffix == ".ipynb"],
            app.config.nb_execution_cache_path,
            app.config.nb_execution_timeout,
        )


def fill_cache(paths: Iterable[Path], folder: str | Path, timeout: int, jobs: int | None = None) -> list[Path]:
    """Execute the notebooks that a jupyter-cache lacks, several at a time, and keep those that succeed.

    Parameters
    ----------
    paths : of notebooks; each runs in its own folder.
    folder : of the cache.
    timeout : seconds for one cell.
    jobs : notebooks at a time; as many as there are cores by default, one thread each.

    Returns
    -------
    Those that were run and kept.
    """
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    cache, missing = get_cache(folder), []
    for path in sorted(paths, key=lambda one: -one.stat().st_size):  # the long ones first
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            missing.append(path)
    if not missing:
        return []
    kept, jobs = [], min(jobs or os.cpu_count() or 1, len(missing))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for path, done in zip(missing, pool.map(_execute, missing, [timeout] * len(missing)), strict=True):
            if done is not None:
                notebook, seconds = done
                cache.cache_notebook_bundle(
                    CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds}),
                    check_validity=False,
                    overwrite=True,
                )
                kept.append(path)
    return kept


def _execute(path: Path, timeout: int) -> tuple[Any, float] | None:
    import nbformat
    from jupyter_cache.executors.utils import single_nb_execution
    from nbclient.exceptions import DeadKernelError

    os.environ["OMP_NUM_THREADS"] = "1"  # of the kernel; more threads than cores make all of them slow
    notebook = nbformat.read(path, as_version=4)
    try:
        result = single_nb_execution(
            notebook, cwd=str(path.parent.absolute()), allow_errors=False, timeout=timeout, meta_override=True
        )
    except DeadKernelError:
        return None
    notebook.metadata.pop("widgets", None)  # what a live figure drew; no page shows it without a kernel
    return None if result.err else (notebook, result.time)


def tell_time(app: Any, doctree: Any) -> None:
    """Sphinx's `doctree-read`: after a chapter's "Time" write what its cells took when they were run for this book."""
    from docutils import nodes

    done = app.env.nb_metadata.get(app.env.docname, {}).get("exec_data")
    for paragraph in doctree.findall(nodes.paragraph):
        first = paragraph.children[0] if paragraph.children else None
        if done and done["runtime"] and isinstance(first, nodes.strong) and first.astext() == "Time":
            paragraph += nodes.Text(f" For this page they took {max(1, round(done['runtime']))} s, on one thread.")
            return
