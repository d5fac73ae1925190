// The categories of a shop above its products: those of one level, with a picture of each, and the way that led there.

import { call, collectionPath } from "./api.js";
import { $, el, icon, label, plain } from "./dom.js";
import { BELOW, trees, where } from "./query.js";

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

// Levels in one attribute, if most of its values are ways: "Home > Kitchen > Pans".
export function plant(names, found) {
  trees.clear();
  for (const name of names) {
    const values = (found?.[name]?.buckets ?? []).map((bucket) => String(bucket.value));
    if (values.filter((value) => value.includes(BELOW)).length > values.length / 2) trees.add(name);
  }
}

export function show(state, facets, names, change) {
  $("way").hidden = $("tabs").hidden = !names.length;
  if (!names.length) return;
  const { above, way, name, there, chosen, choose, plainly } = trees.has(names[0]) ? tree(state, facets, names[0], change) : levelled(state, facets, names, change);
  const crumb = (text, told, act) => el("button", { type: "button", class: "crumb", "data-facet": `way|${told}`, onclick: act }, text);
  const crumbs = way.length ? [crumb("Everything", "", way[0].up), ...way.map(({ text, to }) => crumb(text, text, to))] : [];
  const tab = (value, text) => el("button", {
    type: "button", class: "category", "aria-pressed": String(value === null ? !chosen.length : chosen.includes(value)), "data-facet": `${name}|${value}`, onclick: choose(value),
  }, el("span", { class: "face", "aria-hidden": "true", "data-initial": Array.from(text)[0] }, value === null ? icon("all") : null), el("span", {}, text));
  const tabs = new Map(there.map((value) => [value, tab(value, plainly(value))]));
  $("tabs").setAttribute("aria-label", label(name));
  $("way").hidden = !way.length;
  $("way").replaceChildren(...crumbs.flatMap((part, n) => (n ? [el("span", { "aria-hidden": "true" }, "›"), part] : [part])));
  const left = $("tabs").scrollLeft;
  $("tabs").replaceChildren(tab(null, way.length ? `All ${way.at(-1).text}` : "Everything"), ...tabs.values());
  $("tabs").scrollLeft = left;
  $("tabs").hidden = !there.length || (there.length < 2 && !way.length && !chosen.length);
  if (!$("tabs").hidden) faces(state, above, name, tabs);
}

// An attribute for each level.
function levelled(state, facets, names, change) {
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
  const way = names.slice(0, at).map((name, n) => ({ text: plain(one(name)), up: choose(n, null), to: choose(n + 1, null) }));
  const above = Object.fromEntries(names.slice(0, at).map((name) => [name, state.chosen[name]]));
  return { above, way, name: names[at], there: values(names[at]), chosen: state.chosen[names[at]] ?? [], choose: (value) => choose(at, value), plainly: plain };
}

// All levels in the values of one.
function tree(state, facets, name, change) {
  // What comes next on the ways that begin so, the most frequent first.
  const below = (path) => {
    const often = new Map();
    for (const { value, count } of facets?.[name]?.buckets ?? []) {
      if (path.length && !value?.startsWith(`${path.join(BELOW)}${BELOW}`)) continue;
      const next = value.split(BELOW).slice(0, path.length + 1).join(BELOW);
      often.set(next, (often.get(next) ?? 0) + count);
    }
    return [...often].sort((a, b) => b[1] - a[1]).slice(0, MOST).map(([value]) => value);
  };
  const choose = (value) => () => change(() => { if (value) state.chosen[name] = [value]; else delete state.chosen[name]; });
  const [only] = (state.chosen[name] ?? []).length === 1 ? state.chosen[name] : [""];
  const path = only ? only.split(BELOW) : [];
  const leaf = path.length > 0 && !below(path).length; // beside it are the others of its kind
  const open = leaf ? path.slice(0, -1) : path;
  const way = open.map((text, n) => ({ text, up: choose(""), to: choose(open.slice(0, n + 1).join(BELOW)) }));
  const above = open.length ? { [name]: [open.join(BELOW)] } : {};
  return { above, way, name, there: below(open), chosen: leaf ? [only] : [], choose: (value) => choose(value ?? open.join(BELOW)), plainly: (value) => value.split(BELOW).at(-1) };
}

// A picture on each: that of the first product there.
async function faces(state, chosen, name, tabs) {
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
    const path = found.get(value) ?? (trees.has(name) ? [...found].find(([one]) => String(one).startsWith(`${value}${BELOW}`))?.[1] : null);
    if (!path) continue;
    const picture = el("img", { src: `${path}?size=160`, alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.remove());
    tab.firstChild.replaceChildren(picture);
  }
}
