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
    if (end - start < 3 && /^[a-z]*$/i.test(text.slice(start, end))) continue; // "a", "of": found everywhere
    pieces.push(text.slice(at, start), el("mark", {}, text.slice(start, end)));
    at = end;
  }
  pieces.push(text.slice(at));
  return pieces;
}

// 7.25 -> "7.3 s", 75 -> "1:15".
export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const times = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
export function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "number") return numbers.format(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value)) return (value.includes("T00:00:00") ? days : times).format(new Date(value));
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
