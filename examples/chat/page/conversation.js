// What a page knows of one conversation. Nothing here touches the page or the network.

const KEPT = 300; // entries that stay when the oldest are let go

export class Conversation {
  #me;
  #early = []; // what was said between joining and the answer to it
  #stale = false; // the history began anew

  // seen: the position that was looked at last
  constructor(to, me, seen = ["", 0]) {
    this.to = to; // "#room" or "@person"
    this.#me = me;
    this.seen = seen;
    this.entries = []; // by offset, without the ones above the first
    this.more = false; // whether there are any above the first
    this.epoch = ""; // of the offsets: another one means that the history began anew
    this.mark = 0; // all entries up to this offset have come
    this.ready = false; // joined and up to date, on this connection
    this.unsent = []; // own messages that are not confirmed: {id, text, time}, perhaps sent (when) and problem (why not)
    this.draft = "";
    this.asked = false; // for what is above
  }

  get isRoom() {
    return this.to.startsWith("#");
  }

  get unread() {
    const seen = this.seen[0] === this.epoch ? this.seen[1] : 0;
    return this.entries.filter((entry) => entry.offset > seen && entry.from !== this.#me).length;
  }

  // Up to where it is complete, for coming back.
  get position() {
    return this.epoch ? [this.epoch, this.mark] : null;
  }

  // A new connection: what is said meanwhile waits for the answer to "open".
  reopen() {
    this.ready = this.asked = this.#stale = false;
    this.#early = [];
  }

  // The answer to "open". Returns the entries that are new; all are, if it is fresh.
  opened({ entries, position: [epoch, offset], fresh, more }) {
    if (fresh) {
      this.entries = [];
      this.more = more;
      this.epoch = epoch;
    }
    this.mark = offset;
    this.ready = true;
    const early = this.#early.filter((said) => said.epoch === this.epoch).map((said) => said.entry);
    this.#early = [];
    return [...entries, ...early].filter((entry) => this.#add(entry));
  }

  // Somebody said something. Returns the entry if it is new and can be shown; null if not.
  said(entry, epoch) {
    if (!this.ready) {
      this.#early.push({ entry, epoch });
      return null;
    }
    this.epoch ||= epoch; // the first message ever
    this.#stale ||= epoch !== this.epoch;
    if (this.#stale) return null;
    return this.#add(entry) ? entry : null;
  }

  // The answer to "above". Returns the entries that are new.
  above(entries, more) {
    this.asked = false;
    const first = this.entries[0]?.offset ?? Infinity;
    const older = entries.filter((entry) => entry.offset < first);
    this.entries.unshift(...older);
    this.more = more;
    return older;
  }

  // Whether something is missing: messages from different workers may overtake each other, for a moment.
  get gap() {
    return this.ready && (this.#stale || this.entries.at(-1)?.offset > this.mark);
  }

  // Let the oldest entries go, so that a page that stays open for weeks does not grow. Returns how many went.
  trim() {
    const surplus = this.entries.length - KEPT;
    if (surplus < KEPT) return 0;
    this.entries.splice(0, surplus);
    this.more = true;
    return surplus;
  }

  #add(entry) {
    if (entry.from === this.#me) this.unsent = this.unsent.filter((message) => message.id !== entry.id);
    const at = this.entries.findLastIndex((other) => other.offset <= entry.offset);
    if (this.entries[at]?.offset === entry.offset) return false; // it came twice
    if (at < 0 && this.more && this.entries.length > 0) return false; // it belongs above: scrolling there brings it
    this.entries.splice(at + 1, 0, entry);
    for (const { offset } of this.entries.slice(at + 1)) if (offset === this.mark + 1) this.mark = offset;
    return true;
  }
}
