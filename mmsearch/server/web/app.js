// The page: from what is asked to what is shown.

import { ask, call, collectionPath, keepCookie } from "./api.js";
import * as applied from "./applied.js";
import * as categories from "./categories.js";
import * as chips from "./chips.js";
import * as detail from "./detail.js";
import { $, currencyOf, el, label } from "./dom.js";
import * as facets from "./facets.js";
import { takeKeys, takeFiles } from "./inputs.js";
import { keep, kept } from "./kept.js";
import { count, failure, missing, noCollection, nothing, notice, say, skeletons } from "./messages.js";
import * as places from "./places.js";
import { fresh, fromAddress, isEmpty, request, toAddress } from "./query.js";
import * as suggestions from "./suggest.js";
import { pictureOf, tile, titleOf } from "./tiles.js";

const PAGE = 40;
const MOST = 240; // results at once
const KINDS = [["", "All"], ["image", "Pictures"], ["text", "Texts"], ["audio", "Sounds"]];
let state = fresh();
// Of the collection: kinds of its attributes, how many parts of each modality, least, greatest and how many of its numbers,
// its categories from wide to narrow, the currency of its prices.
const bare = () => ({ kinds: {}, parts: {}, ends: {}, levels: [], currency: null });
let shop = bare();
let described = false; // whether that is so
let cursor = null;
let running = null;
let loading = false;
let hits = [];

// -- searching

// `least` is how many results are wanted at once: where one comes back to, as many as there were.
async function search({ push = true, more = false, least = 0 } = {}) {
  if (!state.collection) return;
  if (!more) {
    running?.abort();
    running = new AbortController();
    cursor = null;
    if (push) remember();
    draw();
    notice("");
    say("Searching …");
    $("results").setAttribute("aria-busy", "true");
    $("end").replaceChildren();
  }
  const { signal } = running;
  loading = true;
  let error = null;
  try {
    const k = more ? PAGE : Math.min(MOST, Math.max(PAGE, least));
    const asked = request(state, { facets: more ? [] : facets.wanted(shop.kinds, shop.ends, shop.levels), cursor, k, grouped: "parent" in shop.kinds });
    const found = await ask(`${collectionPath(state.collection)}/search`, asked, signal);
    if (signal.aborted) return;
    cursor = found.cursor;
    add(found, more);
    if (push && !more && scrollY > $("results").offsetTop) scrollTo({ top: 0, behavior: "instant" });
  } catch (failed) {
    if (failed.name === "AbortError" || signal.aborted) return;
    error = failed;
  } finally {
    if (!signal.aborted) {
      loading = false;
      $("results").removeAttribute("aria-busy");
    }
  }
  if (error) failed(error, more);
  else if (cursor && near()) search({ more: true });
}

function add(found, more) {
  const tiles = found.hits.map((hit) => tile(state, hit, { open: show, like, scored: !isEmpty(state) }));
  hits = more ? [...hits, ...found.hits] : found.hits;
  $("end").replaceChildren();
  if (more) return $("results").append(...tiles);
  shop.currency ??= currencyOf(found.hits[0]?.item.attributes ?? {}) ?? null;
  $("results").replaceChildren(...(tiles.length ? tiles : [nothing(state, () => changed(() => { state.chosen = {}; state.ranges = {}; state.kind = ""; }))]));
  facets.show(state, found, shop, changed);
  applied.filters(state, shop.currency, state.view === "shop" ? categories.told(state, shop.levels) : [], changed);
  applied.corrections(state, found, {
    instead: (text) => { $("q").value = text; changed(() => { state.text = text; }); },
    exactly: () => changed(() => { state.exact = true; }),
    loosely: () => changed(() => { state.exact = false; }),
  });
  if (state.view === "shop") categories.show(state, found.facets, shop.levels, changed);
  else modalities();
  count(state, found);
}

function changed(change) {
  change();
  search();
}

// A step in the browser's history, unless nothing of the address is new.
function remember() {
  const address = toAddress(state);
  places.note(hits.length);
  if (address !== location.search.slice(1)) history.pushState(null, "", address ? `?${address}` : location.pathname);
  const name = state.text || state.terms[0]?.name;
  document.title = name ? `${name} · mmsearch` : "mmsearch";
}

function failed(error, more = false) {
  const again = () => (more ? search({ more }) : described ? search({ push: false }) : start());
  if (more) return $("end").replaceChildren(failure(error, again, { below: true }));
  hits = [];
  say("");
  $("said").replaceChildren();
  $("results").replaceChildren(failure(error, again));
}

// -- terms

function addTerm(term) {
  state.item = null;
  state.terms.push(term);
  search();
}

// A picture or a sound, or null for another file.
function fileTerm(file, weight = 1) {
  const kind = file.type.startsWith("image/") || /\.(heic|avif)$/i.test(file.name) ? "image" : file.type.startsWith("audio/") || /\.(flac|opus|wav|mp3|ogg|m4a)$/i.test(file.name) ? "audio" : null;
  return kind && { kind, value: keep(file), name: file.name || kind, weight, file, url: kind === "image" ? URL.createObjectURL(file) : null };
}

function addFiles(files) {
  const terms = [...files].map((file) => fileTerm(file)).filter(Boolean);
  if (!terms.length) return notice("Only pictures and sounds can be searched with.", true);
  state.terms.push(...terms.slice(0, 8));
  state.item = null;
  search();
  if (terms.length > 8) notice("The first eight are searched with.");
}

const itemTerm = (hit, weight) => ({ kind: "item", value: hit.item.id, name: titleOf(hit.item), weight, url: pictureOf(hit) ? `${pictureOf(hit)}?size=160` : null });
const like = (hit) => {
  state = { ...state, text: "", terms: [itemTerm(hit, 1)], sort: "", item: null };
  $("q").value = "";
  search();
  $("results").focus({ preventScroll: true });
};

// What an address says of items and files is a number: their names and pictures. Those that are gone are left out, and told.
async function named() {
  const lost = [];
  const found = await Promise.all(state.terms.map(async (term) => {
    if (term.kind === "text") return term;
    if (term.kind === "item") {
      const item = await call(`${collectionPath(state.collection)}/items/${term.value}`).catch((error) => { if (error.status !== 404) throw error; });
      if (item) return itemTerm({ item, part: item.parts.find((part) => part.thumbnail) }, term.weight);
    } else {
      const file = await kept(term.value);
      if (file) return { ...term, file, url: term.kind === "image" ? URL.createObjectURL(file) : null };
    }
    lost.push(term);
    return null;
  }));
  state.terms = found.filter(Boolean);
  return lost;
}

// -- one item

const actions = {
  like, open: show,
  add: (hit, weight) => addTerm(itemTerm(hit, weight)),
  part: (file) => {
    state = { ...state, text: "", terms: [fileTerm(file)], sort: "", item: null };
    $("q").value = "";
    search();
  },
  alike: async (hit) => {
    const { body } = request({ ...fresh(), view: state.view, terms: [itemTerm(hit, 1)] }, { k: 8, grouped: "parent" in shop.kinds });
    if (state.view === "grid") body.modality = hit.item.modality; // what sounds alike, and not pictures of what may sound so
    const found = await call(`${collectionPath(state.collection)}/search`, { method: "POST", body }).catch(() => ({ hits: [] }));
    return found.hits.filter((one) => one.item.id !== hit.item.id && (pictureOf(one) || hit.item.modality !== "image"));
  },
  beside: (hit, by) => { const at = hits.findIndex((one) => one.item.id === hit.item.id); return at < 0 ? undefined : hits[at + by]; },
  // One step back if the dialog was one step forward, so that the browser's own way back does not open it again.
  closed: () => {
    if (state.item === null) return;
    state.item = null;
    if (history.state?.opened) history.back();
    else remember();
  },
  explain: async (hit) => {
    const asked = request({ ...state, explain: true }, { k: Math.min(330, Math.max(PAGE, hits.length)), grouped: "parent" in shop.kinds });
    const found = await ask(`${collectionPath(state.collection)}/search`, asked).catch(() => ({ hits: [] }));
    return found.hits.find((one) => one.item.id === hit.item.id) ?? hit;
  },
};

function show(hit, push = true) {
  const opened = $("detail").open;
  state.item = hit.item.id;
  if (push) places.note(hits.length);
  if (push && opened) history.replaceState(history.state, "", `?${toAddress(state)}`);
  else if (push) history.pushState({ opened: true }, "", `?${toAddress(state)}`);
  detail.open(state, hit, !isEmpty(state), actions);
}

// The dialog as the address has it.
async function showAddressed() {
  if (state.item === null) return $("detail").open && detail.close();
  const hit = hits.find((one) => one.item.id === state.item);
  if (hit) return show(hit, false);
  try {
    const item = await call(`${collectionPath(state.collection)}/items/${state.item}`);
    show({ item, part: item.parts[0] }, false);
  } catch (error) {
    notice(error.message, true);
  }
}

// -- what is around the results

function draw() {
  document.body.classList.toggle("shop", state.view === "shop");
  document.body.dataset.kind = state.view === "grid" ? state.kind : "";
  if (document.activeElement !== $("q") || !$("q").value) $("q").value = state.text;
  $("q").placeholder = state.view === "shop" ? "Search the shop" : matchMedia("(max-width: 760px)").matches ? "Search" : "Words, a picture or a sound";
  chips.show(state.terms, changed, (n, file) => changed(() => { state.terms[n] = fileTerm(file, state.terms[n].weight); }));
  $("collection").value = state.collection;
  $("as-grid").setAttribute("aria-pressed", String(state.view === "grid"));
  $("as-shop").setAttribute("aria-pressed", String(state.view === "shop"));
  $("why").setAttribute("aria-pressed", String(state.explain));
  $("why").hidden = isEmpty(state);
  $("sort").value = state.sort;
  if (!hits.length) $("results").replaceChildren(...skeletons(state.view === "shop"));
}

function modalities() {
  const there = KINDS.filter(([kind]) => !kind || shop.parts[kind]);
  $("way").hidden = true;
  $("tabs").hidden = there.length < 3;
  $("tabs").setAttribute("aria-label", "Kinds of results");
  const focused = document.activeElement?.dataset?.kind;
  $("tabs").replaceChildren(...there.map(([kind, text]) => el("button", { type: "button", "data-kind": kind || "all", "aria-pressed": String(state.kind === kind), onclick: () => changed(() => { state.kind = kind; }) }, text)));
  if (focused) document.querySelector(`[data-kind="${focused}"]`)?.focus();
}

async function describe() {
  described = false;
  const { attributes: kinds, parts } = await call(collectionPath(state.collection));
  shop = { ...bare(), kinds, parts, levels: categories.levels(kinds) };
  const asked = [...facets.numbers(kinds).map((attribute) => ({ attribute, k: 1 })), ...shop.levels.map((attribute) => ({ attribute, k: 20 }))];
  if (asked.length) {
    const found = await call(`${collectionPath(state.collection)}/search`, { method: "POST", body: { k: 1, facets: asked } });
    categories.plant(shop.levels, found.facets);
    for (const [name, { least, greatest, distinct }] of Object.entries(found.facets ?? {})) if (typeof least === "number") shop.ends[name] = [least, greatest, distinct];
  }
  settle();
  described = true;
  const options = [["", "Best match"]];
  for (const name of Object.keys(kinds)) {
    if (kinds[name] === "number" && /price|rating|year|popularity|duration/i.test(name)) options.push([`${name}|up`, `${label(name)}, low first`], [`${name}|down`, `${label(name)}, high first`]);
    if (kinds[name] === "datetime") options.push([`${name}|down`, `${label(name)}, newest first`]);
  }
  options.push(["added|down", "Added last"], ["title|up", "Title"]);
  if (!options.some(([value]) => value === state.sort)) state.sort = "";
  $("sort").replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
}

// Products are looked at as a shop unless the address says otherwise.
function settle() {
  state.usual = shop.parts.fused ? "shop" : "grid";
  state.view ||= state.usual;
}

// -- what people do

function submit() {
  const chosen = suggestions.selected();
  suggestions.hide();
  if (chosen) return complete(chosen);
  const text = $("q").value.trim();
  // "+ red" and "- plastic" add weighted terms to what is asked already.
  if (/^[+-]\s*\S/.test(text) && (state.text || state.terms.length)) {
    const value = text.slice(1).trim();
    $("q").value = state.text;
    return addTerm({ kind: "text", value, name: value, weight: text[0] === "-" ? -0.5 : 1 });
  }
  if (text !== state.text) state.exact = false;
  $("q").value = state.text = text;
  if (matchMedia("(pointer: coarse)").matches) $("q").blur(); // the keyboard would cover what was found
  search();
}

// A completion is searched for; one that narrows is a filter beside the words before it.
function complete({ source, text, attribute, value, words }) {
  $("q").value = source === "value" ? words : text;
  if (source === "value") {
    for (const name of shop.levels.includes(attribute) ? shop.levels : [attribute]) delete state.chosen[name];
    state.chosen[attribute] = [value];
  }
  submit();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("q").addEventListener("search", () => { if (!$("q").value && state.text) submit(); }); // the box's own × was pressed
$("q").addEventListener("keydown", (event) => { if (event.key === "Backspace" && !$("q").value && state.terms.length) changed(() => state.terms.pop()); });
suggestions.start(() => state.collection, (one) => { suggestions.hide(); complete(one); });
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  $("q").value = "";
  changed(() => { state = { ...fresh(), collection: state.collection, view: state.view, usual: state.usual }; });
});
$("collection").addEventListener("change", async () => {
  $("q").value = "";
  state = { ...fresh(), collection: $("collection").value };
  hits = [];
  await describe().then(() => search(), failed);
});
$("sort").addEventListener("change", () => changed(() => { state.sort = $("sort").value; }));
for (const view of ["grid", "shop"]) $(`as-${view}`).addEventListener("click", () => changed(() => { state.view = view; hits = []; }));
$("why").addEventListener("click", () => changed(() => { state.explain = !state.explain; }));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("results").focus(); });
$("help").addEventListener("click", () => $("helped").showModal());
$("filters").addEventListener("click", () => facets.sheet(true));
takeFiles({ add: addFiles, notice, spoken });
takeKeys({ why: () => { if (!isEmpty(state)) changed(() => { state.explain = !state.explain; }); } });

async function spoken(file) {
  notice("Listening to what you said …");
  const form = new FormData();
  form.set("file", file, "speech.wav");
  try {
    const { text } = await call("v1/transcribe", { method: "POST", form });
    $("q").value = text;
    submit();
  } catch (error) {
    notice(error.status === 501 ? `This server does not understand speech yet: ${error.message}` : [415, 422].includes(error.status) ? `No words were heard: ${error.message.replace(/^sound: /, "what was recorded ")}. Speak closer to the microphone, in English.` : error.message, true);
  }
}

// -- more, back and forth, start

const near = () => $("end").getBoundingClientRect().top < innerHeight + 900;
new IntersectionObserver(() => { if (cursor && !loading && near() && !$("end").firstChild) search({ more: true }); }, { rootMargin: "900px" }).observe($("end"));
new ResizeObserver(() => document.documentElement.style.setProperty("--head", `${document.querySelector("header").offsetHeight}px`)).observe(document.querySelector("header"));
places.start(() => hits.length);
addEventListener("popstate", async () => {
  const old = state;
  state = fromAddress(location.search);
  state.collection ||= old.collection;
  if (state.collection === old.collection) settle();
  const without = (one) => toAddress({ ...one, item: null });
  if (without(state) === without(old)) {
    state = { ...old, item: state.item };
    return showAddressed();
  }
  $("q").value = state.text;
  try {
    if (state.collection !== old.collection) await describe();
    await found();
  } catch (error) {
    failed(error);
  }
});

// The state of an address, with its files, results and dialog.
async function found() {
  const step = history.state;
  const lost = await named();
  await search({ push: false, least: step?.count });
  places.restore(step);
  if (lost.length) notice(missing(state, lost), true);
  await showAddressed();
}

async function start() {
  keepCookie();
  state = fromAddress(location.search);
  $("q").value = state.text;
  draw();
  try {
    const { collections } = await call("v1/collections");
    if (!collections.length) {
      $("results").replaceChildren(noCollection());
      return;
    }
    $("collection").replaceChildren(...collections.map(({ name, items }) => el("option", { value: name }, `${name} (${items.toLocaleString()})`)));
    $("collection").hidden = collections.length < 2;
    const names = collections.map(({ name }) => name);
    if (!names.includes(state.collection)) state.collection = names.includes("default") ? "default" : names[0];
    await describe();
    await found();
  } catch (error) {
    failed(error);
  }
}

start();
