// @ts-check
/**
 * The service worker of the page: keeps the page's files, so that the page opens without a connection, and opens the chat of a notification
 * that was clicked.
 *
 * Files come from the network if it has them, so a new version of the server is seen at the next load. The server fills in the digest of each
 * file: its new version makes this another worker, which keeps all files anew before those of the old version go. What is kept is of one version.
 */

const SHELL = { version: "", files: {} };

const NAME = "fastchat-shell-";
const CACHE = NAME + SHELL.version;
/** What TypeScript knows of pages only. */
const worker = /** @type {any} */ (self);
/** Pages that were opened without the network: all of their files are what is kept. @type {Set<string>} */
const opened = new Set();

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keep()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(forgetOld()));

async function keep() {
  const cache = await caches.open(CACHE);
  const files = Object.entries(SHELL.files);
  await Promise.all(files.map(async ([path, digest]) => cache.put(path, await fetchVersion(path, String(digest)))));
  await worker.skipWaiting();
}

/**
 * A file as this version has it: the one that the browser has loaded with the page, if it is that.
 * @param {string} path
 * @param {string} digest
 */
async function fetchVersion(path, digest) {
  for (const cache of /** @type {RequestCache[]} */ (["force-cache", "no-cache"])) {
    const file = await fetch(path, { cache });
    if (file.ok && file.headers.get("ETag")?.includes(digest)) return file;
  }
  throw new Error(`${path} is not of this version`); // the server is being replaced; the next load of the page tries again
}

async function forgetOld() {
  for (const name of await caches.keys()) if (name.startsWith(NAME) && name !== CACHE) await caches.delete(name);
}

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { origin, pathname } = new URL(event.request.url);
  if (event.request.method !== "GET" || origin !== location.origin || !Object.hasOwn(SHELL.files, pathname)) return;
  event.respondWith(answer(event, pathname));
});

/** @param {any} event @param {string} path @returns {Promise<Response>} */
async function answer({ request, clientId, resultingClientId }, path) {
  const kept = async () => (await caches.open(CACHE)).match(path, { ignoreVary: true });
  if (opened.has(clientId)) {
    const file = await kept();
    if (file) return file;
  }
  /** @type {Response | undefined} */
  let came;
  try {
    came = await fetch(request);
    if (came.status < 500) return came;
  } catch {
    // No network, or no server.
  }
  const file = await kept();
  if (file && request.mode === "navigate") opened.add(resultingClientId);
  return file ?? came ?? Response.error();
}

worker.addEventListener("notificationclick", (/** @type {any} */ event) => {
  event.notification.close();
  event.waitUntil(openChat(event.notification.data));
});

/** Go to the tab of the person whom the message was for, or open one. @param {{page: string, fragment: string}} data */
async function openChat({ page, fragment }) {
  const tabs = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  const tab = tabs.find((/** @type {any} */ each) => {
    const { pathname, search } = new URL(each.url);
    return pathname + search === page;
  });
  if (!tab) return worker.clients.openWindow(page + fragment);
  tab.postMessage({ open: fragment });
  return tab.focus();
}
