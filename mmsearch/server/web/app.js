// The page: from what is asked to what is shown.

import { call, collectionPath, Failed, keepCookie } from "./api.js";
import { open } from "./detail.js";
import { $, el } from "./dom.js";
import * as facets from "./facets.js";
import { fresh, fromAddress, isEmpty, request, toAddress } from "./query.js";
import { record } from "./recorder.js";
import { tile } from "./tiles.js";

const PAGE = 40;
let state = fresh();
let kinds = {};
let cursor = null;
let running = null;
let loading = false;
let shown = 0;

// -- searching

async function search({ push = true, more = false } = {}) {
  if (!state.collection) return;
  if (!more) {
    running?.abort();
    running = new AbortController();
    cursor = null;
    if (push) remember();
    draw();
  }
  const { signal } = running;
  loading = true;
  if (!more) status("Searching …");
  try {
    const { body, files } = request(state, more ? [] : facets.wanted(kinds), cursor, PAGE);
    const path = `${collectionPath(state.collection)}/search`;
    let found;
    if (files.length) {
      const form = new FormData();
      form.set("query", JSON.stringify(body));
      for (const [name, file] of files) form.append("files", file, name);
      found = await call(`${path}/files`, { method: "POST", form, signal });
    } else found = await call(path, { method: "POST", body, signal });
    if (signal.aborted) return;
    cursor = found.cursor;
    add(found, more);
    if (!more) facets.show(state, found.facets, changed);
  } catch (error) {
    if (error.name === "AbortError") return;
    cursor = null;
    if (!more) $("results").replaceChildren();
    failed(error);
  } finally {
    if (!signal.aborted) loading = false;
  }
  if (cursor && near()) search({ more: true });
}

function add(found, more) {
  const tiles = found.hits.map((hit) => tile(state, hit, { open: show, like }));
  if (more) $("results").append(...tiles);
  else $("results").replaceChildren(...tiles);
  shown = more ? shown + tiles.length : tiles.length;
  if (!shown) {
    const filtered = Object.keys(state.chosen).length || Object.keys(state.ranges).length;
    $("results").replaceChildren(el("p", { class: "empty" }, filtered ? "Nothing passes these filters. Take one away." : isEmpty(state) ? "This collection is empty. Index something: mmsearch index FOLDER" : "Nothing matches. Try other words, or a picture."));
  }
  const corrected = (found.corrections ?? []).map((one) => `“${one.word}” as “${one.used.join("”, “")}”`).join(", ");
  const told = [`${found.total.toLocaleString()} ${found.total === 1 ? "result" : "results"}`, `${found.ms ?? 0} ms`];
  if (corrected) told.push(`understood ${corrected}`);
  if (!more) status([...told, ...(found.notices ?? [])].join(" · "));
}

function changed(change) {
  change();
  search();
}

function remember() {
  const address = toAddress(state);
  if (address !== location.search.slice(1)) history.pushState(null, "", address ? `?${address}` : location.pathname);
  document.title = state.text || state.terms[0]?.name ? `${state.text || state.terms[0].name} · mmsearch` : "mmsearch";
}

function failed(error) {
  const told = error instanceof Failed ? error.message : `The page failed: ${error.message}`;
  status(told + (error.id ? ` (request ${error.id})` : ""), true);
  $("status").append(el("button", { type: "button", onclick: () => search() }, "Try again"));
}

function status(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", bad);
}

// -- terms

function addTerm(term) {
  state.terms.push(term);
  search();
  $("q").focus();
}

function addFiles(files) {
  let taken = 0;
  for (const file of files) {
    const kind = file.type.startsWith("image/") ? "image" : file.type.startsWith("audio/") || /\.(flac|opus|wav|mp3|ogg)$/i.test(file.name) ? "audio" : null;
    if (!kind) continue;
    taken += 1;
    state.terms.push({ kind, value: file.name, name: file.name, weight: 1, file, url: kind === "image" ? URL.createObjectURL(file) : null });
  }
  if (taken) search();
  else status("Only pictures and sounds can be searched with.", true);
}

const like = (hit) => {
  state.text = "";
  state.terms = [itemTerm(hit, 1)];
  search();
  scrollTo({ top: 0 });
};
const itemTerm = (hit, weight) => ({ kind: "item", value: hit.item.id, name: hit.item.title || hit.item.key, weight, url: hit.part.thumbnail ? `${hit.part.thumbnail}?size=160` : null });
const show = (hit) => open(state, hit, { like, add: (one, weight) => addTerm(itemTerm(one, weight)), explain });

async function explain(hit) {
  const { body, files } = request({ ...state, explain: true }, [], null, Math.min(2000, Math.max(PAGE, shown)));
  if (files.length) return hit;
  const found = await call(`${collectionPath(state.collection)}/search`, { method: "POST", body }).catch(() => ({ hits: [] }));
  return found.hits.find((one) => one.item.id === hit.item.id) ?? hit;
}

function chip(term, n) {
  const weigh = (step) => () => {
    term.weight = Math.round((term.weight + step) * 4) / 4 || step;
    changed(() => {});
  };
  const sign = term.weight < 0 ? "minus" : "plus";
  return el("li", { class: sign },
    el("button", { type: "button", "aria-label": `Turn ${term.name} into ${sign === "minus" ? "plus" : "minus"}`, onclick: () => changed(() => { term.weight = -term.weight; }) }, sign === "minus" ? "−" : "+"),
    term.url ? el("img", { src: term.url, alt: "" }) : null,
    el("span", { class: "name" }, term.name),
    el("button", { type: "button", "aria-label": `Less weight for ${term.name}`, onclick: weigh(-0.25) }, "‹"),
    el("output", {}, String(Math.abs(term.weight))),
    el("button", { type: "button", "aria-label": `More weight for ${term.name}`, onclick: weigh(0.25) }, "›"),
    el("button", { type: "button", "aria-label": `Remove ${term.name}`, onclick: () => changed(() => state.terms.splice(n, 1)) }, "×"));
}

function draw() {
  document.body.classList.toggle("shop", state.view === "shop");
  if (document.activeElement !== $("q")) $("q").value = state.text;
  $("chips").replaceChildren(...state.terms.map(chip));
  $("collection").value = state.collection;
  $("view").value = state.view;
  $("sort").value = state.sort;
  if (!shown) $("results").replaceChildren(...Array.from({ length: 8 }, () => el("div", { class: "tile skeleton", "aria-hidden": "true" })));
}

// -- recording

function recorder(button, use) {
  let stop = null;
  button.addEventListener("click", async () => {
    if (stop) return stop();
    try {
      button.setAttribute("aria-pressed", "true");
      status("Recording: press again to stop");
      stop = await record((file) => {
        stop = null;
        button.setAttribute("aria-pressed", "false");
        use(file);
      });
    } catch (error) {
      button.setAttribute("aria-pressed", "false");
      status(error.name === "NotAllowedError" ? "The browser was not allowed to use the microphone." : error.message, true);
    }
  });
}

async function spoken(file) {
  status("Listening to what you said …");
  const form = new FormData();
  form.set("file", file, "speech.wav");
  try {
    const { text } = await call("v1/transcribe", { method: "POST", form });
    if (!text) return status("No words were heard. Speak closer, in English.", true);
    state.text = text;
    $("q").value = text;
    search();
  } catch (error) {
    failed(error);
  }
}

// -- suggestions

let suggesting = null;
async function suggest() {
  const text = $("q").value.trim();
  suggesting?.abort();
  if (text.length < 2) return hideSuggestions();
  suggesting = new AbortController();
  try {
    const path = `${collectionPath(state.collection)}/suggest?k=7&text=${encodeURIComponent(text.slice(0, 200))}`;
    const { suggestions } = await call(path, { signal: suggesting.signal });
    if (document.activeElement !== $("q") || !suggestions.length) return hideSuggestions();
    $("suggestions").replaceChildren(...suggestions.map((one, n) => el("li", { role: "option", id: `suggestion${n}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); choose(one.text); } }, one.text)));
    $("suggestions").hidden = false;
    $("q").setAttribute("aria-expanded", "true");
  } catch { hideSuggestions(); }
}

function hideSuggestions() {
  $("suggestions").hidden = true;
  $("q").setAttribute("aria-expanded", "false");
  $("q").removeAttribute("aria-activedescendant");
}

function choose(text) {
  $("q").value = state.text = text;
  hideSuggestions();
  search();
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

// -- what people do

let waiting = 0;
$("q").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(suggest, 120); });
$("q").addEventListener("blur", hideSuggestions);
$("q").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && step(1)) event.preventDefault();
  if (event.key === "ArrowUp" && step(-1)) event.preventDefault();
  if (event.key === "Escape") hideSuggestions();
  if (event.key === "Backspace" && !$("q").value && state.terms.length) changed(() => state.terms.pop());
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(waiting);
  suggesting?.abort();
  const selected = $("suggestions").hidden ? null : $("suggestions").querySelector("[aria-selected=true]");
  if (selected) return choose(selected.textContent);
  hideSuggestions();
  const text = $("q").value.trim();
  // "+ red" and "- plastic" add weighted terms to what is asked already.
  if (/^[+-]\s*\S/.test(text) && (state.text || state.terms.length)) {
    const value = text.slice(1).trim();
    $("q").value = state.text;
    return addTerm({ kind: "text", value, name: value, weight: text[0] === "-" ? -0.5 : 1 });
  }
  state.text = text;
  search();
});
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  state = { ...fresh(), collection: state.collection, view: state.view, grouped: state.grouped };
  $("q").value = "";
  search();
});
$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { addFiles($("file").files); $("file").value = ""; });
$("collection").addEventListener("change", async () => {
  state = { ...fresh(), collection: $("collection").value, view: state.view };
  await describe();
  search();
});
$("sort").addEventListener("change", () => changed(() => { state.sort = $("sort").value; }));
$("view").addEventListener("change", () => changed(() => { state.view = $("view").value; }));
$("filters").addEventListener("click", () => {
  const opened = $("facets").classList.toggle("open");
  $("filters").setAttribute("aria-expanded", String(opened));
});
recorder($("record"), (file) => addFiles([file]));
recorder($("speak"), spoken);

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); addFiles(files); }
});
let over = 0;
document.addEventListener("dragenter", (event) => { if (event.dataTransfer?.types.includes("Files")) { over += 1; $("drop").hidden = false; } });
document.addEventListener("dragleave", () => { over = Math.max(0, over - 1); if (!over) $("drop").hidden = true; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  $("drop").hidden = true;
  addFiles([...(event.dataTransfer?.files ?? [])]);
});
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing) { event.preventDefault(); $("q").focus(); $("q").select(); }
  if (event.key === "w" && !typing && !event.ctrlKey && !event.metaKey && !document.querySelector("dialog[open]")) changed(() => { state.explain = !state.explain; });
  const links = [...document.querySelectorAll("#results .tile > a")];
  const at = links.indexOf(document.activeElement);
  if (at >= 0 && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    event.preventDefault();
    links[Math.min(links.length - 1, Math.max(0, at + (event.key === "ArrowRight" ? 1 : -1)))].focus();
  }
  if (at >= 0 && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    below(links, at, event.key === "ArrowDown")?.focus();
  }
});

// The tile of the next row that lies nearest.
function below(links, at, down) {
  const from = links[at].getBoundingClientRect();
  const middle = from.left + from.width / 2;
  const rows = links.map((link) => [link, link.getBoundingClientRect()]).filter(([, box]) => (down ? box.top > from.top + 5 : box.top < from.top - 5));
  const top = down ? Math.min(...rows.map(([, box]) => box.top)) : Math.max(...rows.map(([, box]) => box.top));
  const distance = ([, box]) => Math.abs(box.left + box.width / 2 - middle);
  return rows.filter(([, box]) => Math.abs(box.top - top) < 5).sort((a, b) => distance(a) - distance(b))[0]?.[0];
}

const near = () => $("end").getBoundingClientRect().top < innerHeight + 900;
new IntersectionObserver(() => { if (cursor && !loading && near()) search({ more: true }); }, { rootMargin: "900px" }).observe($("end"));
addEventListener("popstate", async () => {
  const collection = state.collection;
  state = { ...fromAddress(location.search), collection: fromAddress(location.search).collection || collection };
  $("q").value = state.text;
  if (state.collection !== collection) await describe();
  search({ push: false });
});

// -- start

async function describe() {
  const told = await call(collectionPath(state.collection));
  kinds = told.attributes;
  state.grouped = "parent" in kinds;
  const options = [["", "Best match"]];
  for (const name of Object.keys(kinds)) {
    if (kinds[name] === "number" && /price|rating|year|stock|popularity/i.test(name)) options.push([`${name}|up`, `${name}, low first`], [`${name}|down`, `${name}, high first`]);
  }
  options.push(["added|down", "Newest first"], ["title|up", "Title"]);
  if (!options.some(([value]) => value === state.sort)) state.sort = "";
  $("sort").replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
}

async function start() {
  keepCookie();
  state = fromAddress(location.search);
  $("q").value = state.text;
  try {
    const { collections } = await call("v1/collections");
    if (!collections.length) return status("There is no collection yet. Index something: mmsearch index FOLDER");
    $("collection").replaceChildren(...collections.map(({ name, items }) => el("option", { value: name }, `${name} (${items.toLocaleString()})`)));
    const names = collections.map(({ name }) => name);
    if (!names.includes(state.collection)) state.collection = names.includes("default") ? "default" : names[0];
    await describe();
    await search({ push: false });
  } catch (error) {
    failed(error);
  }
}

start();
