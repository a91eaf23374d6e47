"""What gateways would read, looked at before they start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatecrew.common.config import load
from gatecrew.common.preflight import report
from gatecrew.gateway.preflight import checks

from .authority import Authority

if TYPE_CHECKING:
    from pathlib import Path


def look(listen: str) -> list[str]:
    return [line for _, line in report(checks(load(None, {"GATECREW_GATEWAY_LISTEN": listen}, {})))]


def test_certificates_and_protocols_are_looked_at(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("gateway")
    own = "gatecrew.gateway.protocols:Frame"

    assert look("ws://*:7272") == []
    assert [line.split() for line in look(f"tls://*:1?tls_cert={cert}&tls_key={key}&protocol={own}")] == [
        ["ok", "protocol", own],
        ["ok", "certificate", cert],
    ]
    for url, problem in (
        (f"tls://*:1?tls_cert={cert}&tls_key={cert}", "[gateway] tls_cert and tls_key: cannot use"),
        ("tcp://*:1?protocol=nothing:Here", "[gateway] protocol: nothing:Here cannot be used: ModuleNotFoundError"),
    ):
        (line,) = look(url)
        assert line.startswith("fail")
        assert problem in line
