// The page: what it shows, and what it says to the app (app.py lists the messages).
// All text from others is put in as text, never as markup.

import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";

const LOBBY = "#lobby";
const RESEND_AFTER = 10_000; // ms without a confirmation
const MOST_UNSENT = 100;
const MOST_LISTED = 200; // people
const TOGETHER = 300; // s: messages of one person that are so near are shown as one block

const $ = (id) => document.getElementById(id);
const wide = matchMedia("(min-width: 48rem)");
const touch = matchMedia("(pointer: coarse)");
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

let me = null;
let begun = false; // whether the app has ever let us in
let connection = null;
let online = new Set();
let allRooms = [];
let current = null; // the conversation that is shown
let pinned = true; // whether it is scrolled to its end
const conversations = new Map();

// What the browser keeps: the token and the name for all tabs, what is unsent for this tab. It may refuse to.

function recall(storage, key) {
  try {
    return JSON.parse(storage.getItem(`chat.${key}`));
  } catch {
    return null;
  }
}

function keep(storage, key, value) {
  try {
    storage.setItem(`chat.${key}`, JSON.stringify(value));
  } catch {
    // then it is forgotten when the page goes
  }
}

const unguessable = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const token = recall(localStorage, "token") ?? unguessable();
keep(localStorage, "token", token);

function keepConversations() {
  const all = [...conversations.values()];
  keep(localStorage, `rooms.${me}`, all.filter((one) => one.isRoom).map((one) => one.to));
  keep(localStorage, `seen.${me}`, Object.fromEntries(all.map((one) => [one.to, one.seen])));
}

function keepUnsent() {
  const unsent = [...conversations.values()].filter((one) => one.unsent.length > 0);
  const plain = ({ id, text, time }) => ({ id, text, time });
  keep(sessionStorage, `unsent.${me}`, Object.fromEntries(unsent.map((one) => [one.to, one.unsent.map(plain)])));
}

// Coming in

function enter(name) {
  me = name;
  const path = location.pathname.replace(/[^/]*$/, "");
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
  connection = new Connection(url, {
    opened: () => connection.send({ type: "hello", name: me, token }),
    received: (message) => answers[message.type]?.(message),
    lost,
  });
  $("name-problem").textContent = "Connecting…";
  connection.connect();
}

function lost() {
  if (!begun) $("name-problem").textContent = "The chat cannot be reached. Trying again…";
  for (const one of conversations.values()) one.reopen();
  document.body.dataset.link = "lost";
  showStatus();
  showMessageStates();
}

const answers = {
  welcome({ name, rooms, online: names, people }) {
    me = name;
    allRooms = rooms;
    online = new Set(names);
    keep(sessionStorage, "name", me);
    keep(localStorage, "name", me);
    document.body.dataset.link = "open";
    if (!begun) remember();
    for (const person of people) conversation(`@${person}`);
    for (const one of conversations.values()) open(one);
    showStatus();
    showSide();
    if (!begun) begin();
  },

  entries(message) {
    const one = conversations.get(message.to);
    if (!one) return;
    const added = one.opened(message);
    if (one === current && message.fresh) showMessages();
    else if (one === current) addMessages(added);
    for (const unsent of one.unsent) say(one, unsent);
    changed(one);
  },

  above({ to, entries, more }) {
    const one = conversations.get(to);
    const added = one?.above(entries, more) ?? [];
    if (one === current) addAbove(added);
  },

  said({ to, entry, epoch }) {
    const known = conversations.has(to);
    const one = conversation(to);
    if (!known) return open(one); // somebody's first private message: its history has it
    const added = one.said(entry, epoch);
    if (added && one === current) addMessages([added]);
    changed(one);
  },

  rooms({ rooms }) {
    allRooms = rooms;
    showAllRooms();
  },

  online({ names }) {
    online = new Set(names);
    showSide();
    showTitle();
  },

  refused({ of, to, id, why }) {
    if (of === "hello") return leaveForGood(why);
    const one = conversations.get(to);
    const message = one?.unsent.find((unsent) => unsent.id === id);
    if (message) {
      message.problem = why;
      showMessageStates();
      return;
    }
    if (of === "open" && one) forget(one);
    notice(why);
  },
};

function remember() {
  const seen = recall(localStorage, `seen.${me}`) ?? {};
  for (const to of recall(localStorage, `rooms.${me}`) ?? [LOBBY]) conversation(to, seen[to]);
  for (const [to, unsent] of Object.entries(recall(sessionStorage, `unsent.${me}`) ?? {})) conversation(to).unsent = unsent;
}

function begin() {
  begun = true;
  $("me").textContent = me;
  portray($("me-avatar"), me);
  if (!wanted() && (wide.matches || $("name").value)) location.replace(link(LOBBY));
  else navigate();
}

function leaveForGood(why) {
  keep(sessionStorage, "name", null);
  keep(localStorage, "name", null);
  keep(sessionStorage, "problem", why ?? null);
  location.replace(location.pathname); // everything begins anew
}

// Conversations

function conversation(to, seen) {
  let one = conversations.get(to);
  if (!one) {
    one = new Conversation(to, me, seen ?? recall(localStorage, `seen.${me}`)?.[to]);
    conversations.set(to, one);
  }
  return one;
}

function open(one) {
  one.reopen();
  connection.send({ type: "open", to: one.to, position: one.position });
}

function forget(one) {
  conversations.delete(one.to);
  keepConversations();
  if (one === current) location.replace("#");
  else showSide();
}

// Something is new in a conversation.
function changed(one) {
  if (one === current && !document.hidden) one.seen = [one.epoch, one.entries.at(-1)?.offset ?? 0];
  if (one !== current) one.trim();
  keepConversations();
  keepUnsent();
  showSide();
  if (one === current) showMessageStates();
}

function say(one, message) {
  if (!one.ready || message.problem) return;
  message.sent = Date.now();
  connection.send({ type: "say", to: one.to, id: message.id, text: message.text });
}

function compose(text) {
  if (current.unsent.length >= MOST_UNSENT) return false;
  const message = { id: unguessable(), text, time: Date.now() / 1000 };
  current.unsent.push(message);
  say(current, message);
  keepUnsent();
  pinned = true;
  showMessageStates();
  return true;
}

// What has not come through in time is sent again; a gap that does not close by itself is fetched.
const gaps = new Set();
setInterval(() => {
  for (const one of conversations.values()) {
    for (const message of one.unsent) if (message.sent < Date.now() - RESEND_AFTER) say(one, message);
    if (one.gap && gaps.has(one)) open(one);
    if (one.gap) gaps.add(one);
    else gaps.delete(one);
  }
}, 2000);

// Where we are: the address says it, so that back and forward work, and a room can be linked to

const link = (to) => `#${encodeURIComponent(to.replace(/^#/, ""))}`;

function wanted() {
  let to;
  try {
    to = decodeURIComponent(location.hash);
  } catch {
    return null;
  }
  return to.length < 2 ? null : to.startsWith("#@") ? to.slice(1) : to.toLowerCase();
}

function navigate() {
  if (!begun) return;
  const to = wanted();
  if (!to) return show(null);
  const known = conversations.has(to);
  const one = conversation(to);
  if (!known) open(one);
  keepConversations();
  show(one);
}

function show(one) {
  if (current) current.draft = $("text").value;
  current = one;
  document.body.dataset.screen = one ? "talk" : "list";
  $("talk").classList.toggle("empty", !one);
  $("text").value = one?.draft ?? "";
  fit();
  pinned = true;
  showTitle();
  showMessages();
  if (one) changed(one);
  else showSide();
  if (one && !touch.matches) $("text").focus();
}

// The side

function showStatus() {
  const isOpen = document.body.dataset.link === "open";
  $("status").textContent = isOpen ? "online" : "offline, trying again…";
  $("banner").textContent = isOpen ? "" : "You are offline. What you write is kept, and sent when you are back.";
}

let noticed;
function notice(text) {
  $("notice").textContent = text;
  clearTimeout(noticed);
  noticed = setTimeout(() => ($("notice").textContent = ""), 6000);
}

function showSide() {
  const byName = (one, other) => one.to.localeCompare(other.to);
  const all = [...conversations.values()];
  $("rooms").replaceChildren(...all.filter((one) => one.isRoom).sort(byName).map((one) => item(one.to, one)));

  const talks = all.filter((one) => !one.isRoom && (one.entries.length > 0 || one.unsent.length > 0 || one === current));
  talks.sort((one, other) => latest(other) - latest(one));
  const others = [...online].filter((name) => name !== me && !talks.some((one) => one.to === `@${name}`)).sort();
  const people = [...talks.map((one) => item(one.to, one)), ...others.map((name) => item(`@${name}`))];
  $("people").replaceChildren(...people.slice(0, MOST_LISTED));
  $("nobody").hidden = people.length > 0;
  $("online-count").textContent = `${online.size} online`;

  const unread = all.reduce((sum, one) => sum + one.unread, 0);
  document.title = unread ? `(${unread}) Chat` : "Chat";
}

const latest = (one) => Math.max(one.entries.at(-1)?.time ?? 0, one.unsent.at(-1)?.time ?? 0);

function item(to, one) {
  const name = to.slice(1);
  const anchor = make("a", { href: link(to) });
  if (one && one === current) anchor.setAttribute("aria-current", "page");
  const avatar = make("span", { className: "avatar", ariaHidden: "true" });
  if (to.startsWith("#")) avatar.textContent = "#";
  else portray(avatar, name);
  const last = one?.entries.at(-1);
  const author = last?.from === me ? "You: " : one?.isRoom ? `${last?.from}: ` : "";
  const preview = last ? author + last.text : "";
  const lines = make("span", { className: "lines" }, make("strong", { textContent: name }), make("span", { textContent: preview }));
  anchor.append(avatar, lines);
  if (to.startsWith("@")) {
    anchor.classList.toggle("online", online.has(name));
    lines.firstChild.append(make("span", { className: "hidden", textContent: online.has(name) ? " (online)" : " (offline)" }));
  }
  if (one?.unread) {
    const many = one.unread > 99 ? "99+" : one.unread;
    anchor.append(make("span", { className: "unread" }, `${many}`, make("span", { className: "hidden", textContent: " unread" })));
  }
  return make("li", {}, anchor);
}

function portray(avatar, name) {
  avatar.textContent = [...name][0].toUpperCase();
  avatar.style.setProperty("--hue", hueOf(name));
}

function hueOf(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  return (hash >>> 0) % 360;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function showTitle() {
  $("title").textContent = current?.isRoom ? current.to : (current?.to.slice(1) ?? "");
  const person = current && !current.isRoom;
  $("about").textContent = !current ? "" : !person ? "Room" : online.has(current.to.slice(1)) ? "online" : "offline";
  $("leave").hidden = !current || person;
  $("text").placeholder = current ? `Message ${$("title").textContent}` : "";
}

// Messages: the list has the entries of the conversation in their order, and below them what is unsent

function showMessages() {
  $("messages").replaceChildren(...(current?.entries ?? []).map(block));
  for (const element of $("messages").children) dress(element);
  showMessageStates();
}

function addMessages(added) {
  for (const entry of added.sort((one, other) => one.offset - other.offset)) {
    const element = block(entry);
    const below = $("messages").children[current.entries.lastIndexOf(entry)];
    $("messages").insertBefore(element, below ?? null);
    dress(element);
    if (element.nextElementSibling) dress(element.nextElementSibling);
  }
  if (pinned) for (let surplus = current.trim(); surplus > 0; surplus -= 1) $("messages").firstChild.remove();
  if (!pinned && added.some((entry) => entry.from !== me)) $("newest").hidden = false;
}

function addAbove(added) {
  const height = $("scroll").scrollHeight - $("scroll").scrollTop;
  $("messages").prepend(...added.map(block));
  for (const element of [...$("messages").children].slice(0, added.length + 1)) dress(element);
  showTop();
  $("scroll").scrollTop = $("scroll").scrollHeight - height;
}

function block(entry) {
  const own = entry.from === me || entry.from === undefined;
  const avatar = make("span", { className: "avatar", ariaHidden: "true" });
  if (!own) portray(avatar, entry.from);
  const when = new Date(entry.time * 1000);
  const state = make("span", { className: "state" });
  if (own) state.append("✓", make("span", { className: "hidden", textContent: " sent" }));
  const element = make(
    "li",
    { className: own ? "own" : "" },
    make("p", { className: "day" }),
    avatar,
    make(
      "div",
      { className: "bubble" },
      make("span", { className: own ? "hidden" : "author", textContent: own ? "You" : entry.from }),
      make("p", { className: "text", dir: "auto", textContent: entry.text }),
      make("span", { className: "foot" }, make("time", { dateTime: when.toISOString(), textContent: clock.format(when) }), state),
    ),
  );
  if (!own) element.style.setProperty("--hue", hueOf(entry.from));
  element.entry = entry;
  return element;
}

// Show what depends on the message above: the day, and whether it is another person's.
function dress(element) {
  const { entry } = element;
  const before = element.previousElementSibling?.entry;
  const day = (one) => calendar.format(new Date(one.time * 1000));
  const newDay = !before || day(before) !== day(entry);
  element.querySelector(".day").textContent = newDay ? day(entry) : "";
  const follows = !newDay && (before.from ?? me) === (entry.from ?? me) && entry.time - before.time < TOGETHER;
  element.classList.toggle("follows", follows);
}

// Show what is unsent, and keep the end in sight.
function showMessageStates() {
  for (const element of $("messages").querySelectorAll(".unsent")) element.remove();
  for (const message of current?.unsent ?? []) {
    const element = block(message);
    element.classList.add("unsent");
    element.classList.toggle("failed", Boolean(message.problem));
    const state = element.querySelector(".state");
    state.textContent = message.problem ?? (current.ready ? "sending…" : "waiting for the connection");
    if (message.problem) state.after(make("button", { className: "quiet", textContent: "Remove", onclick: () => remove(message) }));
    $("messages").append(element);
    dress(element);
  }
  showTop();
  if (pinned) toEnd();
}

function remove(message) {
  current.unsent = current.unsent.filter((unsent) => unsent !== message);
  if (!$("text").value) $("text").value = message.text;
  keepUnsent();
  showMessageStates();
}

function showTop() {
  const isEmpty = current?.ready && !current.entries.length && !current.unsent.length;
  $("top").textContent = !current
    ? "Choose a conversation."
    : current.more
      ? "Loading…"
      : isEmpty
        ? "Nothing has been said here yet. Say the first word."
        : current.entries.length
          ? "This is where it begins."
          : "";
}

function toEnd() {
  pinned = true;
  $("newest").hidden = true;
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

function scrolled() {
  const { scrollTop, scrollHeight, clientHeight } = $("scroll");
  pinned = scrollHeight - scrollTop - clientHeight < 60;
  if (pinned) $("newest").hidden = true;
  if (scrollTop < 300 && current?.more && current.ready && !current.asked) {
    current.asked = true;
    connection.send({ type: "above", to: current.to, offset: current.entries[0].offset });
  }
}

// The room dialog

function showAllRooms() {
  const others = allRooms.filter((to) => !conversations.has(to));
  const button = (to) => make("button", { type: "button", className: "quiet", textContent: to, onclick: () => join(to) });
  $("all-rooms").replaceChildren(...others.map((to) => make("li", {}, button(to))));
}

function join(to) {
  $("room-dialog").close();
  location.hash = link(to);
}

// Events

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  $("name-problem").textContent = name ? "" : "Please write a name.";
  if (!name) return;
  if (connection) me = name; // it is still trying
  else enter(name);
});

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !current) return;
  const taken = compose(text);
  $("text").setCustomValidity(taken ? "" : "Too much is unsent; please wait for the connection.");
  if (taken) $("text").value = "";
  else $("text").reportValidity();
  fit();
  $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
  event.preventDefault();
  $("compose").requestSubmit();
});

function fit() {
  $("text").setCustomValidity("");
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight}px`;
}

$("text").addEventListener("input", fit);
$("scroll").addEventListener("scroll", scrolled, { passive: true });
new ResizeObserver(() => pinned && toEnd()).observe($("scroll"));
$("newest").addEventListener("click", toEnd);
$("change-name").addEventListener("click", () => leaveForGood());

$("leave").addEventListener("click", () => {
  connection.send({ type: "leave", to: current.to });
  forget(current);
});

$("add-room").addEventListener("click", () => {
  $("room").value = $("room-problem").textContent = "";
  showAllRooms();
  $("room-dialog").showModal();
});

$("room-cancel").addEventListener("click", () => $("room-dialog").close());

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("room").value.normalize("NFKC").trim().replace(/^#/, "").replace(/\s+/g, " ").toLowerCase();
  const problem = !name ? "Please write a name." : /[#@|]/.test(name) ? "A name has no # @ or | in it." : "";
  $("room-problem").textContent = problem;
  if (!problem) join(`#${name}`);
});

addEventListener("hashchange", navigate);
document.addEventListener("visibilitychange", () => current && changed(current));

// Where a keyboard covers the page (iOS), only the visible part counts.
visualViewport?.addEventListener("resize", () => {
  document.documentElement.style.setProperty("--height", `${visualViewport.height}px`);
});

const known = recall(sessionStorage, "name") ?? recall(localStorage, "name");
$("name-problem").textContent = recall(sessionStorage, "problem") ?? "";
keep(sessionStorage, "problem", null);
if (known) {
  $("name").placeholder = known;
  document.body.dataset.screen = "entering";
  enter(known);
} else $("name").focus();
