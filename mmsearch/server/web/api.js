// The server's API. A key, where the server wants one, is kept by this browser alone.

const KEY = "mmsearch_key";
let asking = null;

export class Failed extends Error {
  constructor(status, detail, id) {
    super(detail);
    this.status = status;
    this.id = id;
  }
}

export const collectionPath = (name) => `v1/collections/${encodeURIComponent(name)}`;

export async function call(path, { method = "GET", body, form, signal } = {}) {
  const headers = {};
  const key = localStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: form ?? (body === undefined ? undefined : JSON.stringify(body)), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed(0, "The server does not answer. Is it running?", "");
  }
  const told = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return {};
  });
  if (response.status === 401 && (await askForKey(key ? told.detail : ""))) return call(path, { method, body, form, signal });
  if (!response.ok) throw new Failed(response.status, told.detail || response.statusText || `The server answered ${response.status}.`, told.request_id || "");
  return told;
}

// A search, with the files that its terms name.
export function ask(path, { body, files }, signal) {
  if (!files.length) return call(path, { method: "POST", body, signal });
  const form = new FormData();
  form.set("query", JSON.stringify(body));
  for (const [name, file] of files) form.append("files", file, name);
  return call(`${path}/files`, { method: "POST", form, signal });
}

function askForKey(why) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask");
    document.getElementById("ask-why").textContent = why ? `The key was refused: ${why}.` : "Whoever runs it makes keys: mmsearch keys create NAME";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      asking = null;
      const key = document.getElementById("key").value.trim();
      if (dialog.returnValue !== "ok" || !key) return resolve(false);
      localStorage.setItem(KEY, key);
      document.getElementById("key").value = "";
      keepCookie();
      resolve(true);
    }, { once: true });
  });
  return asking;
}

// Pictures and sounds are fetched by the browser itself, which sends cookies and not our headers.
export function keepCookie() {
  const key = localStorage.getItem(KEY);
  if (key) document.cookie = `${KEY}=${encodeURIComponent(key)}; SameSite=Strict; Path=/${location.protocol === "https:" ? "; Secure" : ""}`;
}
