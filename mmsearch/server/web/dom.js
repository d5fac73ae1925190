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

export const $ = (id) => document.getElementById(id);

export function marked(text, spans) {
  const pieces = [];
  let at = 0;
  for (const [start, end] of spans ?? []) {
    pieces.push(text.slice(at, start), el("mark", {}, text.slice(start, end)));
    at = end;
  }
  pieces.push(text.slice(at));
  return pieces;
}

export const seconds = (value) => `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")}`;

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
export function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "number") return numbers.format(value);
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value)) return new Date(value).toLocaleString();
  return String(value);
}
