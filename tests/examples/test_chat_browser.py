"""The chat as people see it: its page in a real browser, the cluster behind it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page, WebSocketRoute

    from .conftest import Running, Start

    Visit = Callable[..., Page]

pytestmark = pytest.mark.timeout(120)
PATIENCE = 20_000  # ms; only a test that fails waits so long
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def cluster(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    database = tmp_path_factory.mktemp("chat") / "chat.sqlite"
    return start("chat", "-c", "gatecrew.toml", CHAT_DB=f"sqlite:///{database}")


@pytest.fixture
def chat(cluster: Running) -> Running:
    cluster.start()  # if a test before has stopped it
    return cluster


@pytest.fixture
def visit(browser: Browser, chat: Running) -> Iterator[Visit]:
    """Return a function that lets somebody enter, in a browser of their own. Its console must stay clean."""
    problems: list[str] = []
    contexts = []

    def enter(name: str, room: str = "lobby", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(f"{chat.page}#{room}")
        page.fill("#name", name)
        page.click("#enter button")
        expect(page.locator("#title")).to_have_text(f"#{room}")
        expect(page.locator("#top")).not_to_be_empty()  # it has the history
        return page

    yield enter
    for context in contexts:
        context.close()
    # the browser itself reports each attempt to connect that fails
    assert [problem for problem in problems if "WebSocket connection to" not in problem] == []


def write(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def expect_texts(page: Page, texts: list[str]) -> None:
    """Expect these messages to be shown, in this order, once each, and all of them sent."""
    expect(page.locator("#messages .text")).to_have_text(texts)
    expect(page.locator("#messages .unsent")).to_have_count(0)


def test_two_pages_talk_in_a_room(visit: Visit) -> None:
    ann, bob = visit("Ann", "talk"), visit("Bob", "talk")

    write(ann, "Hello Bob")
    expect_texts(bob, ["Hello Bob"])
    write(bob, "Hello Ann")

    for page in (ann, bob):
        expect_texts(page, ["Hello Bob", "Hello Ann"])
    expect(bob.locator("#messages .author")).to_have_text(["Ann"])
    expect(ann.locator("#messages .own .state")).to_have_text("✓ sent")


def test_a_private_message_reaches_only_its_addressee(visit: Visit) -> None:
    eva, finn, third = visit("Eva", "private"), visit("Finn", "private"), visit("Gus", "private")

    eva.locator("#people a", has_text="Finn").click()
    expect(eva.locator("#title")).to_have_text("Finn")
    write(eva, "just for you")

    expect(finn.locator("#people a", has_text="Finn")).to_have_count(0)
    finn.locator("#people a", has=finn.locator(".unread")).click()
    expect_texts(finn, ["just for you"])
    write(eva, "and this")
    expect_texts(finn, ["just for you", "and this"])
    # what is said in the room after it has come to the third: had the private ones been sent to it, they would be there
    eva.locator("#rooms a", has_text="private").click()
    write(eva, "for all")
    expect_texts(third, ["for all"])
    expect(third.locator("#people .unread")).to_have_count(0)
    assert "just for you" not in third.content()


def test_history_is_there_after_a_reload_and_more_above(visit: Visit, chat: Running) -> None:
    with chat.connect() as client:
        client.send(json.dumps({"type": "hello", "name": "Writer", "token": "writer's"}))
        client.send(json.dumps({"type": "open", "to": "#history", "position": None}))
        for number in range(1, 121):
            client.send(json.dumps({"type": "say", "to": "#history", "id": f"{number}", "text": f"line {number}"}))
        while json.loads(client.recv(timeout=20)).get("entry", {}).get("id") != "120":
            pass
    page = visit("Hanna", "history")
    shown = page.locator("#messages .text")

    for _ in range(2):
        expect(shown.last).to_have_text("line 120")
        expect(shown.first).to_have_text("line 71")
        page.reload()
    expect(shown.last).to_have_text("line 120")
    for first in ("line 21", "line 1"):
        page.locator("#scroll").evaluate("element => { element.scrollTop = 0; }")
        expect(shown.first).to_have_text(first)
    expect(shown).to_have_text([f"line {number}" for number in range(1, 121)])
    expect(page.locator("#top")).to_have_text("This is where it begins.")


def test_who_is_online_updates_live(visit: Visit) -> None:
    ida = visit("Ida")
    expect(ida.locator("#people a.online", has_text="Jon")).to_have_count(0)

    jon = visit("Jon")
    expect(ida.locator("#people a.online", has_text="Jon")).to_have_count(1)

    jon.context.close()
    expect(ida.locator("#people a", has_text="Jon")).to_have_count(0)


def test_nothing_is_missing_or_doubled_when_workers_are_killed(visit: Visit, chat: Running) -> None:
    kai, lea = visit("Kai", "killed"), visit("Lea", "killed")
    texts = [f"message {number}" for number in range(90)]

    kai.evaluate(WRITE_ON_AND_ON, texts)  # which goes on while the workers are killed
    expect(lea.locator("#messages .text").nth(10)).to_be_visible()
    chat.kill("worker")
    expect(kai.locator("body")).to_have_attribute("data-link", "open")  # gateways hold the connections

    for page in (kai, lea):
        expect_texts(page, texts)


def test_pages_come_back_after_their_gateways_were_killed(visit: Visit, chat: Running) -> None:
    mia, nils = visit("Mia", "gateways"), visit("Nils", "gateways")
    write(mia, "before")
    expect_texts(nils, ["before"])

    chat.kill("gateway")
    expect(mia.locator("body")).to_have_attribute("data-link", "lost")
    write(mia, "between")

    for page in (mia, nils):
        expect_texts(page, ["before", "between"])


def test_a_page_comes_back_in_the_slot_that_its_gateway_gave_it(visit: Visit) -> None:
    tess = visit("Tess", "slot")
    gateways: list[WebSocketRoute] = []

    def connected(page_side: WebSocketRoute) -> None:
        gateways.append(page_side)
        page_side.connect_to_server()

    tess.route_web_socket(re.compile("^ws:"), connected)
    tess.clock.install()
    tess.reload()
    expect(tess.locator("body")).to_have_attribute("data-link", "open")

    gateways[0].close(code=1012, reason="gateway_stopping retry=25000")

    expect(tess.locator("body")).to_have_attribute("data-link", "lost")
    tess.clock.run_for(20_000)  # longer than it would wait on its own account
    assert len(gateways) == 1
    tess.clock.run_for(6_000)
    expect(tess.locator("body")).to_have_attribute("data-link", "open")
    assert len(gateways) == 2


def test_a_page_says_that_it_is_offline_and_sends_what_was_written_when_it_is_back(visit: Visit, chat: Running) -> None:
    ole, pia = visit("Ole", "offline"), visit("Pia", "offline")
    write(ole, "online")
    expect_texts(pia, ["online"])

    chat.stop()
    expect(ole.locator("#banner")).to_have_text(re.compile("^You are offline"))
    expect(ole.locator("#status")).to_have_text(re.compile("^offline"))
    for text in ("kept", "kept too"):
        write(ole, text)
    expect(ole.locator("#messages .unsent .state")).to_have_text(["waiting for the connection"] * 2)
    chat.start()

    for page in (ole, pia):
        expect_texts(page, ["online", "kept", "kept too"])
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("online")


def test_what_was_not_sent_survives_a_reload(visit: Visit) -> None:
    uma, yan = visit("Uma", "reload"), visit("Yan", "reload")
    holding = True

    def hold_back(page_side: WebSocketRoute) -> None:
        app_side = page_side.connect_to_server()

        def from_page(message: str | bytes) -> None:
            if not (holding and json.loads(message)["type"] == "say"):
                app_side.send(message)

        page_side.on_message(from_page)

    uma.route_web_socket(re.compile("^ws:"), hold_back)
    uma.reload()
    expect(uma.locator("#top")).to_have_text("Nothing has been said here yet. Say the first word.")
    write(uma, "at last")
    expect(uma.locator("#messages .unsent .state")).to_have_text("sending…")

    holding = False
    uma.reload()

    for page in (uma, yan):
        expect_texts(page, ["at last"])


def test_a_name_that_is_taken_is_refused(visit: Visit, browser: Browser, chat: Running) -> None:
    visit("Quinn")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(chat.page)
        page.fill("#name", "quinn")
        page.click("#enter button")

        expect(page.locator("#name-problem")).to_have_text("This name is taken.")
        expect(page.locator("#chat")).to_be_hidden()


def test_what_is_written_is_text_and_never_markup(visit: Visit) -> None:
    rosa, sam = visit("Rosa <b>", "markup"), visit("Sam", "markup")
    markup = "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"

    write(rosa, markup)

    expect_texts(sam, [markup])
    expect(sam.locator("#messages .author")).to_have_text(["Rosa <b>"])
    expect(sam.locator("#messages img, #messages b")).to_have_count(0)


def test_a_room_is_made_and_left(visit: Visit) -> None:
    tom = visit("Tom")

    tom.click("#add-room")
    tom.fill("#room", "  New Room ")
    tom.press("#room", "Enter")
    expect(tom.locator("#title")).to_have_text("#new room")
    write(tom, "first")
    expect_texts(tom, ["first"])
    tom.click("#leave")

    expect(tom.locator("#rooms a", has_text="new room")).to_have_count(0)
    tom.click("#add-room")
    tom.click("#all-rooms button:has-text('#new room')")
    expect_texts(tom, ["first"])


def test_a_message_elsewhere_is_counted(visit: Visit) -> None:
    ulf, vera = visit("Ulf", "counted"), visit("Vera", "counted")
    ulf.locator("#rooms a", has_text="counted").wait_for()
    ulf.goto(f"{ulf.url.partition('#')[0]}#elsewhere")
    expect(ulf.locator("#title")).to_have_text("#elsewhere")

    write(vera, "one")
    write(vera, "two")

    expect(ulf.locator("#rooms .unread")).to_have_text("2 unread")
    expect(ulf).to_have_title("(2) Chat")
    ulf.locator("#rooms a", has_text="counted").click()
    expect_texts(ulf, ["one", "two"])
    expect(ulf).to_have_title("Chat")


def test_a_phone_shows_one_thing_at_a_time(visit: Visit) -> None:
    phone = visit("Walt", "phone", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    expect(phone.locator("#side")).to_be_hidden()
    expect(phone.locator("#compose")).to_be_in_viewport(ratio=1)

    phone.tap("#back")
    expect(phone.locator("#talk")).to_be_hidden()
    phone.locator("#rooms a", has_text="phone").tap()
    expect(phone.locator("#title")).to_have_text("#phone")
    phone.go_back()

    expect(phone.locator("#side")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


WRITE_ON_AND_ON = """(texts) => {
    const timer = setInterval(() => {
        document.getElementById("text").value = texts.shift();
        document.getElementById("compose").requestSubmit();
        if (texts.length === 0) clearInterval(timer);
    }, 25);
}"""

RULES = """async (steps) => {
    const { Conversation } = await import("/conversation.js");
    const one = new Conversation("#room", "me");
    const entry = (offset) => ({ offset, id: `id ${offset}`, from: "other", text: "", time: 0 });
    for (const [verb, ...offsets] of steps) {
        if (verb === "said") for (const offset of offsets) one.said(entry(offset), "epoch");
        if (verb === "anew") for (const offset of offsets) one.said(entry(offset), "another");
        if (verb === "reopen") one.reopen();
        if (verb === "above") one.above(offsets.map(entry), false);
        if (verb === "fresh" || verb === "since") {
            const position = ["epoch", offsets.at(-1) ?? one.mark];
            one.opened({ entries: offsets.map(entry), position, fresh: verb === "fresh", more: offsets[0] > 1 });
        }
    }
    return [one.entries.map(({ offset }) => offset), one.mark, Boolean(one.gap)];
}"""


@pytest.mark.parametrize(
    ("steps", "offsets", "mark", "gap"),
    [
        pytest.param([["fresh", 1, 2], ["said", 3]], [1, 2, 3], 3, False, id="in order"),
        pytest.param([["fresh", 1], ["said", 1, 2, 2]], [1, 2], 2, False, id="twice"),
        pytest.param([["fresh", 1], ["said", 3]], [1, 3], 1, True, id="one is missing"),
        pytest.param([["fresh", 1], ["said", 3, 4, 2]], [1, 2, 3, 4], 4, False, id="overtaken"),
        pytest.param([["said", 3], ["fresh", 1, 2]], [1, 2, 3], 3, False, id="said before the answer"),
        pytest.param([["said", 2], ["fresh", 1, 2]], [1, 2], 2, False, id="said before the answer and in it"),
        pytest.param([["fresh", 1], ["said", 3], ["reopen"], ["since", 2, 3]], [1, 2, 3], 3, False, id="caught up"),
        pytest.param([["fresh", 1], ["reopen"], ["since"]], [1], 1, False, id="nothing was missed"),
        pytest.param([["fresh", 1], ["reopen"], ["fresh", 8, 9]], [8, 9], 9, False, id="a lot was missed"),
        pytest.param([["fresh", 8, 9], ["said", 3]], [8, 9], 9, False, id="it belongs further above"),
        pytest.param([["fresh", 8, 9], ["above", 6, 7, 8]], [6, 7, 8, 9], 9, False, id="above"),
        pytest.param([["fresh", 1, 2], ["anew", 1]], [1, 2], 2, True, id="the history began anew"),
    ],
)
def test_the_page_keeps_a_conversation_whole(
    rules: Page, steps: list[list[Any]], offsets: list[int], mark: int, gap: bool
) -> None:
    assert rules.evaluate(RULES, steps) == [offsets, mark, gap]


@pytest.fixture
def rules(browser: Browser, chat: Running) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(chat.page)
        yield page
