"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cxr_data() -> Path:
    """The folder that holds the three real data sets; tests that need it are skipped without it."""
    folder = os.environ.get("CXR_DATA")
    if not folder:
        pytest.skip("set CXR_DATA to a folder that holds montgomery/, shenzhen/ and jsrt/")
    return Path(folder)
