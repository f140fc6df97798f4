// Which charts there are. Each says what it shows (`draw`, of a View) and, in words, when there is nothing to show.
// Colours are names of custom properties in dashboard.css.

import { bytes, count, percent, rate, seconds } from "./format.js";

/** @typedef {import("./history.js").Column} Column */
/** @typedef {import("./history.js").View} View */
/** @typedef {{name: string, values: Column, color: string, fill?: boolean}} Line */
/** @typedef {{times: number[], rows: Column[], labels?: string[], bounds?: number[]}} Heat a row for each label, or for each range of a histogram */
/** @typedef {{times: number[], width: number, stacks: Line[]}} Bars each so many seconds wide */
/** @typedef {{lines?: Line[], heat?: Heat, bars?: Bars}} Drawing one of the three */
/** @typedef {{version: string, core: string, plotly: string, settings: any, bounds: import("./history.js").Bounds}} About */
/**
 * @typedef {object} Chart
 * @property {string} id
 * @property {string} title
 * @property {string} note
 * @property {"log"} [scale]
 * @property {true} [dots] values are rare: each is a dot, and the legend has the last one that is known
 * @property {(value: import("./format.js").Value) => string} unit
 * @property {(view: View) => Drawing} draw
 * @property {string} empty what to say when there is nothing to show
 */

/** More lines than this can't be told apart: they become a heat map with a row for each. */
const LINES_MAX = 8;
const COLORS = ["--blue", "--orange", "--teal", "--violet", "--rose", "--olive", "--sky", "--brown"];
/** Columns of a heat map or of stacked bars: wide enough to be seen. */
const GROUPS_MAX = 180;

const NO_MESSAGES = "No messages yet: try make load";

/** @param {Column} values */
const hasAny = (values) => values.some((value) => value);

/**
 * p50, p90 ... of a histogram.
 * @param {string} name
 * @param {Record<string, [number, string]>} shares label -> share and colour
 * @returns {Chart["draw"]}
 */
function percentiles(name, shares) {
  return (view) => ({
    lines: Object.entries(shares).map(([label, [share, color]]) => ({ name: label, values: view.percentile(name, share), color })),
  });
}

/** A line for each process. @param {string[]} names @param {(name: string) => Column} valuesOf @returns {Line[]} */
function processLines(names, valuesOf) {
  return names.map((name, index) => ({ name, values: valuesOf(name), color: COLORS[index % COLORS.length] }));
}

/**
 * One column of every process; as lines, or as a heat map when they are many.
 * @param {string} column
 * @param {(value: number, step: number) => number | null} scale
 * @param {{workersOnly?: boolean}} [options]
 * @returns {Chart["draw"]}
 */
function perProcess(column, scale, { workersOnly = false } = {}) {
  return (view) => {
    const names = view.processes().filter((name) => !workersOnly || name.startsWith("worker "));
    const lines = processLines(names, (name) =>
      view.column(`${name}/${column}`).map((value) => (value === null ? null : scale(value, view.step))),
    );
    return names.length > LINES_MAX ? { heat: { times: view.times, rows: lines.map((line) => line.values), labels: names } } : { lines };
  };
}

/**
 * A counter by one of its labels, stacked.
 * @param {string} name
 * @param {Record<string, string>} colors label -> colour
 * @param {(label: string) => string} [rename]
 * @returns {Chart["draw"]}
 */
function stacked(name, colors, rename = (label) => label) {
  return (view) => {
    const width = Math.max(1, Math.ceil(view.times.length / GROUPS_MAX));
    const stacks = view.labelled(name).map(({ key, label }, index) => ({
      name: rename(label),
      values: view.groupedRate(key, width),
      color: colors[label] ?? COLORS[index % COLORS.length],
    }));
    return {
      bars: {
        times: view.groups(width).map(({ time }) => time),
        width: width * view.step,
        stacks: stacks.filter(({ values }) => hasAny(values)),
      },
    };
  };
}

/** So many of a counter in each group of samples. @param {string} key @param {string} name @param {string} color @returns {Chart["draw"]} */
function counted(key, name, color) {
  return (view) => {
    const width = Math.max(1, Math.ceil(view.times.length / GROUPS_MAX));
    const groups = view.groups(width);
    const rates = view.groupedRate(key, width);
    const values = rates.map((value, index) => value && Math.round(value * groups[index].indices.length * view.step));
    return { bars: { times: groups.map(({ time }) => time), width: width * view.step, stacks: [{ name, values, color }] } };
  };
}

/** Means of a histogram of sizes, and the largest. @param {View} view @returns {Drawing} */
function commitSizes(view) {
  const commits = view.rate("server/store_commits_total");
  const rows = view.rate("server/store_rows_total");
  return {
    lines: [
      { name: "rows, mean", values: commits.map((number, index) => (number ? (rows[index] ?? 0) / number : null)), color: "--teal" },
      { name: "rows, p99", values: view.percentile("commit_rows", 0.99), color: "--blue" },
      { name: "waiting", values: view.column("server/store_waiting"), color: "--orange", fill: true },
    ],
  };
}

/** How many deliveries took how long. @param {View} view @returns {Drawing} */
function latencyHeat(view) {
  const width = Math.max(1, Math.ceil(view.times.length / GROUPS_MAX));
  return { heat: { ...view.heat("delivery_seconds", width), bounds: view.bounds.delivery_seconds } };
}

const TYPE_COLORS = {
  MSG: "--blue",
  MSG_ACK: "--teal",
  READ: "--olive",
  TYPING: "--violet",
  PING: "--sky",
  HELLO: "--orange",
  OPEN_CHAT: "--rose",
  HISTORY: "--brown",
  other: "--bad",
};
const ERROR_COLORS = {
  VALIDATION: "--violet",
  MESSAGE_FAILED: "--bad",
  USER_NOT_FOUND: "--sky",
  CHAT_NOT_OPENED: "--teal",
  RATE_LIMITED: "--orange",
  UNAUTHORIZED: "--brown",
};
/** @type {Record<string, string>} */
const CLOSE_NAMES = {
  1000: "normal",
  1001: "going away",
  1002: "protocol error",
  1003: "binary data",
  1005: "no code",
  1006: "lost",
  1007: "not UTF-8",
  1008: "policy",
  1009: "too big",
  1011: "internal error",
  1012: "restarting",
  1013: "try again later",
  4001: "replaced",
  4002: "no sign of life",
  4004: "deleted",
};
const CLOSE_COLORS = {
  1000: "--teal",
  1001: "--blue",
  1006: "--sky",
  1008: "--violet",
  1011: "--bad",
  1012: "--olive",
  1013: "--orange",
  4001: "--brown",
  4002: "--rose",
};

/** @type {{title: string, charts: Chart[]}[]} */
export const SECTIONS = [
  {
    title: "Delivery",
    charts: [
      {
        id: "latency",
        title: "Delivery latency",
        note: "From a message's arrival at the server until it is written to the recipient; durable in between.",
        scale: "log",
        unit: seconds,
        draw: percentiles("delivery_seconds", {
          p50: [0.5, "--p50"],
          p90: [0.9, "--p90"],
          p99: [0.99, "--p99"],
          "p99.9": [0.999, "--p999"],
        }),
        empty: NO_MESSAGES,
      },
      {
        id: "heat",
        title: "Where the latencies lie",
        note: "How many deliveries took about so long.",
        unit: seconds,
        draw: latencyHeat,
        empty: NO_MESSAGES,
      },
    ],
  },
  {
    title: "Traffic",
    charts: [
      {
        id: "throughput",
        title: "Messages",
        note: "A message to three devices is received once and delivered three times.",
        unit: rate,
        draw: (view) => ({
          lines: [
            { name: "received", values: view.rate('server/received_total{type="MSG"}'), color: "--blue" },
            { name: "delivered", values: view.rate("server/deliveries_total"), color: "--teal" },
          ],
        }),
        empty: NO_MESSAGES,
      },
      {
        id: "types",
        title: "Received by type",
        note: "Everything that clients say, what is refused included.",
        unit: rate,
        draw: stacked("received_total", TYPE_COLORS),
        empty: NO_MESSAGES,
      },
      {
        id: "connections",
        title: "Connections and users",
        note: "A user may have several devices.",
        unit: count,
        draw: (view) => ({
          lines: [
            { name: "connections", values: view.column("server/connections"), color: "--blue" },
            { name: "users online", values: view.column("server/online"), color: "--teal" },
            { name: "before HELLO", values: view.column("server/front_lobby"), color: "--orange" },
          ],
        }),
        empty: "Nobody is connected: try make load",
      },
      {
        id: "arrivals",
        title: "New connections",
        note: "Accepted by the fronts; refused are those that were answered with an HTTP error.",
        unit: rate,
        draw: (view) => ({
          lines: [
            { name: "accepted", values: view.rate("server/front_accepted_total"), color: "--blue" },
            { name: "handed over", values: view.rate("server/front_adopted_total"), color: "--teal" },
            { name: "refused", values: view.rate("server/front_refused_total", "server/memory_refused_total"), color: "--bad" },
          ],
        }),
        empty: "No new connections in this time.",
      },
    ],
  },
  {
    title: "Refused and closed",
    charts: [
      {
        id: "errors",
        title: "Errors by code",
        note: "ERROR answers to clients.",
        unit: rate,
        draw: stacked("errors_total", ERROR_COLORS),
        empty: "No errors in this time.",
      },
      {
        id: "closes",
        title: "Closes by code",
        note: "Connections that ended, whoever ended them.",
        unit: rate,
        draw: stacked("closes_total", CLOSE_COLORS, (code) => (CLOSE_NAMES[code] ? `${code} ${CLOSE_NAMES[code]}` : code)),
        empty: "No connection was closed in this time.",
      },
    ],
  },
  {
    title: "Reloads and resizes",
    charts: [
      {
        id: "takeovers",
        title: "Pauses",
        note: "How long the clients of a worker waited while new processes took over; they stayed connected.",
        scale: "log",
        dots: true,
        unit: seconds,
        draw: perProcess("takeover_seconds", (value) => value || null, { workersOnly: true }),
        empty: "No worker was replaced in this time.",
      },
      {
        id: "not-moved",
        title: "Connections that could not be moved",
        note: "Half of a frame had come when the worker was replaced, so they were closed with 1012.",
        unit: count,
        draw: counted("server/not_moved_total", "closed", "--orange"),
        empty: "No connection was closed by a reload or a resize in this time.",
      },
    ],
  },
  {
    title: "Side by side",
    charts: [
      {
        id: "worker-messages",
        title: "Messages received by each worker",
        note: "Of all types. Users are spread evenly, so workers are about even when users are many.",
        unit: rate,
        draw: perProcess("received_total", (value, step) => value / step, { workersOnly: true }),
        empty: NO_MESSAGES,
      },
      {
        id: "worker-p99",
        title: "Delivery p99 of each worker",
        note: "One that stands out has more to do, or a slower disk.",
        scale: "log",
        unit: seconds,
        draw: perProcess("delivery_p99", (value) => value, { workersOnly: true }),
        empty: NO_MESSAGES,
      },
      {
        id: "cpu",
        title: "CPU of each process",
        note: "100 % is one core; a worker uses one for its event loop, and a little more for its store.",
        unit: percent,
        draw: perProcess("cpu_seconds", (value, step) => (value / step) * 100),
        empty: "Not known on this system.",
      },
      {
        id: "memory",
        title: "Memory of each process",
        note: "In RAM.",
        unit: bytes,
        draw: perProcess("resident_bytes", (value) => value),
        empty: "Not known on this system.",
      },
    ],
  },
  {
    title: "Inside",
    charts: [
      {
        id: "turns",
        title: "Turns of the event loops",
        note: "How long workers were busy before they looked at the sockets again; the longest is what somebody waited.",
        scale: "log",
        unit: seconds,
        draw: (view) => ({
          lines: [
            { name: "p50", values: view.percentile("turn_seconds", 0.5), color: "--p50" },
            { name: "p99", values: view.percentile("turn_seconds", 0.99), color: "--p99" },
            { name: "longest", values: view.column("server/longest_turn_seconds").map((value) => value || null), color: "--p999" },
          ],
        }),
        empty: "No turns yet.",
      },
      {
        id: "handover",
        title: "Hand-over",
        note: "From HELLO until the worker has the socket: the pause that a client notices.",
        scale: "log",
        unit: seconds,
        draw: percentiles("front_handover_seconds", { p50: [0.5, "--p50"], p90: [0.9, "--p90"], p99: [0.99, "--p99"] }),
        empty: "No new connections in this time.",
      },
      {
        id: "commits",
        title: "Commits",
        note: "How long the store takes to have messages on disk, the sync included.",
        scale: "log",
        unit: seconds,
        draw: percentiles("commit_seconds", { p50: [0.5, "--p50"], p90: [0.9, "--p90"], p99: [0.99, "--p99"] }),
        empty: "Nothing was stored in this time.",
      },
      {
        id: "rows",
        title: "Messages in a commit, and waiting",
        note: "Under load more are committed together, so that commits do not become more.",
        unit: count,
        draw: commitSizes,
        empty: "Nothing was stored in this time.",
      },
      {
        id: "bus",
        title: "Bus latency",
        note: "How long an envelope was on its way from one worker to another.",
        scale: "log",
        unit: seconds,
        draw: percentiles("bus_seconds", { p50: [0.5, "--p50"], p90: [0.9, "--p90"], p99: [0.99, "--p99"] }),
        empty: "Nothing went from one worker to another in this time.",
      },
      {
        id: "envelopes",
        title: "Envelopes on the bus",
        note: "What is for the same worker travels together: records in envelopes.",
        unit: rate,
        draw: (view) => ({
          lines: [
            { name: "envelopes", values: view.rate("server/bus_sent_total"), color: "--blue" },
            { name: "records", values: view.rate("server/bus_records_total"), color: "--teal" },
            { name: "refused", values: view.rate("server/bus_refused_total"), color: "--bad" },
          ],
        }),
        empty: "Nothing went from one worker to another in this time.",
      },
      {
        id: "outbox",
        title: "What clients have not read",
        note: "Bytes that wait for slow readers; typing and presence are held back first.",
        unit: bytes,
        draw: (view) => ({ lines: [{ name: "waiting", values: view.column("server/outbox_bytes"), color: "--violet", fill: true }] }),
        empty: "All clients read as fast as they are written to.",
      },
      {
        id: "troubles",
        title: "What did not go through",
        note: "Held back from slow readers, not confirmed in time, or refused by the disk.",
        unit: rate,
        draw: (view) => ({
          lines: [
            { name: "typing held back", values: view.rate('server/shed_total{kind="typing"}'), color: "--violet" },
            { name: "presence held back", values: view.rate('server/shed_total{kind="presence"}'), color: "--blue" },
            { name: "not confirmed", values: view.rate("server/unconfirmed_total"), color: "--orange" },
            { name: "store failures", values: view.rate("server/store_failures_total"), color: "--bad" },
          ],
        }),
        empty: "Everything went through in this time.",
      },
    ],
  },
];
