"""The chat: rooms, private messages, who is online, and a history.

Page and app exchange JSON objects with a "type". "to" names a conversation: "#lobby" is a room, "@ann" the private
conversation with ann. From the page come:

    hello    name, token         first of all; a name belongs to whoever holds its token
    open     to, position        join a conversation; position: up to where the page has it, or null
    above    to, offset          what was said before that offset?
    say      to, id, text        id: made by the page; what comes twice with one id is one message
    leave    to
    ping                         are you there?

and to the page go:

    welcome  name, rooms, online, people (with whom one has talked)
    entries  to, entries, position, fresh, more     answers "open". fresh: this is not what came after the position, but the
                                                    newest there is, and there is more above or not
    above    to, entries, more                      answers "above"
    said     to, entry, epoch                       to all in the conversation, the author too: that is how it learns of it
    rooms    rooms                                  when there is a new one
    online   names                                  when it has changed
    pong
    refused  of (type), to, id, why

An entry is {offset, id, from, text, time}. A position is [epoch, offset] (see docs/history.md).
"""

from __future__ import annotations

import json
import os
import time
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directory import MAX_NAME, TABLES, Directory
from gatecrew import App, Client, History

if TYPE_CHECKING:
    from gatecrew import Page

MAX_TEXT = 2000  # characters of a message
MAX_OPEN = 100  # conversations that one client has open
PAGE = 50  # entries at once
KEPT = timedelta(days=90)
EVERYBODY = "everybody"  # the group of all who have said hello; those of rooms begin with #

app = App()
history = History(os.environ.get("CHAT_DB") or f"sqlite:///{Path(__file__).with_name('chat.sqlite')}", tables=TABLES)
directory = Directory(history.engine)


class Refused(Exception):
    """What a client asks for is not possible; it is told why."""


@app.on_start
async def start() -> None:
    await history.open()
    await directory.add_room("#lobby")


@app.on_stop
async def stop() -> None:
    await history.close()


@app.on_message
async def receive(client: Client, data: str | bytes) -> None:
    message = parsed(data)
    try:
        match message.get("type"):
            case "hello":
                await hello(client, message)
            case "ping":
                client.send(packed("pong"))
            case _ if client.uid is None:
                raise Refused("Say hello first.")
            case "open":
                await open_conversation(client, client.uid, message)
            case "above":
                await above(client, message)
            case "say":
                await say(client, client.uid, message)
            case "leave":
                leave(client, message)
            case _:
                raise Refused("There is no such type of message.")
    except Refused as why:
        client.send(packed("refused", of=message.get("type"), to=message.get("to"), id=message.get("id"), why=str(why)))


@app.on_error
async def give_up(client: Client | None, error: Exception) -> None:
    """The database is away, say. The page comes back after a while and sends again what has not come through."""
    if client is not None:
        client.close(code=1011, reason="something went wrong here")


@app.every(1, once=True)
async def tell_who_is_online() -> None:
    """Tell everybody when somebody came or went.

    One worker does it for all, so the last word is always the newest. It looks at the clients and not only at their names:
    so whoever comes is told within a second, whatever happened meanwhile.
    """
    clients = set(await app.group(EVERYBODY).clients())
    if clients != told:
        app.group(EVERYBODY).send(packed("online", names=await app.group(EVERYBODY).uids()))
        told.clear()
        told.update(clients)


told: set[str] = set()


@app.every(3600, once=True)
async def forget() -> None:
    await history.prune(older_than=KEPT)


async def hello(client: Client, message: dict[str, Any]) -> None:
    name = await directory.claim(name_in(field(message, "name", 100)), field(message, "token", 100))
    if name is None:
        raise Refused("This name is taken.")
    if client.uid not in (None, name):
        raise Refused("You have a name already.")
    client.bind(name)
    client.join(EVERYBODY)
    online = await app.group(EVERYBODY).uids()  # the question lets go what was commanded: its answer has us in it
    people = await directory.acquaintances(name)
    client.send(packed("welcome", name=name, rooms=await directory.rooms(), online=online, people=people))


async def open_conversation(client: Client, me: str, message: dict[str, Any]) -> None:
    to = field(message, "to", MAX_NAME + 1)
    if len(client.session) >= MAX_OPEN and to not in client.session:
        raise Refused(f"You have {MAX_OPEN} conversations open; leave one.")
    if to.startswith("#") and to[1:] == name_in(to[1:]).lower():
        if await directory.add_room(to):
            app.group(EVERYBODY).send(packed("rooms", rooms=await directory.rooms()))
        client.join(to)
        client.session[to] = to
    elif to.startswith("@") and await directory.acquaint(me, to[1:]):
        client.session[to] = "@" + "|".join(sorted((me, to[1:])))  # one channel, from whichever side
    else:
        raise Refused("Names of rooms are in small letters." if to.startswith("#") else "There is nobody of this name.")
    # Join first and read then: what is said in between comes twice, and the page sees that by its offset. The other way
    # round it would be lost. Without the flush the join would leave only when this handler ends.
    await app.flush()
    page, fresh = await read(client.session[to], message.get("position"))
    client.send(packed("entries", to=to, entries=entries(page), position=page.position, fresh=fresh, more=page.more))


async def read(channel: str, position: Any) -> tuple[Page, bool]:
    """Return what came after the position; or the newest, if that is not known or too long ago."""
    match position:
        case [str(epoch), int(offset)] if type(offset) is int and offset >= 0:  # to Python, True is an int
            page = await history.since(channel, (epoch, offset), PAGE)
            if not page.gap and not page.more:
                return page, False
    return await history.last(channel, PAGE), True


async def above(client: Client, message: dict[str, Any]) -> None:
    to, channel = conversation(client, message)
    offset = message.get("offset")
    if not isinstance(offset, int):
        raise Refused("An offset is a number.")
    page = await history.before(channel, offset, PAGE)
    client.send(packed("above", to=to, entries=entries(page), more=page.more))


async def say(client: Client, me: str, message: dict[str, Any]) -> None:
    to, channel = conversation(client, message)
    text = field(message, "text", MAX_TEXT)
    mark = field(message, "id", 64)
    said = {"id": mark, "from": me, "text": text, "time": time.time()}
    position = await history.append(channel, said, key=f"{me}/{mark}")
    told = {"entry": {"offset": position.offset, **said}, "epoch": position.epoch}
    if to.startswith("#"):
        app.group(to).send(packed("said", to=to, **told))
    else:
        for reader, other in {(me, to[1:]), (to[1:], me)}:
            app.send_to_uid(reader, packed("said", to=f"@{other}", **told))


def leave(client: Client, message: dict[str, Any]) -> None:
    to, _ = conversation(client, message)
    client.leave(to)
    del client.session[to]


def conversation(client: Client, message: dict[str, Any]) -> tuple[str, str]:
    """Return which conversation a message is about, and its channel in the history: the session has all that are open."""
    to = field(message, "to", MAX_NAME + 1)
    if to not in client.session:
        raise Refused("Open this conversation first.")
    return to, client.session[to]


def entries(page: Page) -> list[dict[str, Any]]:
    return [{"offset": entry.offset, **entry.data} for entry in page.entries]


def field(message: dict[str, Any], key: str, longest: int) -> str:
    """Return a text from a message."""
    value = message.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"There is no {key}.")
    if len(value) > longest:
        raise Refused(f"That is too long: {len(value)} characters, at most {longest} are possible.")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused("There are characters in it that are none.")
    return value


def name_in(text: str) -> str:
    """Return the name, of a person or a room, that somebody typed."""
    name = " ".join(unicodedata.normalize("NFKC", text).split())
    if not name or len(name) > MAX_NAME or not name.isprintable() or set(name) & set("#@|"):
        raise Refused(f"A name has up to {MAX_NAME} characters, without # @ and |.")
    return name


def parsed(data: str | bytes) -> dict[str, Any]:
    """Return a message of the page; an empty one if it is no good."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def packed(kind: str, **fields: Any) -> str:
    """Return a message to the page."""
    return json.dumps({"type": kind, **fields})
