// What is shown of a job, as nodes. Nothing here writes HTML: texts are set as text.

import { moment, setText } from "./times.js";

export function make(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export function timeNode(iso, style) {
  const node = make("time", moment(style, new Date(iso)), { datetime: iso, "data-as": style });
  node.title = new Date(iso).toLocaleString();
  return node;
}

export function sentence(parts) {
  return parts.map((part) => {
    if (part.time) return timeNode(part.time, part.as);
    return part.code ? make("code", part.code) : part;
  });
}

// Rebuilds the content of `node` only when `value` differs from the last time: a selection, or
// what a screen reader stands on, must not be lost for nothing.
const shown = new WeakMap();
export function fill(node, value, build) {
  const now = JSON.stringify(value);
  if (!node || shown.get(node) === now) return;
  shown.set(node, now);
  node.replaceChildren(...build(value));
}

// What a job on the page and in the list have in common.
export function showState(root, part, job) {
  root.dataset.state = job.state;
  root.dataset.waiting = job.waiting_for;
  root.querySelector(".offload-state use")?.setAttribute("href", `#offload-icon-${job.state}`);
  setText(part("word"), job.view.word);
  setText(part("title"), job.title);
  fill(part("text"), job.view.text, sentence);
  fill(part("meta"), job.view.meta, sentence);
  const { fraction } = job.progress;
  const bar = part("bar");
  hide(bar, job.state !== "running");
  // Without a value it shows activity.
  if (fraction === null) bar?.removeAttribute("value");
  else if (bar) bar.value = fraction;
  const stop = part("stop");
  hide(stop, !job.cancel_url);
  if (stop) stop.dataset.consequence = job.view.stop;
}

export function hide(node, is) {
  if (node) node.hidden = is;
}
