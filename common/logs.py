"""Logging as the ``[log]`` section asks for it: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Final

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import LogConfig

#: What the logging module itself puts on a record; anything else came with ``extra=``.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00.123 INFO worker-1[4711]: text client=ID``, in local time: name, pid, and what came with ``extra=``."""

    default_msec_format = "%s.%03d"

    def __init__(self, name: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {name.replace('%', '%%')}[{os.getpid()}]: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        """Return the line, before a traceback."""
        extra = (f" {key}={value}" for key, value in vars(record).items() if key not in _OWN)
        return super().formatMessage(record) + "".join(extra)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, role, name, pid, message, exception, and what came with ``extra=``."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._who = {"role": role, "name": name, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for the record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, object] = {
            **{key: value for key, value in vars(record).items() if key not in _OWN},
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._who,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        return json.dumps(event, default=str, skipkeys=True)


def set_up(config: LogConfig, *, role: str, name: str) -> None:
    """Send the records of all loggers of this process to one place; what was set up before is replaced.

    Raises:
        ConfigError: if the file cannot be opened.
    """
    handler: logging.Handler
    if config.file:
        try:
            # it opens the file again when logrotate moves it away
            handler = WatchedFileHandler(config.file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError(f"[log] file: cannot open {config.file}: {error.strerror}") from error
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role, name) if config.format == "json" else TextFormatter(name))
    logging.basicConfig(handlers=[handler], level=config.level.upper(), force=True)
    logging.captureWarnings(capture=True)
