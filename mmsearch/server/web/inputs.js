// Files, microphones and keys: what reaches the page by other ways than its fields.

import { $ } from "./dom.js";
import { LONGEST, record } from "./recorder.js";

// `add(files)`, `notice(text, bad)`, `spoken(file)`.
export function takeFiles({ add, notice, spoken }) {
  $("pick").addEventListener("click", () => $("picker").showModal());
  $("choose").addEventListener("click", () => $("file").click());
  $("photograph").addEventListener("click", () => $("camera").click());
  $("hear").addEventListener("click", () => { $("picker").close(); $("record").click(); });
  for (const input of [$("file"), $("camera")]) input.addEventListener("change", () => { $("picker").close(); add(input.files); input.value = ""; });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) { event.preventDefault(); $("picker").close(); add(files); }
  });
  let over = 0;
  const dragged = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => { if (dragged(event)) { over += 1; $("drop").hidden = false; } });
  document.addEventListener("dragleave", () => { over = Math.max(0, over - 1); if (!over) $("drop").hidden = true; });
  document.addEventListener("dragover", (event) => { if (dragged(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    over = 0;
    $("drop").hidden = true;
    $("picker").close();
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  microphone($("record"), notice, (file) => add([file]));
  microphone($("speak"), notice, spoken);
  document.addEventListener("play", (event) => { // one sound at a time
    for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
  }, true);
}

let stop = null; // of the recording that runs

function microphone(button, notice, use) {
  let starting = false;
  button.addEventListener("click", async () => {
    if (starting) return;
    if (stop) return stop(button.getAttribute("aria-pressed") !== "true"); // the other button throws it away
    starting = true;
    button.setAttribute("aria-pressed", "true");
    const ready = (text, bad) => { stop = null; button.setAttribute("aria-pressed", "false"); notice(text, bad); };
    try {
      stop = await record((file) => {
        ready("");
        if (file) use(file);
      });
      notice(`Recording, ${LONGEST} seconds at most. Press again when you are done.`, false, [["Done", () => stop()], ["Discard", () => stop(true)]]);
    } catch (error) {
      ready(error.name === "NotAllowedError" ? "The browser was not allowed to use the microphone." : error.name === "NotFoundError" ? "There is no microphone." : error.message, true);
    } finally {
      starting = false;
    }
  });
}

export function takeKeys({ why }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && stop) return stop(true);
    if (document.querySelector("dialog[open]")) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); $("q").focus(); $("q").select(); }
    if (event.key === "w" && !typing) why();
    const links = [...document.querySelectorAll("#results .tile > a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "ArrowDown" && document.activeElement === $("results")) { event.preventDefault(); links[0]?.focus(); }
    if (at < 0) return;
    const next = { ArrowRight: () => links[at + 1], ArrowLeft: () => links[at - 1], ArrowDown: () => beside(links, at, true), ArrowUp: () => beside(links, at, false), Home: () => links[0], End: () => links.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    next()?.focus();
  });
}

// The tile of the next or previous row that lies nearest.
function beside(links, at, down) {
  const from = links[at].getBoundingClientRect();
  const middle = from.left + from.width / 2;
  const rows = links.map((link) => [link, link.getBoundingClientRect()]).filter(([, box]) => (down ? box.top > from.top + 5 : box.top < from.top - 5));
  if (!rows.length) return null;
  const top = down ? Math.min(...rows.map(([, box]) => box.top)) : Math.max(...rows.map(([, box]) => box.top));
  const distance = ([, box]) => Math.abs(box.left + box.width / 2 - middle);
  return rows.filter(([, box]) => Math.abs(box.top - top) < 5).sort((a, b) => distance(a) - distance(b))[0][0];
}
