// @ts-check
/** Who people are: their ids, their names, and the links to them. Nothing in here touches the document. */

import { counted, lengthOf } from "./text.js";

/** Characters of a display name at least and at most. */
const NAME_MIN = 3;
const NAME_MAX = 50;
/** Characters of a name in a link from which it is none: each of a name takes at most 12 there, and some of them are not counted. */
const NAME_IN_LINK_MAX = 2000;
/** Characters of an id that tell people of one name apart, if they do. */
const TAG_MIN = 4;

/** What a user id may look like, with the server's widest setting. */
const USER_ID = /^(?=.*[A-Za-z0-9])[A-Za-z0-9._|@:+=-]{1,128}$/;
/** Characters of a name that can't be seen and are not counted; joiners between letters and in emoji are. */
// biome-ignore lint/suspicious/noMisleadingCharacterClass: each of these characters by itself is meant
const INVISIBLE = /(?![\u200c\u200d\ufe0e\ufe0f])\p{Default_Ignorable_Code_Point}/gu;
const VISIBLE = /[^\p{White_Space}\p{Default_Ignorable_Code_Point}]/u;
/** What breaks a line, and what is no character of a text. */
const BREAK = /[\t\n\r\x85\u2028\u2029]/gu;
const CONTROL = /\p{Cc}|\p{Cs}/gu;
const MARKUP = /<[^<>]*>/gu;

/** @param {unknown} value @returns {value is string} whether it can be a user id */
export const isUserId = (value) => typeof value === "string" && USER_ID.test(value);

/**
 * The fragment of a URL: whose chat is open.
 * @param {string} id of a user
 * @param {string} [name] theirs, in a link that invites, so that the page of whoever follows it can say who does
 * @returns {string}
 */
export function fragmentOf(id, name = "") {
  const shown = cleanName(name);
  return `#${encodeURIComponent(id)}${shown && `&name=${encodeURIComponent(shown)}`}`;
}

/** @param {string} fragment @returns {string} whose chat it names; empty if it names nobody */
export function userIn(fragment) {
  const id = decoded(fragment.slice(1).split("&", 1)[0]);
  return isUserId(id) ? id : "";
}

/** @param {string} fragment @returns {string} the name that a link gives to whom it leads to, which anybody may have written; empty if it gives none */
export function nameIn(fragment) {
  const encoded = /&name=([^&]*)/.exec(fragment)?.[1] ?? "";
  return encoded.length > NAME_IN_LINK_MAX || !userIn(fragment) ? "" : cleanName(decoded(encoded));
}

/** @param {string} encoded @returns {string} */
function decoded(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return ""; // a percent sign that stands for itself
  }
}

/** @param {string} text from anywhere @returns {string} the display name that the server would make of it; empty if it can't be one */
export function cleanName(text) {
  const seen = text.replace(BREAK, " ").replace(CONTROL, "").replace(INVISIBLE, "");
  const name = seen.replace(MARKUP, "").trim().normalize("NFC");
  return problemOfName(name, 1) ? "" : name;
}

/** @param {string} name @param {number} [least] characters; a token's name may be shorter @returns {string} why it can't be a display name; empty if it can */
export function problemOfName(name, least = NAME_MIN) {
  const length = lengthOf(name.replace(INVISIBLE, "").trim().normalize("NFC"));
  if (name.trim() && !VISIBLE.test(name)) return "A name has something in it that can be seen.";
  if (length < least) return `A name has at least ${counted(least, "character")}.`;
  return length > NAME_MAX ? `A name has at most ${NAME_MAX} characters; this one has ${length}.` : "";
}

/** @param {string} name as others see it @returns {string} it as HELLO takes it, where the name in a token may be too short for it */
export const nameForHello = (name) => name + ".".repeat(Math.max(0, NAME_MIN - lengthOf(name)));

/**
 * What tells people of one name apart: the shortest beginning of their ids that no other of them has.
 * @param {Iterable<readonly [string, string]>} people ids and names
 * @returns {Map<string, string>} id -> it; only of those whose name somebody else has too, whatever its case and spaces
 */
export function tagsOf(people) {
  /** @type {Map<string, string[]>} */
  const byName = new Map();
  for (const [id, name] of people) {
    const key = name.normalize("NFKC").toLowerCase().replace(/\s+/gu, " ");
    const same = byName.get(key);
    if (same) same.push(id);
    else byName.set(key, [id]);
  }
  const tags = new Map();
  for (const ids of byName.values()) {
    if (ids.length === 1) continue;
    let length = TAG_MIN;
    while (new Set(ids.map((id) => id.slice(0, length))).size < ids.length) length++;
    for (const id of ids) tags.set(id, id.slice(0, length));
  }
  return tags;
}
