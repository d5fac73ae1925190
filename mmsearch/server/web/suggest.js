// Completions below the search box.

import { call, collectionPath } from "./api.js";
import { $, el } from "./dom.js";

let running = null;
let waiting = 0;

// `collection()` is the one to ask, `choose(text)` takes a completion.
export function start(collection, choose) {
  const box = $("q");
  box.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => suggest(collection(), choose), 120); });
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" && step(1)) event.preventDefault();
    if (event.key === "ArrowUp" && step(-1)) event.preventDefault();
    if (event.key === "Escape") { event.preventDefault(); hide(); } // and nothing that was typed is lost
  });
}

async function suggest(collection, choose) {
  const text = $("q").value.trim();
  running?.abort();
  if (text.length < 2 || /^[+-]/.test(text) || !collection) return hide();
  running = new AbortController();
  try {
    const { suggestions } = await call(`${collectionPath(collection)}/suggest?k=7&text=${encodeURIComponent(text.slice(0, 200))}`, { signal: running.signal });
    const texts = [...new Set(suggestions.map((one) => one.text))].filter((one) => one !== text);
    if (document.activeElement !== $("q") || !texts.length) return hide();
    $("suggestions").replaceChildren(...texts.map((one, n) => el("li", { role: "option", id: `suggestion${n}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); choose(one); } }, ...bold(one, text))));
    $("suggestions").hidden = false;
    $("q").setAttribute("aria-expanded", "true");
    $("q").removeAttribute("aria-activedescendant");
  } catch { hide(); }
}

// What was typed already, set apart from what would be added.
function bold(text, typed) {
  const at = text.toLowerCase().indexOf(typed.toLowerCase());
  if (at < 0) return [text];
  return [text.slice(0, at), el("b", {}, text.slice(at, at + typed.length)), text.slice(at + typed.length)];
}

export function hide() {
  clearTimeout(waiting);
  running?.abort();
  $("suggestions").hidden = true;
  $("q").setAttribute("aria-expanded", "false");
  $("q").removeAttribute("aria-activedescendant");
}

export function selected() {
  return $("suggestions").hidden ? null : ($("suggestions").querySelector("[aria-selected=true]")?.textContent ?? null);
}

function step(by) {
  const options = [...$("suggestions").children];
  if ($("suggestions").hidden || !options.length) return false;
  const now = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
  const next = (now + by + options.length + (now < 0 && by < 0 ? 1 : 0)) % options.length;
  options.forEach((one, n) => one.setAttribute("aria-selected", String(n === next)));
  $("q").setAttribute("aria-activedescendant", options[next].id);
  return true;
}
