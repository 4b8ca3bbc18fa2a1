"""Fixtures shared by all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cxr_data() -> Path:
    """The folder that holds the three real data sets; tests that need it are skipped without it."""
    folder = os.environ.get("CXR_DATA")
    if not folder:
        pytest.skip("set CXR_DATA to a folder that holds montgomery/, shenzhen/ and jsrt/")
    return Path(folder)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Calls `cxr-tutorial` in `tmp_path` and in this process, which spares importing torch each time."""
    from cxr_tutorial.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXR_DATA", raising=False)
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))

    def call(*args: str, status: int = 0) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["cxr-tutorial", *args])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code or 0) == status, err
        return subprocess.CompletedProcess(args, status, out, err)

    return call
