"""The files in ``deploy/`` that no test can run: what they say of the command line, the settings and the time to stop is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from gatecrew import cli
from gatecrew.common import config, process

if TYPE_CHECKING:
    import click

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE: Final = (DEPLOY / "docker" / "Dockerfile").read_text()


def parse(words: list[str]) -> click.Context:
    """Let the command line read a command; it fails on what it does not know."""
    return cli.main.commands[words[0]].make_context(words[0], words[1:])


def instruction(name: str) -> str:
    """Return what stands behind the last instruction of this name in the Dockerfile."""
    return str(re.findall(rf"^{name} ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)[-1])


def in_image(name: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", instruction(name)))


# Containers


def test_the_image_starts_a_cluster_with_settings_that_there_are() -> None:
    settings = config.load(
        None, {key: value for key, value in in_image("ENV").items() if key.startswith("GATECREW")}, {}
    )

    assert json.loads(instruction("ENTRYPOINT")) == ["gatecrew"]
    assert parse(json.loads(instruction("CMD"))).command is cli.start
    assert settings.gateway.listen == ("ws://*:7272",)
    assert settings.cluster.directory.parent == Path("/dev/shm"), "sticky, and writable in a read-only container"


def test_the_containers_of_compose_are_one_cluster() -> None:
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]

    for name, service in services.items():
        shell = (
            service.get("entrypoint", ["", "", ""])[2].replace("$$(hostname)", "a1b2").removeprefix("exec gatecrew ")
        )
        words = service.get("command") or shell.replace('"', "").split()
        settings = config.load(None, {k: v for k, v in service["environment"].items() if k.startswith("GATECREW")}, {})
        assert parse(words).command.name == name
        assert settings.cluster.registers == ("tcp://register:7270",)
        assert name == "register" or seconds(service["stop_grace_period"]) >= process.patience(settings)


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# Kubernetes


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    items = yaml.safe_load((DEPLOY / "kubernetes" / "gatecrew.yaml").read_text())["items"]
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


PODS: Final = {
    "register": ("StatefulSet", "register-1"),
    "gateway": ("StatefulSet", "gateway-0"),
    "worker": ("Deployment", "worker-7d9-x2x"),
}


def environment(manifests: dict[tuple[str, str], dict[str, Any]], role: str) -> tuple[dict[str, str], list[str]]:
    """Return the settings and the command of a pod."""
    container = manifests[PODS[role][0], role]["spec"]["template"]["spec"]["containers"][0]
    said = {one["name"]: one.get("value", PODS[role][1]) for one in container["env"]}
    variables = {**in_image("ENV"), **manifests["ConfigMap", "gatecrew"]["data"], **said}
    filled = {key: value.replace("$(POD_NAME)", said["POD_NAME"]) for key, value in variables.items()}
    return (
        {key: value for key, value in filled.items() if key.startswith("GATECREW")},
        [word.replace("$(POD_NAME)", said["POD_NAME"]) for word in container["args"]],
    )


@pytest.mark.parametrize("role", PODS)
def test_each_pod_runs_a_command_with_settings_that_there_are(
    manifests: dict[tuple[str, str], dict[str, Any]], role: str
) -> None:
    variables, words = environment(manifests, role)
    settings = config.load(None, variables, {})
    context = parse(words)

    assert (context.command.name, context.params["name"]) == (role, PODS[role][1])
    if role == "register":
        assert settings.cluster.register_address("register-1") == "tcp://register-1.registers:7270"
    if role == "gateway":
        assert settings.gateway.link == "tcp://gateway-0.gateways:2900"


def test_a_pod_has_the_time_that_it_takes_to_stop(manifests: dict[tuple[str, str], dict[str, Any]]) -> None:
    gateway = config.load(None, environment(manifests, "gateway")[0], {}).gateway
    worker = config.load(None, environment(manifests, "worker")[0], {}).worker
    pods = {role: manifests[kind, role]["spec"]["template"]["spec"] for role, (kind, _) in PODS.items()}
    wait = float(pods["gateway"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    needed = wait + gateway.close_timeout + 2 * gateway.drain_timeout
    assert pods["gateway"]["terminationGracePeriodSeconds"] > needed
    assert pods["worker"]["terminationGracePeriodSeconds"] > 2 * worker.drain_timeout


def test_services_and_policies_mean_pods_and_ports_that_there_are(
    manifests: dict[tuple[str, str], dict[str, Any]],
) -> None:
    pods = {role: manifests[kind, role]["spec"]["template"] for role, (kind, _) in PODS.items()}
    ports = {role: pod["spec"]["containers"][0].get("ports", []) for role, pod in pods.items()}
    names = {port["name"] for of_role in ports.values() for port in of_role}
    for (kind, name), item in manifests.items():
        if kind == "Service":
            selector = item["spec"]["selector"]
            (role,) = [role for role, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()]
            for port in item["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                assert any(target in (one["name"], one["containerPort"]) for one in ports[role]), name
        if kind == "NetworkPolicy":
            assert {port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]} <= names
        if kind == "StatefulSet":
            assert ("Service", item["spec"]["serviceName"]) in manifests


# systemd


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    lines = re.findall(r"^Exec(?:Start|Reload)=\S+/gatecrew (.*)$", unit.read_text(), re.MULTILINE)

    role = re.sub(r"gatecrew-|@?\.service", "", unit.name)
    assert [parse(line.split()).command.name for line in lines] == (
        ["start", "reload"] if role == "cluster" else [role]
    )


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_a_unit_and_finds_it_well_locked(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        reason = "no systemd-analyze here; on Debian: apt-get install systemd"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    shutil.copytree(unit.parent, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("*.service"):
        file.write_text(file.read_text().replace("/srv/gatecrew/.venv/bin/gatecrew", "/bin/true"))

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )

    about_it = [line for line in verified.stderr.splitlines() if "gatecrew" in line]
    assert about_it == []
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_units_are_given_the_time_that_a_cluster_takes_to_stop() -> None:
    patience = process.patience(config.Config())
    given = {
        unit.name: float(re.findall(r"^TimeoutStopSec=(\d+)", unit.read_text(), re.MULTILINE)[0]) for unit in UNITS
    }

    assert given["gatecrew-cluster.service"] >= 3 * patience, "gateways, workers, registers, one after the other"
    assert given["gatecrew-gateway@.service"] >= patience
    assert given["gatecrew-worker@.service"] >= patience
