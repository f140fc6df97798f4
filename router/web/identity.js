// @ts-check
/** Who one is: the name at the beginning, and the dialog to change it, to be found, to try it as two, and to be forgotten. */

import { announce, avatar, byId, nameOf } from "./dom.js";
import { hasLogin } from "./login.js";
import { fragmentOf, nameIn, problemOfName } from "./names.js";

/** @typedef {import("./storage.js").Person} Person */

/**
 * Let a form take a name.
 * @param {string} id of the form, whose input and paragraph for problems are `id`-name and `id`-problem
 * @param {(name: string) => void} accept
 */
function nameForm(id, accept) {
  const input = /** @type {HTMLInputElement} */ (byId(`${id}-name`));
  const problem = byId(`${id}-problem`);
  const check = () => {
    problem.textContent = problemOfName(input.value);
    input.setAttribute("aria-invalid", String(problem.textContent !== ""));
    return !problem.textContent;
  };
  input.addEventListener("input", () => problem.textContent && check());
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    if (check()) accept(input.value);
    else input.focus();
  });
  return input;
}

/**
 * Ask for a name; or to log in, where that is how one gets it.
 * @param {boolean} hasToken
 * @returns {Promise<string>}
 */
export function askName(hasToken) {
  byId("welcome").hidden = false;
  const inviter = nameIn(location.hash);
  if (inviter) byId("welcome-text").replaceChildren(nameOf(inviter), " invites you to chat.");
  const isLogin = hasLogin && !hasToken;
  byId("welcome-fields").hidden = isLogin;
  byId("welcome-login").hidden = !isLogin;
  if (isLogin) return new Promise(() => {}); // the page is loaded anew
  return new Promise((resolve) => {
    nameForm("welcome-form", (name) => {
      byId("welcome").hidden = true;
      resolve(name);
    }).focus();
  });
}

/** A field with one's link, and the button that copies it. @param {string} prefix of their ids @returns {HTMLInputElement} the field */
function linkField(prefix) {
  const field = /** @type {HTMLInputElement} */ (byId(`${prefix}link`));
  const copied = byId(`${prefix}copied`);
  byId(`${prefix}copy`).addEventListener("click", async () => {
    field.select();
    const isCopied = await navigator.clipboard?.writeText(field.value).then(
      () => true,
      () => false,
    );
    copied.textContent = isCopied ? "Copied." : "Copy it from the field.";
    announce(copied.textContent);
  });
  return field;
}

/**
 * The button with one's own name, and the dialog behind it.
 * @param {Person} person
 * @param {() => void} renamed
 * @returns {() => void} shows the name as it is now, which another tab may have changed
 */
export function setUpIdentity(person, renamed) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("settings"));
  const links = ["", "invitation-"].map(linkField);
  let shown = "";
  const show = () => {
    if (shown === person.name) return;
    shown = person.name;
    byId("me-name").replaceChildren(avatar(person.userId, person.name), nameOf(person.name));
    for (const link of links) link.value = `${location.origin}/${fragmentOf(person.userId, person.name)}`;
  };
  const input = nameForm("settings-form", (name) => {
    dialog.close();
    if (name.trim() === person.name) return;
    person.introduce(name);
    renamed();
  });
  byId("me").addEventListener("click", () => {
    input.value = person.name;
    byId("settings-form-problem").textContent = "";
    byId("ends").hidden = !person.isPrivate;
    dialog.showModal();
  });
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  byId("forget").addEventListener("click", () => {
    if (byId("forget").dataset.sure !== "yes") {
      byId("forget").dataset.sure = "yes";
      byId("forget").textContent = "Really forget? Your chats can't be found again";
      return;
    }
    person.forget();
    location.replace(location.pathname + location.search);
  });
  return show;
}
