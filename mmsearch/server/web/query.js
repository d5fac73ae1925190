// What is asked: terms, filters, order. It lives in the address, so that a link or a reload finds the same.

// `usual` is how the collection is looked at unless its address says otherwise: as a "grid" or as a "shop".
export const fresh = () => ({ collection: "", text: "", terms: [], kind: "", chosen: {}, ranges: {}, sort: "", view: "", usual: "grid", exact: false, explain: false, item: null });

// A term: {kind: "text" | "item" | "image" | "audio", value, name, weight, file?, url?}. The value of a file is the name under
// which this browser keeps it: see kept.js.
export function toAddress(state) {
  const address = new URLSearchParams();
  if (state.collection) address.set("c", state.collection);
  if (state.text) address.set("q", state.text);
  for (const term of state.terms) address.append("t", [term.weight, term.kind, term.value, ...(term.file ? [term.name] : [])].join("|"));
  if (state.kind) address.set("m", state.kind);
  for (const [name, values] of Object.entries(state.chosen)) for (const value of values) address.append("f", `${name}|${JSON.stringify(value)}`);
  for (const [name, [low, high]] of Object.entries(state.ranges)) address.append("r", `${low ?? ""}|${high ?? ""}|${name}`);
  if (state.sort) address.set("s", state.sort);
  if (state.view && state.view !== state.usual) address.set("view", state.view);
  if (state.exact) address.set("typed", "1");
  if (state.explain) address.set("why", "1");
  if (state.item !== null) address.set("item", state.item);
  return address.toString();
}

export function fromAddress(text) {
  const address = new URLSearchParams(text);
  const state = fresh();
  state.collection = address.get("c") ?? "";
  state.text = (address.get("q") ?? "").slice(0, 2000);
  for (const told of address.getAll("t").slice(0, 30)) {
    const [weight, kind, ...rest] = told.split("|");
    const term = { kind, value: rest.join("|"), name: rest.join("|"), weight: Number(weight), url: null };
    if (!Number.isFinite(term.weight) || Math.abs(term.weight) > 100 || !term.value) continue;
    if (kind === "item" && /^\d+$/.test(term.value)) state.terms.push({ ...term, value: Number(term.value), name: `item ${term.value}` });
    if (kind === "image" || kind === "audio") state.terms.push({ ...term, value: rest[0], name: rest.slice(1).join("|") || kind });
    if (kind === "text") state.terms.push(term);
  }
  state.kind = ["image", "text", "audio"].includes(address.get("m")) ? address.get("m") : "";
  for (const told of address.getAll("f")) {
    const cut = told.search(/\|(".*"|true|false|-?[\d.e+-]+)$/s); // a name may hold a bar itself
    if (cut < 1) continue; // an address that somebody shortened
    try {
      (state.chosen[told.slice(0, cut)] ??= []).push(JSON.parse(told.slice(cut + 1)));
    } catch { /* the same */ }
  }
  for (const told of address.getAll("r")) {
    const [low, high, ...name] = told.split("|");
    const pair = [bound(low), bound(high)];
    if (name.length && (pair[0] !== null || pair[1] !== null)) state.ranges[name.join("|")] = pair;
  }
  state.sort = address.get("s") ?? "";
  state.view = ["grid", "shop"].includes(address.get("view")) ? address.get("view") : "";
  state.exact = address.get("typed") === "1";
  state.explain = address.get("why") === "1";
  state.item = /^\d{1,15}$/.test(address.get("item") ?? "") ? Number(address.get("item")) : null;
  return state;
}

// A number, or a day as text; null is open.
function bound(told) {
  if (/^\d{4}-\d\d-\d\d$/.test(told)) return told;
  return told === "" || told === undefined || !Number.isFinite(Number(told)) ? null : Number(told);
}

// Attributes whose values are ways through categories, "Home > Kitchen > Pans": a part of one stands for all below it.
export const BELOW = " > ";
export const trees = new Set();

const quotedName = (name) => "`" + name.replaceAll("`", "``") + "`";
const literal = (value) => (typeof value === "string" ? "'" + value.replaceAll("'", "''") + "'" : String(value));

export function where(state) {
  const tests = [];
  for (const [name, values] of Object.entries(state.chosen)) {
    if (!values.length) continue;
    const own = `${quotedName(name)} in (${values.map(literal).join(", ")})`;
    const below = trees.has(name) ? values.map((value) => ` or ${quotedName(name)} like ${literal(`${value}${BELOW}%`)}`).join("") : "";
    tests.push(below ? `(${own}${below})` : own);
  }
  for (const [name, [low, high]] of Object.entries(state.ranges)) {
    if (low !== null) tests.push(`${quotedName(name)} >= ${literal(low)}`);
    if (high !== null) tests.push(`${quotedName(name)} <= ${literal(high)}`);
  }
  return tests.length ? tests.join(" and ") : null;
}

// The body of a search, and the files that go with it.
export function request(state, { facets = [], cursor = null, k, grouped }) {
  const files = [];
  const terms = state.terms.map((term) => {
    if (term.kind === "text") return { text: term.value, weight: term.weight };
    if (term.kind === "item") return { item: term.value, weight: term.weight };
    const upload = `file${files.length}`;
    files.push([upload, term.file]);
    return { [term.kind]: { upload }, weight: term.weight };
  });
  const body = { k, where: where(state), facets, terms, highlight: true, explain: state.explain };
  if (state.text.trim()) body.text = state.text.trim();
  if (state.exact) body.typos = false;
  if (state.kind && state.view === "grid") body.modality = state.kind;
  if (state.view === "shop" && grouped) Object.assign(body, { group_by: "parent", group_size: 6 });
  const [attribute, order] = state.sort.split("|");
  if (attribute) body.sort = [{ attribute, descending: order === "down" }];
  if (cursor) body.cursor = cursor;
  return { body, files };
}

export const isEmpty = (state) => !state.text.trim() && !state.terms.length;
export const filters = (state) => Object.values(state.chosen).filter((values) => values.length).length + Object.keys(state.ranges).length;
