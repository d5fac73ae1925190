// The categories of a shop above its products: those of one level, with a picture of each, and the way that led there.

import { call, collectionPath } from "./api.js";
import { $, el, icon, label, plain } from "./dom.js";
import { where } from "./query.js";

// From wide to narrow, as feeds name them.
const CHAINS = [["masterCategory", "subCategory", "articleType"], ["department", "category", "categories", "subcategory", "sub_category", "product_type"]];
const MOST = 24;
const pictures = new Map(); // of the values of a level, by what is asked for

// The levels that a collection has.
export function levels(kinds) {
  const has = (name) => kinds[name] === "text";
  return (CHAINS.find((chain) => chain.some(has)) ?? []).filter(has);
}

// Those whose choice is told by the way: a narrow one may be chosen with nothing chosen above.
export function told(state, names) {
  const open = names.findIndex((name) => (state.chosen[name] ?? []).length !== 1);
  return open < 0 ? names : names.slice(0, open + 1);
}

export function show(state, facets, names, change) {
  $("way").hidden = $("tabs").hidden = !names.length;
  if (!names.length) return;
  const choose = (at, value) => () => change(() => {
    for (const name of names.slice(at)) delete state.chosen[name]; // what is below goes with it
    if (value !== null) state.chosen[names[at]] = [value];
  });
  const values = (name) => {
    const there = (facets?.[name]?.buckets ?? []).map((bucket) => bucket.value);
    return [...there.slice(0, MOST), ...(state.chosen[name] ?? []).filter((value) => !there.slice(0, MOST).includes(value))];
  };
  const one = (name) => ((state.chosen[name] ?? []).length === 1 ? state.chosen[name][0] : null);
  let at = 0; // the level that is shown: the first without a choice, or the last
  while (at < names.length - 1 && one(names[at]) !== null && values(names[at + 1]).length) at += 1;
  const crumb = (text, told, act) => el("button", { type: "button", class: "crumb", "data-facet": `way|${told}`, onclick: act }, text);
  const way = at ? [crumb("Everything", "", choose(0, null)), ...names.slice(0, at).map((name, n) => crumb(plain(one(name)), `${name}|${one(name)}`, choose(n + 1, null)))] : [];
  const name = names[at];
  const chosen = state.chosen[name] ?? [];
  const tab = (value, text) => el("button", {
    type: "button", class: "category", "aria-pressed": String(value === null ? !chosen.length : chosen.includes(value)), "data-facet": `${name}|${value}`, onclick: choose(at, value),
  }, el("span", { class: "face", "aria-hidden": "true", "data-initial": Array.from(text)[0] }, value === null ? icon("all") : null), el("span", {}, text));
  const there = values(name);
  const tabs = new Map(there.map((value) => [value, tab(value, plain(value))]));
  $("tabs").setAttribute("aria-label", label(name));
  $("way").hidden = !way.length;
  $("way").replaceChildren(...way.flatMap((part, n) => (n ? [el("span", { "aria-hidden": "true" }, "›"), part] : [part])));
  const left = $("tabs").scrollLeft;
  $("tabs").replaceChildren(tab(null, at ? `All ${plain(one(names[at - 1]))}` : "Everything"), ...tabs.values());
  $("tabs").scrollLeft = left;
  $("tabs").hidden = !there.length || (there.length < 2 && !way.length && !chosen.length);
  if (!$("tabs").hidden) faces(state, names.slice(0, at), name, tabs);
}

// A picture on each: that of the first product there.
async function faces(state, above, name, tabs) {
  const chosen = Object.fromEntries(above.map((one) => [one, state.chosen[one]]));
  const body = { k: MOST, group_by: name, where: where({ chosen, ranges: {} }), highlight: true, fields: [name] };
  const path = `${collectionPath(state.collection)}/search`;
  const key = JSON.stringify([path, body]);
  if (!pictures.has(key)) {
    pictures.set(key, call(path, { method: "POST", body }).then((found) => new Map(found.hits.map((hit) => [hit.group?.value, hit.part?.thumbnail ?? hit.item.thumbnail])), () => {
      pictures.delete(key); // without pictures the names do; the next time may do better
      return new Map();
    }));
  }
  const found = await pictures.get(key);
  for (const [value, tab] of tabs) {
    const path = found.get(value);
    if (!path) continue;
    const picture = el("img", { src: `${path}?size=160`, alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.remove());
    tab.firstChild.replaceChildren(picture);
  }
}
