// The log: lines as they come, following the end unless the reader reads, and a search.

import { make, timeNode } from "./nodes.js";
import { setText } from "./times.js";

const MAX_LINES = 1_000;

export class Log {
  seq;
  #root;
  #list;
  #texts;
  #following = true;
  #held = false;
  #sought = "";

  constructor(root, seq, texts) {
    this.#root = root;
    this.#list = root.querySelector("ol");
    this.#texts = texts;
    this.seq = seq;
    const search = this.#part("search");
    if (!search) return; // a template of the developer's, without tools
    search.hidden = false;
    search.addEventListener("input", (event) => this.#search(event.target.value));
    const follow = this.#part("follow");
    follow.hidden = false;
    follow.addEventListener("click", () => {
      this.#held = this.#following;
      this.#follow(!this.#following);
    });
    // To scroll up is to read: nothing may run away under the reader.
    this.#list.addEventListener("scroll", () => this.#held || this.#follow(this.#atEnd(), false));
    root.addEventListener("toggle", () => this.#toEnd());
  }

  #part(name) {
    return this.#root.querySelector(`[data-part="${name}"]`);
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#list;
    return scrollHeight - scrollTop - clientHeight < 24;
  }

  #follow(is, jump = true) {
    this.#following = is;
    setText(this.#part("follow"), is ? this.#texts.followed : this.#texts.paused);
    if (jump) this.#toEnd();
  }

  #toEnd() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight;
  }

  add(lines) {
    const fresh = lines.filter((line) => line.seq > this.seq);
    for (const line of fresh) {
      const item = make("li");
      item.append(timeNode(line.at, "second"), " ", make("span", line.text));
      item.hidden = !this.#matches(item);
      this.#list.append(item);
      this.seq = line.seq;
    }
    while (this.#list.children.length > MAX_LINES) this.#list.firstElementChild.remove();
    if (!fresh.length) return;
    this.#toEnd();
    if (this.#sought) this.#count();
  }

  // Nothing follows any more.
  end() {
    const follow = this.#part("follow");
    if (follow) follow.hidden = true;
  }

  #matches(item) {
    return !this.#sought || item.lastElementChild.textContent.toLowerCase().includes(this.#sought);
  }

  #search(text) {
    this.#sought = text.trim().toLowerCase();
    for (const item of this.#list.children) item.hidden = !this.#matches(item);
    this.#count();
    this.#toEnd();
  }

  #count() {
    const total = this.#list.children.length;
    const count = [...this.#list.children].filter((item) => !item.hidden).length;
    const text = this.#texts.found.replace("%(count)s", count).replace("%(total)s", total);
    setText(this.#part("found"), this.#sought ? text : "");
  }
}
