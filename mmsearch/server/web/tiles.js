// One hit as a tile: a picture, a text, a sound, or a product in the shop.

import { collectionPath } from "./api.js";
import { isColour, look } from "./colours.js";
import { currencyOf, el, icon, letters, marked, money, plain, seconds } from "./dom.js";
import { player } from "./player.js";

export const filePath = (collection, item) => `${collectionPath(collection)}/items/${item}/file`;
export const titleOf = (item) => item.title || item.key.split("/").pop();
export const pictureOf = (hit) => hit.part?.thumbnail ?? hit.item.thumbnail ?? null;

// How many variants a product has, itself among them.
const variants = (hit) => (hit.group?.size > 1 ? `${hit.group.size} variants` : null);

export function tile(state, hit, { open, like, scored }) {
  const { item, part } = hit;
  const title = titleOf(item);
  const shop = state.view === "shop";
  const picture = shop || part.modality === "image" || part.modality === "fused" ? pictureOf(hit) : null;
  const sounds = !shop && part.modality === "audio";
  const link = el("a", { onclick: (event) => { if (event.ctrlKey || event.metaKey || event.shiftKey) return; event.preventDefault(); open(hit); } });
  link.href = address(state, item.id);
  let made;
  if (shop) made = el("div", { class: "tile product" }, ...product(hit, title, picture, link));
  else if (picture) {
    made = el("div", { class: "tile picture" }, link);
    const { width, height } = item.attributes;
    link.append(image(picture, 320, title, width && height ? null : made), el("span", { class: "cap", "aria-hidden": "true" }, title));
    made.style.setProperty("--ratio", ratio(width, height));
  } else if (sounds) {
    const told = scored ? `best from ${seconds(part.start ?? 0)} to ${seconds(part.end ?? 0)}` : seconds(item.attributes.duration ?? part.end ?? 0);
    const passage = { from: part.start ?? 0, to: scored ? (part.end ?? null) : null, duration: item.attributes.duration ?? null };
    link.append(el("strong", {}, title), el("span", { class: "small" }, told));
    made = el("div", { class: "tile sound" }, link, player(filePath(state.collection, item.id), title, passage));
  } else {
    const other = hit.highlights?.find((one) => one.field === "text" && !part.text?.includes(one.text)); // of another part
    const where = [item.attributes.format, part.page && !other ? `page ${part.page}` : null].filter(Boolean).map(plain).join(" · ");
    link.append(el("strong", {}, title), where ? el("span", { class: "small" }, where) : "", el("p", {}, ...snippet(hit, title)));
    made = el("div", { class: "tile text" }, link);
  }
  made.dataset.item = item.id;
  made.append(el("button", { type: "button", class: "more", title: "More like this", onclick: () => like(hit) }, icon("alike"), el("span", { class: "word" }, "Similar"), el("span", { class: "hidden" }, ` to ${title}`)));
  if (state.explain && scored) made.append(el("p", { class: "reason" }, ...why(hit)));
  return made;
}

// What opens an item in a tab of its own.
function address(state, item) {
  const told = new URLSearchParams(location.search);
  told.set("c", state.collection);
  told.set("item", item);
  return `?${told}`;
}

// What the search says of the item's texts: the stretch that holds most of the query, with its marks, and what follows it.
function snippet(hit, title) {
  const whole = hit.part.text ?? "";
  const said = hit.highlights?.find((one) => one.field === "text");
  const own = said ? whole.indexOf(said.text) : -1;
  const text = own < 0 ? (said?.text ?? whole) : whole.slice(own);
  const from = own <= 0 && whole.startsWith(title) && text.startsWith(title) && text.length > title.length ? text.slice(title.length).search(/\S|$/) + title.length : 0; // it is said above
  const skipped = letters(text.slice(0, from)).length;
  const spans = (said?.spans ?? []).filter(([start]) => start >= skipped).map(([start, end]) => [start - skipped, end - skipped]);
  const before = own > 0 || hit.part.start > 0 || (said && own < 0); // another part is from anywhere in the item
  return [before ? "… " : "", ...marked(text.slice(from), spans)];
}

function product(hit, title, picture, link) {
  const { attributes } = hit.item;
  const said = hit.highlights?.find((one) => one.field === "title" && one.text === title);
  const frame = el("div", { class: "frame" }, picture ? image(picture, 320, "") : el("span", { class: "small", "aria-hidden": "true" }, "no picture"));
  if (typeof attributes.stock === "number" && attributes.stock <= 0) frame.append(el("span", { class: "badge" }, "Sold out"));
  const brand = ["brand", "manufacturer", "vendor"].map((name) => attributes[name]).find((value) => typeof value === "string");
  link.append(frame, brand ? el("span", { class: "brand" }, brand) : "", el("span", { class: "name" }, ...(said ? marked(said.text, said.spans) : [title])));
  const of = hit.group?.hits ?? [hit];
  const prices = of.map((one) => one.item.attributes.price).filter((price) => typeof price === "number");
  const [least, greatest] = [Math.min(...prices), Math.max(...prices)];
  const span = [least, ...(greatest > least ? [greatest] : [])].map((one) => money(one, currencyOf(attributes))).join(" – ");
  const price = prices.length ? el("div", { class: "price" }, span) : null;
  const colour = Object.keys(attributes).find(isColour);
  const colours = colour ? [...new Set(of.flatMap((one) => one.item.attributes[colour] ?? []))] : [];
  const dots = colours.map((value) => dot(value)).filter(Boolean);
  const facts = [colours.length === 1 ? plain(colours[0]) : attributes.material ? plain(attributes.material) : null, variants(hit)].filter(Boolean).join(" · ");
  return [link, price, el("div", { class: "small facts" }, ...dots, facts)];
}

export function dot(value) {
  const background = look(value);
  if (!background) return null;
  const made = el("span", { class: "dot", "aria-hidden": "true" });
  made.style.background = background;
  return made;
}

// A small copy, twice as large for dense screens. Where its shape was unknown, the tile takes it on when it is there.
export function image(path, size, alt, owner) {
  const made = el("img", { src: `${path}?size=${size}`, alt, loading: "lazy", decoding: "async" });
  if (size < 1280) made.srcset = `${path}?size=${size} 1x, ${path}?size=${2 * size} 2x`;
  if (owner) made.addEventListener("load", () => owner.style.setProperty("--ratio", ratio(made.naturalWidth, made.naturalHeight)));
  made.addEventListener("error", () => { made.replaceWith(el("span", { class: "gone" }, alt ? `${alt}: the picture is gone` : "the picture is gone")); });
  return made;
}

const ratio = (width, height) => (width > 0 && height > 0 ? Math.min(3, Math.max(0.5, width / height)) : 1).toFixed(3);

// The score, and what each stage of the search made of it. A stage that did not find the item has nothing to say.
export function why(hit) {
  if (typeof hit.score !== "number") return [];
  const stages = (hit.explanation ?? []).filter((stage) => typeof stage.score === "number" && (stage.score || stage.rank))
    .map((stage) => el("span", {}, `${stage.stage} ${stage.score.toFixed(3)}${stage.rank ? ` (no. ${stage.rank})` : ""}${stage.note ? `: ${stage.note}` : ""}`));
  const told = [el("b", {}, `score ${hit.score.toFixed(3)}`), ...stages, ...(hit.pinned ? ["pinned"] : [])];
  return told.flatMap((one, n) => (n ? [" · ", one] : [one]));
}
