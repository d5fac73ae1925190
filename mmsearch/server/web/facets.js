// Filters made of the collection's own attributes: values with counts, colours with swatches, ranges of numbers and days.

import { isColour } from "./colours.js";
import { $, el, label, plain } from "./dom.js";
import { counted } from "./messages.js";
import { filters, trees } from "./query.js";
import { bars, isHeld, range } from "./range.js";
import { dot } from "./tiles.js";

const MOST = 12; // facets shown
const SHOWN = 8; // values of a facet
const HIDDEN = new Set(["latitude", "longitude", "altitude", "width", "height", "parent", "transcribed", "channels", "sample_rate", "currency", "price_currency", "stock", "url", "link", "product_url", "image"]);
const FIRST = ["category", "categories", "masterCategory", "product_type", "gender", "price", "colour", "color", "baseColour", "articleType", "brand", "material", "size"];
const whole = new Set(); // facets of which all values are shown

// What to ask for. `ends` are the least and greatest of numbers, `levels` the categories of a shop.
export function wanted(kinds, ends, levels) {
  const rank = (name) => (levels.includes(name) ? -1 : FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const one = (attribute) => ({ attribute, k: kinds[attribute] === "datetime" ? 1 : trees.has(attribute) ? 1000 : 60, ignore_own_filter: true });
  return Object.keys(kinds).filter((name) => !HIDDEN.has(name))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b)).slice(0, MOST)
    .map((name) => (many(ends[name]) ? { ...one(name), ranges: bars(ends[name].slice(0, 2)) } : one(name)));
}

// The numbers that are shown as a range if they are many.
export const numbers = (kinds) => Object.keys(kinds).filter((name) => kinds[name] === "number" && !HIDDEN.has(name));
const many = (ends) => ends && ends[2] > SHOWN && ends[1] > ends[0];

// Where there is no room beside the results the filters cover the page, and what is below cannot be reached.
export function sheet(open) {
  $("facets").classList.toggle("open", open);
  $("filters").setAttribute("aria-expanded", String(open));
  document.documentElement.classList.toggle("covered", open);
  for (const below of document.querySelectorAll("header, main")) below.inert = open;
  if (open) $("facets").querySelector("input, button")?.focus();
  else $("filters").focus();
}
const covered = () => $("facets").classList.contains("open");
matchMedia("(min-width: 761px)").addEventListener("change", ({ matches }) => { if (matches && covered()) sheet(false); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && covered()) sheet(false); });

// `found` is an answer, `shop` says {kinds, ends, levels, currency} of the collection.
export function show(state, found, { kinds, ends, levels, currency }, change) {
  if (isHeld()) return; // what is held would be gone; when it is let go there is another search
  const focused = document.activeElement?.dataset?.facet;
  const hidden = state.view === "shop" ? levels : [];
  const set = (name) => (pair) => change(() => {
    if (pair[0] === null && pair[1] === null) delete state.ranges[name];
    else state.ranges[name] = pair;
  });
  const group = (name, facet) => {
    const pair = state.ranges[name];
    if (facet.kind === "datetime" || (facet.kind === "number" && (many(ends[name]) || pair))) {
      const bare = facet.least === undefined || facet.least === null;
      if (!pair && (bare || facet.least === facet.greatest)) return null;
      return range(name, facet, ends[name], pair ?? [null, null], currency, set(name));
    }
    return values(state, name, facet, change);
  };
  const groups = Object.entries(found.facets ?? {}).filter(([name]) => !hidden.includes(name)).map(([name, facet]) => group(name, facet)).filter(Boolean);
  if (kinds.stock === "number" && state.view === "shop") groups.push(inStock(state, set("stock")));
  const active = filters(state);
  const clear = active ? el("button", { type: "button", class: "clear link", onclick: () => change(() => { state.chosen = {}; state.ranges = {}; }) }, active > 1 ? `Clear ${active} filters` : "Clear the filter") : null;
  const done = el("button", { type: "button", class: "go done", onclick: () => sheet(false) }, `Show ${counted(state, found.total)}`);
  const scrolled = $("facets").scrollTop;
  $("facets").replaceChildren(...(groups.length ? [el("div", { class: "head" }, el("h2", {}, "Filters"), clear), ...groups, done] : []));
  $("facets").scrollTop = scrolled;
  if (focused) document.querySelector(`[data-facet="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  document.querySelector(".body").classList.toggle("bare", !groups.length);
  $("filters").hidden = !groups.length;
  $("filters").textContent = active ? `Filters (${active})` : "Filters";
}

function inStock(state, set) {
  const box = el("input", { type: "checkbox", checked: (state.ranges.stock?.[0] ?? 0) > 0, "data-facet": "stock|in", onchange: () => set(box.checked ? [1, null] : [null, null]) });
  return el("fieldset", {}, el("legend", {}, "Availability"), el("label", {}, box, el("span", {}, "In stock")));
}

function values(state, name, facet, change) {
  const chosen = state.chosen[name] ?? [];
  const there = facet.buckets.filter((bucket) => "value" in bucket);
  const known = there.map((bucket) => bucket.value);
  const missing = chosen.filter((value) => !known.includes(value)).map((value) => ({ value, count: 0 }));
  const buckets = [...there, ...missing];
  if (!chosen.length && (buckets.length < 2 || facet.distinct > 400)) return null;
  const colour = isColour(name);
  const rows = buckets.map(({ value, count }, n) => {
    const box = el("input", { type: "checkbox", checked: chosen.includes(value), "data-facet": `${name}|${value}`, onchange: () => change(() => toggle(state, name, value)) });
    const swatch = colour ? (dot(value) ?? el("span", { class: "dot none", "aria-hidden": "true" })) : null;
    const row = el("label", { title: colour ? plain(value) : null }, box, swatch, el("span", { class: "value" }, plain(value)), el("span", { class: "count" }, count.toLocaleString()));
    row.hidden = n >= (colour ? 2 : 1) * SHOWN && !chosen.includes(value) && !whole.has(name);
    return row;
  });
  const set = el("fieldset", { class: colour ? "colours" : null }, el("legend", {}, label(name)), el("div", { class: "values" }, ...rows));
  if (rows.some((row) => row.hidden)) {
    const all = el("button", { type: "button", class: "all link", onclick: () => {
      whole.add(name);
      const next = rows.find((row) => row.hidden);
      rows.forEach((row) => { row.hidden = false; });
      all.remove();
      next?.querySelector("input").focus();
    } }, `Show all ${rows.length}`, el("span", { class: "hidden" }, ` of ${label(name)}`));
    set.append(all);
  }
  return set;
}

function toggle(state, name, value) {
  const chosen = state.chosen[name] ?? [];
  state.chosen[name] = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
  if (!state.chosen[name].length) delete state.chosen[name];
}
