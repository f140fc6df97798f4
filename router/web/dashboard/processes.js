// The table of processes and the list of what happened to them.

import { age, bytes, count, moment, percent, seconds, UNKNOWN } from "./format.js";
import { element } from "./plot.js";

/** @typedef {import("./history.js").History} History */
/** @typedef {keyof typeof LABELS} ColumnName */
/**
 * @typedef {object} Process
 * @property {string} kind
 * @property {number} [index]
 * @property {string} [name]
 * @property {string} state
 * @property {string | null} problem
 * @property {number | null} pid
 * @property {number | null} uptime
 * @property {number | null} restarts
 * @property {number | null} replaced
 * @property {number | null} [takeover_seconds] how long clients waited when it took the place of another process
 * @property {number | null} [not_moved_total]
 * @property {string | null} last_end
 */
/** @typedef {{why: string, elapsed: number, seconds_left: number, connections: number, connections_before: number, stops: boolean}} Drain */
/** @typedef {{status: string, reasons: string[], pid: number, uptime: number, drain: Drain | null, processes: Process[]}} Now the state of the server */
/** @typedef {{number?: number, time: number, process: string, kind: string, text: string}} Happened what happened to a process */
/** @typedef {{line: HTMLTableRowElement, cells: Record<ColumnName, HTMLElement>}} Row */

/** Write only what has changed, so that a selection stays. @param {HTMLElement} node @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const NUMBERS = new Set(["pid", "uptime", "cpu", "memory", "connections", "restarts", "replaced", "pause", "not_moved"]);
const LABELS = {
  name: "Process",
  state: "State",
  pid: "pid",
  uptime: "Up for",
  cpu: "CPU",
  memory: "Memory",
  connections: "Connections",
  restarts: "Restarts",
  replaced: "Replaced",
  pause: "Pause",
  not_moved: "Not moved",
  last_end: "Last end",
};

const COLUMNS = /** @type {ColumnName[]} */ (Object.keys(LABELS));

/** The last known value of a column, if it is from a moment ago. @param {History} history @param {string} key */
function latest(history, key) {
  return history.columns.get(key)?.at(-1) ?? null;
}

export class Processes {
  /** @param {HTMLTableElement} table */
  constructor(table) {
    this.body = table.tBodies[0];
    /** @type {Map<string, Row>} */
    this.rows = new Map();
  }

  /** @param {Now} now @param {History} history */
  draw(now, history) {
    const all = [...now.processes.map((each) => ({ ...each, name: `${each.kind} ${each.index}` })), supervisor(now)];
    for (const process of all) {
      const row = this.rows.get(process.name) ?? this.#add(process.name);
      const cpu = latest(history, `${process.name}/cpu_seconds`);
      const isWorker = process.kind === "worker";
      const texts = {
        name: process.name,
        state: process.state,
        pid: process.pid === null ? UNKNOWN : String(process.pid),
        uptime: process.pid === null ? UNKNOWN : age(process.uptime),
        cpu: cpu === null || process.pid === null ? UNKNOWN : percent((cpu / history.step) * 100),
        memory: process.pid === null ? UNKNOWN : bytes(latest(history, `${process.name}/resident_bytes`)),
        connections: isWorker ? count(latest(history, `${process.name}/connections`) ?? 0) : "",
        restarts: process.restarts === null ? "" : count(process.restarts),
        replaced: process.replaced === null ? "" : count(process.replaced),
        pause: isWorker && process.replaced ? seconds(process.takeover_seconds || null) : "",
        not_moved: isWorker && process.replaced ? count(process.not_moved_total ?? 0) : "",
        last_end: process.last_end ?? (process.restarts === null ? "" : UNKNOWN),
      };
      for (const name of COLUMNS) write(row.cells[name], texts[name]);
      row.line.dataset.state = process.state !== "ready" ? "away" : process.problem ? "degraded" : "ready";
      row.line.title = process.problem ?? "";
    }
    for (const [name, row] of this.rows) {
      if (all.some((process) => process.name === name)) continue;
      row.line.remove();
      this.rows.delete(name);
    }
    // Those that have come stand among the others, not behind them.
    all.forEach(({ name }, index) => {
      const line = this.rows.get(name)?.line;
      const there = this.body.rows[index];
      if (line && line !== there) this.body.insertBefore(line, there ?? null);
    });
  }

  /** @param {string} name */
  #add(name) {
    const line = element("tr");
    line.dataset.process = name;
    const cells = /** @type {Record<ColumnName, HTMLElement>} */ ({});
    for (const column of COLUMNS) {
      const cell = element(column === "name" ? "th" : "td", NUMBERS.has(column) ? "number" : "");
      if (column === "name") cell.scope = "row";
      cell.dataset.label = LABELS[column];
      cells[column] = element("span", column);
      cell.append(cells[column]);
      line.append(cell);
    }
    this.body.append(line);
    const row = { line, cells };
    this.rows.set(name, row);
    return row;
  }
}

/** @param {Now} now @returns {Process & {name: string}} */
function supervisor(now) {
  return {
    name: "supervisor",
    kind: "supervisor",
    state: "ready",
    problem: null,
    pid: now.pid,
    uptime: now.uptime,
    restarts: null,
    replaced: null,
    last_end: null,
  };
}

/** How far a drain has come. */
export class Draining {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    this.bar = element("progress");
    this.bar.setAttribute("aria-label", "Closed connections");
    this.words = element("p");
    box.append(this.words, this.bar);
  }

  /** @param {Drain | null} drain */
  draw(drain) {
    this.box.hidden = drain === null;
    if (drain === null) return;
    const { why, elapsed, seconds_left: left, connections, connections_before: before, stops } = drain;
    const rest = connections ? (left ? `, the last to be closed within ${age(Math.ceil(left))}` : "") : "";
    const then = stops ? " Then the server stops." : "";
    write(this.words, `Asked for by ${why} ${age(elapsed)} ago: ${count(connections)} of ${count(before)} connections left${rest}.${then}`);
    this.bar.max = Math.max(before, connections, 1);
    this.bar.value = this.bar.max - connections;
  }
}

export class Events {
  /** @param {HTMLElement} list @param {HTMLElement} words stand there while the list is empty */
  constructor(list, words) {
    this.list = list;
    this.words = words;
    /** @type {Happened | undefined} */
    this.last = undefined;
  }

  /** Show `events`, which are all that are known, the oldest first. @param {Happened[]} events */
  draw(events) {
    this.list.hidden = !events.length;
    this.words.hidden = events.length > 0;
    if (events.at(-1) === this.last) return;
    this.last = events.at(-1);
    const items = events.map((event) => {
      const item = element("li");
      item.dataset.kind = event.kind;
      const time = element("time", "", moment(event.time));
      time.dateTime = new Date(event.time * 1000).toISOString();
      item.append(time, element("span", "", event.text));
      return item;
    });
    this.list.replaceChildren(...items.reverse());
  }
}
