// Makes the job page, and a list of jobs, live. The server has rendered both already; without this
// script the page reloads itself instead.

import { Live } from "./live.js";
import { fill, icon, make, sentence, showState, timeNode } from "./nodes.js";
import { setClock, setText } from "./times.js";

const MAX_LINES = 1_000;

class OffloadJob extends Live {
  #seq = 0;
  #touched = false;

  ready() {
    this.lastId = this.dataset.lastId;
    this.#seq = Number(this.lastId.split("~")[1] ?? 0);
    this.finished = ["succeeded", "failed", "cancelled", "dead"].includes(this.dataset.state);
    setClock(this.dataset.now);
    // What the reader opened stays open, also over a reload; before that, a failure opens the log.
    for (const details of this.querySelectorAll("details")) {
      const key = `offload ${this.dataset.id} ${details.dataset.part}`;
      const kept = remembered(key);
      if (kept !== null) details.open = kept === "open";
      details.querySelector("summary").addEventListener("click", () => {
        if (details === this.part("log")) this.#touched = true;
        remember(key, details.open ? "closed" : "open");
      });
    }
  }

  streamUrl() {
    return `${this.getAttribute("href")}/events?last_event_id=${encodeURIComponent(this.lastId)}`;
  }

  poll() {
    return this.read(`${this.getAttribute("href")}?logs_after=${this.#seq}`, this.dataset.id);
  }

  gone() {
    this.finished = true;
    fill(this.part("text"), ["This job is no longer kept."], sentence);
    this.part("stop").hidden = true;
  }

  show(job) {
    showState(this, (name) => this.part(name), job);
    document.title = job.view.heading;
    fill(this.part("notes"), job.view.notes, (notes) => notes.map((note) => make("li", note)));
    this.part("notes").hidden = !job.view.notes.length;
    this.part("reference").hidden = job.error === null;
    this.#showResult(job.view.result);
    this.#showFiles(job);
    this.#showFacts(job);
    this.#showLog(job);
    this.finished ||= job.finished_at !== null;
    this.part("response").hidden = !job.response_url;
    if (job.response_url) {
      // A download leaves the page as it is, with a link to have it again.
      this.part("response").querySelector("a").href = job.response_url;
      location.replace(job.response_url);
    }
  }

  #showResult(result) {
    this.part("result").hidden = !result.kind;
    fill(this.part("result"), result, ({ kind, text, url, size, whole }) => {
      const nodes = [];
      if (kind === "text") nodes.push(make("p", text, { class: "offload-prose" }));
      if (kind === "json") nodes.push(make("pre", text, { tabindex: "0" }));
      if (kind === "link" || kind === "file") {
        const link = make("a", text, { href: url, class: "offload-main" });
        if (kind === "link") link.rel = "noopener noreferrer";
        if (kind === "file") {
          link.classList.add("offload-button");
          link.prepend(icon("file"));
        }
        nodes.push(make("p"));
        nodes[0].append(link, " ", make("span", size));
      }
      if (whole) {
        nodes.push(make("p"));
        nodes.at(-1).append(make("a", "Show the whole result", { href: whole }));
      }
      return nodes;
    });
  }

  #showFiles(job) {
    this.part("files").hidden = !job.view.files.length;
    fill(this.part("files").querySelector("ul"), job.view.files, (files) =>
      files.map(({ name, url, size }) => {
        const item = make("li");
        item.append(icon("file"), make("a", name, { href: url }), " ", make("span", size));
        return item;
      }),
    );
  }

  #showFacts(job) {
    const facts = { "Asked for": job.created_at, Started: job.started_at, Finished: job.finished_at };
    fill(this.part("facts"), facts, () => {
      const rows = Object.entries(facts).filter(([, at]) => at).map(([name, at]) => [name, timeNode(at, "exact")]);
      rows.push(["Reference", make("code", job.id)]);
      return rows.map(([name, value]) => {
        const row = make("div");
        const fact = make("dd");
        fact.append(value);
        row.append(make("dt", name), fact);
        return row;
      });
    });
  }

  #showLog(job) {
    const log = this.part("log");
    const list = log.querySelector("ol");
    const followed = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    const fresh = (job.logs ?? []).filter((line) => line.seq > this.#seq);
    for (const line of fresh) {
      const item = make("li");
      item.append(timeNode(line.at, "second"), " ", make("span", line.text));
      list.append(item);
      this.#seq = line.seq;
    }
    while (list.children.length > MAX_LINES) list.firstElementChild.remove();
    if (fresh.length && followed) list.scrollTop = list.scrollHeight;
    const count = job.log_lines.toLocaleString("en");
    setText(this.part("lines"), `${count} ${job.log_lines === 1 ? "line" : "lines"}`);
    this.part("dropped").hidden = !job.log_dropped;
    setText(this.part("dropped"), `The first ${job.log_dropped.toLocaleString("en")} lines are no longer kept.`);
    if (job.error !== null && job.log_lines && !this.#touched) log.open = true;
  }
}

class OffloadJobs extends Live {
  ready() {
    this.finished = !this.getAttribute("href");
  }

  streamUrl() {
    return this.getAttribute("href");
  }

  #rows() {
    return [...this.querySelectorAll("li[data-id]")];
  }

  #unfinished() {
    const open = ["scheduled", "queued", "running", "retrying"];
    return this.#rows().filter((row) => open.includes(row.dataset.state));
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
