"""Who may meet where, and the private run directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from gatecrew.common.errors import ConfigError
from gatecrew.common.security import (
    SOCKET_NAME_ROOM,
    SOCKET_PATH_LIMIT,
    _parent_problem,
    _run_dir_problem,
    check_link_address,
    check_run_dir,
    prepare_run_dir,
)

WHERE = "chat.toml: [gateway] link"


def problem_of(address: str, *, keys: bool = False, insecure: bool = False) -> str:
    try:
        check_link_address(address, keys=keys, insecure=insecure, where=WHERE)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_is_allowed(host: str) -> None:
    assert problem_of(f"tcp://{host}:2900") == ""
    assert problem_of(f"tcp://{host}:2900-2999") == ""


@pytest.mark.parametrize("host", ["10.0.0.1", "chat.example", "[fd00::1]"])
def test_beyond_loopback_takes_keys_or_a_word(host: str) -> None:
    address = f"tcp://{host}:2900"

    assert problem_of(address, keys=True) == ""
    assert problem_of(address, insecure=True) == ""
    assert problem_of(address).startswith(f"{WHERE}: {address} would carry everything in the clear")
    assert "gatecrew keys" in problem_of(address)
    assert "insecure = true" in problem_of(address)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*"])
def test_an_address_to_which_nobody_can_connect_is_refused(host: str) -> None:
    found = problem_of(f"tcp://{host}:2900", insecure=True, keys=True)

    assert found.startswith(f"{WHERE}: found tcp://{host}:2900, to which nobody can connect")


def test_a_run_directory_has_room_for_the_longest_socket() -> None:
    longest = max(("worker-999-12345678.notify", "gateway-999-abcdefgh.sock", "start-4194304.sock"), key=len)
    room = SOCKET_PATH_LIMIT - 1 - SOCKET_NAME_ROOM
    path = Path("/" + "x" * (room - 1))

    check_run_dir(path, where="here")
    assert len(str(path / longest)) <= SOCKET_PATH_LIMIT
    with pytest.raises(ConfigError, match=f"^here: .* has {room + 1} bytes, expected at most {room}"):
        check_run_dir(Path(f"{path}x"), where="here")


def test_the_path_of_a_run_directory_is_counted_in_bytes() -> None:
    with pytest.raises(ConfigError, match="has 101 bytes"):
        check_run_dir(Path("/" + "ü" * 50), where="here")


def test_a_run_directory_is_made_with_all_above_it_and_is_private(run_dir: Path) -> None:
    path = run_dir / "one" / "two"
    before = os.umask(0)
    try:
        prepare_run_dir(path)
        prepare_run_dir(path)
    finally:
        os.umask(before)

    assert [stat.S_IMODE(made.stat().st_mode) for made in (path, path.parent)] == [0o700, 0o700]


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare_run_dir(path)
    text = str(caught.value)
    assert text.startswith(f"[cluster] run_dir: {path} ")
    return text


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o777])
def test_a_directory_that_is_open_to_others_is_refused(run_dir: Path, mode: int) -> None:
    path = run_dir / "run"
    path.mkdir()
    path.chmod(mode)

    assert f"is open to others (mode {mode:04o}), expected 0700" in refused(path)


def test_a_symbolic_link_is_refused(run_dir: Path) -> None:
    (run_dir / "run").mkdir(mode=0o700)
    (run_dir / "link").symlink_to(run_dir / "run")

    assert "is not a directory" in refused(run_dir / "link")


def test_a_file_is_refused(run_dir: Path) -> None:
    (run_dir / "file").touch()

    assert "is not a directory" in refused(run_dir / "file")
    assert "cannot be created: Not a directory" in refused(run_dir / "file" / "run")


def test_a_link_to_nowhere_is_refused(run_dir: Path) -> None:
    (run_dir / "link").symlink_to(run_dir / "nowhere")

    assert "cannot be created: File exists" in refused(run_dir / "link")


@pytest.mark.parametrize("depth", ["run", "deep/run"])
def test_a_place_where_everybody_may_write_is_refused(run_dir: Path, depth: str) -> None:
    run_dir.chmod(0o777)
    path = run_dir / depth
    path.mkdir(mode=0o700, parents=True)

    assert "stands in a directory in which everybody may write" in refused(path)
    run_dir.chmod(0o1777)
    prepare_run_dir(path)


def status(mode: int, uid: int) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, uid, 0, 0, 0, 0))


def test_what_belongs_to_somebody_else_is_refused() -> None:
    mine, roots, others = (status(stat.S_IFDIR | 0o700, uid) for uid in (1000, 0, 1001))

    assert _run_dir_problem(mine, 1000) == ""
    assert _run_dir_problem(others, 1000).startswith("belongs to the user with id 1001, expected 1000")
    assert _run_dir_problem(roots, 1000).startswith("belongs to the user with id 0, expected 1000")
    assert _parent_problem(mine, 1000) == ""
    assert _parent_problem(roots, 1000) == ""
    assert _parent_problem(others, 1000).startswith("stands in a directory of the user with id 1001")


def test_a_link_on_the_way_is_judged_by_its_owner() -> None:
    assert _parent_problem(status(stat.S_IFLNK | 0o777, 1000), 1000) == ""
    assert _parent_problem(status(stat.S_IFLNK | 0o777, 1001), 1000) != ""
