// @ts-check
/** The way to the application's login page, and back: it returns to this page with a token in the fragment. */

import { byId } from "./dom.js";
import { keepPlace } from "./storage.js";

/** Where users log in; empty if this server has no such page. */
const url = document.querySelector("meta[name=fastchat-login]")?.getAttribute("content") ?? "";

/** Whether a token is to be had by a link. */
export const hasLogin = /^https?:/i.test(url);

if (hasLogin) {
  for (const id of ["login", "welcome-login"]) {
    const link = /** @type {HTMLAnchorElement} */ (byId(id));
    link.href = url;
    link.addEventListener("click", keepPlace);
  }
}
