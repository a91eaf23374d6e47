"""Clusters whose processes meet in other ways than by default."""

from __future__ import annotations

import socket

from gatecrew import BlockingCluster

from .crew import a_crew


def test_over_tcp_with_a_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:  # a register cannot choose: others would not know
        port = probe.getsockname()[1]
    meet = {"cluster_registers": f"tcp://127.0.0.1:{port}", "gateway_link": "tcp://127.0.0.1:0"}
    names = ("register-1", "gateway-1", "gateway-2", "worker-1", "worker-2")
    with a_crew(*names, cluster_secret="between us", **meet) as crew:
        ann, bob = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-2", "worker-2")

        ann.do("send_to_client", bob.id, "hello")
        with BlockingCluster(crew.config()) as cluster:
            cluster.send_to_all("from outside")

        assert bob.got() == ["hello", "from outside"]
        assert [path for path in crew.folder.rglob("*") if path.is_socket() and path.suffix == ".sock"] == []


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
