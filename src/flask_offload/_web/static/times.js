// Times, as reading.py words them, by the clock of the reader.

let skew = 0; // This computer's clock minus the server's, in ms.

export function setClock(serverNow) {
  skew = Date.now() - Date.parse(serverNow);
}

function duration(seconds) {
  const whole = Math.floor(Math.max(0, seconds));
  const two = (large, unit, small, smallUnit) => {
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${unit}` + (rest ? ` ${rest} ${smallUnit}` : "");
  };
  if (whole < 1) return "less than 1 s";
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(60, "min", 1, "s");
  if (whole < 86400) return two(3600, "h", 60, "min");
  return two(86400, "d", 3600, "h");
}

function about(seconds) {
  if (seconds <= 55) return `${Math.max(1, Math.ceil(seconds / 5)) * 5} s`;
  if (seconds <= 3600) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.ceil(seconds / 3600)} h`;
}

function ago(seconds) {
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
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
    case "in": return left >= 1 ? `in ${duration(left)}` : "now";
    case "left": return left > 0 ? ` · about ${about(left)} left` : "";
    case "second": return then.toLocaleTimeString([], { hour12: false });
    case "exact": return then.toLocaleString();
    default: return clock(then);
  }
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function tellTime(root) {
  for (const node of root.querySelectorAll("time[data-as]")) {
    const then = new Date(node.dateTime);
    setText(node, moment(node.dataset.as, then));
    if (!node.title) node.title = then.toLocaleString();
  }
}
