// Filters made of the collection's own attributes: values with counts, and ranges of numbers.

import { $, el, plain } from "./dom.js";

const MOST = 12; // facets shown
const SHOWN = 9; // values of a facet
const HIDDEN = new Set(["latitude", "longitude", "width", "height", "parent", "transcribed"]);
const FIRST = ["category", "masterCategory", "gender", "articleType", "price", "colour", "color", "baseColour", "brand"];

export function wanted(kinds) {
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return Object.keys(kinds).filter((name) => !HIDDEN.has(name) && kinds[name] !== "datetime")
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b)).slice(0, MOST)
    .map((attribute) => ({ attribute, k: 30, ignore_own_filter: true }));
}

export function show(state, facets, change) {
  const groups = Object.entries(facets ?? {}).map(([name, facet]) => group(state, name, facet, change)).filter(Boolean);
  const active = Object.values(state.chosen).some((values) => values.length) || Object.keys(state.ranges).length;
  const clear = active ? el("button", { type: "button", onclick: () => change(() => { state.chosen = {}; state.ranges = {}; }) }, "Clear all filters") : null;
  const focused = document.activeElement?.dataset?.facet;
  $("facets").replaceChildren(...[clear, ...groups].filter(Boolean));
  if (focused) document.querySelector(`[data-facet="${CSS.escape(focused)}"]`)?.focus();
  document.querySelector(".body").classList.toggle("bare", !groups.length && !active);
}

function group(state, name, facet, change) {
  const chosen = state.chosen[name] ?? [];
  if (facet.kind === "number" && (facet.distinct > SHOWN || state.ranges[name])) return range(state, name, facet, change);
  const values = facet.buckets.map((bucket) => bucket.value);
  const missing = chosen.filter((value) => !values.includes(value)).map((value) => ({ value, count: 0 }));
  const buckets = [...facet.buckets, ...missing];
  if (!chosen.length && (buckets.length < 2 || facet.distinct > 400)) return null;
  const rows = buckets.map(({ value, count }, n) => {
    const box = el("input", { type: "checkbox", checked: chosen.includes(value), "data-facet": `${name}|${value}`, onchange: () => change(() => toggle(state, name, value)) });
    const row = el("label", {}, box, dot(name, value), el("span", {}, plain(value)), el("span", {}, plain(count)));
    row.hidden = n >= SHOWN && !chosen.includes(value);
    return row;
  });
  const set = el("fieldset", {}, el("legend", {}, label(name)), ...rows);
  if (rows.some((row) => row.hidden)) {
    const all = el("button", { type: "button", onclick: () => { rows.forEach((row) => { row.hidden = false; }); all.remove(); } }, `All ${rows.length}`);
    set.append(all);
  }
  return set;
}

function range(state, name, facet, change) {
  const [low, high] = state.ranges[name] ?? [null, null];
  if (facet.least === undefined && low === null && high === null) return null;
  const field = (end, value, hint) => el("input", {
    type: "number", step: "any", value: value ?? "", placeholder: hint === undefined ? "" : plain(hint), "aria-label": `${label(name)}, ${end}`,
    "data-facet": `${name}|${end}`, onchange: (event) => change(() => {
      const pair = [...(state.ranges[name] ?? [null, null])];
      pair[end === "from" ? 0 : 1] = event.target.value === "" ? null : Number(event.target.value);
      if (pair[0] === null && pair[1] === null) delete state.ranges[name];
      else state.ranges[name] = pair;
    }),
  });
  return el("fieldset", {}, el("legend", {}, label(name)), el("div", { class: "range" }, field("from", low, facet.least), "to", field("to", high, facet.greatest)));
}

function toggle(state, name, value) {
  const chosen = state.chosen[name] ?? [];
  state.chosen[name] = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
  if (!state.chosen[name].length) delete state.chosen[name];
}

// A swatch beside a colour's name, where the browser knows the name.
function dot(name, value) {
  if (!/colou?r$/i.test(name) || typeof value !== "string") return null;
  const colour = value.toLowerCase().replace(/ (melange|blue)$/, (_, word) => (word === "blue" ? "" : "")).replaceAll(" ", "");
  if (!CSS.supports("color", colour)) return null;
  const made = el("span", { class: "dot", "aria-hidden": "true" });
  made.style.background = colour;
  return made;
}

const label = (name) => name.replaceAll("_", " ").replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`).replace(/^./, (letter) => letter.toUpperCase());
