// Filters made of the collection's own attributes: values with counts, ranges of numbers and dates; categories of a shop.

import { isColour } from "./colours.js";
import { $, el, label, plain } from "./dom.js";
import { filters } from "./query.js";
import { dot } from "./tiles.js";

const MOST = 12; // facets shown
const SHOWN = 8; // values of a facet
const HIDDEN = new Set(["latitude", "longitude", "altitude", "width", "height", "parent", "transcribed", "channels", "sample_rate", "currency", "price_currency", "stock", "url", "image"]);
const CATEGORIES = ["category", "categories", "masterCategory", "product_type"];
const FIRST = [...CATEGORIES, "gender", "articleType", "price", "colour", "color", "baseColour", "brand", "material", "size"];
const whole = new Set(); // facets of which all values are shown

const categoryOf = (kinds) => CATEGORIES.find((name) => kinds[name] === "text");

export function wanted(kinds) {
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return Object.keys(kinds).filter((name) => !HIDDEN.has(name))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b)).slice(0, MOST)
    .map((attribute) => ({ attribute, k: kinds[attribute] === "datetime" ? 1 : 60, ignore_own_filter: true }));
}

export function show(state, facets, kinds, change) {
  const category = state.view === "shop" ? categoryOf(kinds) : null;
  const focused = document.activeElement?.dataset?.facet;
  const groups = Object.entries(facets ?? {}).filter(([name]) => name !== category).map(([name, facet]) => group(state, name, facet, change)).filter(Boolean);
  const active = filters(state);
  const clear = active ? el("button", { type: "button", class: "clear", onclick: () => change(() => { state.chosen = {}; state.ranges = {}; }) }, active > 1 ? `Clear ${active} filters` : "Clear the filter") : null;
  const done = el("button", { type: "button", class: "go done", onclick: () => $("filters").click() }, "Show the results");
  $("facets").replaceChildren(...[clear, ...groups, groups.length ? done : null].filter(Boolean));
  if (category) categories(state, category, facets?.[category], change);
  if (focused) document.querySelector(`[data-facet="${CSS.escape(focused)}"]`)?.focus();
  document.querySelector(".body").classList.toggle("bare", !groups.length);
  $("filters").hidden = !groups.length;
  $("filters").textContent = active ? `Filters (${active})` : "Filters";
}

// The categories of a shop, as tabs above the results.
function categories(state, name, facet, change) {
  const chosen = state.chosen[name] ?? [];
  const values = (facet?.buckets ?? []).map((bucket) => bucket.value);
  const choose = (value) => () => change(() => {
    if (value === null) delete state.chosen[name];
    else state.chosen[name] = [value];
  });
  const missing = chosen.filter((value) => !values.includes(value));
  const shown = [null, ...values.slice(0, 24), ...missing];
  $("tabs").setAttribute("aria-label", label(name));
  $("tabs").replaceChildren(...shown.map((value) => el("button", {
    type: "button", "aria-pressed": String(value === null ? !chosen.length : chosen.includes(value)), "data-facet": `${name}|${value}`, onclick: choose(value),
  }, value === null ? "Everything" : plain(value))));
  $("tabs").hidden = shown.length < 3;
}

function group(state, name, facet, change) {
  const chosen = state.chosen[name] ?? [];
  if (facet.kind === "datetime") return range(state, name, facet, change);
  if (facet.kind === "number" && (facet.distinct > SHOWN || state.ranges[name])) return range(state, name, facet, change);
  const values = facet.buckets.map((bucket) => bucket.value);
  const missing = chosen.filter((value) => !values.includes(value)).map((value) => ({ value, count: 0 }));
  const buckets = [...facet.buckets, ...missing];
  if (!chosen.length && (buckets.length < 2 || facet.distinct > 400)) return null;
  const colour = isColour(name);
  const rows = buckets.map(({ value, count }, n) => {
    const box = el("input", { type: "checkbox", checked: chosen.includes(value), "data-facet": `${name}|${value}`, onchange: () => change(() => toggle(state, name, value)) });
    const swatch = colour ? (dot(value) ?? el("span", { class: "dot none", "aria-hidden": "true" })) : null;
    const row = el("label", {}, box, swatch, el("span", {}, plain(value)), el("span", { class: "count" }, plain(count)));
    row.hidden = n >= SHOWN && !chosen.includes(value) && !whole.has(name);
    return row;
  });
  const set = el("fieldset", { class: colour ? "colours" : null }, el("legend", {}, label(name)), ...rows);
  if (rows.some((row) => row.hidden)) {
    const all = el("button", { type: "button", class: "all", onclick: () => {
      whole.add(name);
      const next = rows.find((row) => row.hidden);
      rows.forEach((row) => { row.hidden = false; });
      all.remove();
      next?.querySelector("input").focus();
    } }, `All ${rows.length}`, el("span", { class: "hidden" }, ` of ${label(name)}`));
    set.append(all);
  }
  return set;
}

// From and to: numbers, or days.
function range(state, name, facet, change) {
  const [low, high] = state.ranges[name] ?? [null, null];
  const bare = facet.least === undefined || facet.least === null;
  if (low === null && high === null && (bare || facet.least === facet.greatest)) return null;
  const dates = facet.kind === "datetime";
  const ends = bare ? [undefined, undefined] : dates ? [facet.least, facet.greatest].map((value) => value.slice(0, 10)) : [Math.floor(facet.least * 100) / 100, Math.ceil(facet.greatest * 100) / 100];
  const field = (n, value) => el("input", {
    type: dates ? "date" : "number", step: dates ? null : "any", value: String(value ?? ""), placeholder: dates || ends[n] === undefined ? "" : plain(ends[n]),
    min: dates ? ends[0] : null, max: dates ? ends[1] : null, inputmode: dates ? null : "decimal",
    "aria-label": `${label(name)}, ${n ? "to" : "from"}`, "data-facet": `${name}|${n}`,
    onchange: (event) => change(() => {
      const pair = [...(state.ranges[name] ?? [null, null])];
      const told = event.target.value;
      pair[n] = told === "" ? null : dates ? told : Number(told);
      if (pair[0] === null && pair[1] === null) delete state.ranges[name];
      else state.ranges[name] = pair;
    }),
  });
  return el("fieldset", {}, el("legend", {}, label(name)), el("div", { class: dates ? "range dates" : "range" }, field(0, low), el("span", {}, "to"), field(1, high)));
}

function toggle(state, name, value) {
  const chosen = state.chosen[name] ?? [];
  state.chosen[name] = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
  if (!state.chosen[name].length) delete state.chosen[name];
}
