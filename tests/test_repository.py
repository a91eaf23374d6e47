"""What has to agree across the files of the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import gatecrew
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in page.relative_to(ROOT).parts)
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def name(requirement: str) -> str:
    """Return the package that a requirement such as ``sqlalchemy[asyncio]>=2`` names."""
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0]


def anchors(page: Path) -> set[str]:
    """Return what a link can point to in a page: its headings as a reader's browser names them."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|^(?: {4}|\t).*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest
    assert gatecrew.__version__ == project["project"]["version"] == newest[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", without_code(page.read_text()))
    lost = []
    for target in filter(None, (either for pair in targets for either in pair)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            lost.append(target)

    assert lost == []


def test_every_dependency_is_argued_for(project: dict[str, Any]) -> None:
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    needed = {name(requirement) for group in groups for requirement in group}
    rows = re.findall(r"^\| ([\w.-]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)

    assert needed == set(rows) - {"package", "---"}


def test_the_wheel_has_every_folder_of_the_package(project: dict[str, Any]) -> None:
    folders = {f"gatecrew.{init.parent.name}" for init in ROOT.glob("*/__init__.py")}

    assert {"gatecrew"} | folders == set(project["tool"]["setuptools"]["packages"])


def test_the_wheel_has_every_file_of_a_new_project(project: dict[str, Any]) -> None:
    folder = ROOT / "common"
    named = {
        path
        for pattern in project["tool"]["setuptools"]["package-data"]["gatecrew.common"]
        for path in folder.glob(pattern)
    }
    files = {path for path in (folder / "project").rglob("*") if path.is_file() and path.suffix != ".pyc"}

    assert files
    assert files <= named


#: Modules that read the time of day: it is shown or stored, or says whether a token has ended.
BY_THE_TIME_OF_DAY = {
    "business/hub.py",
    "business/jwt.py",
    "business/storage.py",
    "business/worker.py",
    "cli.py",
    "common/process.py",
    "gateway/server.py",
    "register/top.py",
}


def test_no_process_goes_by_the_time_of_day() -> None:
    modules = [
        path for folder in ("common", "register", "gateway", "business") for path in (ROOT / folder).glob("*.py")
    ]
    reads = re.compile(r"\btime\.time\b|from time import .*\btime\b|\bdatetime\.(now|utcnow)\b|\bCLOCK_REALTIME\b")
    found = {str(path.relative_to(ROOT)) for path in (*modules, ROOT / "cli.py") if reads.search(path.read_text())}

    assert found - BY_THE_TIME_OF_DAY == set()
