// Elements without a framework: el("a", {href}, child, ...). Text is always text: nothing from a catalog becomes markup.

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Drawn, not a letter: what it is for is said by the text beside it.
const DRAWN = {
  all: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z",
  alike: "M8 8h12v12H8zM4 16V4h12",
  past: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 8v4.5l3 2",
  seek: "M10.5 4.5a6 6 0 1 0 0 12a6 6 0 1 0 0-12M15 15l5 5",
  narrow: "M4 6h16M7 12h10M10 18h4",
  thing: "M4 8l8-4 8 4v8l-8 4-8-4zM4 8l8 4 8-4M12 12v8",
};
export function icon(name) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  made.setAttribute("viewBox", "0 0 24 24");
  made.setAttribute("aria-hidden", "true");
  path.setAttribute("d", DRAWN[name]);
  made.append(path);
  return made;
}

export const $ = (id) => document.getElementById(id);

// Places in texts are counted in characters: a string's own are halves of emoji and the like.
export const letters = (text) => Array.from(text);

export function marked(text, spans) {
  const all = letters(text);
  const cut = (start, end) => all.slice(start, end).join("");
  const pieces = [];
  let at = 0;
  for (const [start, end] of spans ?? []) {
    pieces.push(cut(at, start), el("mark", {}, cut(start, end)));
    at = end;
  }
  pieces.push(cut(at));
  return pieces;
}

// 7.25 -> "7.3 s", 75 -> "1:15".
export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2, useGrouping: "min2" }); // 2024 may be a year
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const times = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
export function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "number") return numbers.format(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value && typeof value === "object") return plain(value.datetime ?? JSON.stringify(value));
  if (typeof value === "string" && /^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:?\d\d)?)?$/.test(value) && !Number.isNaN(Date.parse(value))) {
    const told = /T/.test(value) && !/(Z|[+-]\d\d:?\d\d)$/.test(value) ? `${value}Z` : value; // UTC unless it says otherwise
    return (/T(?!00:00:00)/.test(value) ? times : days).format(new Date(told));
  }
  return String(value);
}

export const label = (name) => name.replaceAll("_", " ").replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`).replace(/^./, (letter) => letter.toUpperCase());

export const currencyOf = (attributes) => attributes.currency ?? attributes.price_currency; // feeds name it so

export function money(value, currency) {
  try {
    return new Intl.NumberFormat(undefined, currency ? { style: "currency", currency } : { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);
  } catch {
    return `${value} ${currency ?? ""}`;
  }
}
