"""Importing the application, and saying in one line why that fails."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from gatecrew.business.loader import load
from gatecrew.common.errors import AppError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = """
import types
from gatecrew import App
app = App()
app.on_message(lambda client, data: None)
box = types.SimpleNamespace(app=app, name='x')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "loaded_app.py") -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def test_an_app_is_found_in_the_folder(folder: Path) -> None:
    write(folder, GOOD)
    app = load("loaded_app:app", folder)

    assert load("loaded_app:box.app", folder) is app
    assert sys.path.count(str(folder)) == 1


def test_no_name_is_a_mistake_in_the_configuration(folder: Path) -> None:
    with pytest.raises(ConfigError, match="gatecrew start chat:app"):
        load("", folder)


@pytest.mark.parametrize("name", ["loaded_nothing:app", "loaded_nothing.sub:app"])
def test_a_module_that_is_not_there(folder: Path, name: str) -> None:
    with pytest.raises(AppError, match=f"{name}: there is no module loaded_nothing in {folder}"):
        load(name, folder)


def test_the_name_of_a_file_is_taken_for_a_slip(folder: Path) -> None:
    write(folder, GOOD)
    with pytest.raises(AppError, match=r"no module loaded_app\.py in .*; did you mean loaded_app:app\?$"):
        load("loaded_app.py:app", folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def broken(:\n", r"loaded_app.py:1: SyntaxError: "),
        (
            "\n\nimport nothing_like_this\n",
            r"loaded_app.py:3: ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        ("import json\njson.loads('oops')\n", r"loaded_app.py:2: JSONDecodeError: "),
        ("raise ValueError('two\\nlines')\n", r"loaded_app.py:1: ValueError: two lines"),
        ("x = 1\nx.y\n", r"loaded_app.py:2: AttributeError: "),
        ("import sys\nsys.exit(3)\n", r"loaded_app.py:2: SystemExit: 3"),
        ("from gatecrew import App\nApp().every(0)\n", r"more than 0 seconds"),
    ],
)
def test_a_module_that_fails_is_named_with_the_place(folder: Path, text: str, found: str) -> None:
    write(folder, text)
    with pytest.raises(AppError, match=f"loaded_app:app.*{found}") as told:
        load("loaded_app:app", folder)

    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "found"), [("app2", "there is none"), ("box.name", "it is a str"), ("box.none.app", "there is none")]
)
def test_an_attribute_that_is_no_app(folder: Path, name: str, found: str) -> None:
    write(folder, GOOD)
    with pytest.raises(AppError, match=f"expected an App named {name} in .*loaded_app.py, but {found}"):
        load(f"loaded_app:{name}", folder)


def test_a_library_in_the_folder_is_not_the_users_code(folder: Path) -> None:
    library = folder / "env" / "site-packages"
    library.mkdir(parents=True)
    write(library, "def fail():\n    raise OSError('far away')\n", "loaded_library.py")
    write(folder, f"import sys\nsys.path.append({str(library)!r})\nimport loaded_library\nloaded_library.fail()\n")

    with pytest.raises(AppError, match=r"loaded_app.py:4: OSError: far away$"):
        load("loaded_app:app", folder)


def test_an_app_without_handlers_would_be_mute(folder: Path) -> None:
    write(folder, "from gatecrew import App\napp = App()\n")

    with pytest.raises(AppError, match=r"loaded_app:app has no handlers: give it one with @app\.on_message"):
        load("loaded_app:app", folder)


@pytest.mark.parametrize(
    "text", ["@app.every(60)\ndef tick(): ...\n", "other = App()\nother.on_stop(print)\napp.include(other)\n"]
)
def test_a_timer_or_what_an_app_includes_is_enough(folder: Path, text: str) -> None:
    write(folder, f"from gatecrew import App\napp = App()\n{text}")

    load("loaded_app:app", folder)
