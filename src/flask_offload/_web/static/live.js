// The connection: a stream while the tab is seen, polling where no stream can be had.

import { make } from "./nodes.js";
import { setClock, tellTime } from "./times.js";

const SILENCE = 40_000; // The server says something every 15 s.
const PATIENCE = 4_000; // A stream that ends comes back within this, unless something is wrong.

export class Live extends HTMLElement {
  finished = false;
  #stream = null;
  #timer = 0;
  #watchdog = 0;
  #clock = 0;
  #pause = 1_000;
  #polledSince = 0;
  #known = new Map();

  connectedCallback() {
    document.addEventListener("visibilitychange", this.#sync);
    this.addEventListener("submit", this.#ask);
    this.#clock = setInterval(() => tellTime(this), 1_000);
    this.ready();
    tellTime(this);
    this.#sync();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#sync);
    clearInterval(this.#clock);
    this.#close();
  }

  part(name, root = this) {
    return root.querySelector(`[data-part="${name}"]`);
  }

  #sync = () => {
    this.#close();
    if (!document.hidden && !this.finished) this.#open();
  };

  #open() {
    const stream = (this.#stream = new EventSource(this.streamUrl()));
    this.#expect(PATIENCE);
    stream.onopen = () => this.#heard();
    stream.addEventListener("beat", () => this.#heard());
    stream.addEventListener("job", (event) => {
      this.#heard();
      this.lastId = event.lastEventId;
      this.#show(JSON.parse(event.data));
    });
    stream.addEventListener("gone", (event) => this.gone(JSON.parse(event.data).id));
    stream.addEventListener("end", () => this.#end());
    stream.onerror = () => {
      if (this.#stream !== stream) return;
      if (stream.readyState === EventSource.CLOSED) {
        // Refused: no stream to be had, or no answer at all. Polling finds out which.
        this.#close();
        this.#polledSince = Date.now();
        this.#poll();
      } else {
        this.#expect(PATIENCE);
      }
    };
  }

  #close() {
    this.#stream?.close();
    this.#stream = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
  }

  #end() {
    this.finished = true;
    this.#close();
    this.#lost(false);
  }

  #expect(within) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#lost(true);
      // A connection can die without a word. Begin anew.
      if (this.#stream && within === SILENCE) this.#sync();
    }, within);
  }

  #heard() {
    this.#lost(false);
    this.#expect(SILENCE);
  }

  #lost(is) {
    const line = this.part("lost");
    if (line && line.hidden === is) line.hidden = !is;
  }

  async #poll() {
    let changed = false;
    try {
      changed = await this.poll();
      this.#lost(false);
      this.#pause = changed ? 1_000 : Math.min(this.#pause * 1.5, 10_000);
    } catch {
      this.#lost(true);
      this.#pause = Math.min(this.#pause * 2, 30_000);
    }
    if (this.finished) return this.#end();
    if (document.hidden || this.#stream) return undefined;
    // Once in a while: perhaps a stream has become free.
    const next = Date.now() - this.#polledSince > 60_000 ? this.#sync : () => this.#poll();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(next, this.#pause);
    return undefined;
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

  #show(job) {
    setClock(job.now);
    this.show(job);
  }

  // Reads one job; whether anything is new.
  async read(url, id) {
    const job = await this.fetchJob(url);
    if (job === null) {
      this.gone(id);
      return true;
    }
    this.#show(job);
    const now = JSON.stringify([job.state, job.progress, job.log_lines, job.files]);
    const changed = this.#known.get(id) !== now;
    this.#known.set(id, now);
    return changed;
  }

  #ask = (event) => {
    const form = event.target;
    if (form.dataset.part !== "stop") return;
    event.preventDefault();
    const dialog = make("dialog", "", { class: "offload-ask", "aria-label": "Stop this job?" });
    const answers = make("form", "", { method: "dialog" });
    const buttons = make("div");
    buttons.append(make("button", "Stop it", { value: "stop" }), make("button", "Keep it", { value: "", autofocus: "" }));
    answers.append(make("p", "Stop this job?"), make("p", "What it has done so far is not undone."), buttons);
    dialog.append(answers);
    dialog.addEventListener("submit", (inner) => inner.stopPropagation());
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue === "stop") this.#stop(form);
    });
    this.append(dialog);
    dialog.showModal();
  };

  async #stop(form) {
    try {
      const body = new URLSearchParams(new FormData(form));
      const job = await this.fetchJob(form.action, { method: "POST", body });
      if (job !== null) this.#show(job);
    } catch {
      // The plain way, which shows what is wrong.
      form.submit();
    }
  }
}
