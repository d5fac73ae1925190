// What a colour's name looks like.

const SHOPS = {
  blue: "#2459d3", red: "#d02b2b", green: "#2f8f46", yellow: "#f4cf35", orange: "#f08324", purple: "#7a3fa8", pink: "#f08db4", brown: "#7d5133", grey: "#8b9097", gray: "#8b9097",
  black: "#15161a", white: "#ffffff", gold: "#c9a227", silver: "#c3c7cd", beige: "#e6d9bd", khaki: "#b5a878", maroon: "#7c1f2d", olive: "#77803a",
  charcoal: "#36454f", "off white": "#f5f2e8", cream: "#fff3cf", "navy blue": "#1c2b5a", "turquoise blue": "#1fb5ad", "sea green": "#2e8b6f", "lime green": "#7ccc2e",
  "fluorescent green": "#4dff3c", mustard: "#d8a31a", rust: "#b0441e", burgundy: "#7a1230", nude: "#e6bfa5", skin: "#e6bfa5", copper: "#b8733a", bronze: "#96682d",
  metallic: "#9aa0a8", steel: "#7c8894", "grey melange": "#a2a5aa", "coffee brown": "#5a3d2b", "mushroom brown": "#9b8574", taupe: "#877a6e", rose: "#e0607e",
  peach: "#ffc4a3", mauve: "#c79bd1", magenta: "#d1007a", camel: "#c19a6b", denim: "#3d5a80", anthracite: "#383e42", champagne: "#f0e0c0", wood: "#a9744f",
};
const MANY = "conic-gradient(#e33, #ee3, #3c3, #3ce, #33e, #e3c, #e33)";

export const isColour = (name) => /colou?r$/i.test(name);

// A CSS background, or null for a word that names no colour.
export function look(value) {
  const name = String(value).trim().toLowerCase();
  if (/^multi/.test(name)) return MANY;
  const known = SHOPS[name] ?? name.replaceAll(" ", "");
  return CSS.supports("color", known) && !/^(inherit|initial|unset|revert|currentcolor|transparent)/.test(known) ? known : null;
}
