// One item in full: its picture, text or sound, its attributes, and why it was found.

import { call, collectionPath } from "./api.js";
import { $, el, plain } from "./dom.js";
import { filePath, image, money, why } from "./tiles.js";

export async function open(state, hit, { like, add, explain }) {
  const dialog = $("detail");
  const back = document.activeElement;
  const title = hit.item.title || hit.item.key;
  const head = el("h2", {}, title);
  const reason = el("p", { class: "reason" }, why(hit));
  const act = (text, does) => el("button", { type: "button", onclick: () => { dialog.close(); does(hit); } }, text);
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const menu = el("menu", {}, act("More like this", like), act("Add to the query", (one) => add(one, 1)), act("Less like this", (one) => add(one, -1)),
    el("button", { type: "button", onclick: async () => { reason.textContent = why(await explain(hit)); } }, "Why this?"));
  if (hit.item.file) menu.append(el("a", { href: filePath(state.collection, hit.item.id), target: "_blank", rel: "noopener" }, "Open the file"));
  menu.append(close);
  const facts = el("div", {}, head, table(hit.item), reason, menu);
  const shown = el("div", {}, el("p", {}, "…"));
  dialog.replaceChildren(el("div", { class: "pair" }, shown, facts));
  dialog.showModal();
  dialog.addEventListener("close", () => back?.focus?.(), { once: true });
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  try {
    const item = await call(`${collectionPath(state.collection)}/items/${hit.item.id}`);
    shown.replaceChildren(...media(state, item, hit));
  } catch (error) {
    shown.replaceChildren(el("p", {}, error.message));
  }
}

function media(state, item, hit) {
  const pictures = item.parts.filter((part) => part.thumbnail);
  if (pictures.length) {
    const first = pictures.find((part) => part.id === hit.part.id) ?? pictures[0];
    const large = image(first.thumbnail, 1280, item.title ?? "");
    if (pictures.length === 1) return [large];
    const small = pictures.map((part) => el("button", { type: "button", onclick: () => { large.src = `${part.thumbnail}?size=1280`; } }, image(part.thumbnail, 160, "another picture")));
    return [large, el("div", { class: "thumbs" }, ...small)];
  }
  const texts = item.parts.filter((part) => part.text).map((part) => el("p", {}, part.text));
  if (hit.item.modality === "audio") {
    const player = el("audio", { controls: true, autoplay: false, preload: "metadata", src: `${filePath(state.collection, item.id)}#t=${hit.part.start ?? 0}`, "aria-label": item.title ?? "sound" });
    player.addEventListener("loadedmetadata", () => { if (!player.currentTime) player.currentTime = hit.part.start ?? 0; }, { once: true });
    return [player, ...texts];
  }
  return [el("blockquote", {}, ...texts)];
}

function table(item) {
  const rows = Object.entries(item.attributes).filter(([name]) => name !== "currency")
    .map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, name === "price" ? money(value, item.attributes.currency) : plain(value))));
  rows.push(el("tr", {}, el("th", { scope: "row" }, "key"), el("td", {}, item.key)));
  return el("table", {}, el("tbody", {}, ...rows));
}
