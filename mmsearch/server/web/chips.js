// The terms of a query beside its words: chips with + or -, a weight, and a way out.

import { crop } from "./crop.js";
import { $, el } from "./dom.js";

const WORD = { text: "words", item: "item", image: "picture", audio: "sound" };

// `change(does)` makes a change and searches, `part(n, file)` puts a part of its picture in the place of a term.
export function show(terms, change, part) {
  const focused = document.activeElement?.dataset?.chip;
  $("chips").replaceChildren(...terms.map((term, n) => chip(term, n, terms, change, part)));
  if (focused) (document.querySelector(`[data-chip="${CSS.escape(focused)}"]`) ?? $("q")).focus();
}

function chip(term, n, terms, change, part) {
  const minus = term.weight < 0;
  const size = Math.abs(term.weight);
  const weigh = (step) => () => change(() => {
    const next = Math.max(0.25, Math.min(10, Math.round((size + step) * 4) / 4));
    term.weight = minus ? -next : next;
  });
  const button = (what, told, sign, onclick, disabled = false) => el("button", { type: "button", "data-chip": `${n} ${what}`, "aria-label": told, title: told, disabled, onclick }, sign);
  return el("li", { class: minus ? "minus" : "plus" },
    button("sign", minus ? `Take away ${term.name}: press to add it` : `Add ${term.name}: press to take it away`, minus ? "−" : "+", () => change(() => { term.weight = -term.weight; })),
    term.url ? el("button", { type: "button", class: "seen", "data-chip": `${n} part`, title: "Search with a part of this picture", "aria-label": `Search with a part of ${term.name}`,
      onclick: () => crop(term.url.replace(/\?size=\d+$/, "?size=1280"), term.name, (file) => part(n, file)) }, el("img", { src: term.url, alt: "" })) : null,
    el("span", { class: "name" }, term.name, term.kind === "text" ? null : el("span", { class: "hidden" }, ` (${WORD[term.kind]})`)),
    button("less", `Less weight for ${term.name}`, "‹", weigh(-0.25), size <= 0.25),
    el("output", { "aria-label": `Weight of ${term.name}` }, String(size)),
    button("more", `More weight for ${term.name}`, "›", weigh(0.25), size >= 10),
    button("remove", `Remove ${term.name}`, "×", () => change(() => terms.splice(n, 1))));
}
