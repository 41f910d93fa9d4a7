// What the reader can do about a job besides waiting.

import { setText } from "./times.js";

// Asks before a job is stopped, and says when it will end.
export function askFirst(live) {
  live.addEventListener("submit", (event) => {
    const form = event.target;
    const dialog = live.part("ask");
    if (form.dataset.part !== "stop" || !dialog) return;
    event.preventDefault();
    setText(live.part("consequence"), form.dataset.consequence);
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue === "stop") live.send(form);
    };
    dialog.showModal();
  });
}

export function offerCopy(live, texts) {
  const button = live.part("copy");
  if (!button || !navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    // Without the key, which is this reader's alone.
    const url = new URL(live.getAttribute("href"), document.baseURI);
    url.searchParams.delete("key");
    try {
      await navigator.clipboard.writeText(url.href);
      say(live, texts.copied);
    } catch {
      say(live, url.href);
    }
  });
}

// A press on the button asks the browser, and the end of the job comes as a notification.
export function offerNotice(live, texts) {
  const button = live.part("notify");
  if (!button || !window.Notification || !window.isSecureContext || live.finished) return () => {};
  let wanted = false;
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (!wanted && (await Notification.requestPermission()) !== "granted") {
      say(live, texts.denied);
      return;
    }
    wanted = !wanted;
    button.setAttribute("aria-pressed", wanted);
    say(live, wanted ? texts.notified : "");
  });
  return (job) => {
    button.hidden = true;
    if (!wanted) return;
    wanted = false;
    say(live, "");
    const notice = new Notification(job.view.heading, { body: job.error ?? "", tag: job.id });
    notice.onclick = () => { window.focus(); notice.close(); };
  };
}

let quiet = 0;
function say(live, text) {
  const line = live.part("said");
  setText(line, text);
  clearTimeout(quiet);
  if (text.length < 20) quiet = setTimeout(() => setText(line, ""), 4_000);
}
