// Times, as reading.py words them, by the clock of the reader.

let skew = 0; // This computer's clock minus the server's, in ms.

export function setClock(serverNow) {
  skew = Date.now() - Date.parse(serverNow);
}

// The words, in the language of the reader, come from the server; see patterns() in reading.py.
let words = {};

export function setWords(texts) {
  words = texts;
}

const unit = (number, name) => words[name].replace("%(number)s", number);
const timed = (name, time) => words[name].replace("%(time)s", time);

function duration(seconds) {
  const whole = Math.floor(Math.max(0, seconds));
  const two = (large, name, small, smallName) => {
    const rest = Math.floor((whole % large) / small);
    return unit(Math.floor(whole / large), name) + (rest ? ` ${unit(rest, smallName)}` : "");
  };
  if (whole < 1) return words.instant;
  if (whole < 60) return unit(whole, "s");
  if (whole < 3600) return two(60, "min", 1, "s");
  if (whole < 86400) return two(3600, "h", 60, "min");
  return two(86400, "d", 3600, "h");
}

function about(seconds) {
  if (seconds <= 55) return unit(Math.max(1, Math.ceil(seconds / 5)) * 5, "s");
  if (seconds <= 3600) return unit(Math.ceil(seconds / 60), "min");
  return unit(Math.ceil(seconds / 3600), "h");
}

function ago(seconds) {
  if (seconds < 60) return words.just_now;
  if (seconds < 3600) return timed("ago", unit(Math.floor(seconds / 60), "min"));
  if (seconds < 86400) return timed("ago", unit(Math.floor(seconds / 3600), "h"));
  return timed("ago", unit(Math.floor(seconds / 86400), "d"));
}

function clock(then) {
  const time = { hour: "2-digit", minute: "2-digit" };
  const today = then.toDateString() === new Date().toDateString();
  return then.toLocaleString([], today ? time : { day: "numeric", month: "short", ...time });
}

export function moment(style, then) {
  const left = (then.getTime() - (Date.now() - skew)) / 1000;
  switch (style) {
    case "ago": return ago(-left);
    case "for": return duration(Math.max(1, -left));
    case "in": return left >= 1 ? timed("in", duration(left)) : words.now;
    case "left": return left > 0 ? ` · ${timed("left", about(left))}` : "";
    case "second": return then.toLocaleTimeString([], { hour12: false });
    case "exact": return then.toLocaleString();
    default: return clock(then);
  }
}

// A template of the developer's may lack any part.
export function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

// Of what is stale nobody knows how it goes on: its clocks stand still.
const RUNNING = ["for", "in", "left"];

export function tellTime(root, stale = false) {
  for (const node of root.querySelectorAll("time[data-as]")) {
    if (stale && RUNNING.includes(node.dataset.as)) continue;
    const then = new Date(node.dateTime);
    setText(node, moment(node.dataset.as, then));
    if (!node.title) node.title = then.toLocaleString();
  }
}
