// A WebSocket that comes back by itself.

const PING_EVERY = 20_000; // ms; browsers hide the protocol's own pings, and a dead mobile link says nothing
const PATIENCE = 8_000; // ms to open, or to hear something after a ping
const FIRST_DELAY = 400; // ms; doubled with each attempt that fails
const LONGEST_DELAY = 15_000;
const STEADY = 5_000; // ms that a connection must last for the delays to begin anew

export class Connection {
  #url;
  #on;
  #socket = null;
  #attempt = 0;
  #retry; // timer of the next attempt, while there is no socket
  #deadline; // timer that gives the socket up
  #steady;

  // on: {opened(), received(message), lost()}
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    setInterval(() => this.#ping(), PING_EVERY);
    addEventListener("online", () => this.#hurry());
    addEventListener("offline", () => this.#ping());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  connect() {
    clearTimeout(this.#retry);
    const socket = (this.#socket = new WebSocket(this.#url));
    this.#expect();
    socket.onopen = () => {
      this.#heard();
      this.#steady = setTimeout(() => (this.#attempt = 0), STEADY);
      this.#on.opened();
    };
    socket.onmessage = ({ data }) => {
      this.#heard();
      this.#on.received(JSON.parse(data));
    };
    socket.onclose = (event) => this.#lose(slot(event));
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #hurry() {
    if (this.#socket) this.#ping();
    else this.connect();
  }

  #ping() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.send({ type: "ping" });
    this.#expect();
  }

  #expect() {
    this.#deadline ??= setTimeout(() => this.#lose(), PATIENCE);
  }

  #heard() {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }

  // slot: ms after which to come back, if the server said so
  #lose(slot) {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null; // its close event may be minutes away: do not wait
    socket.close();
    this.#heard();
    clearTimeout(this.#steady);
    // at random, or all pages would come back at the same moment
    const longest = Math.min(FIRST_DELAY * 2 ** this.#attempt, LONGEST_DELAY);
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.connect(), slot ?? longest * (0.5 + Math.random() / 2));
    this.#on.lost();
  }
}

// A gateway that stops gives each of its clients a slot, so that they do not all come to the others at once.
function slot({ code, reason }) {
  const found = code === 1012 && /\bretry=(\d{1,6})\b/.exec(reason);
  return found ? Number(found[1]) : undefined;
}
