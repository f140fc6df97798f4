// The numbers of this moment, each with a line of where it has been in the last two minutes.

import { count, rate, seconds } from "./format.js";
import { View } from "./history.js";
import { element } from "./plot.js";

const TREND_SECONDS = 120;
/** Percentiles of one second jump; these are of so many together. */
const RECENT = 5;
const SVG = "http://www.w3.org/2000/svg";

/** @typedef {import("./history.js").Column} Column */
/**
 * @typedef {object} Tile
 * @property {string} id
 * @property {string} title
 * @property {(value: import("./format.js").Value) => string} unit
 * @property {(view: View) => Column} trend
 * @property {(view: View) => number | null} [now] the number, where it is not the end of the trend
 * @property {number} [none] the number when nothing has come
 * @property {string} color
 */

/** @param {Column[]} columns @returns {Column} */
const sum = (columns) => columns[0]?.map((_, index) => columns.reduce((total, column) => total + (column[index] ?? 0), 0)) ?? [];

/** @type {Tile[]} */
const TILES = [
  { id: "messages", title: "Messages", unit: rate, trend: (view) => view.rate('server/received_total{type="MSG"}'), color: "--blue" },
  {
    id: "p50",
    title: "Delivery p50",
    unit: seconds,
    trend: (view) => view.percentile("delivery_seconds", 0.5),
    now: (view) => view.recentPercentile("delivery_seconds", 0.5, RECENT),
    color: "--p50",
  },
  {
    id: "p99",
    title: "Delivery p99",
    unit: seconds,
    trend: (view) => view.percentile("delivery_seconds", 0.99),
    now: (view) => view.recentPercentile("delivery_seconds", 0.99, RECENT),
    color: "--p99",
  },
  { id: "connections", title: "Connections", unit: count, trend: (view) => view.column("server/connections"), color: "--blue" },
  { id: "online", title: "Users online", unit: count, trend: (view) => view.column("server/online"), color: "--teal" },
  {
    id: "errors",
    title: "Errors",
    unit: rate,
    trend: (view) => sum(view.labelled("errors_total").map(({ key }) => view.rate(key))),
    none: 0,
    color: "--bad",
  },
  { id: "turn", title: "Longest turn", unit: seconds, trend: (view) => view.column("server/longest_turn_seconds"), color: "--violet" },
];

/** The row of tiles. */
export class Tiles {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.tiles = TILES.map((tile) => {
      const box = element("div", "tile");
      box.id = `tile-${tile.id}`;
      const value = element("dd", "", "–");
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", "0 0 100 24");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      const area = document.createElementNS(SVG, "path");
      area.classList.add("area");
      const line = document.createElementNS(SVG, "path");
      svg.style.color = `var(${tile.color})`;
      svg.append(area, line);
      box.append(element("dt", "", tile.title), value, svg);
      list.append(box);
      return { ...tile, value, line, area };
    });
  }

  /** @param {import("./history.js").History} history @param {import("./history.js").Bounds} bounds */
  draw(history, bounds) {
    const view = new View(history, bounds, TREND_SECONDS);
    for (const { trend, now, none, unit, value, line, area } of this.tiles) {
      const values = trend(view);
      const present = now ? now(view) : (values.at(-1) ?? none);
      value.textContent = unit(present);
      const paths = trendPaths(values);
      line.setAttribute("d", paths.line);
      area.setAttribute("d", paths.area);
    }
  }
}

/** The last two minutes from left to right; where nothing is known there is no line. @param {Column} values */
function trendPaths(values) {
  const known = values.filter((value) => value !== null);
  const largest = known.reduce((a, b) => Math.max(a, b), 0) || 1;
  const x = (/** @type {number} */ index) => (100 - (values.length - 1 - index) * (100 / (TREND_SECONDS - 1))).toFixed(2);
  const y = (/** @type {number} */ value) => (22 - (value / largest) * 20).toFixed(2);
  let line = "";
  let area = "";
  /** @type {number | null} */
  let begin = null;
  values.forEach((value, index) => {
    if (value === null) {
      begin = null;
      return;
    }
    line += `${begin === null ? "M" : "L"}${x(index)} ${y(value)}`;
    if (begin === null) area += `M${x(index)} 24`;
    begin ??= index;
    area += `L${x(index)} ${y(value)}`;
    if (values[index + 1] === null || index === values.length - 1) area += `L${x(index)} 24Z`;
  });
  return { line, area };
}
