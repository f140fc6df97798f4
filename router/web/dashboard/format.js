// Numbers for people: units that fit, about three digits, and a dash for what is not known.

/** @typedef {number | null | undefined} Value a number, if it is known */

export const UNKNOWN = "–";

/** About three digits, such as 0.45, 4.56, 45.6, 456. @param {number} number */
function digits(number) {
  const size = Math.abs(number);
  if (size >= 100 || Number.isInteger(number)) return number.toLocaleString("en", { maximumFractionDigits: 0 });
  return number.toFixed(size >= 10 ? 1 : 2);
}

/** @type {[number, string][]} */
const UNITS = [
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
];

/** @param {Value} number @returns {number is number} */
const isKnown = (number) => typeof number === "number" && Number.isFinite(number);

/** A latency: 85 µs, 1.24 ms, 2.50 s. @param {Value} number */
export function seconds(number) {
  if (!isKnown(number)) return UNKNOWN;
  if (number === 0) return "0 s";
  // What would be rounded to 1,000 of a unit belongs to the next one.
  if (number < 0.0009995) return `${digits(Math.round(number * 1e6))} µs`;
  if (number < 0.9995) return `${digits(number * 1e3)} ms`;
  return `${digits(number)} s`;
}

/** A number of things, or of things a second. @param {Value} number */
export function count(number) {
  if (!isKnown(number)) return UNKNOWN;
  if (Math.abs(number) >= 999_500) return `${digits(number / 1e6)} M`;
  return digits(number);
}

/** So many things a second. @param {Value} number */
export function rate(number) {
  return isKnown(number) ? `${count(number)}/s` : UNKNOWN;
}

/** A size: 1.50 MiB. @param {Value} number */
export function bytes(number) {
  if (!isKnown(number)) return UNKNOWN;
  for (const [size, unit] of UNITS) {
    if (number >= size) return `${digits(number / size)} ${unit}`;
  }
  return `${digits(number)} B`;
}

/** A share of one core. @param {Value} number */
export function percent(number) {
  if (!isKnown(number)) return UNKNOWN;
  return `${number < 10 ? Math.round(number * 10) / 10 : Math.round(number)} %`;
}

/** How long something has been so: 42 s, 3 min, 5 h 12 min, 4 d 2 h. @param {Value} number */
export function age(number) {
  if (!isKnown(number)) return UNKNOWN;
  const whole = Math.floor(number);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min`;
  return `${whole} s`;
}

/** The time of day here. @param {number} time */
export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

/** Day and time here, for what may be long ago. @param {number} time */
export function moment(time) {
  const date = new Date(time * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? "" : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} `;
  return day + clock(time);
}
