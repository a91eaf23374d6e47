"""What tests of any part may need."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile("gatecrew", deadline=None)  # no test asserts how long something takes
settings.load_profile("gatecrew")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private folder with a path short enough for unix sockets, which the kernel holds to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium browser: without one a test is skipped at home and fails in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    reason = "no chromium here; on Debian: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
