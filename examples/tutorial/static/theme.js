// Bootstrap takes its colours from an attribute; this keeps it at what the system prefers.
const dark = matchMedia("(prefers-color-scheme: dark)");
function follow() {
  document.documentElement.dataset.bsTheme = dark.matches ? "dark" : "light";
}
dark.addEventListener("change", follow);
follow();
