"""Clusters whose processes meet in other ways than by default."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from gatecrew import BlockingCluster
from gatecrew.common.curve import make
from gatecrew.register import status

from .crew import Crew, a_crew, until


def test_over_tcp_keys_change_while_all_goes_on_and_strangers_stay_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:  # a register cannot choose: others would not know
        port = probe.getsockname()[1]
    old, new, strange = (make(tmp_path / name, ["127.0.0.1"])[0] for name in ("old", "new", "strange"))
    old_line, new_line, strange_line = ((key.parent / "keys").read_text() for key in (old, new, strange))
    known = tmp_path / "known"
    known.write_text(old_line)
    meet = {"cluster_registers": f"tcp://127.0.0.1:{port}", "gateway_link": "tcp://127.0.0.1:0"}
    names = ("register-1", "gateway-1", "gateway-2", "worker-1", "worker-2")
    with a_crew(*names, cluster_key=str(old), cluster_keys=str(known), **meet) as crew:
        ann, bob = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-2", "worker-2")
        ann.do("send_to_client", bob.id, "hello")
        with BlockingCluster(crew.config()) as cluster:
            cluster.send_to_all("from outside")
        assert bob.got() == ["hello", "from outside"]
        shown = str(status.ask(crew.config()))
        assert [path for path in crew.folder.rglob("*") if path.is_socket() and path.suffix == ".sock"] == []

        (tmp_path / "theirs").write_text(old_line + strange_line)
        theirs = {"cluster_key": str(strange), "cluster_keys": str(tmp_path / "theirs")}
        stranger = crew.begin("worker", "worker-stranger", **theirs).ready()
        until(lambda: re.search(r"WARNING .*no link to .* refuses the key of this process", stranger.log))
        until(lambda: re.search(r"WARNING .*its key [0-9a-f]{64} is not in", crew.processes["register-1"].log))
        assert crew.stop("worker-stranger") == 0

        known.write_text(old_line + new_line)
        changed = "the list of keys has changed"
        until(lambda: all(changed in process.log for process in crew.processes.values()))
        crew.stop("worker-1")
        crew.start("worker-3", cluster_key=str(new))
        crew.start("gateway-3", cluster_key=str(new))
        cyd = crew.connect("gateway-3", "worker-2")  # an old worker finds the new key of the gateway
        dan = crew.connect("gateway-2", "worker-3")  # and a new worker the old one
        cyd.do("send_to_client", dan.id, "hello")
        assert dan.got() == ["hello"]

        known.write_text(new_line)
        until(
            lambda: re.search("WARNING .*worker-2.*its key is no longer in the list", crew.processes["gateway-3"].log)
        )
        secrets = [key.read_text().strip() for key in (old, new, strange)]
        said = "".join(path.read_text() for path in crew.folder.glob("*.log"))
        shown += "".join(Path(f"/proc/{process.pid}/cmdline").read_text() for process in crew.processes.values())
        assert [secret for secret in secrets if secret in said + shown] == []


def test_what_is_insecure_is_warned_of_at_each_start() -> None:
    with Crew(cluster_registers="tcp://192.0.2.1:7270", cluster_insecure="true") as crew:  # where nobody is (RFC 5737)
        for _ in range(2):
            gateway = crew.begin("gateway", "gateway-1")
            gateway.ready()
            assert crew.stop("gateway-1") == 0
        assert gateway.log.count("INSECURE: tcp://192.0.2.1:7270 without keys") == 2


def test_with_two_registers_the_loss_of_one_is_not_noticed() -> None:
    names = ("register-1", "register-2", "gateway-1", "worker-1")
    with a_crew(*names, cluster_registers="ipc,ipc") as crew:
        ann = crew.connect("gateway-1")

        crew.kill("register-1")
        crew.start("worker-2", "gateway-2")

        bob = crew.connect("gateway-2", "worker-2")
        bob.do("send_to_client", ann.id, "hello")
        assert ann.got() == ["hello"]
        crew.kill("register-2")
        crew.start("register-1")
        crew.start("worker-3")
        crew.connect("gateway-1", "worker-3")
        crew.connect("gateway-2", "worker-3")
