// The table of processes and the list of what happened to them.

import { UNKNOWN, age, bytes, count, moment, percent } from "./format.js";
import { element } from "./plot.js";

/** Write only what has changed, so that a selection stays. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const NUMBERS = new Set(["pid", "uptime", "cpu", "memory", "connections", "restarts"]);
const LABELS = {
  name: "Process",
  state: "State",
  pid: "pid",
  uptime: "Up for",
  cpu: "CPU",
  memory: "Memory",
  connections: "Connections",
  restarts: "Restarts",
  last_end: "Last end",
};

/** The last known value of a column, if it is from a moment ago. */
function latest(history, key) {
  return history.columns.get(key)?.at(-1) ?? null;
}

export class Processes {
  constructor(table) {
    this.body = table.tBodies[0];
    this.rows = new Map();
  }

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
        last_end: process.last_end ?? (process.restarts === null ? "" : UNKNOWN),
      };
      for (const [name, text] of Object.entries(texts)) write(row.cells[name], text);
      row.line.dataset.state = process.state !== "ready" ? "away" : process.problem ? "degraded" : "ready";
      row.line.title = process.problem ?? "";
    }
    for (const [name, row] of this.rows) {
      if (all.some((process) => process.name === name)) continue;
      row.line.remove();
      this.rows.delete(name);
    }
  }

  #add(name) {
    const line = element("tr");
    line.dataset.process = name;
    const cells = {};
    for (const [column, label] of Object.entries(LABELS)) {
      const cell = element(column === "name" ? "th" : "td", NUMBERS.has(column) ? "number" : "");
      if (column === "name") cell.scope = "row";
      cell.dataset.label = label;
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

function supervisor(now) {
  return { name: "supervisor", kind: "supervisor", state: "ready", problem: null, pid: now.pid, uptime: now.uptime, restarts: null, last_end: null };
}

export class Events {
  constructor(list, words) {
    this.list = list;
    this.words = words;
    this.last = undefined;
  }

  /** `events` are all that are known, the oldest first. */
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
