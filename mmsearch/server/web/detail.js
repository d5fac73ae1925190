// One item in full: its picture, text or sound, its attributes, its variants, and why it was found.

import { call, collectionPath } from "./api.js";
import { isColour } from "./colours.js";
import { crop } from "./crop.js";
import { $, currencyOf, el, label, money, plain, seconds } from "./dom.js";
import { player } from "./player.js";
import { dot, filePath, image, pictureOf, titleOf, why } from "./tiles.js";

let back = null; // what had the focus before
let current = null; // id of the item that is shown

export function close() {
  $("detail").close();
}

// `does`: like(hit), add(hit, weight), part(file), explain(hit), alike(hit), beside(hit, step), open(hit), closed().
export async function open(state, hit, scored, does) {
  const dialog = $("detail");
  current = hit.item.id;
  const title = titleOf(hit.item);
  const reason = el("p", { class: "reason", "aria-live": "polite" }, ...(scored && state.view !== "shop" ? why(hit) : []));
  const shop = state.view === "shop";
  const act = (text, act, main) => el("button", { type: "button", class: main ? "go" : null, onclick: () => { close(); act(); } }, text);
  const menu = el("menu", {},
    act("More like this", () => does.like(hit), true), act("Less like this", () => does.add(hit, -0.5)), act("Add to the query", () => does.add(hit, 1)),
    scored ? el("button", { type: "button", onclick: async (event) => { event.target.disabled = true; reason.replaceChildren(...why(await does.explain(hit))); } }, "Why this?") : null,
    ...link(hit.item),
    hit.item.file ? el("a", { class: "button", href: filePath(state.collection, hit.item.id), target: "_blank", rel: "noopener" }, "Open the file") : null);
  const step = (text, by, sign) => {
    const other = does.beside(hit, by);
    return el("button", { type: "button", class: "step", "aria-label": text, title: text, disabled: !other, onclick: () => does.open(does.beside(hit, by)) }, sign);
  };
  const bar = el("div", { class: "top" }, step("Previous result", -1, "‹"), step("Next result", 1, "›"),
    el("button", { type: "button", class: "step", "aria-label": "Close", title: "Close", onclick: close }, "×"));
  const shown = el("div", { class: "media" }, el("p", { class: "small" }, "Loading …"));
  const facts = el("div", { class: "facts" }, el("h2", { id: "detail-title", tabindex: "-1" }, title));
  const alike = el("div", { class: "alike" });
  dialog.replaceChildren(bar, el("div", { class: "pair" }, shown, facts), alike);
  dialog.scrollTop = 0;
  if (!dialog.open) {
    back = document.activeElement;
    dialog.showModal();
    dialog.addEventListener("close", () => {
      dialog.replaceChildren(); // a sound stops
      const tile = document.querySelector(`[data-item="${current}"] > a`);
      (tile ?? (back?.isConnected ? back : null))?.focus();
      does.closed();
    }, { once: true });
  }
  dialog.onclick = (event) => { if (event.target === dialog) close(); };
  dialog.onkeydown = (event) => {
    if (/^(INPUT|AUDIO)$/.test(event.target.tagName)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const other = by && does.beside(hit, by);
    if (other) { event.preventDefault(); does.open(other); }
  };
  facts.querySelector("h2").focus();
  if (shop) facts.append(...price(hit.item), ...stock(hit.item), ...variants(state, hit, does), menu, reason, table(hit.item));
  else facts.append(...price(hit.item), table(hit.item), ...variants(state, hit, does), reason, menu);
  try {
    const item = await call(`${collectionPath(state.collection)}/items/${hit.item.id}`);
    if (current !== hit.item.id) return;
    shown.replaceChildren(...media(state, item, hit));
    const first = shown.querySelector(".large");
    if (first) shown.insertBefore(el("button", { type: "button", class: "part", onclick: () => crop(first.querySelector("img").src, title, (file) => { close(); does.part(file); }) }, "Search with a part of this picture"), first.nextSibling);
  } catch (error) {
    shown.replaceChildren(el("p", { class: "gone" }, error.message));
  }
  const others = await does.alike(hit);
  if (current !== hit.item.id || !others.length) return;
  alike.append(el("h3", {}, shop ? "You may also like" : "Alike"), el("div", { class: "variants" }, ...others.map((one) => small(one, does))));
}

function small(one, does, said = titleOf(one.item)) {
  const picture = pictureOf(one);
  return el("button", { type: "button", title: titleOf(one.item), onclick: () => does.open(one) }, picture ? image(picture, 160, "") : null, el("span", {}, said));
}

// A variant is told by what is different about it: its size, its colour, its price.
function difference(one, item) {
  const other = (name) => JSON.stringify(one.attributes[name]) !== JSON.stringify(item.attributes[name]);
  const told = ["size", ...Object.keys(one.attributes).filter(isColour), "material"].filter((name) => one.attributes[name] !== undefined && other(name)).map((name) => plain(one.attributes[name]));
  if (typeof one.attributes.price === "number" && other("price")) told.push(money(one.attributes.price, currencyOf(one.attributes)));
  return told.join(" · ") || titleOf(one);
}

function stock(item) {
  const { stock } = item.attributes;
  return typeof stock === "number" ? [el("p", { class: stock > 0 ? "small there" : "small out" }, stock > 0 ? "In stock" : "Sold out")] : [];
}

function media(state, item, hit) {
  const made = [];
  const pictures = item.parts.filter((part) => part.thumbnail);
  const title = titleOf(item);
  if (pictures.length) {
    const first = pictures.find((part) => part.id === hit.part?.id) ?? pictures[0];
    const large = el("div", { class: "large" }, image(first.thumbnail, 1280, title));
    made.push(large);
    if (pictures.length > 1) {
      const small = pictures.map((part, n) => el("button", { type: "button", "aria-label": `Picture ${n + 1} of ${pictures.length}`, onclick: () => { large.replaceChildren(image(part.thumbnail, 1280, title)); } }, image(part.thumbnail, 160, "")));
      made.push(el("div", { class: "thumbs" }, ...small));
    }
  }
  if (item.modality === "audio") {
    const start = hit.part?.start ?? 0;
    const heard = hit.part?.modality === "audio";
    made.push(player(filePath(state.collection, item.id), title, { from: start, to: heard ? (hit.part.end ?? null) : null, duration: item.attributes.duration ?? null }));
    if (heard) made.push(el("p", { class: "small" }, `The best match lasts from ${seconds(start)} to ${seconds(hit.part.end ?? start)}.`));
  }
  const texts = item.parts.filter((part) => part.text && part.text !== item.title);
  const said = texts.map((part) => el("p", { class: part.id === hit.part?.id ? "matched" : null }, part.text, part.page ? el("span", { class: "small" }, ` (page ${part.page})`) : null));
  if (said.length) made.push(el("blockquote", { tabindex: "0", "aria-label": "Text" }, ...said));
  return made.length ? made : [el("p", { class: "small" }, "There is nothing to show of this item.")];
}

// Where the shop itself shows the product.
function link(item) {
  const address = ["link", "url", "product_url"].map((name) => item.attributes[name]).find((one) => typeof one === "string" && /^https?:\/\//i.test(one));
  return address ? [el("a", { class: "button", href: address, target: "_blank", rel: "noopener noreferrer" }, "To the shop")] : [];
}

function price(item) {
  const { price } = item.attributes;
  return typeof price === "number" ? [el("p", { class: "price" }, money(price, currencyOf(item.attributes)))] : [];
}

function variants(state, hit, does) {
  const others = (hit.group?.hits ?? []).filter((one) => one.item.id !== hit.item.id);
  if (!others.length) return [];
  return [el("h3", {}, `Variants (${hit.group.size})`), el("div", { class: "variants" }, ...others.map((one) => small(one, does, difference(one.item, hit.item))))];
}

const swatched = (value) => el("span", {}, ...[value].flat().flatMap((one, n) => [n ? ", " : "", dot(one) ?? "", ` ${plain(one)}`]));

function table(item) {
  const row = (name, value) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value));
  const { width, height } = item.attributes;
  const rows = Object.entries(item.attributes).filter(([name]) => !["price", "currency", "price_currency", "parent", "width", "height", "stock"].includes(name))
    .map(([name, value]) => row(label(name), isColour(name) ? swatched(value) : name === "duration" && typeof value === "number" ? seconds(value) : plain(value)));
  if (typeof item.attributes.stock === "number") rows.push(row("Stock", plain(item.attributes.stock)));
  if (width && height) rows.push(row("Pixels", `${width} × ${height}`));
  rows.push(row(item.file ? "File" : "Key", item.key));
  return el("table", {}, el("tbody", {}, ...rows));
}
