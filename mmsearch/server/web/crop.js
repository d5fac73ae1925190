// A part of a picture to search with: a frame that is drawn, moved and sized by pointer or by arrow keys.

import { $, el } from "./dom.js";

const LEAST = 0.04; // of a side
const LONGEST = 1280; // pixels of what is sent

// `address` is of a picture that is ours or a blob; `use(file)` takes the part.
export function crop(address, name, use) {
  const dialog = $("crop");
  const picture = el("img", { src: address, alt: name, draggable: "false" });
  const frame = el("div", { class: "cut", tabindex: "0", role: "group", "aria-describedby": "crop-how" });
  const stage = el("div", { class: "stage" }, picture, frame);
  const ready = el("button", { type: "button", class: "go", disabled: true, onclick: take }, "Search with this part");
  let box = [0.15, 0.15, 0.85, 0.85]; // left, top, right, bottom, of 1
  const show = () => {
    ["--left", "--top", "--right", "--bottom"].forEach((side, n) => frame.style.setProperty(side, `${100 * (n < 2 ? box[n] : 1 - box[n])}%`));
    frame.setAttribute("aria-label", `The part: from ${Math.round(100 * box[0])} to ${Math.round(100 * box[2])} percent across, from ${Math.round(100 * box[1])} to ${Math.round(100 * box[3])} percent down`);
  };
  const within = (value) => Math.max(0, Math.min(1, value));
  const spot = ({ clientX, clientY }) => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    return [within((clientX - left) / width), within((clientY - top) / height)];
  };
  const moved = ([x, y], from) => {
    const dx = Math.max(-from[0], Math.min(1 - from[2], x));
    const dy = Math.max(-from[1], Math.min(1 - from[3], y));
    return [from[0] + dx, from[1] + dy, from[2] + dx, from[3] + dy];
  };
  const sorted = ([x, y], [a, b]) => [Math.min(x, a), Math.min(y, b), Math.max(x, a, Math.min(x, a) + LEAST), Math.max(y, b, Math.min(y, b) + LEAST)].map(within);
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    frame.focus();
    const start = spot(event);
    const from = box;
    const rect = picture.getBoundingClientRect();
    const near = (n) => Math.abs(start[n % 2] - from[n]) * (n % 2 ? rect.height : rect.width) < 22; // a finger's width about an edge
    const inside = start[0] > from[0] && start[0] < from[2] && start[1] > from[1] && start[1] < from[3];
    const corner = (near(0) || near(2)) && (near(1) || near(3));
    const anchor = corner ? [near(0) ? from[2] : from[0], near(1) ? from[3] : from[1]] : start;
    stage.onpointermove = (next) => {
      const now = spot(next);
      box = inside && !corner ? moved([now[0] - start[0], now[1] - start[1]], from) : sorted(now, anchor);
      show();
    };
  });
  stage.addEventListener("pointerup", () => { stage.onpointermove = null; });
  stage.addEventListener("pointercancel", () => { stage.onpointermove = null; });
  frame.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter" && !ready.disabled) return take();
    if (!dx && !dy) return;
    event.preventDefault();
    event.stopPropagation();
    box = event.shiftKey ? [box[0], box[1], Math.max(box[0] + LEAST, within(box[2] + 0.02 * dx)), Math.max(box[1] + LEAST, within(box[3] + 0.02 * dy))].map(within) : moved([0.02 * dx, 0.02 * dy], box);
    show();
  });
  picture.addEventListener("load", () => {
    const ratio = picture.naturalWidth / picture.naturalHeight;
    stage.style.width = `min(100%, ${Math.max(picture.naturalWidth, Math.round(360 * ratio))}px, ${(60 * ratio).toFixed(1)}vh)`; // small ones are shown larger
    ready.disabled = false;
  });
  picture.addEventListener("error", () => stage.replaceChildren(el("p", { role: "alert" }, "This picture cannot be shown here.")));
  function take() {
    const [width, height] = [picture.naturalWidth * (box[2] - box[0]), picture.naturalHeight * (box[3] - box[1])];
    const size = Math.min(1, LONGEST / Math.max(width, height));
    const canvas = el("canvas", { width: Math.max(1, Math.round(width * size)), height: Math.max(1, Math.round(height * size)) });
    const drawing = canvas.getContext("2d");
    drawing.fillStyle = "#fff";
    drawing.fillRect(0, 0, canvas.width, canvas.height);
    drawing.drawImage(picture, picture.naturalWidth * box[0], picture.naturalHeight * box[1], width, height, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => {
      dialog.close();
      use(new File([blob], `part of ${name.replace(/^(part of )+/, "")}`, { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  }
  show();
  dialog.replaceChildren(el("h2", { id: "crop-title" }, "Search with a part of the picture"), stage,
    el("p", { class: "small", id: "crop-how" }, "Draw a frame, or move it and pull its corners. Arrow keys move it, with Shift they size it."),
    el("menu", {}, ready, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  dialog.showModal();
  frame.focus();
}
