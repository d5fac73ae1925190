// A filter by number: two thumbs on one track above the fields, and how much lies where. By day: the fields alone.

import { el, label, money, plain } from "./dom.js";

const STEPS = 100; // of a thumb: so many presses of an arrow key from end to end
const BARS = 25;

let held = false; // whether a thumb is: nothing may be drawn anew under a finger
export const isHeld = () => held;
addEventListener("pointerup", () => { held = false; });
addEventListener("pointercancel", () => { held = false; });

// Positions 0 to STEPS against values. Where the greatest is many times the least, equal steps are equal ratios.
function scale([least, greatest]) {
  const ratios = least > 0 && greatest / least > 20;
  const [low, high] = ratios ? [Math.log(least), Math.log(greatest)] : [least, greatest];
  const whole = Number.isInteger(least) && Number.isInteger(greatest) && greatest - least > 5;
  const exact = (at) => (ratios ? Math.exp(low + ((high - low) * at) / STEPS) : low + ((high - low) * at) / STEPS);
  const value = (at) => {
    const near = exact(at);
    const step = 10 ** Math.floor(Math.log10(ratios ? near / 10 : (greatest - least) / 50));
    return Number((Math.round(near / (whole ? Math.max(1, step) : step)) * (whole ? Math.max(1, step) : step)).toFixed(6));
  };
  const at = (told) => Math.max(0, Math.min(STEPS, (STEPS * ((ratios ? Math.log(Math.max(told, least)) : told) - low)) / (high - low)));
  return { exact, value, at };
}

// The pairs to count between, for bars above a track from `ends[0]` to `ends[1]`.
export function bars(ends) {
  const { exact } = scale(ends);
  const edges = Array.from({ length: BARS - 1 }, (_, n) => exact(((n + 1) * STEPS) / BARS));
  return [null, ...edges].map((low, n) => [low, edges[n] ?? null]);
}

// `ends` are the collection's least and greatest, or undefined; `set(pair)` takes from and to, null is open.
export function range(name, facet, ends, pair, currency, set) {
  const dates = facet.kind === "datetime";
  const [least, greatest] = dates && facet.least ? [facet.least, facet.greatest].map((value) => String(value).slice(0, 10))
    : ends ? [Math.floor(ends[0] * 100) / 100, Math.ceil(ends[1] * 100) / 100] : [undefined, undefined];
  const apply = (n, told) => set(pair.map((old, at) => (at === n ? told : old)));
  const fields = pair.map((value, n) => el("input", {
    type: dates ? "date" : "number", step: dates ? null : "any", value: String(value ?? ""), placeholder: dates ? "" : plain([least, greatest][n] ?? ""),
    min: dates ? least : null, max: dates ? greatest : null, inputmode: dates ? null : "decimal",
    "aria-label": `${label(name)}, ${n ? "to" : "from"}`, "data-facet": `${name}|${n}`,
    onchange: ({ target }) => apply(n, target.value === "" ? null : dates ? target.value : Number(target.value)),
  }));
  const row = el("div", { class: dates ? "range dates" : "range" }, fields[0], el("span", {}, "to"), fields[1]);
  const track = !dates && ends && ends[1] > ends[0] ? slider(name, facet, ends, pair, currency, fields, apply) : null;
  return el("fieldset", {}, el("legend", {}, label(name)), track, row);
}

function slider(name, facet, ends, pair, currency, fields, apply) {
  const { value, at } = scale(ends);
  const told = (n, place) => (place === (n ? STEPS : 0) ? null : value(place));
  const spoken = (n, place) => {
    const number = told(n, place) ?? ends[n];
    return currency && name === "price" ? money(number, currency) : plain(number);
  };
  const counts = facet.buckets.every((one) => "low" in one) ? facet.buckets.map((one) => one.count) : [];
  const most = Math.max(1, ...counts);
  const drawn = counts.map((count) => {
    const bar = el("span");
    bar.style.height = `${count ? 6 + (94 * Math.sqrt(count)) / Math.sqrt(most) : 0}%`; // by the root: what is rare is seen too
    return bar;
  });
  const thumbs = pair.map((chosen, n) => el("input", {
    type: "range", min: "0", max: String(STEPS), value: String(chosen === null ? (n ? STEPS : 0) : at(chosen)), step: "any",
    "aria-label": `${label(name)} ${n ? "to" : "from"}, slider`, "data-facet": `${name}|thumb${n}`,
    onpointerdown: () => { held = true; },
    onkeydown: (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -STEPS, End: STEPS }[event.key];
      if (!by) return;
      event.preventDefault();
      // Until the value is another one: near the lower end a step may be less than what it is rounded to.
      const before = told(n, place(n));
      for (let step = 1; step <= STEPS; step += 1) {
        thumbs[n].value = String(Math.max(0, Math.min(STEPS, Math.round(place(n)) + by)));
        if (told(n, place(n)) !== before || place(n) === 0 || place(n) === STEPS) break;
      }
      moved(n);
      apply(n, told(n, place(n)));
    },
    oninput: () => moved(n),
    onchange: () => { held = false; apply(n, told(n, place(n))); },
  }));
  const place = (n) => Number(thumbs[n].value);
  const track = el("div", { class: "slider" }, drawn.length ? el("div", { class: "bars", "aria-hidden": "true" }, ...drawn) : null, el("div", { class: "rail" }), ...thumbs);
  function show() {
    track.style.setProperty("--from", place(0) / STEPS);
    track.style.setProperty("--to", place(1) / STEPS);
    drawn.forEach((bar, n) => bar.classList.toggle("in", ((n + 1) * STEPS) / BARS > place(0) && (n * STEPS) / BARS < place(1)));
    thumbs.forEach((thumb, n) => thumb.setAttribute("aria-valuetext", spoken(n, place(n))));
    thumbs[0].classList.toggle("above", place(0) > STEPS / 2); // both at the right end: the left one must be had again
  }
  function moved(n) {
    if (place(0) > place(1)) thumbs[n].value = thumbs[1 - n].value;
    fields[n].value = String(told(n, place(n)) ?? "");
    show();
  }
  show();
  return track;
}
