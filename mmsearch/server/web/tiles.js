// One hit as a tile: a picture, a text, a sound, or a product in the shop.

import { collectionPath } from "./api.js";
import { el, marked, plain, seconds } from "./dom.js";

export const filePath = (collection, item) => `${collectionPath(collection)}/items/${item}/file`;

export function tile(state, hit, { open, like }) {
  const { item, part } = hit;
  const title = item.title || item.key.split("/").pop();
  const picture = part.thumbnail ?? hit.item.thumbnail ?? null;
  const name = hit.group?.size > 1 ? `${title} (${hit.group.size} variants)` : title;
  const link = el("a", { href: "#", "aria-label": name, onclick: (event) => { event.preventDefault(); open(hit); } });
  const more = el("button", { type: "button", class: "more", onclick: () => like(hit) }, "More like this");
  const reason = state.explain ? el("p", { class: "reason" }, why(hit)) : null;
  let made;
  if (state.view === "shop") made = product(state, hit, title, picture, link);
  else if (picture) {
    const { width, height } = item.attributes;
    made = el("div", { class: "tile" }, link);
    made.style.setProperty("--ratio", ratio(width, height));
    link.append(image(picture, 320, title, made), el("span", { class: "cap" }, title));
  } else if (part.modality === "audio") {
    link.append(el("strong", {}, title), el("span", { class: "reason" }, `matches from ${seconds(part.start)} to ${seconds(part.end)}`));
    const player = el("audio", { controls: true, preload: "none", src: `${filePath(state.collection, item.id)}#t=${part.start},${part.end}`, "aria-label": title });
    made = el("div", { class: "tile sound" }, link, player);
  } else {
    const said = hit.highlights?.find((one) => one.field === "text");
    const text = said ? marked(said.text, said.spans) : [part.text ?? ""];
    const where = part.page ? ` · page ${part.page}` : "";
    link.append(el("strong", {}, title + where), el("p", {}, ...text));
    made = el("div", { class: "tile text" }, link);
    made.style.setProperty("--ratio", 1.5);
  }
  made.dataset.item = item.id;
  made.append(...[reason, more].filter(Boolean));
  return made;
}

function product(state, hit, title, picture, link) {
  const { attributes } = hit.item;
  const said = hit.highlights?.find((one) => one.field === "title");
  const frame = el("div", { class: "frame" });
  if (picture) frame.append(image(picture, 320, title));
  link.append(frame, el("span", { class: "cap" }, ...(said ? marked(said.text, said.spans) : [title])));
  const price = attributes.price === undefined ? null : el("div", { class: "price" }, money(attributes.price, attributes.currency));
  const small = ["brand", "colour", "color", "baseColour", "stock"].filter((name) => attributes[name] !== undefined)
    .map((name) => (name === "stock" && attributes.stock <= 0 ? "sold out" : name === "stock" ? null : plain(attributes[name]))).filter(Boolean);
  return el("div", { class: "tile" }, link, price, small.length ? el("div", { class: "small" }, small.slice(0, 2).join(" · ")) : null);
}

export function money(value, currency) {
  try {
    return new Intl.NumberFormat(undefined, currency ? { style: "currency", currency } : { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);
  } catch {
    return `${value} ${currency ?? ""}`;
  }
}

export function image(path, size, alt, owner) {
  const made = el("img", { src: `${path}?size=${size}`, alt, loading: "lazy", decoding: "async" });
  if (owner) made.addEventListener("load", () => owner.style.setProperty("--ratio", ratio(made.naturalWidth, made.naturalHeight)));
  made.addEventListener("error", () => { made.replaceWith(el("span", { class: "reason" }, `${alt} (the picture is gone)`)); });
  return made;
}

const ratio = (width, height) => (width > 0 && height > 0 ? Math.min(3, Math.max(0.5, width / height)) : 1).toFixed(3);

export function why(hit) {
  const stages = (hit.explanation ?? []).map((stage) => `${stage.stage} ${stage.score.toFixed(3)}${stage.rank ? ` (no. ${stage.rank})` : ""}${stage.note ? `: ${stage.note}` : ""}`);
  return [`score ${hit.score.toFixed(3)}`, ...stages].join(" · ");
}
