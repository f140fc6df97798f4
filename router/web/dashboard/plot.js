// Draws what charts.js describes: a panel with title, legend and plotly's plot, and words in its place when there is nothing to show.

import { bytes, count, percent, rate, seconds, UNKNOWN } from "./format.js";

/** @typedef {import("./charts.js").Line} Line */
/** @typedef {import("./charts.js").Drawing} Drawing */
/** @typedef {import("./format.js").Value} Value */
/** @typedef {(value: Value) => string} Unit */
/** @typedef {import("./history.js").Column} Column */
/** @typedef {import("./history.js").View} View */
/** @typedef {import("./processes.js").Happened} Happened */
/** @typedef {any} Trace a line, the bars or the cells, as plotly takes them; `hasData` is ours */

const HEIGHT = 224;
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
/** Of a plot, in pixels: with less there is room for fewer times. */
const NARROW = 480;
/** Ends of an axis that look good, and into how many parts each is divided. @type {[number, number][]} */
const ENDS = [
  [1, 4],
  [1.5, 3],
  [2, 4],
  [3, 3],
  [4, 4],
  [5, 5],
  [6, 3],
  [8, 4],
  [10, 4],
];
/** An axis ends here at the least, so that one message does not fill the plot. @type {Map<Unit, number>} */
const LEAST = new Map([
  [bytes, 1024],
  [count, 4],
]);
/** How plotly writes a value where the pointer is, in the units that it knows; it does so only when there is a pointer. @type {Map<Unit, string>} */
const HOVER = new Map([
  [seconds, "%{y:.3s}s"],
  [rate, "%{y:,.4~r}/s"],
  [count, "%{y:,.4~r}"],
  [percent, "%{y:.3~r} %"],
]);
/** Beside a plot, and of a label above it, in pixels. */
const LEFT = 60;
const RIGHT = 12;
const LABEL_WIDTH = 64;

/** Times that plotly, which knows only UTC, shows as the time here. @param {number} time */
const here = (time) => (time - new Date(time * 1000).getTimezoneOffset() * 60) * 1000;

/** Whether an event is one that somebody has to look at. @param {Happened} event */
const isBad = ({ kind }) => kind === "ended" || kind === "problem";

/** Colours as they are in the present theme. */
class Colors {
  #probe = document.createElement("span");
  /** @type {Map<string, string>} */
  #known = new Map();

  constructor() {
    this.#probe.hidden = true;
    document.body.append(this.#probe);
  }

  forget() {
    this.#known.clear();
  }

  /** @param {string} name @returns {string} */
  get(name) {
    let color = this.#known.get(name);
    if (color === undefined) {
      this.#probe.style.color = `var(${name})`;
      color = getComputedStyle(this.#probe).color;
      this.#known.set(name, color);
    }
    return color;
  }

  /** The same, so much of it to be seen through. @param {string} name @param {number} opacity */
  faint(name, opacity) {
    return this.get(name).replace(/^rgb\((.*)\)$/, `rgba($1, ${opacity})`);
  }
}

export const colors = new Colors();

/** An axis from 0 to a bit more than `largest`, which stays as it is as long as that changes little. @param {number} largest @param {Unit} unit */
function linearAxis(largest, unit) {
  const wanted = Math.max(largest * 1.05, LEAST.get(unit) ?? 1);
  const base = unit === bytes ? 1024 ** Math.floor(Math.log2(wanted) / 10) : 1;
  const power = base * 10 ** Math.floor(Math.log10(wanted / base) + 1e-9);
  const [end, parts] = ENDS.find(([step]) => step * power >= wanted * 0.9999) ?? ENDS[ENDS.length - 1];
  const tickvals = Array.from({ length: parts + 1 }, (_, index) => (end * power * index) / parts);
  return { type: "linear", range: [0, end * power], tickvals, ticktext: tickvals.map((value) => unit(value)) };
}

/** A logarithmic axis over whole powers of ten, two at the least. @param {Column} values @param {Unit} unit */
function logAxis(values, unit) {
  const known = values.map((value) => value ?? 0).filter((value) => value > 0);
  const largest = known.reduce((a, b) => Math.max(a, b), 0) || 0.1;
  const smallest = known.reduce((a, b) => Math.min(a, b), largest);
  const top = Math.ceil(Math.log10(largest) - 1e-3);
  const bottom = Math.min(Math.floor(Math.log10(smallest) + 1e-3), top - 2);
  return { type: "log", range: [bottom, top], ...logTicks(bottom, top, unit) };
}

/** Powers of ten, and where there is room, three times each. @param {number} bottom @param {number} top @param {Unit} unit */
function logTicks(bottom, top, unit) {
  const tickvals = [];
  for (let power = Math.floor(bottom); power <= top; power++) {
    tickvals.push(10 ** power);
    if (top - bottom <= 3 && power < top) tickvals.push(3 * 10 ** power);
  }
  return { tickvals, ticktext: tickvals.map((value) => unit(value)) };
}

/** A line, and dots for values with nothing on either side, which would not be seen otherwise. @param {Column} values @param {string} color @param {boolean} [dots] whether there are only dots */
function lineStyle(values, color, dots) {
  if (dots) return { mode: "markers", marker: { color, size: 9, line: { color: colors.get("--panel"), width: 1 } } };
  const isAlone = (/** @type {number | null} */ value, /** @type {number} */ index) =>
    value !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null;
  const alone = values.map(isAlone);
  const line = { color, width: 1.6 };
  if (!alone.includes(true)) return { mode: "lines", line };
  return { mode: "lines+markers", line, marker: { color, size: alone.map((dot) => (dot ? 4 : 0)), line: { width: 0 } } };
}

/**
 * A new element of the document.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {string} [className]
 * @param {string} [text]
 */
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** One chart on the page. */
export class Plot {
  /** @param {import("./charts.js").Chart} chart */
  constructor(chart) {
    this.chart = chart;
    this.visible = false;
    this.stale = true;
    this.names = "";
    /** Lines that the reader has switched off. @type {Set<string>} */
    this.off = new Set();
    this.figure = element("figure", "panel chart");
    this.figure.id = `chart-${chart.id}`;
    const caption = element("figcaption");
    const title = element("h3", "", chart.title);
    title.id = `title-${chart.id}`;
    this.figure.setAttribute("aria-labelledby", title.id);
    caption.append(title, element("p", "note", chart.note));
    this.legend = element("ul", "legend");
    this.legend.setAttribute("aria-label", `${chart.title}: lines, and their last values`);
    this.space = element("div", "space");
    this.plot = element("div", "plot");
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", `${chart.title} over time`);
    this.words = element("p", "empty", "Waiting for the first numbers …");
    this.space.append(this.plot, this.words);
    this.figure.append(caption, this.legend, this.space);
  }

  /**
   * Show what `view` has.
   * @param {any} plotly
   * @param {View} view
   * @param {Happened[]} events
   * @param {string | null} tooEarly why there can't be anything yet
   */
  draw(plotly, view, events, tooEarly) {
    this.stale = false;
    const drawing = this.chart.draw(view);
    const traces = this.#traces(drawing, view);
    this.#showLegend(drawing);
    const isEmpty = !traces.some((trace) => trace.hasData);
    this.words.textContent = tooEarly ?? this.chart.empty;
    this.words.hidden = !isEmpty || this.off.size > 0;
    this.figure.classList.toggle("is-empty", !this.words.hidden);
    const layout = this.#layout(drawing, traces, view, events);
    for (const trace of traces) delete trace.hasData;
    plotly.react(this.plot, traces, layout, { displayModeBar: false, responsive: true, doubleClick: false });
  }

  /** Say why there is no plot. @param {string} words */
  say(words) {
    this.words.textContent = words;
    this.words.hidden = false;
  }

  // -- Legend --

  /** @param {Drawing} drawing */
  #showLegend({ lines, bars, heat }) {
    this.legend.hidden = false;
    if (heat) {
      this.#showScale(heat);
      return;
    }
    const shown = lines ?? bars?.stacks ?? [];
    const names = shown.map(({ name }) => name).join("\n");
    if (names !== this.names) {
      this.names = names;
      this.legend.replaceChildren(...shown.map((line) => this.#legendItem(line)));
    }
    this.legend.hidden = !shown.length;
    shown.forEach(({ values }, index) => {
      const value = this.legend.children[index].querySelector(".value");
      const last = this.chart.dots ? values.findLast((each) => each !== null) : values.at(-1);
      if (value) value.textContent = last === null || last === undefined ? UNKNOWN : this.chart.unit(last);
    });
  }

  /** What the colours of a heat map mean. @param {import("./charts.js").Heat} heat */
  #showScale({ rows, labels }) {
    const largest = rows.flat().reduce((/** @type {number} */ a, value) => Math.max(a, value ?? 0), 0);
    const [from, to] = labels ? [this.chart.unit(0), this.chart.unit(largest)] : ["few", "many"];
    const names = `scale ${from} ${to}`;
    if (this.names === names) return;
    this.names = names;
    const item = element("li", "scale");
    item.append(element("span", "name", from), element("span", "gradient"), element("span", "name", to));
    this.legend.replaceChildren(item);
  }

  /** @param {Line} line */
  #legendItem({ name, color }) {
    const item = element("li");
    const button = element("button", "", "");
    button.type = "button";
    button.title = "Hide or show this line";
    button.setAttribute("aria-pressed", String(!this.off.has(name)));
    const swatch = element("span", "swatch");
    swatch.style.background = `var(${color})`;
    button.append(swatch, element("span", "name", name), element("span", "value", UNKNOWN));
    button.addEventListener("click", () => {
      if (!this.off.delete(name)) this.off.add(name);
      button.setAttribute("aria-pressed", String(!this.off.has(name)));
      this.stale = true;
      this.figure.dispatchEvent(new Event("wants-drawing", { bubbles: true }));
    });
    item.append(button);
    return item;
  }

  // -- Plotly --

  /** @param {Drawing} drawing @param {View} view @returns {Trace[]} */
  #traces({ lines = [], bars, heat }, view) {
    if (heat) return [this.#heatTrace(heat)];
    if (bars) {
      const x = bars.times.map(here);
      return bars.stacks.map(({ name, values, color }) => ({
        type: "bar",
        name,
        x,
        y: values,
        width: bars.width * 1000,
        marker: { color: colors.get(color), line: { width: 0 } },
        ...this.#hover(values),
        visible: !this.off.has(name),
        hasData: values.some((value) => value),
      }));
    }
    const x = view.times.map(here);
    return lines.map(({ name, values, color, fill }) => ({
      type: "scatter",
      ...lineStyle(values, colors.get(color), this.chart.dots),
      name,
      x,
      y: values,
      ...(fill ? { fill: "tozeroy", fillcolor: colors.faint(color, 0.15) } : {}),
      connectgaps: false,
      ...this.#hover(values),
      visible: !this.off.has(name),
      hasData: !this.off.has(name) && values.some((value) => value),
    }));
  }

  /** What is shown where the pointer is. @param {Column} values */
  #hover(values) {
    const template = HOVER.get(this.chart.unit);
    if (template) return { hovertemplate: template };
    return { hovertext: values.map((value) => (value === null ? "" : this.chart.unit(value))), hovertemplate: "%{hovertext}" };
  }

  /** @param {import("./charts.js").Heat} heat @returns {Trace} */
  #heatTrace({ times, rows, bounds = [], labels }) {
    const hasData = rows.some((row) => row.some((value) => value));
    const scale = [0, 0.15, 0.35, 0.6, 0.8, 1].map((part, index) => [part, colors.get(`--heat-${index}`)]);
    const common = { type: "heatmap", x: times.map(here), colorscale: scale, showscale: false, hoverongaps: false, hasData };
    if (labels) {
      const z = rows.map((row) => row.map((value) => value || null));
      const text = rows.map((row) => row.map((value) => this.chart.unit(value)));
      return { ...common, y: labels, z, zmin: 0, text, hovertemplate: "%{y}: %{text}<extra></extra>" };
    }
    // Only the ranges in which there is something, and one more on either side.
    const used = rows.map((row, index) => (row.some((value) => value) ? index : -1)).filter((index) => index >= 0);
    const first = Math.max(0, (used.at(0) ?? 8) - 1);
    const last = Math.min(rows.length - 1, (used.at(-1) ?? 24) + 1);
    const ends = [0.66 * bounds[0], ...bounds, 1.5 * bounds[bounds.length - 1]];
    const shown = rows.slice(first, last + 1);
    const range = (/** @type {number} */ index) =>
      `in ${index ? seconds(bounds[index - 1]) : "0"} to ${index < bounds.length ? seconds(bounds[index]) : "more"}`;
    const describe = (/** @type {Column} */ row, /** @type {string} */ words) => row.map((value) => (value ? `${value} ${words}` : ""));
    return {
      ...common,
      y: ends.slice(first, last + 2),
      // Few of them are to be seen too; nothing is left open.
      z: shown.map((row) => row.map((value) => (value ? Math.sqrt(value) : null))),
      zmin: 0,
      text: shown.map((row, index) => describe(row, range(first + index))),
      hovertemplate: "%{text}<extra></extra>",
    };
  }

  /** @param {Drawing} drawing @param {Trace[]} traces @param {View} view @param {Happened[]} events */
  #layout({ heat, bars }, traces, view, events) {
    const grid = colors.get("--grid");
    const quiet = colors.get("--quiet");
    const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickfont: { color: quiet, size: 11 }, ticks: "", fixedrange: true };
    const marks = events.filter((event) => event.time > view.begin && event.time <= view.end);
    return {
      height: HEIGHT,
      margin: { l: LEFT, r: RIGHT, t: 16, b: 26 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: FONT, color: quiet, size: 11 },
      showlegend: false,
      barmode: "stack",
      bargap: 0,
      dragmode: false,
      hovermode: heat ? "closest" : "x unified",
      hoverlabel: { bgcolor: colors.get("--panel"), bordercolor: grid, font: { color: colors.get("--ink"), family: FONT, size: 12 } },
      xaxis: {
        ...axis,
        type: "date",
        range: [here(view.begin), here(view.end)],
        showgrid: false,
        ticks: "outside",
        ticklen: 4,
        tickcolor: grid,
        nticks: this.space.clientWidth < NARROW ? 5 : 8,
        hoverformat: "%H:%M:%S",
        tickformatstops: [
          { dtickrange: [null, 59999], value: "%H:%M:%S" },
          { dtickrange: [60000, null], value: "%H:%M" },
        ],
      },
      yaxis: { ...axis, ...this.#valueAxis(heat, bars, traces) },
      shapes: marks.map((event) => ({
        type: "line",
        layer: "below",
        x0: here(event.time),
        x1: here(event.time),
        yref: "paper",
        y0: 0,
        y1: 1,
        line: { color: colors.get(isBad(event) ? "--bad" : "--good"), width: 1.2, dash: event.kind === "ended" ? "solid" : "dot" },
      })),
      annotations: this.#labels(marks, view),
    };
  }

  /** Who ended, where there is room to say so. @param {Happened[]} marks @param {View} view */
  #labels(marks, view) {
    const room = (LABEL_WIDTH * (view.end - view.begin)) / (this.space.clientWidth - LEFT - RIGHT);
    /** @type {Happened[]} */
    const said = [];
    for (const event of marks.filter(({ kind }) => kind === "ended")) {
      const last = said.at(-1);
      if (!last || event.time - last.time > room) said.push(event);
    }
    return said.map((event) => ({
      x: here(event.time),
      yref: "paper",
      y: 1,
      yanchor: "bottom",
      // Plotly takes text for HTML; a name of a process has none, and must not be able to.
      text: event.process.replace(/[^a-z0-9 ]/gi, ""),
      showarrow: false,
      font: { size: 10, color: colors.get("--bad") },
    }));
  }

  /** @param {Drawing["heat"]} heat @param {Drawing["bars"]} bars @param {Trace[]} traces */
  #valueAxis(heat, bars, traces) {
    const { unit, scale } = this.chart;
    if (heat?.labels) return { type: "category", autorange: "reversed", showgrid: false, nticks: 12 };
    if (heat) {
      const [bottom, top] = [Math.log10(traces[0].y[0]), Math.log10(traces[0].y.at(-1))];
      return { type: "log", range: [bottom, top], showgrid: false, ...logTicks(bottom, top, unit) };
    }
    /** @type {Column[]} */
    const shown = traces.filter((trace) => trace.visible).map((trace) => trace.y);
    if (scale === "log") return logAxis(shown.flat(), unit);
    const columns = bars ? [bars.times.map((_, index) => shown.reduce((sum, column) => sum + (column[index] ?? 0), 0))] : shown;
    return linearAxis(
      columns.flat().reduce((/** @type {number} */ a, b) => Math.max(a, b ?? 0), 0),
      unit,
    );
  }
}
