// How far down one was, kept with each step of the browser's history: back and forth lead to the same place, a reload too.

let waiting = 0;

// `count()` is how many results there are.
export function start(count) {
  history.scrollRestoration = "manual";
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(() => note(count()), 200); };
  addEventListener("scroll", soon, { passive: true });
  addEventListener("pagehide", () => note(count()));
}

export function note(count) {
  clearTimeout(waiting);
  history.replaceState({ ...history.state, y: Math.round(scrollY), count }, "");
}

// Of the step that is shown now.
export const count = () => history.state?.count ?? 0;
export function restore(step = history.state) {
  clearTimeout(waiting);
  scrollTo({ top: step?.y ?? 0, behavior: "instant" });
}
