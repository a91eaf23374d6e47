"""An application for tests: its clients call the API by messages, and what their events are like is told to who watches."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from gatecrew import App, Client, Request

if TYPE_CHECKING:
    from collections.abc import Callable

app = App()
log = logging.getLogger("app")
state = {"started": False}
released = asyncio.Event()


class Actions:
    """What a client may call beside the API itself."""

    @staticmethod
    def about(client: Client) -> dict[str, Any]:
        """Return all that a handler sees of its client."""
        return {
            "id": client.id,
            "uid": client.uid,
            "session": client.session,
            "path": client.path,
            "query": client.query,
            "remote": client.remote,
            "listener": client.listener,
            "subprotocol": client.subprotocol,
            "redelivered": client.redelivered,
            "event_id": client.event_id,
            "pid": os.getpid(),
        }

    @staticmethod
    async def wait(client: Client) -> None:
        """Wait for another client of this worker."""
        await released.wait()

    @staticmethod
    def release(client: Client) -> None:
        released.set()

    @staticmethod
    async def hang(client: Client) -> None:
        app.send_to_all("of a handler that hangs")
        await asyncio.Event().wait()

    @staticmethod
    async def hold(client: Client, seconds: float) -> dict[str, Any]:
        """Tell the id of the event and keep it for a while, but do not if it came again."""
        if not client.redelivered:
            client.send(client.event_id)
            await app.flush()
            await asyncio.sleep(seconds)
        return {"redelivered": client.redelivered, "event_id": client.event_id, "pid": os.getpid()}

    @staticmethod
    async def tell_and_hold(client: Client, group: str, seconds: float) -> int:
        """Tell a group, and keep the event for a while, but do not if it came again."""
        app.group(group).send("told")
        await app.flush()
        if not client.redelivered:
            await asyncio.sleep(seconds)
        return os.getpid()

    @staticmethod
    async def die(client: Client) -> None:
        """End the whole process."""
        os._exit(3)

    @staticmethod
    async def join_and_count(client: Client, group: str) -> int:
        client.join(group)
        return await app.group(group).count()

    @staticmethod
    def bind_and_tell(client: Client, uid: str) -> str | None:
        client.bind(uid)
        return client.uid

    @staticmethod
    def burst(client: Client, to: str, count: int) -> None:
        for number in range(count):
            app.send_to_client(to, str(number))

    @staticmethod
    def flood(client: Client, to: str, count: int, size: int) -> None:
        for _ in range(count):
            app.send_to_client(to, bytes(size))

    @staticmethod
    async def late_echo(client: Client, text: str, group: str) -> None:
        """Send back a text after a while, count it, and tell a group of it."""
        await asyncio.sleep(0.002)
        client.session["said"] = client.session.get("said", 0) + 1
        client.send(text)
        app.group(group).send(text, exclude=client)

    @staticmethod
    def push(client: Client, note: str, times: int) -> dict[str, Any]:
        """Append to a list within the session."""
        for _ in range(times):
            client.session.setdefault("notes", []).append(note)
        return client.session

    @staticmethod
    def drop(client: Client, key: str) -> None:
        del client.session[key]

    @staticmethod
    def set_and_edit(client: Client) -> dict[str, Any]:
        app.set_session(client, {"a": 1})
        client.session["b"] = 2
        app.update_session(client, {"c": 3})
        return client.session

    @staticmethod
    async def change_all_and_fail(client: Client, flush: bool) -> None:
        client.session["half"] = "done"
        client.bind("half")
        client.join("half")
        client.send("half")
        app.send_to_all("half")
        if flush:
            await app.flush()
        raise ValueError("changed my mind")

    @staticmethod
    async def sessions_are_data(client: Client) -> None:
        client.session["not"] = object()

    @staticmethod
    def of_nobody(client: Client) -> None:
        """Ask for a client where there is none."""
        app.send_to_current_client("hello")
        asyncio.get_running_loop().call_soon(Actions.later, client)

    @staticmethod
    def later(client: Client) -> None:
        client.send("from no turn")

    @staticmethod
    def wait_here(client: Client) -> bool:
        return app.wait(client.is_online())


def plain(value: Any) -> Any:
    """Return bytes for what stands for bytes in JSON."""
    return value["bytes"].encode("latin1") if value.keys() == {"bytes"} else value


def find(client: Client, name: str, args: list[Any]) -> Callable[..., Any]:
    owner, _, method = name.rpartition(".")
    if owner == "client":
        found: Any = client
    elif owner:  # app.group(name) and the like
        found = getattr(app, owner)(args.pop(0))
    elif hasattr(Actions, method):
        args.insert(0, client)
        found = Actions
    else:
        found = app
    return getattr(found, method)  # type: ignore[no-any-return]


@app.on_start
async def start() -> None:
    await asyncio.sleep(0)
    state["started"] = True


@app.on_connect
async def connect(client: Client, request: Request) -> None:
    hello = {
        **Actions.about(client),
        "request": request._asdict(),
        "agent": request.header("USER-AGENT"),
        "started": state["started"],
    }
    client.send(json.dumps({"hello": hello}))
    if request.path == "/closed":
        client.close("not you", 4003, "of all people")


@app.on_message
async def call(client: Client, data: str | bytes) -> None:
    if isinstance(data, bytes):
        client.send(data)
        return
    asked = json.loads(data, object_hook=plain)
    args = [client if arg == "<me>" else arg for arg in asked["args"]]
    kwargs = {key: client if arg == "<me>" else arg for key, arg in asked["kwargs"].items()}
    try:
        result = find(client, asked["call"], args)(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        if asked["raises"]:
            raise
        client.send(json.dumps({"n": asked["n"], "error": type(error).__name__, "message": str(error)}))
    else:
        client.send(json.dumps({"n": asked["n"], "result": result}))


@app.on_close
async def close(client: Client, code: int, reason: str) -> None:
    watchers = app.group(f"watch {client.id}")
    online = await client.is_online()
    watchers.send(json.dumps({**Actions.about(client), "code": code, "reason": reason, "online": online}))


@app.on_error
async def failed(client: Client | None, error: Exception) -> None:
    if client is not None:
        client.send(f"sorry: {type(error).__name__}: {error}")


@app.on_stop
async def stop() -> None:
    log.info("the stop handler ran")


@app.every(0.1)
async def tick() -> None:
    app.group("ticks").send(str(os.getpid()))


@app.every(0.1, once=True)
def tick_once() -> None:
    app.group("ticks of one").send(str(os.getpid()))


class Included:
    """A class as an app, included: its handlers run after the others."""

    async def on_message(self, client: Client, data: str | bytes) -> None:
        log.info("the second handler has %s", client.event_id)
        if data == b"to both":
            client.send(b"from the second")

    def on_connect(self, client: Client, request: Request) -> None:
        if request.path == "/thread":
            client.join("threads")
            count = app.wait(app.group("threads").count())
            client.send(f"{threading.current_thread().name} {count}")


app.include(App(Included()))
