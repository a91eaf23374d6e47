"""Static pages for plain HTTP requests on the client listeners.

A folder is read once, at the start. A request is then a look-up in a dictionary, so no path leads out of the folder.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.http11 import Response

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_TOTAL: Final = 16 << 20  #: bytes of all files together
INDEX: Final = "index.html"

#: Only what comes with Python: the tables of the system differ.
_TYPES: Final = mimetypes.MimeTypes()
for _type, _suffix in (("image/webp", ".webp"), ("font/woff2", ".woff2")):  # not yet in those of Python 3.11
    _TYPES.add_type(_type, _suffix)
_TEXTS: Final = frozenset({"application/javascript", "application/json", "application/manifest+json", "image/svg+xml"})


class Page(NamedTuple):
    """One file."""

    body: bytes
    content_type: str
    etag: str


def make_page(name: str, body: bytes) -> Page:
    """Return the page for a file of this name and content."""
    kind = _TYPES.guess_type(name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") or kind in _TEXTS else ""
    return Page(body, kind + charset, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class Pages:
    """The pages of one folder.

    Args:
        files: content by path, relative to the folder, with ``/`` between its parts.

    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._pages: dict[str, Page] = {}
        for name, body in files.items():
            page = self._pages[f"/{name}"] = make_page(name, body)
            if name == INDEX or name.endswith(f"/{INDEX}"):
                self._pages["/" + name.removesuffix(INDEX)] = page

    def __len__(self) -> int:
        return len(self._pages)

    @classmethod
    def read(cls, folder: Path) -> Pages:
        """Read a folder: regular files only, nothing whose name begins with a dot.

        Raises:
            ConfigError: if it is no folder, cannot be read, or has more than :data:`MAX_TOTAL` bytes.

        """
        files: dict[str, bytes] = {}
        total = 0
        try:
            for path in _files(folder):
                total += path.stat().st_size
                if total > MAX_TOTAL:
                    raise ConfigError(f"[gateway] pages: {folder} has more than {MAX_TOTAL >> 20} MiB")
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"[gateway] pages: cannot read {error.filename}: {error.strerror}") from error
        return cls(files)

    def respond(self, method: str, target: str, headers: Headers) -> Response:
        """Return the answer to a GET or HEAD request for ``target``, as it stands in the request line."""
        page = self._pages.get(unquote(target.partition("?")[0]))
        if page is None:
            status = HTTPStatus.NOT_FOUND
            page = Page(b"There is no such page.\n", "text/plain; charset=utf-8", "")
        elif page.etag in headers.get_all("If-None-Match"):
            status = HTTPStatus.NOT_MODIFIED
        else:
            status = HTTPStatus.OK
        answer = Headers(
            [
                ("Date", formatdate(usegmt=True)),
                ("Connection", "close"),
                ("Cache-Control", "no-cache"),
                ("X-Content-Type-Options", "nosniff"),
                ("Content-Type", page.content_type),
            ]
        )
        if page.etag:
            answer["ETag"] = page.etag
        if status is not HTTPStatus.NOT_MODIFIED:
            answer["Content-Length"] = str(len(page.body))
        bodiless = method == "HEAD" or status is HTTPStatus.NOT_MODIFIED
        return Response(status.value, status.phrase, answer, b"" if bodiless else page.body)


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                yield path
