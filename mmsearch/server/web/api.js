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
  if (response.status === 401 && (await askForKey())) return call(path, { method, body, form, signal });
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Failed(response.status, told.detail || response.statusText, told.request_id || "");
  return told;
}

function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      asking = null;
      const key = document.getElementById("key").value.trim();
      if (dialog.returnValue !== "ok" || !key) return resolve(false);
      localStorage.setItem(KEY, key);
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
