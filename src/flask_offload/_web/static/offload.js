// Makes the job page, and a list of jobs, live. The server has rendered both already; without this
// script the page reloads itself instead. What is more than a line of text is rendered by the
// server alone: this script takes it from there, so that a template of the developer's holds here,
// too, and nothing that a job says is ever read as HTML by this script.

import { askFirst, offerCopy, offerNotice } from "./actions.js";
import { Live } from "./live.js";
import { Log } from "./log.js";
import { fill, hide, make, showState } from "./nodes.js";
import { setClock, setText, setWords, tellTime } from "./times.js";

const FINAL = ["succeeded", "failed", "cancelled", "dead"];
const SPEAK_EVERY = 10_000; // A reader who listens is not told of each per cent.

class OffloadJob extends Live {
  #log;
  #touched = false;
  #madeOf = "";
  #refreshing = false;
  #announced = 0;
  #done = () => {};

  // An element that was written by hand has only its address: what belongs inside comes from there.
  async prepare() {
    if (this.dataset.state) return true;
    try {
      const made = await this.#rendered();
      if (made === null) return false;
      for (const { name, value } of made.attributes) {
        if (name !== "href" && name !== "class") this.setAttribute(name, value);
      }
      this.classList.add("offload-job");
      const icons = made.ownerDocument.querySelector(".offload-icons");
      if (icons && !document.querySelector(".offload-icons")) document.body.append(document.adoptNode(icons));
      const nodes = [...made.childNodes].map((node) => document.adoptNode(node));
      this.replaceChildren(...nodes);
      const title = this.querySelector("h1");
      title?.replaceWith(make("h2", title.textContent, { "data-part": "title" }));
      return true;
    } catch {
      setTimeout(() => this.isConnected && this.connectedCallback(), 5_000);
      return false;
    }
  }

  ready() {
    const texts = JSON.parse(this.dataset.texts);
    setWords(texts);
    this.lastId = this.dataset.lastId;
    this.finished = FINAL.includes(this.dataset.state);
    this.#madeOf = this.dataset.madeOf;
    this.#log = this.part("log") && new Log(this.part("log"), Number(this.lastId.split("~")[1] ?? 0), texts);
    if (this.finished) this.#log?.end();
    setClock(this.dataset.now);
    askFirst(this);
    offerCopy(this, texts);
    this.#done = offerNotice(this, texts);
    // What the reader opened stays open, also over a reload; before that, a failure opens the log.
    for (const details of this.querySelectorAll("details[data-part]")) {
      const key = `offload ${this.dataset.id} ${details.dataset.part}`;
      const kept = remembered(key);
      if (kept !== null) details.open = kept === "open";
      details.querySelector("summary").addEventListener("click", () => {
        if (details === this.part("log")) this.#touched = true;
        remember(key, details.open ? "closed" : "open");
      });
    }
    this.part("details")?.addEventListener("toggle", () => this.#refresh());
  }

  poll() {
    return this.read(this.url("", { logs_after: this.#log?.seq ?? 0 }), this.dataset.id);
  }

  gone() {
    this.finished = true;
    hide(this.part("gone"), false);
    hide(this.part("stop"), true);
    hide(this.part("bar"), true);
    this.toggleAttribute("data-stale", true);
  }

  show(job) {
    const finishes = !this.finished && job.finished_at !== null;
    showState(this, (name) => this.part(name), job);
    if (this.closest(".offload-page")) document.title = job.view.heading;
    fill(this.part("notes"), job.view.notes, (notes) => notes.map((note) => make("li", note)));
    hide(this.part("notes"), !job.view.notes.length);
    hide(this.part("reference"), job.error === null);
    this.#showLog(job);
    this.#announce(job);
    this.finished ||= finishes;
    const [, , files] = this.#madeOf.split(" ");
    this.dataset.madeOf = job.view.made_of.join(" ");
    if (this.finished || String(job.view.made_of[2]) !== files || this.part("details")?.open) this.#refresh();
    this.#moveOn(job);
    if (!finishes) return;
    this.#log?.end();
    this.#done(job);
    this.dispatchEvent(new CustomEvent("offload-done", { bubbles: true, detail: job }));
  }

  showLate(job) {
    this.#log?.add(job.logs ?? []);
  }

  // To what a background view has answered. A download leaves the page as it is, with a link to
  // have it again; a page of the developer's is not left.
  #moveOn(job) {
    hide(this.part("response"), !job.response_url);
    if (!job.response_url) return;
    const link = this.part("response")?.querySelector("a");
    if (link) link.href = job.response_url;
    if (this.closest(".offload-page")) location.replace(job.response_url);
  }

  // Has the server render what has changed, until it does.
  async #refresh() {
    if (this.#refreshing) return;
    this.#refreshing = true;
    for (let pause = 1_000; this.#madeOf !== this.dataset.madeOf && this.isConnected; pause = Math.min(pause * 2, 30_000)) {
      const wanted = this.dataset.madeOf;
      try {
        const made = await this.#rendered();
        if (made === null) break;
        for (const node of made.querySelectorAll("[data-swap]")) {
          this.part(node.dataset.part)?.replaceWith(document.adoptNode(node));
        }
        this.#madeOf = wanted;
        this.lost(false);
        tellTime(this);
      } catch {
        this.lost(true);
        await new Promise((resolve) => { setTimeout(resolve, pause); });
      }
    }
    this.#refreshing = false;
  }

  // The element as the server renders it now; a parsed page runs no script.
  async #rendered() {
    const response = await fetch(this.url("", { stay: "1" }), {
      headers: { Accept: "text/html" },
      cache: "no-store",
      signal: AbortSignal.timeout(10_000),
    });
    if (response.status === 404) return null;
    if (!response.ok) throw new Error(response.statusText);
    return new DOMParser().parseFromString(await response.text(), "text/html").querySelector("offload-job");
  }

  #announce(job) {
    const now = Date.now();
    if (job.state !== "running" || now - this.#announced < SPEAK_EVERY) return;
    const { fraction } = job.progress;
    const text = fraction === null ? job.message : `${Math.floor(fraction * 100)}%`;
    if (!text) return;
    this.#announced = now;
    const line = this.part("announce");
    setText(line, text);
    // Heard once; who reads on must not find it again.
    setTimeout(() => setText(line, ""), 1_000);
  }

  #showLog(job) {
    const [lines, dropped] = job.view.log;
    this.#log?.add(job.logs ?? []);
    setText(this.part("lines"), lines);
    hide(this.part("dropped"), !dropped);
    setText(this.part("dropped"), dropped);
    if (job.error !== null && job.log_lines && !this.#touched && this.#log) this.part("log").open = true;
  }
}

class OffloadJobs extends Live {
  async prepare() {
    return true;
  }

  ready() {
    setWords(JSON.parse(this.dataset.texts));
    askFirst(this);
    this.finished = !this.getAttribute("href");
  }

  // The address is that of the stream itself.
  url(path, query) {
    return super.url("", query);
  }

  #rows() {
    return [...this.querySelectorAll("li[data-id]")];
  }

  #unfinished() {
    return this.#rows().filter((row) => !FINAL.includes(row.dataset.state));
  }

  async poll() {
    const reads = this.#unfinished().map((row) => this.read(`${row.dataset.href}?format=json`, row.dataset.id));
    const changed = (await Promise.all(reads)).some(Boolean);
    this.finished = !this.#unfinished().length;
    return changed;
  }

  gone(id) {
    this.#rows().find((row) => row.dataset.id === id)?.remove();
  }

  show(job) {
    const row = this.#rows().find((each) => each.dataset.id === job.id);
    if (row) showState(row, (name) => this.part(name, row), job);
  }
}

// A private window may refuse to remember.
function remember(key, value) {
  try { sessionStorage.setItem(key, value); } catch { /* So be it. */ }
}

function remembered(key) {
  try { return sessionStorage.getItem(key); } catch { return null; }
}

customElements.define("offload-job", OffloadJob);
customElements.define("offload-jobs", OffloadJobs);
