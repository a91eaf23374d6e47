"""Makes a new project: an application with its configuration, its page and its test, from the files in ``project``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .config import check_name
from .errors import ConfigError

_MODEL: Final = Path(__file__).parent / "project"
_NAME: Final = "NAME"  # stands in its files for the name of the project


def make(folder: Path) -> list[Path]:
    """Make a project that is named as its folder; return its files.

    Raises:
        ConfigError: if the folder has something in it or cannot be written, or if its name is none for a cluster.
    """
    folder = folder.absolute()
    try:
        check_name(folder.name)
    except ValueError as error:
        raise ConfigError(f"{folder.name!r} is no name for a project: {error}") from error
    written = []
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is there already, and not empty; name another one")
        for source in sorted(path for path in _MODEL.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            file = folder / source.relative_to(_MODEL)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source.read_text("utf-8").replace(_NAME, folder.name), "utf-8")
            written.append(file)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return written
