// Completions below the search box.

import { call, collectionPath } from "./api.js";
import { $, el, icon, label } from "./dom.js";

let running = null;
let waiting = 0;
let listed = []; // what is shown

const ICONS = { query: "past", phrase: "seek", value: "narrow", title: "thing" };

// `collection()` is the one to ask, `choose(one)` takes a completion: {text, source, attribute?, value?, words?}.
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
    listed = suggestions.filter((one) => one.source === "value" || one.text !== text);
    if (document.activeElement !== $("q") || !listed.length) return hide();
    $("suggestions").replaceChildren(...listed.map((one, n) => el("li", { role: "option", id: `suggestion${n}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); choose(one); } }, icon(ICONS[one.source]), ...told(one, text))));
    $("suggestions").hidden = false;
    $("q").setAttribute("aria-expanded", "true");
    $("q").removeAttribute("aria-activedescendant");
  } catch { hide(); }
}

// A value to narrow by is told as what it does: "nike in Footwear".
function told(one, text) {
  if (one.source !== "value") return [el("span", { class: "whole" }, ...bold(one.text, text))];
  const said = one.words ? [el("b", {}, one.words), " in ", one.value] : bold(one.value, text);
  return [el("span", { class: "whole" }, ...said), el("span", { class: "small" }, label(one.attribute))];
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

// The completion that the arrow keys chose, or null.
export function selected() {
  const at = $("suggestions").hidden ? -1 : [...$("suggestions").children].findIndex((one) => one.getAttribute("aria-selected") === "true");
  return at < 0 ? null : listed[at];
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
