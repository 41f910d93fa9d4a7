// The connection: a stream while the tab is seen, polling where no stream gets through. What is
// shown is marked as stale from the moment on that nobody knows whether it still holds.

import { setClock, tellTime } from "./times.js";

const SILENCE = 25_000; // The server says something every 15 s.
const PATIENCE = 4_000; // A stream begins with an event; a proxy that holds it back is no stream.
const SLEPT = 10_000; // A clock that misses so many ticks belongs to a computer that slept.
const AGAIN = 60_000; // After so long, perhaps a stream has become free.
const HIDDEN = 15_000; // How often a tab that nobody sees asks, for its title and its reader.

export class Live extends HTMLElement {
  finished = false;
  #stream = null;
  #timer = 0;
  #watchdog = 0;
  #clock = 0;
  #ticked = 0;
  #pause = 1_000;
  #polledSince = 0;
  #failing = false;
  #known = new Map();
  #versions = new Map();

  async connectedCallback() {
    if (!(await this.prepare()) || !this.isConnected || this.#clock) return;
    document.addEventListener("visibilitychange", this.#sync);
    addEventListener("online", this.#sync);
    addEventListener("pageshow", this.#restored);
    this.#ticked = Date.now();
    this.#clock = setInterval(() => this.#tick(), 1_000);
    this.ready();
    tellTime(this);
    this.#sync();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#sync);
    removeEventListener("online", this.#sync);
    removeEventListener("pageshow", this.#restored);
    clearInterval(this.#clock);
    this.#clock = 0;
    this.#close();
  }

  part(name, root = this) {
    return root.querySelector(`[data-part="${name}"]`);
  }

  #tick() {
    const slept = Date.now() - this.#ticked > SLEPT && !document.hidden;
    this.#ticked = Date.now();
    if (slept) this.#sync();
    tellTime(this, this.hasAttribute("data-stale"));
  }

  #restored = (event) => {
    if (event.persisted) this.#sync(); // out of the cache of pages that were left
  };

  #sync = () => {
    this.#close();
    if (this.finished) return;
    this.toggleAttribute("data-stale", true);
    this.#pause = 1_000;
    if (document.hidden) this.#later(HIDDEN);
    else this.#open();
  };

  #open() {
    const stream = (this.#stream = new EventSource(this.url("/events", { last_event_id: this.lastId ?? "" })));
    // Until it speaks, nobody knows that it can.
    this.#expect(PATIENCE, () => this.#fallBack());
    stream.addEventListener("beat", () => this.#heard());
    stream.addEventListener("job", (event) => {
      this.#heard();
      this.lastId = event.lastEventId;
      this.#show(JSON.parse(event.data));
    });
    stream.addEventListener("gone", (event) => this.#gone(JSON.parse(event.data).id));
    stream.addEventListener("end", () => this.#end());
    stream.onerror = () => {
      if (this.#stream !== stream) return;
      // Refused: no stream to be had, or no answer at all; polling finds out which. One that ends
      // comes back, unless something is wrong.
      if (stream.readyState === EventSource.CLOSED) this.#fallBack();
      else if (!this.#failing) this.#expect(PATIENCE, () => this.#fallBack());
      this.#failing = true; // where nobody listens, one error follows the other
    };
  }

  #close() {
    this.#failing = false;
    this.#stream?.close();
    this.#stream = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
  }

  #end() {
    this.finished = true;
    this.#close();
    this.lost(false);
  }

  #gone(id) {
    this.lost(false);
    this.gone(id);
  }

  #expect(within, otherwise) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(otherwise, within);
  }

  #heard() {
    this.#failing = false;
    this.lost(false);
    // A connection can die without a word.
    this.#expect(SILENCE, this.#sync);
  }

  lost(is) {
    const line = this.part("lost");
    if (line && line.hidden === is) line.hidden = !is;
    this.toggleAttribute("data-stale", is);
  }

  // -- polling

  #fallBack() {
    this.#close();
    this.#polledSince = Date.now();
    this.#poll();
  }

  #later(pause) {
    clearTimeout(this.#timer);
    // Not all at once, when a server comes back.
    this.#timer = setTimeout(() => this.#poll(), pause * (0.85 + Math.random() * 0.3));
  }

  async #poll() {
    const hidden = document.hidden;
    try {
      const changed = await this.poll();
      if (this.#stream) return; // shown again meanwhile
      this.lost(false);
      this.#pause = changed ? 1_000 : Math.min(this.#pause * 1.5, 10_000);
    } catch {
      if (this.#stream) return;
      if (!hidden) this.lost(true);
      this.#pause = Math.min(this.#pause * 2, 30_000);
    }
    if (this.finished) this.#end();
    else if (document.hidden) this.#later(Math.max(HIDDEN, this.#pause));
    else if (Date.now() - this.#polledSince > AGAIN && !this.hasAttribute("data-stale")) this.#sync();
    else this.#later(this.#pause);
  }

  // An address below that of the job, which may carry a key.
  url(path = "", query = {}, base = this.getAttribute("href")) {
    const url = new URL(base, document.baseURI);
    url.pathname += path;
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url.href;
  }

  async fetchJob(url, options = {}) {
    const response = await fetch(url, {
      headers: { Accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(10_000),
      ...options,
    });
    if (response.status === 404) return null;
    if (!response.ok) throw new Error(response.statusText);
    return response.json();
  }

  // The answer to a press comes on another connection than the stream, which may have told the end
  // of the job meanwhile: what is older than what is shown must not take its place.
  #show(job) {
    const shown = this.#versions.get(job.id);
    if (shown !== undefined && isOlder(job.version, shown)) return this.showLate(job);
    this.#versions.set(job.id, job.version);
    setClock(job.now);
    this.show(job);
  }

  // Takes from an overtaken answer what no later one repeats.
  showLate() {}

  // Reads one job; whether anything is new.
  async read(url, id) {
    const job = await this.fetchJob(url);
    if (job === null) {
      this.#gone(id);
      return true;
    }
    this.#show(job);
    const now = JSON.stringify([job.state, job.progress, job.log_lines, job.files, job.view.text]);
    const changed = this.#known.get(id) !== now;
    this.#known.set(id, now);
    return changed;
  }

  // Sends a form without leaving the page; the plain way, where that fails, shows what is wrong.
  async send(form) {
    try {
      const body = new URLSearchParams(new FormData(form));
      const job = await this.fetchJob(form.action, { method: "POST", body });
      if (job !== null) this.#show(job);
    } catch {
      form.submit();
    }
  }
}

// Versions are the ids of events: milliseconds, and a number within one.
function isOlder(version, than) {
  const [ms, number] = version.split("-").map(Number);
  const [thanMs, thanNumber] = than.split("-").map(Number);
  return ms === thanMs ? number < thanNumber : ms < thanMs;
}
