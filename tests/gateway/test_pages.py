"""Static pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gatecrew.common.errors import ConfigError
from gatecrew.gateway import pages as module
from gatecrew.gateway.pages import Pages

if TYPE_CHECKING:
    from pathlib import Path
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

FILES = {"index.html": b"<p>home", "chat.js": b"1", "docs/index.html": b"<p>docs", "a b.txt": b"space", "x.bin": b"\0"}


def get(pages: Pages, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Headers]:
    response = pages.respond(method, target, Headers({k.replace("_", "-"): v for k, v in headers.items()}))
    return response.status_code, bytes(response.body), response.headers


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("/", b"<p>home", "text/html; charset=utf-8"),
        ("/index.html", b"<p>home", "text/html; charset=utf-8"),
        ("/?room=1", b"<p>home", "text/html; charset=utf-8"),
        ("/docs/", b"<p>docs", "text/html; charset=utf-8"),
        ("/a%20b.txt", b"space", "text/plain; charset=utf-8"),
        ("/x.bin", b"\0", "application/octet-stream"),
    ],
)
def test_files_are_served_with_their_types(target: str, body: bytes, kind: str) -> None:
    status, found, headers = get(Pages(FILES), target)

    assert (200, body) == (status, found)
    assert headers["Content-Type"] == kind
    assert headers["Content-Length"] == str(len(body))
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Connection"] == "close"


def test_scripts_are_served_as_scripts() -> None:
    kind = get(Pages(FILES), "/chat.js")[2]["Content-Type"]

    assert kind in ("text/javascript; charset=utf-8", "application/javascript; charset=utf-8")


@pytest.mark.parametrize("target", ["/nothing", "/docs", "//", "", "*", "/../index.html", "/%2e%2e/etc/passwd", "/%00"])
def test_anything_else_is_not_found(target: str) -> None:
    status, body, headers = get(Pages(FILES), target)

    assert status == 404
    assert body
    assert "ETag" not in headers


@given(st.text())
def test_no_path_leads_out_of_the_folder(target: str) -> None:
    status, body, _ = get(Pages(FILES), target)

    assert status == 404 or body in FILES.values()


def test_head_has_no_body_but_its_length() -> None:
    status, body, headers = get(Pages(FILES), "/", "HEAD")

    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == "7"


def test_a_page_that_the_browser_has_is_not_sent_again() -> None:
    pages = Pages(FILES)
    etag = get(pages, "/")[2]["ETag"]

    assert get(pages, "/", If_None_Match=etag)[:2] == (304, b"")
    assert get(pages, "/chat.js", If_None_Match=etag)[0] == 200


def test_reading_a_folder_takes_regular_visible_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    folder = tmp_path / "pages"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("index.html", "sub/a.css", ".env", ".git/config"):
        (folder / name).write_bytes(name.encode())
    (folder / "link").symlink_to(secret)
    (folder / "outside").symlink_to(tmp_path)
    pages = Pages.read(folder)

    assert len(pages) == 3  # "/", "/index.html", "/sub/a.css"
    assert get(pages, "/sub/a.css")[1] == b"sub/a.css"
    assert get(pages, "/link")[0] == 404
    assert get(pages, "/outside/secret")[0] == 404


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere"):
        Pages.read(tmp_path / "nowhere")


def test_a_folder_that_is_too_large_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL", 10)
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123456")

    with pytest.raises(ConfigError, match="more than"):
        Pages.read(tmp_path)
