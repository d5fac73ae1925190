// A sound: a button, a track on which the passage that matched is marked, and the time. It starts at that passage.

import { el, seconds } from "./dom.js";

// `from` and `to` are the passage in seconds, `to` null for none; `duration` may be unknown until it plays.
export function player(src, title, { from = 0, to = null, duration = null }) {
  const audio = el("audio", { preload: "none", src: `${src}#t=${from}`, "aria-label": title });
  const play = el("button", { type: "button", class: "play", "aria-label": `Play ${title}` });
  const track = el("input", { type: "range", min: "0", step: "any", value: String(from), "aria-label": `Position in ${title}` });
  const clock = el("span", { class: "small clock" });
  const made = el("div", { class: "player" }, audio, play, el("div", { class: "track" }, track), clock);
  let length = duration;
  const show = () => {
    const now = audio.readyState ? audio.currentTime : Number(track.value);
    track.value = String(now);
    track.setAttribute("aria-valuetext", seconds(now));
    if (length) made.style.setProperty("--at", Math.min(1, now / length));
    clock.textContent = audio.paused && !audio.readyState ? (length ? seconds(length) : "") : seconds(now);
  };
  const measured = (told) => {
    if (!(told > 0) || !Number.isFinite(told)) return;
    length = told;
    track.max = String(length);
    if (to !== null) {
      made.style.setProperty("--from", from / length);
      made.style.setProperty("--to", Math.min(1, to / length));
    }
    show();
  };
  track.max = String(duration ?? Math.max(to ?? 0, from, 1));
  play.addEventListener("click", () => {
    if (!audio.paused) return audio.pause();
    if (audio.ended) audio.currentTime = from;
    audio.play().catch(failed);
  });
  const failed = () => {
    if (!audio.error) return;
    play.disabled = true;
    clock.textContent = "cannot be played";
  };
  audio.addEventListener("error", failed);
  audio.addEventListener("loadedmetadata", () => measured(audio.duration));
  audio.addEventListener("timeupdate", show);
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, () => {
    made.classList.toggle("playing", !audio.paused);
    play.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"} ${title}`);
  });
  track.addEventListener("input", () => {
    audio.currentTime = Number(track.value);
    if (length) made.style.setProperty("--at", Number(track.value) / length);
  });
  measured(duration);
  show();
  return made;
}
