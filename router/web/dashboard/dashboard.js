// The dashboard: asks the server once a second what is new, and shows it.
//
// A hidden tab asks nothing; a paused one asks, and stands still. When the server does not answer, the page says so and goes on asking.

import { SECTIONS } from "./charts.js";
import { age, clock } from "./format.js";
import { History, View } from "./history.js";
import { colors, element, Plot } from "./plot.js";
import { Draining, Events, Processes } from "./processes.js";
import { Tiles } from "./tiles.js";

/** @typedef {1 | 60} Step seconds of a sample */
/** @typedef {import("./history.js").Answer} Answer */
/** @typedef {import("./processes.js").Happened} Happened */

const POLL_MS = 1000;
/** A server that has not answered for so long is taken for one that does not. */
const TIMEOUT_MS = 1800;
/** @type {Record<string, {step: Step, seconds: number}>} */
const RANGES = {
  "5m": { step: 1, seconds: 300 },
  "15m": { step: 1, seconds: 900 },
  "6h": { step: 60, seconds: 21600 },
  "24h": { step: 60, seconds: 86400 },
};
const EVENTS_KEPT = 200;
/** Charts a little outside of the window are drawn too, so that scrolling finds them done. */
const MARGIN = "150px";
const THEME = "fastchat-theme";

/** @param {string} id @returns {HTMLElement} */
function find(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`dashboard.html has no #${id}`);
  return found;
}

const histories = { 1: new History(1, 900), 60: new History(60, 1440) };
const tiles = new Tiles(find("tiles"));
const processes = new Processes(/** @type {HTMLTableElement} */ (find("processes")));
const draining = new Draining(find("drain"));
const eventList = new Events(find("events"), find("no-events"));
/** @type {Plot[]} */
const plots = [];

/** @type {import("./charts.js").About | null} */
let about = null;
/** @type {any} */
let plotly = null;
/** @type {string | null} */
let instance = null;
/** @type {import("./processes.js").Now | null} */
let now = null;
/** @type {Happened[]} */
let events = [];
let eventsSeen = 0;
let range = "5m";
let paused = false;
/** Where the charts end while they stand still. @type {number | null} */
let pausedAt = null;
/** @type {number | null} */
let silentSince = null;
/** @type {number | undefined} */
let timer;
let polling = false;

// -- Asking --

/** @param {string} path @returns {Promise<any>} */
async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** @param {Step} step @returns {Promise<Answer>} */
function askSamples(step) {
  return ask(`samples?step=${step}&after=${histories[step].last}&events=${eventsSeen}`);
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden || polling) return;
  polling = true;
  const started = performance.now();
  try {
    const answers = await askWhatIsNew().catch(() => null);
    if (answers === null) {
      silent();
    } else {
      answers.forEach(take);
      heard();
    }
    draw();
  } finally {
    polling = false;
    timer = setTimeout(poll, Math.max(POLL_MS / 4, POLL_MS - (performance.now() - started)));
  }
}

/** The answers to be taken; fails when one does not come. */
async function askWhatIsNew() {
  let answer = await askSamples(1);
  if (answer.instance !== instance) {
    await meet(answer.instance);
    answer = await askSamples(1);
  }
  const { step } = RANGES[range];
  const isBehind = step !== 1 && answer.latest[step] !== histories[step].last;
  return isBehind ? [answer, await askSamples(step)] : [answer];
}

/** A server that this page has not talked with yet: the first one, or one that was started again. @param {string} newcomer */
async function meet(newcomer) {
  const told = await ask("about");
  if (about !== null && about.version !== told.version) {
    location.reload();
    return;
  }
  about = told;
  for (const history of Object.values(histories)) history.restart();
  eventsSeen = 0;
  if (instance !== null) events.push({ time: Date.now() / 1000, process: "server", kind: "back", text: "the server was started again" });
  instance = newcomer;
  find("about").textContent = `FastChat ${told.version}, core: ${told.core}, store: ${told.settings.store}. Charts by plotly.js.`;
  loadPlotly(told.plotly);
}

/** @param {Answer} answer */
function take(answer) {
  histories[/** @type {Step} */ (answer.step)].absorb(answer);
  now = answer.now;
  for (const event of answer.events) {
    const { number = 0 } = event;
    if (number <= eventsSeen) continue;
    events.push(event);
    eventsSeen = number;
  }
  events = events.slice(-EVENTS_KEPT);
}

/** @param {string} name */
function loadPlotly(name) {
  if (plotly !== null || document.getElementById("plotly")) return;
  const script = document.createElement("script");
  script.id = "plotly";
  script.src = name;
  script.addEventListener("load", () => {
    plotly = /** @type {any} */ (window).Plotly;
    draw();
  });
  script.addEventListener("error", () => {
    script.remove(); // the next server that answers is asked again
    for (const plot of plots)
      plot.say("Charts can't be shown: the server did not send plotly.js. Is the extra fastchat[charts] installed?");
  });
  document.head.append(script);
}

// -- Whether the server answers --

function heard() {
  silentSince = null;
  find("banner").hidden = true;
  document.body.classList.remove("is-silent");
}

function silent() {
  silentSince ??= Date.now() / 1000;
  const since = Date.now() / 1000 - silentSince;
  const banner = find("banner");
  const waited = since >= 1 ? `, for ${age(since)}` : "";
  banner.textContent = `The server has not answered since ${clock(silentSince)}${waited}. What you see is from before; this page goes on asking.`;
  banner.hidden = false;
  document.body.classList.add("is-silent");
  showState("silent", "not answering");
}

/** @param {string} state @param {string} word */
function showState(state, word) {
  const shown = find("state");
  if (shown.dataset.state !== state) shown.dataset.state = state;
  const text = find("state-word");
  if (text.textContent !== word) text.textContent = word;
  document.title = state === "ok" ? "FastChat" : `${word} · FastChat`;
}

function drawState() {
  if (silentSince !== null || now === null || about === null) return;
  showState(now.status, now.status);
  const all = now.processes;
  const numbered = (/** @type {string} */ kind) => {
    const number = all.filter((process) => process.kind === kind).length;
    return `${number} ${kind}${number === 1 ? "" : "s"}`;
  };
  find("summary").textContent = `${numbered("worker")}, ${numbered("front")}, up ${age(now.uptime)}`;
  const reasons = find("reasons");
  const text = now.reasons.join("\n");
  if (reasons.dataset.text === text) return;
  reasons.dataset.text = text;
  reasons.hidden = !now.reasons.length;
  const list = element("ul");
  list.append(...now.reasons.map((reason) => element("li", "", reason)));
  reasons.replaceChildren(list);
}

// -- Showing --

function build() {
  const place = find("charts");
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const plot = plots.find(({ figure }) => figure === entry.target);
        if (!plot) continue;
        plot.visible = entry.isIntersecting;
        if (plot.visible && plot.stale) drawPlot(plot);
      }
    },
    { rootMargin: MARGIN },
  );
  for (const { title, charts } of SECTIONS) {
    const section = element("section");
    const heading = element("h2", "", title);
    heading.id = `section-${title.toLowerCase().replaceAll(" ", "-")}`;
    section.setAttribute("aria-labelledby", heading.id);
    const grid = element("div", "grid");
    section.append(heading, grid);
    for (const chart of charts) {
      const plot = new Plot(chart);
      plots.push(plot);
      grid.append(plot.figure);
    }
    place.append(section);
  }
  for (const plot of plots) observer.observe(plot.figure);
  place.addEventListener("wants-drawing", (event) => plots.filter(({ figure }) => figure === event.target).forEach(drawPlot));
}

function draw() {
  drawState();
  if (now === null || about === null) return;
  draining.draw(now.drain);
  processes.draw(now, histories[1]);
  eventList.draw(events);
  if (paused) return;
  tiles.draw(histories[1], about.bounds);
  refresh();
}

/** Have all charts drawn: those that are seen now, the others when they are. */
function refresh() {
  for (const plot of plots) {
    plot.stale = true;
    if (plot.visible) drawPlot(plot);
  }
}

/** @param {Plot} plot */
function drawPlot(plot) {
  if (plotly === null || about === null) return;
  const { step, seconds } = RANGES[range];
  const history = histories[step];
  const tooEarly = step === 60 && !history.times.length ? "The first minute is not over yet; the shorter ranges show what there is." : null;
  plot.draw(plotly, new View(history, about.bounds, seconds, pausedAt), events, tooEarly);
}

// -- Controls --

/** @param {string} chosen */
function choose(chosen) {
  if (!(chosen in RANGES)) return;
  range = chosen;
  /** @type {HTMLInputElement | null} */
  const button = document.querySelector(`input[name=range][value="${chosen}"]`);
  if (button) button.checked = true;
  history.replaceState(null, "", chosen === "5m" ? location.pathname : `#${chosen}`);
  refresh();
  poll();
}

/** @param {boolean} wanted */
function pause(wanted) {
  paused = wanted;
  pausedAt = paused ? (histories[1].times.at(-1) ?? null) : null;
  const button = find("pause");
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Go on" : "Pause";
  document.body.classList.toggle("is-paused", paused);
  if (!paused) draw();
}

const isDark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function showTheme() {
  find("theme").textContent = isDark() ? "Light" : "Dark";
  colors.forget();
  refresh();
}

/** @param {"light" | "dark"} theme */
function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // A browser that keeps nothing: it holds as long as the page.
  }
  showTheme();
}

function listen() {
  find("ranges").addEventListener("change", ({ target }) => choose(/** @type {HTMLInputElement} */ (target).value));
  find("pause").addEventListener("click", () => pause(!paused));
  find("theme").addEventListener("click", () => chooseTheme(isDark() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  document.addEventListener("visibilitychange", poll);
  addEventListener("hashchange", () => choose(location.hash.slice(1) || "5m"));
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target !== document.body) return;
    event.preventDefault();
    pause(!paused);
  });
}

function begin() {
  try {
    const theme = localStorage.getItem(THEME);
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // The system's theme, then.
  }
  build();
  listen();
  showTheme();
  choose(location.hash.slice(1) || "5m");
}

begin();
