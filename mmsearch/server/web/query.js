// What is asked: terms, filters, order. It lives in the address, so that a link or a reload finds the same.

export const fresh = () => ({ collection: "", text: "", terms: [], chosen: {}, ranges: {}, sort: "", view: "grid", explain: false });

// A term: {kind: "text" | "item" | "image" | "audio", value, name, weight, file?, url?}. Files do not fit into an address.
export function toAddress(state) {
  const address = new URLSearchParams();
  if (state.collection) address.set("c", state.collection);
  if (state.text) address.set("q", state.text);
  for (const term of state.terms) {
    if (term.kind === "text" || term.kind === "item") address.append("t", `${term.weight}|${term.kind}|${term.value}`);
  }
  for (const [name, values] of Object.entries(state.chosen)) for (const value of values) address.append("f", `${name}|${JSON.stringify(value)}`);
  for (const [name, [low, high]] of Object.entries(state.ranges)) address.append("r", `${name}|${low ?? ""}|${high ?? ""}`);
  if (state.sort) address.set("s", state.sort);
  if (state.view !== "grid") address.set("view", state.view);
  if (state.explain) address.set("why", "1");
  return address.toString();
}

export function fromAddress(text) {
  const address = new URLSearchParams(text);
  const state = fresh();
  state.collection = address.get("c") ?? "";
  state.text = (address.get("q") ?? "").slice(0, 2000);
  for (const told of address.getAll("t")) {
    const [weight, kind, ...rest] = told.split("|");
    const value = rest.join("|");
    if (!Number.isFinite(Number(weight)) || !value) continue;
    if (kind === "text") state.terms.push({ kind, value, name: value, weight: Number(weight) });
    if (kind === "item" && /^\d+$/.test(value)) state.terms.push({ kind, value: Number(value), name: `item ${value}`, weight: Number(weight) });
  }
  for (const told of address.getAll("f")) {
    const [name, ...rest] = told.split("|");
    try {
      (state.chosen[name] ??= []).push(JSON.parse(rest.join("|")));
    } catch { /* an address that somebody shortened */ }
  }
  for (const told of address.getAll("r")) {
    const [name, low, high] = told.split("|");
    const bound = (value) => (value === "" || value === undefined || !Number.isFinite(Number(value)) ? null : Number(value));
    state.ranges[name] = [bound(low), bound(high)];
  }
  state.sort = address.get("s") ?? "";
  state.view = address.get("view") === "shop" ? "shop" : "grid";
  state.explain = address.get("why") === "1";
  return state;
}

const quotedName = (name) => "`" + name.replaceAll("`", "``") + "`";
const literal = (value) => (typeof value === "string" ? "'" + value.replaceAll("'", "''") + "'" : String(value));

export function where(state) {
  const tests = [];
  for (const [name, values] of Object.entries(state.chosen)) {
    if (values.length) tests.push(`${quotedName(name)} in (${values.map(literal).join(", ")})`);
  }
  for (const [name, [low, high]] of Object.entries(state.ranges)) {
    if (low !== null) tests.push(`${quotedName(name)} >= ${low}`);
    if (high !== null) tests.push(`${quotedName(name)} <= ${high}`);
  }
  return tests.length ? tests.join(" and ") : null;
}

// The body of a search, and the files that go with it.
export function request(state, facets, cursor, k) {
  const files = [];
  const terms = state.terms.map((term) => {
    if (term.kind === "text") return { text: term.value, weight: term.weight };
    if (term.kind === "item") return { item: term.value, weight: term.weight };
    const upload = `file${files.length}`;
    files.push([upload, term.file]);
    return { [term.kind]: { upload }, weight: term.weight };
  });
  // A shop's words name its products; among photos and documents meaning alone ranks more fairly.
  const body = { k, where: where(state), facets, terms, hybrid: state.view === "shop", highlight: true, explain: state.explain };
  if (state.text.trim()) body.text = state.text.trim();
  if (state.view === "shop" && state.grouped) body.group_by = "parent";
  const [attribute, order] = state.sort.split("|");
  if (attribute) body.sort = [{ attribute, descending: order === "down" }];
  if (cursor) body.cursor = cursor;
  return { body, files };
}

export const isEmpty = (state) => !state.text.trim() && !state.terms.length;
