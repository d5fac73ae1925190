// The page: from what is asked to what is shown.

import { ask, call, collectionPath, Failed, keepCookie } from "./api.js";
import * as chips from "./chips.js";
import * as detail from "./detail.js";
import { $, el, label } from "./dom.js";
import * as facets from "./facets.js";
import { takeKeys, takeFiles } from "./inputs.js";
import { keep, kept } from "./kept.js";
import { filters, fresh, fromAddress, isEmpty, request, toAddress } from "./query.js";
import * as suggestions from "./suggest.js";
import { pictureOf, tile, titleOf } from "./tiles.js";

const PAGE = 40;
const KINDS = [["", "All"], ["image", "Pictures"], ["text", "Texts"], ["audio", "Sounds"]];
let state = fresh();
let kinds = {}; // of attributes, by name
let parts = {}; // how many of each modality
let described = false; // whether both are those of the collection
let cursor = null;
let running = null;
let loading = false;
let hits = [];

// -- searching

async function search({ push = true, more = false } = {}) {
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
  let failure = null;
  try {
    const asked = request(state, { facets: more ? [] : facets.wanted(kinds), cursor, k: PAGE, grouped: "parent" in kinds });
    const found = await ask(`${collectionPath(state.collection)}/search`, asked, signal);
    if (signal.aborted) return;
    cursor = found.cursor;
    add(found, more);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    failure = error;
  } finally {
    if (!signal.aborted) {
      loading = false;
      $("results").removeAttribute("aria-busy");
    }
  }
  if (failure) failed(failure, more);
  else if (cursor && near()) search({ more: true });
}

function add(found, more) {
  const tiles = found.hits.map((hit) => tile(state, hit, { open: show, like, scored: !isEmpty(state) }));
  hits = more ? [...hits, ...found.hits] : found.hits;
  $("end").replaceChildren();
  if (more) return $("results").append(...tiles);
  $("results").replaceChildren(...(tiles.length ? tiles : [nothing()]));
  facets.show(state, found.facets, kinds, changed);
  if (state.view === "grid") modalities();
  const corrected = (found.corrections ?? []).map((one) => `“${one.word}” read as “${one.used.slice(0, 3).join("”, “")}”`).join(", ");
  const one = state.view === "shop" ? "product" : "result";
  say([`${found.total.toLocaleString()} ${found.total === 1 ? one : `${one}s`}`, `${Math.max(1, Math.round(found.ms ?? 0))} ms`, corrected, ...(found.notices ?? [])].filter(Boolean).join(" · "));
}

function nothing() {
  const told = filters(state) || state.kind ? "Nothing passes these filters." : isEmpty(state) ? "This collection is empty." : "Nothing matches.";
  const hint = filters(state) || state.kind ? null : isEmpty(state) ? el("p", {}, "Fill it: ", el("code", {}, "mmsearch index FOLDER")) : el("p", {}, "Try other words, or a picture.");
  const clear = filters(state) || state.kind ? el("button", { type: "button", onclick: () => changed(() => { state.chosen = {}; state.ranges = {}; state.kind = ""; }) }, "Search without them") : null;
  return el("div", { class: "empty" }, el("h2", {}, told), hint, clear);
}

function changed(change) {
  change();
  search();
}

// A step in the browser's history, unless nothing of the address is new.
function remember() {
  const address = toAddress(state);
  if (address !== location.search.slice(1)) history.pushState(null, "", address ? `?${address}` : location.pathname);
  const name = state.text || state.terms[0]?.name;
  document.title = name ? `${name} · mmsearch` : "mmsearch";
}

function failed(error, more = false) {
  const told = error instanceof Failed ? error.message : `The page failed: ${error.message}`;
  const id = error.id ? el("p", { class: "small" }, `Request ${error.id}`) : null;
  const again = el("button", { type: "button", onclick: () => (more ? search({ more }) : described ? search({ push: false }) : start()) }, "Try again");
  if (more) return $("end").replaceChildren(el("div", { class: "empty", role: "alert" }, el("p", {}, told), again));
  hits = [];
  say("");
  $("results").replaceChildren(el("div", { class: "empty", role: "alert" }, el("h2", {}, "That did not work"), el("p", {}, told), id, again));
}

const say = (text) => { $("status").textContent = text; };

function notice(text, bad = false) {
  $("notice").hidden = !text;
  $("notice").classList.toggle("error", bad);
  $("notice").replaceChildren(...(text ? [el("span", {}, text), el("button", { type: "button", "aria-label": "Dismiss", onclick: () => notice("") }, "×")] : []));
}

// -- terms

function addTerm(term) {
  state.item = null;
  state.terms.push(term);
  search();
}

function addFiles(files) {
  const terms = [];
  for (const file of files) {
    const kind = file.type.startsWith("image/") || /\.(heic|avif)$/i.test(file.name) ? "image" : file.type.startsWith("audio/") || /\.(flac|opus|wav|mp3|ogg|m4a)$/i.test(file.name) ? "audio" : null;
    if (kind) terms.push({ kind, value: keep(file), name: file.name || kind, weight: 1, file, url: kind === "image" ? URL.createObjectURL(file) : null });
  }
  if (!terms.length) return notice("Only pictures and sounds can be searched with.", true);
  state.terms.push(...terms.slice(0, 8));
  search();
  if (terms.length > 8) notice("The first eight are searched with.");
}

const itemTerm = (hit, weight) => ({ kind: "item", value: hit.item.id, name: titleOf(hit.item), weight, url: pictureOf(hit) ? `${pictureOf(hit)}?size=160` : null });
const like = (hit) => {
  state = { ...state, text: "", terms: [itemTerm(hit, 1)], sort: "", item: null };
  $("q").value = "";
  search();
  scrollTo({ top: 0 });
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
    lost.push(term.name);
    return null;
  }));
  state.terms = found.filter(Boolean);
  return lost;
}

// -- one item

const actions = {
  like, open: show,
  add: (hit, weight) => addTerm(itemTerm(hit, weight)),
  beside: (hit, by) => { const at = hits.findIndex((one) => one.item.id === hit.item.id); return at < 0 ? undefined : hits[at + by]; },
  // One step back if the dialog was one step forward, so that the browser's own way back does not open it again.
  closed: () => {
    if (state.item === null) return;
    state.item = null;
    if (history.state?.opened) history.back();
    else remember();
  },
  explain: async (hit) => {
    const asked = request({ ...state, explain: true }, { k: Math.min(2000, Math.max(PAGE, hits.length)), grouped: "parent" in kinds });
    const found = await ask(`${collectionPath(state.collection)}/search`, asked).catch(() => ({ hits: [] }));
    return found.hits.find((one) => one.item.id === hit.item.id) ?? hit;
  },
};

function show(hit, push = true) {
  const opened = $("detail").open;
  state.item = hit.item.id;
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
  chips.show(state.terms, changed);
  $("collection").value = state.collection;
  $("as-grid").setAttribute("aria-pressed", String(state.view === "grid"));
  $("as-shop").setAttribute("aria-pressed", String(state.view === "shop"));
  $("why").setAttribute("aria-pressed", String(state.explain));
  $("why").hidden = isEmpty(state);
  $("sort").value = state.sort;
  if (!hits.length) $("results").replaceChildren(...Array.from({ length: 12 }, () => el("div", { class: "tile skeleton", "aria-hidden": "true" })));
}

function modalities() {
  const there = KINDS.filter(([kind]) => !kind || parts[kind]);
  $("tabs").hidden = there.length < 3;
  $("tabs").setAttribute("aria-label", "Kinds of results");
  const focused = document.activeElement?.dataset?.kind;
  $("tabs").replaceChildren(...there.map(([kind, text]) => el("button", { type: "button", "data-kind": kind || "all", "aria-pressed": String(state.kind === kind), onclick: () => changed(() => { state.kind = kind; }) }, text)));
  if (focused) document.querySelector(`[data-kind="${focused}"]`)?.focus();
}

async function describe() {
  described = false;
  const told = await call(collectionPath(state.collection));
  kinds = told.attributes;
  parts = told.parts;
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

// -- what people do

function submit() {
  const chosen = suggestions.selected();
  suggestions.hide();
  const text = chosen ?? $("q").value.trim();
  // "+ red" and "- plastic" add weighted terms to what is asked already.
  if (/^[+-]\s*\S/.test(text) && (state.text || state.terms.length)) {
    const value = text.slice(1).trim();
    $("q").value = state.text;
    return addTerm({ kind: "text", value, name: value, weight: text[0] === "-" ? -0.5 : 1 });
  }
  $("q").value = state.text = text;
  search();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("q").addEventListener("search", () => { if (!$("q").value && state.text) submit(); }); // the box's own × was pressed
$("q").addEventListener("keydown", (event) => { if (event.key === "Backspace" && !$("q").value && state.terms.length) changed(() => state.terms.pop()); });
suggestions.start(() => state.collection, (text) => { $("q").value = text; submit(); });
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  $("q").value = "";
  changed(() => { state = { ...fresh(), collection: state.collection, view: state.view }; });
});
$("collection").addEventListener("change", async () => {
  $("q").value = "";
  state = { ...fresh(), collection: $("collection").value, view: state.view };
  hits = [];
  await describe().then(() => search(), failed);
});
$("sort").addEventListener("change", () => changed(() => { state.sort = $("sort").value; }));
for (const view of ["grid", "shop"]) $(`as-${view}`).addEventListener("click", () => changed(() => { state.view = view; hits = []; }));
$("why").addEventListener("click", () => changed(() => { state.explain = !state.explain; }));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("results").focus(); });
$("help").addEventListener("click", () => $("helped").showModal());
$("filters").addEventListener("click", () => {
  const opened = $("facets").classList.toggle("open");
  $("filters").setAttribute("aria-expanded", String(opened));
  if (opened) $("facets").querySelector("input, button")?.focus();
});
takeFiles({ add: addFiles, notice, spoken });
takeKeys({ why: () => { if (!isEmpty(state)) changed(() => { state.explain = !state.explain; }); } });

async function spoken(file) {
  notice("Listening to what you said …");
  const form = new FormData();
  form.set("file", file, "speech.wav");
  try {
    const { text } = await call("v1/transcribe", { method: "POST", form });
    if (!text) return notice("No words were heard. Speak closer, in English.", true);
    $("q").value = text;
    submit();
  } catch (error) {
    notice(error.message, true);
  }
}

// -- more, back and forth, start

const near = () => $("end").getBoundingClientRect().top < innerHeight + 900;
new IntersectionObserver(() => { if (cursor && !loading && near() && !$("end").firstChild) search({ more: true }); }, { rootMargin: "900px" }).observe($("end"));
addEventListener("popstate", async () => {
  const old = state;
  state = fromAddress(location.search);
  state.collection ||= old.collection;
  const bare = (one) => toAddress({ ...one, item: null });
  if (bare(state) === bare(old)) {
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
  const lost = await named();
  await search({ push: false });
  if (lost.length) notice(`This link does not hold ${lost.join(", ")}: add it again to search with it.`, true);
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
      $("results").replaceChildren(el("div", { class: "empty" }, el("h2", {}, "There is no collection yet."), el("p", {}, "Index something: ", el("code", {}, "mmsearch index FOLDER"))));
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
