"""The command line, with real clusters."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from gatecrew import __version__, cli
from gatecrew.common import config, supervisor
from gatecrew.common.errors import GatecrewError
from gatecrew.register import status
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = """
import os
from gatecrew import App

app = App()

@app.on_connect
async def come(client, request):
    client.join("lobby")
    client.bind("anna")
    client.send(f"{client.id}")

@app.on_message
async def say(client, data):
    if data == "pid":
        data = str(os.getpid())
    client.send(data)
"""
CONFIG = """
[cluster]
run_dir = "{run_dir}"

[gateway]
listen = ["ws://127.0.0.1:0"]

[worker]
app = "chat:app"
processes = 2
"""
ROLES = ("register-1", "gateway-1", "worker-1", "worker-2")


class Site:
    """A folder with an application and a configuration file, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        (folder / "chat.py").write_text(CHAT)
        (folder / "gatecrew.toml").write_text(CONFIG.format(run_dir=self.run_dir))

    def popen(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gatecrew", *arguments],
            cwd=self.folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with self.popen(*arguments, **variables) as process:
            out, err = process.communicate(timeout=50)
            return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def ok(self, *arguments: str) -> str:
        """Run a command that works; return what it said."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def refused(self, *arguments: str, code: int = 1, **variables: str) -> str:
        """Run a command that does not work; return the one line that it said."""
        ended = self.run(*arguments, **variables)
        lines = [line for line in ended.stderr.splitlines() if " INFO " not in line]
        assert (ended.returncode, ended.stdout, len(lines)) == (code, "", 1), ended.stderr
        return lines[0]

    def members(self) -> dict[str, dict[str, Any]]:
        found = status.ask(config.load(self.folder / "gatecrew.toml", {}, {}))
        return {member["name"]: member for member in found}

    def until_members(self, *names: str) -> dict[str, dict[str, Any]]:
        """Return the members once they are these: the registers hear of them a moment after their supervisor."""
        while sorted(members := self.members()) != sorted(names):
            time.sleep(0.05)
        return members

    @property
    def pid(self) -> int:
        found = supervisor.find(self.run_dir)
        assert found is not None
        return found.pid

    def processes(self) -> list[int]:
        """Return the processes that have this folder's configuration on their command line."""
        lines = subprocess.run(
            ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return [int(line.split()[0]) for line in lines if str(self.folder) in line]

    def end(self) -> None:
        with suppress(GatecrewError):
            supervisor.stop(self.run_dir)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@contextmanager
def a_site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="cli-", dir="/tmp"))  # a short path, for the sockets
    found = Site(folder)
    try:
        yield found
    finally:
        found.end()
        shutil.rmtree(folder)


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as found:
        yield found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Site]:
    """A cluster that runs in the background; a test that uses it leaves it as whole as it was."""
    with a_site() as found:
        found.ok("start", "-d")
        yield found


def url_in(line: str) -> str:
    found = re.search(r"ws://127.0.0.1:[1-9][0-9]*", line)
    assert found is not None, line
    return found[0]


def url_of(site: Site) -> str:
    return url_in((site.run_dir / "gatecrew.log").read_text())


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() not in ("", "Z", "Zs")  # the dead need not be buried yet


# Without a cluster


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_version_is_told(argument: str) -> None:
    assert CliRunner().invoke(cli.main, [argument]).output == f"gatecrew {__version__}\n"


@pytest.mark.parametrize("command", ["", *cli.main.commands])
def test_the_help_of_each_command_ends_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli.main, [*command.split(), "--help"])

    assert shown.exit_code == 0
    assert shown.output.rstrip().splitlines()[-1].strip().startswith(f"Example: gatecrew {command or 'start'}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    def asked(what: str, **words: str) -> str:
        env = {"_GATECREW_COMPLETE": f"{shell}_{what}", **words}
        return CliRunner().invoke(cli.main, prog_name="gatecrew", env=env).output

    assert f"_GATECREW_COMPLETE={shell}_complete" in asked("source")
    position = "con" if shell == "fish" else "1"
    assert "connections" in asked("complete", COMP_WORDS="gatecrew con", COMP_CWORD=position)


def test_help_and_version_load_no_role() -> None:
    program = "import sys; from gatecrew import cli; print([name for name in ('zmq', 'asyncio', 'websockets') if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["stop", "reload", "status", "restart --rolling", "scale workers=2"])
def test_what_needs_a_cluster_says_that_none_runs(site: Site, command: str) -> None:
    assert site.refused(*command.split()).startswith("Error: not running")


@pytest.mark.parametrize(
    "command", ["scale", "scale workers=0", "scale workers=many", "scale clerks=2", "scale registers=2"]
)
def test_what_is_no_number_of_processes_is_a_usage_error(command: str) -> None:
    refused = CliRunner().invoke(cli.main, command.split())

    assert refused.exit_code == 2
    assert "Error: " in refused.output


@pytest.mark.parametrize("option", ["-d", "--workers 2", "--gateways 2", "chat:app"])
def test_a_rolling_restart_takes_no_options_of_a_start(option: str) -> None:
    refused = CliRunner().invoke(cli.main, ["restart", "--rolling", *option.split()])

    assert refused.exit_code == 2
    assert "--rolling goes with -c only" in refused.output


def test_a_message_to_a_cluster_that_does_not_run_fails(site: Site) -> None:
    assert "running" in site.refused("send", "--all", "hello")


@pytest.mark.parametrize("targets", [[], ["--all", "--uid", "anna"], ["--client", "x", "--group", "y"]])
def test_a_message_needs_one_target(targets: list[str]) -> None:
    refused = CliRunner().invoke(cli.main, ["send", *targets, "hello"])

    assert refused.exit_code == 2
    assert "give one of --all, --client, --uid and --group" in refused.output


@pytest.mark.parametrize(
    "arguments", [["start", "-c", "nowhere.toml"], ["stop", "-c", "nowhere.toml"], ["start", "--workers", "-1"]]
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(site: Site, arguments: list[str]) -> None:
    assert site.refused(*arguments, code=2).startswith("Error: ")


# A new project


def test_a_new_project_works_at_once(run_dir: Path) -> None:
    folder = run_dir / "chat"
    made = CliRunner().invoke(cli.main, ["init", str(folder)], catch_exceptions=False)

    assert made.exit_code == 0
    assert "chat/app.py" in made.output.splitlines()
    assert config.load(folder / "gatecrew.toml", {}, {}).cluster.name == "chat"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # as it is for who has nothing but pytest
    tested = subprocess.run(tests, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "1 passed" in tested.stdout, tested.stdout
    url = "ws://127.0.0.1:0"
    checked = subprocess.run(
        [sys.executable, "-m", "gatecrew", "check"],
        cwd=folder,
        env={**env, "GATECREW_GATEWAY_LISTEN": url, "GATECREW_CLUSTER_RUN_DIR": str(run_dir / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, "fail" in checked.stdout) == (0, False), checked.stdout


def test_a_new_project_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")

    refused = CliRunner().invoke(cli.main, ["init", str(tmp_path)])

    assert (refused.exit_code, refused.output) == (
        2,
        f"Error: {tmp_path} is there already, and not empty; name another one\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert CliRunner().invoke(cli.main, ["init", str(tmp_path / "my chat")]).exit_code == 2


# A look before the start


def test_a_check_says_that_all_would_work_and_starts_nothing(site: Site) -> None:
    (site.folder / "chat.py").write_text(f"from gatecrew import History\nhistory = History('sqlite://')\n{CHAT}")

    lines = site.ok("check").splitlines()

    assert [line.split()[0] for line in lines] == ["ok"] * 6
    assert lines[0].endswith(str(site.folder / "gatecrew.toml"))
    assert lines[-2].split() == ["ok", "application", "chat:app"]
    assert lines[-1].split() == ["ok", "database", "sqlite+aiosqlite://"]
    assert supervisor.find(site.run_dir) is None


def test_a_check_names_all_that_would_not_work(site: Site) -> None:
    (site.folder / "gatecrew.toml").write_text(
        CONFIG.format(run_dir=site.run_dir).replace("[worker]", 'pages = "web"\nrouter = "a:b"\nhooks = "c"\n[worker]')
    )
    (site.folder / "chat.py").write_text(
        f"from gatecrew import History\nhistory = History('sqlite:////nowhere/a.db')\n{CHAT}"
    )

    ended = site.run("check")

    failed = [line for line in ended.stdout.splitlines() if line.startswith("fail")]
    assert (ended.returncode, ended.stderr) == (1, "")
    assert [line.split()[1] for line in failed] == ["router", "hooks", "pages", "database"]


def test_a_check_beside_a_running_cluster_leaves_its_addresses_to_it(cluster: Site) -> None:
    assert f"in use, as the cluster runs here, as process {cluster.pid}" in cluster.ok("check")


# A start that fails


@pytest.mark.parametrize(
    ("mode", "code", "text"),
    [
        ([], "from gatecrew import App\napp = App()\ndef on(:\n", "chat.py:3: SyntaxError"),
        ([], "import nowhere\n", "chat.py:1: ModuleNotFoundError"),
        (["-d"], "from gatecrew import App\n", "expected an App named app"),
        ([], "from gatecrew import App\napp = App()\n", "has no handlers"),
        (
            ["-d"],
            "from gatecrew import App\napp = App()\n@app.on_start\ndef fail():\n    raise OSError('no database')\n",
            "a start handler failed: {folder}/chat.py:5: OSError: no database",
        ),
    ],
    ids=["a syntax error", "a missing module", "no app", "no handlers", "a start handler"],
)
def test_an_app_that_does_not_import_is_one_line_and_leaves_nothing_behind(
    site: Site, mode: list[str], code: str, text: str
) -> None:
    (site.folder / "chat.py").write_text(code)

    line = site.refused("start", *mode)

    assert re.match(r"Error: worker-[12]: ", line)
    assert text.format(folder=site.folder) in line
    assert site.processes() == []
    assert [path.name for path in site.run_dir.iterdir() if path.suffix != ".log"] == []


def test_a_port_in_use_is_one_line(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"

        line = site.refused("start", GATECREW_GATEWAY_LISTEN=url)

    assert line == f"Error: [gateway] listen: cannot listen on {url}: Address already in use"
    assert site.processes() == []


def test_two_clusters_do_not_share_a_port_by_accident(site: Site) -> None:
    """Gateways of one cluster do share it, so the system lets those of another join in."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"

        assert "Address already in use" in site.refused("start", GATECREW_GATEWAY_LISTEN=url)


# In the foreground


def test_start_works_without_a_file_and_ctrl_c_ends_it(site: Site) -> None:
    (site.folder / "gatecrew.toml").unlink()
    (site.folder / "signal.py").write_text("raise SystemExit('a file of the user hid a module of Python')")
    variables = {"GATECREW_CLUSTER_RUN_DIR": str(site.run_dir), "GATECREW_GATEWAY_LISTEN": "ws://127.0.0.1:0"}
    arguments = [sys.executable, "-P", "-m", "gatecrew", "start", "--workers", "1", "chat:app"]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                arguments,
                cwd=site.folder,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: 1 register, 1 gateway, 1 worker; clients connect to ws://127.0.0.1:")
        with connect(url_in(line)) as client:
            client.recv()
            client.send("hello")
            assert client.recv() == "hello"
            client.send("pid")
            worker = int(client.recv())

            process.send_signal(signal.SIGINT)
            out, err = process.communicate()

        assert (process.returncode, out) == (0, "stopping; Ctrl-C again kills at once\n"), err
        assert " ERROR " not in err
        assert not alive(worker)
        assert supervisor.find(site.run_dir) is None


@pytest.mark.parametrize("role", ["register", "gateway", "worker"])
def test_each_role_runs_alone(site: Site, role: str) -> None:
    name = f"{role}-1"
    (site.folder / "ear").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, ExitStack() as stack:
        ear.bind(str(site.folder / "ear"))
        process = stack.enter_context(site.popen(role, "--name", name, NOTIFY_SOCKET=str(site.folder / "ear")))
        stack.callback(process.kill)
        assert ear.recv(4096).startswith(b"READY=1\n")

        process.terminate()

        _, err = process.communicate()
        assert (process.returncode, " ERROR " in err) == (0, False), err


# In the background


def test_the_log_tells_who_came_and_went_in_order_and_nothing_of_callers(site: Site) -> None:
    site.ok("start", "-d", "--workers", "1")
    site.ok("send", "--all", "hello")
    keys = {name: member["key"] for name, member in site.until_members("register-1", "gateway-1", "worker-1").items()}

    site.ok("stop")

    log = (site.run_dir / "gatecrew.log").read_text()
    worker, gateway = (f"{name.partition('-')[0]} {name} ({keys[name]})" for name in ("worker-1", "gateway-1"))
    for who, what in (
        ("register-1", f"{worker} joined"),
        ("gateway-1", f"{worker} joined"),
        ("register-1", f"{gateway} left"),
        ("worker-1", "gateway gateway-1 left"),
        ("register-1", f"{worker} left"),
    ):
        assert re.search(rf" INFO {who}\[\d+\]: {re.escape(what)}\n", log)
    assert "lost" not in log
    assert "caller" not in log


def test_pages_are_named_for_a_browser(site: Site) -> None:
    (site.folder / "web").mkdir()
    (site.folder / "gatecrew.toml").write_text(
        CONFIG.format(run_dir=site.run_dir).replace("[worker]", 'pages = "web"\n[worker]')
    )

    line = site.ok("start", "-d")

    port = url_in(line).rpartition(":")[2]
    assert f"; clients connect to ws://127.0.0.1:{port}; pages at http://127.0.0.1:{port}/; log: " in line


def test_status_shows_all_processes(cluster: Site) -> None:
    members = cluster.until_members(*ROLES)

    lines = cluster.ok("status").splitlines()
    as_json = json.loads(cluster.ok("status", "--json"))

    assert lines[0].split() == [
        "ROLE",
        "NAME",
        "PID",
        "UPTIME",
        "MEMORY",
        "CONNECTIONS",
        "EVENTS/S",
        "QUEUE",
        "RESTARTS",
    ]
    assert sorted(line.split()[1] for line in lines[1:]) == sorted(ROLES)
    assert {member["name"]: member["pid"] for member in as_json} == {
        name: member["pid"] for name, member in members.items()
    }
    for name, member in members.items():
        assert alive(member["pid"])
        assert member["memory"] > 1_000_000
        assert name.startswith(member["role"])


def test_a_second_start_is_refused(cluster: Site) -> None:
    for mode in ([], ["-d"]):
        assert cluster.refused("start", *mode) == f"Error: it runs already, as process {cluster.pid}"
    assert sorted(cluster.until_members(*ROLES)) == sorted(ROLES)


def test_a_process_that_is_killed_comes_back(cluster: Site) -> None:
    before = cluster.until_members(*ROLES)["worker-1"]

    os.kill(before["pid"], signal.SIGKILL)

    while (after := cluster.members().get("worker-1", before))["pid"] == before["pid"]:
        time.sleep(0.05)
    assert after["restarts"] == before["restarts"] + 1
    assert "worker-1 was killed by SIGKILL; it starts again" in (cluster.run_dir / "gatecrew.log").read_text()
    cluster.until_members(*ROLES)


def test_a_message_is_sent_from_the_command_line(cluster: Site) -> None:
    with connect(url_of(cluster)) as client:
        client_id = client.recv()
        assert isinstance(client_id, str)

        for target in (["--all"], ["--client", client_id], ["--uid", "anna"], ["--group", "lobby"]):
            assert cluster.ok("send", *target, "hello") == ""
            assert client.recv() == "hello"
        cluster.ok("send", "--all", "--binary", "hello")
        assert client.recv() == b"hello"


def test_a_message_may_come_from_standard_input(cluster: Site) -> None:
    with connect(url_of(cluster)) as client:
        client.recv()
        send = [sys.executable, "-m", "gatecrew", "send", "--all"]

        subprocess.run([*send, "-"], cwd=cluster.folder, input=b"two\nlines\n", check=True)
        assert client.recv() == "two\nlines\n"
        subprocess.run([*send, "--binary", "-"], cwd=cluster.folder, input=b"\xff\x00", check=True)
        assert client.recv() == b"\xff\x00"
        refused = subprocess.run([*send, "-"], cwd=cluster.folder, input=b"\xff", capture_output=True, check=False)
        assert refused.returncode == 2
        assert b"the message is not UTF-8; --binary sends it as it is" in refused.stderr


def test_a_reload_brings_new_handlers_to_clients_that_stay_connected(cluster: Site) -> None:
    before = cluster.until_members(*ROLES)
    with connect(url_of(cluster)) as client:
        client.recv()
        (cluster.folder / "chat.py").write_text(CHAT.replace("client.send(data)", "client.send(f'new {data}')"))
        try:
            assert cluster.ok("reload") == "2 workers replaced\n"

            client.send("hello")
            assert client.recv() == "new hello"
            after = cluster.until_members(*ROLES)
            changed = {name for name in ROLES if before[name]["pid"] != after[name]["pid"]}
            assert changed == {"worker-1", "worker-2"}
        finally:
            (cluster.folder / "chat.py").write_text(CHAT)


def test_a_reload_of_broken_handlers_is_one_line_and_the_old_ones_go_on(cluster: Site) -> None:
    before = cluster.until_members(*ROLES)
    with connect(url_of(cluster)) as client:
        client.recv()
        (cluster.folder / "chat.py").write_text("def on(:\n")
        try:
            line = cluster.refused("reload")
        finally:
            (cluster.folder / "chat.py").write_text(CHAT)

        assert "chat.py:1: SyntaxError" in line
        assert line.endswith("; the old ones go on")
        client.send("hello")
        assert str(client.recv()).endswith("hello")
        assert {name: member["pid"] for name, member in cluster.members().items()} == {
            name: member["pid"] for name, member in before.items()
        }


def test_a_rolling_restart_replaces_every_process_but_the_supervisor(site: Site) -> None:
    site.ok("start", "-d")
    before, pid = site.until_members(*ROLES), site.pid

    assert site.ok("restart", "--rolling") == "1 register, 1 gateway, 2 workers replaced\n"

    after = site.until_members(*ROLES)
    assert not {before[name]["pid"] for name in ROLES} & {after[name]["pid"] for name in ROLES}
    assert not any(alive(member["pid"]) for member in before.values())
    assert site.pid == pid


def test_a_running_cluster_is_scaled_up_and_down(cluster: Site) -> None:
    cluster.until_members(*ROLES)

    assert cluster.ok("scale", "gateways=2", "workers=3") == "now 2 gateways, 3 workers\n"

    members = cluster.until_members(*ROLES, "gateway-2", "worker-3")
    assert [line.split()[1] for line in cluster.ok("status").splitlines()[1:]] == sorted(members)
    assert cluster.ok("scale", "workers=2", "gateways=1") == "now 2 workers, 1 gateway\n"
    cluster.until_members(*ROLES)
    assert not any(alive(members[name]["pid"]) for name in ("gateway-2", "worker-3"))


def test_gateways_need_ports_for_workers(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {"GATECREW_GATEWAY_LINK": f"tcp://127.0.0.1:{port}-{port}"}
    assert site.run("start", "-d", "--workers", "1", **variables).returncode == 0

    line = site.refused("scale", "gateways=2")

    assert line == "Error: no more than 1 gateway can run at once: [gateway] link has a port for each"
    assert site.ok("restart", "--rolling") == "1 register, 1 gateway, 1 worker replaced\n", "the old gateway left first"


def test_a_restart_is_as_the_start_was_but_for_what_is_given(site: Site) -> None:
    site.ok("start", "-d", "--workers", "1")
    first = site.pid

    line = site.ok("restart", "--gateways", "2")

    assert line.startswith("ready: 1 register, 2 gateways, 1 worker; ")
    assert not alive(first)
    assert supervisor.find(site.run_dir) == supervisor.Running(
        site.pid,
        supervisor.Origin(
            folder=str(site.folder),
            file=str(site.folder / "gatecrew.toml"),
            flags={"worker.processes": 1, "gateway.processes": 2},
            background=True,
        ),
    )

    (site.folder / "gatecrew.toml").write_text("[gateway]\nlisten = 5\n")
    assert "[gateway] listen" in site.refused("restart", code=2, GATECREW_CLUSTER_RUN_DIR=str(site.run_dir))
    (site.folder / "gatecrew.toml").write_text(CONFIG.format(run_dir=site.run_dir))

    processes = site.processes()
    assert site.ok("stop") == "stopped\n"
    assert not any(alive(pid) for pid in processes)
    assert [path.name for path in site.run_dir.iterdir()] == ["gatecrew.log"]


def test_a_restart_of_what_does_not_run_starts_it(site: Site) -> None:
    assert site.ok("restart", "-d", "--workers", "1").startswith("ready: 1 register, 1 gateway, 1 worker; ")


def test_children_of_a_killed_supervisor_end(site: Site) -> None:
    site.ok("start", "-d", "--workers", "1")
    members = site.until_members("register-1", "gateway-1", "worker-1")

    os.kill(site.pid, signal.SIGKILL)

    while any(alive(member["pid"]) for member in members.values()):
        time.sleep(0.05)
    site.ok("start", "-d", "--workers", "1")
