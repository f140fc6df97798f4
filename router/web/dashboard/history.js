// The samples that this page has, column by column, and what is reckoned from them.

/** @typedef {(number | null)[]} Column the value of each sample; null is not known */
/** @typedef {Record<string, number[]>} Bounds histogram -> upper bounds of its ranges, but for the last one */
/**
 * An answer of /dashboard/samples.
 * @typedef {object} Answer
 * @property {string} instance
 * @property {number} step
 * @property {number} last
 * @property {Record<number, number>} latest
 * @property {number[]} times
 * @property {Record<string, Column>} server
 * @property {Record<string, Record<string, Column>>} histograms
 * @property {Record<string, Record<string, Column>>} processes
 * @property {import("./processes.js").Now} now
 * @property {import("./processes.js").Happened[]} events
 */

/** Samples may be a little late; more than so many steps apart, and there is a gap. */
const GAP_STEPS = 2.5;

/** Kinds of processes, in the order in which they are shown. */
const KINDS = ["worker", "front", "supervisor"];

/** Where `name`, such as "worker 3", stands among processes. @param {string} name */
function placeOf(name) {
  const [kind, number = "0"] = name.split(" ");
  return 1000 * KINDS.indexOf(kind) + Number(number);
}

/** The column that says when the process of a column was there; those of the server have none. @param {string} key */
const upOf = (key) => `${key.slice(0, key.indexOf("/"))}/up`;

/**
 * The value below which this share of all lie, as `quantile` of core/process/metrics.py; null when there are none.
 * @param {number[]} bounds
 * @param {number[]} counts
 * @param {number} share
 */
export function quantile(bounds, counts, share) {
  let total = 0;
  for (const count of counts) total += count;
  if (!total) return null;
  const rank = share * total;
  let below = 0;
  for (let index = 0; index < counts.length - 1; index++) {
    const count = counts[index];
    if (count && below + count >= rank) {
      const low = index ? bounds[index - 1] : 0;
      return low + ((bounds[index] - low) * (rank - below)) / count;
    }
    below += count;
  }
  return bounds[bounds.length - 1];
}

/** Samples of one step: the last `capacity` of them. */
export class History {
  /** @param {number} step in seconds @param {number} capacity */
  constructor(step, capacity) {
    this.step = step;
    this.capacity = capacity;
    /** The number of the last sample that came. */
    this.last = 0;
    /** When each sample ended, in seconds since 1970. @type {number[]} */
    this.times = [];
    /** "server/connections", "delivery_seconds/12", "worker 1/up" -> values; null is not known. @type {Map<string, Column>} */
    this.columns = new Map();
    /** Reckoned from the columns as far as somebody has asked: key -> values. @type {Map<string, Column>} */
    this.reckoned = new Map();
    /** Whether each sample only says that nothing is known. @type {boolean[]} */
    this.isGap = [];
  }

  /** The server was started again, and numbers its samples from 1. */
  restart() {
    this.last = 0;
  }

  /** Take an answer. @param {Answer} answer */
  absorb(answer) {
    this.last = answer.last;
    const { times } = answer;
    if (!times.length) return;
    /** @type {Map<string, Column>} */
    const came = new Map();
    for (const [name, values] of Object.entries(answer.server)) came.set(`server/${name}`, values);
    for (const group of [answer.histograms, answer.processes]) {
      for (const [name, columns] of Object.entries(group)) {
        for (const [column, values] of Object.entries(columns)) came.set(`${name}/${column}`, values);
      }
    }
    for (const name of Object.keys(answer.processes)) this.#begin(`${name}/up`);
    for (const key of came.keys()) this.#begin(key);
    times.forEach((time, index) => {
      const before = this.times.at(-1);
      if (before !== undefined && Math.abs(time - before) > GAP_STEPS * this.step) this.#append(before + this.step, () => null, true);
      this.#append(time, (key) => this.#valueIn(came, key, index), false);
    });
    const surplus = this.times.length - this.capacity;
    if (surplus > 0) {
      for (const values of [this.times, this.isGap, ...this.columns.values(), ...this.reckoned.values()]) values.splice(0, surplus);
    }
  }

  /** Have a column that was 0 until now, but where nothing is known, and where its process was not there. @param {string} key */
  #begin(key) {
    if (this.columns.has(key)) return;
    const isNew = key === upOf(key);
    const up = this.columns.get(upOf(key));
    const values = this.isGap.map((gap, index) => (gap || isNew || up?.[index] === null ? null : 0));
    this.columns.set(key, values);
  }

  /** What is left out of an answer was 0, if its process was there. @param {Map<string, Column>} came @param {string} key @param {number} index */
  #valueIn(came, key, index) {
    const up = upOf(key);
    if (this.columns.has(up) && (came.get(up)?.[index] ?? null) === null) return null;
    const values = came.get(key);
    return values ? values[index] : 0;
  }

  /** @param {number} time @param {(key: string) => number | null} valueIn @param {boolean} gap */
  #append(time, valueIn, gap) {
    this.times.push(time);
    this.isGap.push(gap);
    for (const [key, values] of this.columns) values.push(valueIn(key));
  }

  /**
   * What `compute(index)` returns for each sample, reckoned once for each.
   * @param {string} key
   * @param {(index: number) => number | null} compute
   */
  reckon(key, compute) {
    const values = this.reckoned.get(key) ?? [];
    this.reckoned.set(key, values);
    for (let index = values.length; index < this.times.length; index++) values.push(this.isGap[index] ? null : compute(index));
    return values;
  }
}

/** The part of a history that a chart shows: the `seconds` before `end`, or before its last sample. */
export class View {
  /** @param {History} history @param {Bounds} bounds @param {number} seconds @param {number | null} [end] */
  constructor(history, bounds, seconds, end) {
    this.history = history;
    this.bounds = bounds;
    this.end = end ?? history.times.at(-1) ?? Date.now() / 1000;
    this.begin = this.end - seconds;
    const { times } = history;
    this.to = times.length;
    while (this.to > 0 && times[this.to - 1] > this.end) this.to--;
    this.from = this.to;
    while (this.from > 0 && times[this.from - 1] > this.begin) this.from--;
    this.times = times.slice(this.from, this.to);
  }

  get step() {
    return this.history.step;
  }

  /** A column as it is; 0 throughout when it never came. @param {string} key @returns {Column} */
  column(key) {
    const values = this.history.columns.get(key);
    return values ? values.slice(this.from, this.to) : this.history.isGap.slice(this.from, this.to).map((gap) => (gap ? null : 0));
  }

  /** The processes that were there at some time in it. */
  processes() {
    const names = [];
    for (const key of this.history.columns.keys()) {
      if (key === upOf(key) && this.column(key).some((value) => value !== null)) names.push(key.slice(0, -"/up".length));
    }
    return names.sort((a, b) => placeOf(a) - placeOf(b));
  }

  /** A count as so many a second. @param {string[]} keys @returns {Column} */
  rate(...keys) {
    const columns = keys.map((key) => this.column(key));
    return this.times.map((_, index) => {
      let sum = 0;
      for (const column of columns) {
        const value = column[index];
        if (value === null) return null;
        sum += value;
      }
      return sum / this.step;
    });
  }

  /** Keys of a counter by its label, such as all of server/errors_total. @param {string} name */
  labelled(name) {
    const found = [];
    for (const key of this.history.columns.keys()) {
      const match = key.startsWith(`server/${name}{`) && /="([^"]*)"/.exec(key);
      if (match) found.push({ key, label: match[1] });
    }
    return found.sort((a, b) => (a.label < b.label ? -1 : 1));
  }

  /** @param {string} name @returns {(Column | undefined)[]} */
  #ranges(name) {
    const ranges = [];
    for (let index = 0; index <= this.bounds[name].length; index++) ranges.push(this.history.columns.get(`${name}/${index}`));
    return ranges;
  }

  /** @param {string} name of a histogram @param {number} share */
  percentile(name, share) {
    const ranges = this.#ranges(name);
    const compute = (/** @type {number} */ index) =>
      quantile(
        this.bounds[name],
        ranges.map((range) => range?.[index] ?? 0),
        share,
      );
    return this.history.reckon(`${name} ${share}`, compute).slice(this.from, this.to);
  }

  /** Of the last few samples together. @param {string} name @param {number} share @param {number} samples */
  recentPercentile(name, share, samples) {
    const totals = this.#ranges(name).map((range) =>
      (range ?? []).slice(-samples).reduce((/** @type {number} */ sum, count) => sum + (count ?? 0), 0),
    );
    return quantile(this.bounds[name], totals, share);
  }

  /** The ranges of a histogram over times that are `width` samples wide: {times (of their middle), rows (of each range)}. @param {string} name @param {number} width */
  heat(name, width) {
    const groups = this.groups(width);
    const rows = this.#ranges(name).map((range) =>
      groups.map(({ indices }) => indices.reduce((sum, index) => sum + (range?.[index] ?? 0), 0)),
    );
    return { times: groups.map(({ time }) => time), rows };
  }

  /** Samples in groups that stay the same as time goes on. @param {number} width */
  groups(width) {
    const length = width * this.step;
    /** @type {{time: number, indices: number[]}[]} */
    const groups = [];
    for (let index = this.from; index < this.to; index++) {
      const time = (Math.floor(this.history.times[index] / length) + 0.5) * length;
      const group = groups.at(-1);
      if (group?.time === time) group.indices.push(index);
      else groups.push({ time, indices: [index] });
    }
    return groups;
  }

  /** A count as so many a second, over such groups. @param {string} key @param {number} width */
  groupedRate(key, width) {
    const values = this.history.columns.get(key) ?? [];
    return this.groups(width).map(
      ({ indices }) => indices.reduce((sum, index) => sum + (values[index] ?? 0), 0) / (indices.length * this.step),
    );
  }
}
