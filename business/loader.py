"""Imports the application that ``[worker] app`` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from ..common.errors import AppError, ConfigError, GatecrewError
from .app import KINDS, App


def load(name: str, folder: Path) -> App:
    """Return the app.

    Args:
        name: ``module:attribute``.
        folder: where its modules are looked for first.

    Raises:
        ConfigError: if there is no name.
        AppError: if it cannot be imported, is no app or has no handlers; with the place in the user's code, if there is one.
    """
    if not name:
        raise ConfigError("[worker] app: there is none; name one as module:attribute, as in gatecrew start chat:app")
    module_name, _, attribute = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            meant = f"; did you mean {module_name[:-3]}:{attribute}?" if module_name.endswith(".py") else ""
            raise AppError(
                f"{name}: there is no module {error.name} in {folder} or where Python looks{meant}"
            ) from error
        raise AppError(f"{name} cannot be imported: {in_one_line(error, folder)}") from error
    except GatecrewError as error:
        raise AppError(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise AppError(f"{name} cannot be imported: {in_one_line(error, folder)}") from error
    app: object = module
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if not isinstance(app, App):
        found = "there is none" if app is None else f"it is a {type(app).__name__}"
        raise AppError(f"{name}: expected an App named {attribute} in {module.__file__}, but {found}")
    if not app.timers() and not any(map(app.functions, KINDS)):
        raise AppError(f"{name} has no handlers: give it one with @app.on_message")
    return app


def in_one_line(error: BaseException, folder: Path) -> str:
    """Say what failed, and where in the application: ``/srv/chat/chat.py:3: ValueError: no such room``.

    Args:
        error: what its code raised.
        folder: where its modules are. If none of them was running, the place is where the error was raised.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if is_of(folder, Path(frame.filename))]
    where = "".join(f"{frame.filename}:{frame.lineno}: " for frame in (own or frames[1:])[-1:])
    return " ".join(f"{where}{type(error).__name__}: {error}".splitlines())


def is_of(folder: Path, file: Path) -> bool:
    """Tell whether a file is of the application, not of a library that is installed in its folder."""
    return file.is_relative_to(folder) and "site-packages" not in file.relative_to(folder).parts
