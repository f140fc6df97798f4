// @ts-check
/** What text means to the page: lengths, links, emoji, days and times. Nothing in here touches the document. */

/** Characters (Unicode code points) of a message at most; the server's limit. */
export const CONTENT_MAX = 1000;
/** Emoji that a message may consist of and still be shown large. */
const EMOJI_LARGE_MAX = 6;

/** A link ends at white space, quotes, angle brackets, and at characters that can't be seen or turn text round. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: no link has one
const LINK = /\bhttps?:\/\/[^\s<>"'\u0060\u0000-\u0020\u007f-\u00a0\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]+/giu;
// biome-ignore lint/suspicious/noMisleadingCharacterClass: each of these characters by itself is meant
const EMOJI_ONLY = /^(?:[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\u200d\ufe0f\s]|[#*0-9]\ufe0f?\u20e3)+$/u;

const TIME = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DATE_AND_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const SHORT_DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** @param {string} text @returns {number} its length as the server counts it, in code points */
export const lengthOf = (text) => [...text].length;

/**
 * Cut a text where links are in it.
 * @param {string} text
 * @returns {{text: string, href?: string}[]} pieces that make up the whole text; those with `href` are http or https links
 */
export function linkify(text) {
  const pieces = [];
  let from = 0;
  for (const match of text.matchAll(LINK)) {
    const shown = withoutTrailing(match[0]);
    const href = safeHref(shown);
    if (!href) continue;
    if (match.index > from) pieces.push({ text: text.slice(from, match.index) });
    pieces.push({ text: shown, href });
    from = match.index + shown.length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from) });
  return pieces;
}

/** Punctuation behind a link belongs to the sentence, and a closing bracket does unless it was opened in the link. @param {string} link */
function withoutTrailing(link) {
  for (;;) {
    const last = link.at(-1) ?? "";
    const opening = { ")": "(", "]": "[", "}": "{" }[last];
    const closes = opening !== undefined && link.split(last).length > link.split(opening).length;
    if (!closes && !".,:;!?…".includes(last)) return link;
    link = link.slice(0, -1);
  }
}

/** @param {string} text @returns {string} what to link to; empty if it is no http or https URL with a host */
function safeHref(text) {
  try {
    const url = new URL(text);
    return (url.protocol === "https:" || url.protocol === "http:") && url.hostname ? url.href : "";
  } catch {
    return "";
  }
}

/** @param {string} text @returns {boolean} whether it is a few emoji and nothing else */
export function isEmojiOnly(text) {
  if (text.length > 80 || !EMOJI_ONLY.test(text) || !text.trim()) return false;
  const bare = text.replace(/\s/gu, "");
  const count = "Segmenter" in Intl ? [...new Intl.Segmenter().segment(bare)].length : lengthOf(bare);
  return count <= EMOJI_LARGE_MAX;
}

/** @param {string} name @returns {string} one or two letters that stand for a person */
export function initials(name) {
  const letters = [...name.matchAll(/(?:^|[\s._-])([\p{Letter}\p{Number}])/gu)].map((match) => match[1]);
  const chosen = letters.length > 1 ? [letters[0], letters.at(-1)] : letters;
  return chosen.join("").toLocaleUpperCase() || "?";
}

/** @param {string} id @param {number} count @returns {number} 0 to count - 1, always the same for the same id */
export function shadeOf(id, count) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 65521;
  return hash % count;
}

/** @param {number} at milliseconds since 1970 @returns {string} such as 14:05 */
export const timeOf = (at) => TIME.format(at);

/** @param {number} at @returns {string} day and time in full */
export const fullTimeOf = (at) => FULL.format(at);

/** @param {number} at @returns {string} the same for all moments of one day, in the reader's time zone */
export function dayKey(at) {
  const day = new Date(at);
  return `${day.getFullYear()}-${day.getMonth() + 1}-${day.getDate()}`;
}

/** @param {number} at @param {number} now @returns {number} midnights between the two, in the reader's time zone */
function daysAgo(at, now) {
  const then = new Date(at);
  const today = new Date(now);
  const midnight = Date.UTC(then.getFullYear(), then.getMonth(), then.getDate());
  return Math.round((Date.UTC(today.getFullYear(), today.getMonth(), today.getDate()) - midnight) / 86_400_000);
}

/** @param {number} at @param {number} now @returns {string} what stands between the messages of two days */
export function dayName(at, now) {
  const days = daysAgo(at, now);
  if (days === 0 || days === 1) return capitalised(RELATIVE.format(-days, "day"));
  if (days > 0 && days < 7) return WEEKDAY.format(at);
  return (days < 300 && days > 0 ? DATE : DATE_AND_YEAR).format(at);
}

/** @param {number} at @param {number} now @returns {string} as short as fits beside a name: the time today, else the day */
export function shortWhen(at, now) {
  const days = daysAgo(at, now);
  if (days <= 0) return timeOf(at);
  return days === 1 ? "Yesterday" : SHORT_DATE.format(at);
}

/** @param {string} text */
const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {number} count @param {string} one @param {string} [many] @returns {string} such as "1 message", "3 messages" */
export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
