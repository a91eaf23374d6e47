"""Thermometers and browsers in one group, through a real cluster."""

from __future__ import annotations

import json
import socket
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.testing.protocols import check_protocol
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from .conftest import EXAMPLES

if TYPE_CHECKING:
    from .conftest import Running, Start


def load() -> Any:
    spec = spec_from_file_location("iot_wire", EXAMPLES / "iot" / "wire.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wire = load()
MESSAGES = st.builds(
    lambda name, tenths: json.dumps({name: tenths / 10}),
    st.sampled_from(sorted(wire.NAMES.values())),
    st.integers(-2732, 9999),
)


@given(st.lists(MESSAGES, max_size=5))
def test_the_protocol_keeps_the_rules(messages: list[str]) -> None:
    check_protocol(wire.Thermometer, messages)


def test_signs_of_life_are_no_messages_and_nonsense_is_an_error() -> None:
    assert list(wire.Thermometer(0).feed(b"\0\0T\0\xd7\x2b\0")) == [None, None, '{"celsius": 21.5}', None]
    for junk in (b"T\0\xd7\x2c", b"X\0\xd7\x2f"):
        with pytest.raises(ValueError, match="is no record of a thermometer"):
            list(wire.Thermometer(0).feed(junk))


@pytest.mark.parametrize("said", ["[]", "{}", '{"color": 7}', '{"celsius": "hot"}', '{"setpoint": 1e9}', "hello"])
def test_what_is_nothing_for_a_thermometer_is_an_error(said: str) -> None:
    with pytest.raises(ValueError, match=r"is nothing for a thermometer|Expecting value"):
        wire.Thermometer.encode(said)


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    found = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            found.append(probe.getsockname()[1])
    return found[0], found[1]


@pytest.fixture(scope="module")
def running(start: Start, ports: tuple[int, int]) -> Running:
    listen = f"ws://127.0.0.1:{ports[0]},tcp://127.0.0.1:{ports[1]}?protocol=wire:Thermometer"
    return start("iot", "--workers", "1", "-c", "gatecrew.toml", GATECREW_GATEWAY_LISTEN=listen)


def test_a_browser_and_a_thermometer_talk_to_each_other(running: Running, ports: tuple[int, int]) -> None:
    with (
        connect(f"ws://127.0.0.1:{ports[0]}/", proxy=None) as browser,
        socket.create_connection(("127.0.0.1", ports[1]), timeout=10) as thermometer,
    ):
        greeting = '{"setpoint": 20.0}'
        device = wire.Thermometer(0)
        heard: list[str] = []
        thermometer.settimeout(0.05)
        while not heard:  # it is in the group as soon as it hears something
            browser.send(greeting)
            try:
                heard += device.feed(thermometer.recv(4))
            except TimeoutError:
                continue
        thermometer.settimeout(10)
        assert heard == [greeting]

        thermometer.sendall(b"\0T\0")
        thermometer.sendall(b"\xd7\x2b")
        assert browser.recv(timeout=10) == '{"celsius": 21.5}'

        browser.send('{"color": 7}')  # which no thermometer understands
        browser.send('{"setpoint": 25.5}')
        told: list[str] = []
        while not told or told[-1] == greeting:
            told += device.feed(thermometer.recv(4))
        assert told[-1] == '{"setpoint": 25.5}'
