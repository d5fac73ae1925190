// What narrows or changes the search, said above the results: filters with a way out of each, and words that were read otherwise.

import { $, el, label, money, plain } from "./dom.js";

// `elsewhere` are attributes whose choices are shown by other means.
export function filters(state, currency, elsewhere, change) {
  const chip = (told, remove) => el("li", {}, el("button", { type: "button", title: "Remove this filter", onclick: () => change(remove) },
    el("span", {}, told), el("span", { "aria-hidden": "true" }, "×"), el("span", { class: "hidden" }, ": remove this filter")));
  const chosen = Object.entries(state.chosen).filter(([name]) => !elsewhere.includes(name)).flatMap(([name, values]) => values.map((value) => chip(typeof value === "boolean" ? `${label(name)}: ${plain(value)}` : plain(value), () => {
    state.chosen[name] = state.chosen[name].filter((one) => one !== value);
    if (!state.chosen[name].length) delete state.chosen[name];
  })));
  const ranges = Object.entries(state.ranges).map(([name, [low, high]]) => {
    const said = (value) => (name === "price" && currency ? money(value, currency) : plain(value));
    const told = name === "stock" && low === 1 && high === null ? "In stock"
      : `${label(name)} ${low === null ? `up to ${said(high)}` : high === null ? `from ${said(low)}` : `${said(low)} – ${said(high)}`}`;
    return chip(told, () => { delete state.ranges[name]; });
  });
  const all = [...chosen, ...ranges];
  if (all.length > 1) all.push(el("li", {}, el("button", { type: "button", class: "quiet", onclick: () => change(() => { state.chosen = {}; state.ranges = {}; }) }, "Clear all")));
  $("applied").replaceChildren(...all);
}

// `instead(text)` searches for these words, `exactly()` for what was typed and nothing like it, `loosely()` as before that.
export function corrections(state, found, { instead, exactly, loosely }) {
  const button = (text, act, told) => el("button", { type: "button", class: "link", title: told, onclick: act }, text);
  const told = (found.corrections ?? []).filter((one) => one.used?.length).flatMap(({ word, used }) => {
    const others = used.slice(0, 3).map((by) => button(by, () => instead(replaced(state.text, word, by)), `Search for ${replaced(state.text, word, by)}`));
    return [`“${word}” was read as `, ...others.flatMap((one, n) => (n ? [n === others.length - 1 ? " or " : ", ", one] : [one])), ". "];
  });
  if (told.length) told.push(button("Search for it as typed", exactly));
  else if (state.exact && state.text) told.push("Only words as they are typed were looked for. ", button("Allow for mistakes", loosely));
  $("said").replaceChildren(...told);
}

// Whole words, in whatever case they were typed.
const replaced = (text, word, by) => text.split(/([\p{L}\p{N}]+)/u).map((one) => (one.toLowerCase() === word.toLowerCase() ? by : one)).join("");
