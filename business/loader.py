"""Imports the application that ``[worker] app`` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING

from ..common.errors import AppError, ConfigError, GatecrewError
from .app import App

if TYPE_CHECKING:
    from pathlib import Path


def load(name: str, folder: Path) -> App:
    """Return the app.

    Args:
        name: ``module:attribute``.
        folder: where its modules are looked for first.

    Raises:
        ConfigError: if there is no name.
        AppError: if it cannot be imported, or is no app; with the place in the user's code, if there is one.
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
            raise AppError(f"{name}: there is no module {error.name} in {folder} or where Python looks") from error
        raise _failed(name, error) from error
    except GatecrewError as error:
        raise AppError(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error
    app: object = module
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if not isinstance(app, App):
        found = "there is none" if app is None else f"it is a {type(app).__name__}"
        raise AppError(f"{name}: expected an App named {attribute} in {module.__file__}, but {found}")
    return app


def _failed(name: str, error: BaseException) -> AppError:
    """Return an error that says in one line what failed, and where in the user's code."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
        what = error.msg
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else "?"
        what = str(error)
    return AppError(f"{name} cannot be imported: {where}: {type(error).__name__}: {what}")
