// What the page says: how many were found, what went wrong, that there is nothing, that it takes a while.

import { Failed } from "./api.js";
import { $, el } from "./dom.js";
import { filters, isEmpty } from "./query.js";

export const say = (text) => { $("status").textContent = text; };

// `acts` are what can be done now: [text, function], while something is recorded.
export function notice(text, bad = false, acts = null) {
  $("notice").hidden = !text;
  $("notice").classList.toggle("error", bad);
  $("notice").classList.toggle("recording", Boolean(acts));
  const buttons = acts?.map(([told, act]) => el("button", { type: "button", class: "act", onclick: act }, told)) ?? [el("button", { type: "button", "aria-label": "Dismiss", onclick: () => notice("") }, "×")];
  $("notice").replaceChildren(...(text ? [el("span", {}, text), ...buttons] : []));
}

export function counted(state, total) {
  const one = state.view === "shop" ? "product" : "result";
  return `${total.toLocaleString()} ${total === 1 ? one : `${one}s`}`;
}

export function count(state, found) {
  say([counted(state, found.total), `${Math.max(1, Math.round(found.ms ?? 0))} ms`, ...(found.notices ?? [])].join(" · "));
}

export function nothing(state, clear) {
  const narrowed = filters(state) || state.kind;
  const told = narrowed ? "Nothing passes these filters." : isEmpty(state) ? "This collection is empty." : "Nothing matches.";
  const hint = narrowed ? null : isEmpty(state) ? el("p", {}, "Fill it: ", el("code", {}, "mmsearch index FOLDER")) : el("p", {}, "Try other words, or a picture.");
  return el("div", { class: "empty" }, el("h2", {}, told), hint, narrowed ? el("button", { type: "button", onclick: clear }, "Search without them") : null);
}

// A link holds words and items. Pictures and sounds stay in the browser that they were added to.
export function missing(state, lost) {
  const told = (some) => some.map((term) => term.name).join(", ");
  const [gone, files] = [lost.filter((term) => term.kind === "item"), lost.filter((term) => term.kind !== "item")];
  const rest = isEmpty(state) ? "This is everything, without" : "This is what is found without";
  const said = files.length ? [`A link cannot hold a picture or a sound. ${rest} ${told(files)}: add ${files.length > 1 ? "them" : "it"} here to search with ${files.length > 1 ? "them" : "it"}.`] : [];
  if (gone.length) said.push(`No longer there: ${told(gone)}.`);
  return said.join(" ");
}

export const noCollection = () => el("div", { class: "empty" }, el("h2", {}, "There is no collection yet."), el("p", {}, "Index something: ", el("code", {}, "mmsearch index FOLDER")));

// In the place of results, or below those that are there already.
export function failure(error, again, { below = false } = {}) {
  const told = error instanceof Failed ? error.message : `The page failed: ${error.message}`;
  const button = el("button", { type: "button", onclick: again }, "Try again");
  if (below) return el("div", { class: "empty", role: "alert" }, el("p", {}, told), button);
  return el("div", { class: "empty", role: "alert" }, el("h2", {}, "That did not work"), el("p", {}, told), error.id ? el("p", { class: "small" }, `Request ${error.id}`) : null, button);
}

export function skeletons(shop) {
  const lines = () => (shop ? [el("div", { class: "frame" }), el("div", { class: "line" }), el("div", { class: "line short" })] : []);
  return Array.from({ length: 12 }, () => el("div", { class: "tile skeleton", "aria-hidden": "true" }, ...lines()));
}
