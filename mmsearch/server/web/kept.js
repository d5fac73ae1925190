// Pictures and sounds that were searched with, kept by this browser alone, so that a reload or a step back finds the same.

const MOST = 30;
const here = new Map(); // of this visit: also where the browser keeps nothing (private windows)

function store(mode, use) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("mmsearch", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("files");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction("files", mode);
      const asked = use(transaction.objectStore("files"));
      transaction.oncomplete = () => { database.close(); resolve(asked.result); };
      transaction.onabort = () => { database.close(); reject(transaction.error); };
    };
  });
}

// The name under which a file is found again.
export function keep(file) {
  const id = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  here.set(id, file);
  store("readwrite", (files) => files.put(file, id))
    .then(() => store("readonly", (files) => files.getAllKeys()))
    .then((ids) => Promise.all(ids.sort().slice(0, -MOST).map((old) => store("readwrite", (files) => files.delete(old)))))
    .catch(() => {}); // a browser that keeps nothing: a reload asks for the file again
  return id;
}

export async function kept(id) {
  const file = here.get(id) ?? (await store("readonly", (files) => files.get(id)).catch(() => undefined));
  if (file) here.set(id, file);
  return file ?? null;
}
