// @ts-check
/**
 * The token that proves who one is, where the server wants that. The server alone checks it; the page only looks whose it is. It comes in the
 * fragment of a link, which no browser sends to a server, or from the field in the connection bar.
 */

import { isUserId, problemOfName } from "./text.js";

/** A JSON Web Token: header, claims, signature. The link that it came in may stand before it. */
const TOKEN = /^(?:\S*#token=)?([\w-]+\.([\w-]+)\.[\w-]+)$/;
const TOKEN_MAX = 8192;
const UUID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** @param {string} token @returns {{userId: string, name: string}} whose it is, and what they are called; both empty if it does not say */
export function claimsOf(token) {
  try {
    const encoded = TOKEN.exec(token)?.[2] ?? "";
    const bytes = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
    const { sub, name } = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
    // As the server writes it.
    const userId = !isUserId(sub) ? "" : UUID.test(sub) ? sub.toLowerCase() : sub;
    return { userId, name: typeof name === "string" && !problemOfName(name, 1) ? name : "" };
  } catch {
    return { userId: "", name: "" };
  }
}

/** @param {string} text @returns {string} the token that it is, or the link to it; empty if it is neither */
export function tokenIn(text) {
  const token = TOKEN.exec(text.trim())?.[1] ?? "";
  return token.length <= TOKEN_MAX && claimsOf(token).userId ? token : "";
}

/** Take the token out of the address bar and out of the history of the tab. @returns {string} it; empty if there is none */
export function takeToken() {
  const { hash, pathname, search } = location;
  if (!hash.startsWith("#token=")) return "";
  history.replaceState(null, "", pathname + search);
  return tokenIn(hash);
}
