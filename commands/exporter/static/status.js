/** The status page: follows /events and shows each message. It reads only, and only from its own exporter. */

import { Chart } from "/charts.js";
import { compact, count, instant, memory, milliseconds, span, timeOf } from "/formats.js";

const RANGES = { "1 min": 60, "5 min": 300, "15 min": 900 };
const SILENCE_MS = 4000; // the exporter sends every second
const MOST_WORKERS = 60;
const KEPT = 900;

const REASONS = {
  process_exit: "its process ended", silence: "no sign of life", run_timeout: "its task ran out of time",
  cancelled: "its task was cancelled by force", unreachable: "it could not be reached",
  replaced: "another worker took its name", out_of_step: "it was out of step", revoked: "its key was revoked",
};
const EVENTS = {
  worker_lost: ["bad", (event) => `${event.worker} was lost: ${REASONS[event.reason] ?? event.reason}`],
  worker_killed: ["bad", (event) => `${event.worker} was killed because it was frozen`],
  worker_restarted: ["good", (event) => `${event.worker} is back`],
  task_requeued: ["warning", (event) => `Task ${short(event.task_id)} went back to its place in the order`],
  task_given_up: ["bad", (event) => `Task ${short(event.task_id)} was given up; it is kept as a dead task`],
  task_abandoned: ["warning", () => "A client went away; its tasks were abandoned"],
  broker_away: ["bad", () => "The broker does not answer"],
  broker_back: ["good", () => "The broker answers"],
  broker_started: ["good", () => "Another broker has started"],
};

const byId = (id) => document.getElementById(id);
const short = (taskId) => (taskId ?? "?").slice(0, 8);
const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Sets a text only if it has changed, so that selections stay and screen readers are not disturbed. */
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Makes the items of the list match `rows`; keeps the elements of rows that are there already. */
function keep(list, rows, keyOf, make, update) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  rows.forEach((row, index) => {
    const key = keyOf(row);
    let child = known.get(key);
    if (!child) {
      child = make(row);
      child.dataset.key = key;
    }
    known.delete(key);
    update(child, row);
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
  });
  for (const child of known.values()) child.remove();
}

// --- the pool now ------------------------------------------------------------------------------------------

function tilesOf({ stats, point, limits }) {
  const { counters, run_ms: run, queue_wait_ms: wait } = stats;
  const unsuccessful = counters.failed + counters.crashed + counters.timed_out;
  const [p50, p99] = [point.run_p50_ms ?? run.p50, point.run_p99_ms ?? run.p99];
  const [waited50, waited99] = [point.wait_p50_ms ?? wait.p50, point.wait_p99_ms ?? wait.p99];
  const oldest = stats.oldest_queued_s;
  const atBroker = stats.queue_depth - stats.held_by_clients;
  return {
    "Waiting": [count(stats.queue_depth), oldest === null ? "no task waits" : `the oldest for ${span(oldest)}`,
      atBroker >= limits.nearly_full * stats.backlog_limit || (oldest ?? 0) >= limits.old_s ? "warning" : ""],
    "In flight": [count(stats.in_flight), `${count(stats.active_workers)} of ${many(stats.total_workers, "worker")} busy`],
    "Completed": [point.completed_per_s === null ? "–" : compact(point.completed_per_s),
      `${count(counters.completed)} since the broker's start`, "", "a second"],
    "Unsuccessful": [count(unsuccessful),
      `${count(counters.failed)} failed, ${count(counters.crashed)} given up, ${count(counters.timed_out)} out of time`,
      counters.crashed ? "warning" : ""],
    "Run time": [p50 === null ? "–" : milliseconds(p50), p99 === null ? "no task yet" : `99 % within ${milliseconds(p99)}`],
    "Queue wait": [waited50 === null ? "–" : milliseconds(waited50),
      waited99 === null ? "no task yet" : `99 % within ${milliseconds(waited99)}`],
    "Worker crashes": [count(counters.worker_crashes), `${many(counters.requeued, "task")} requeued`],
    "Clients": [count(stats.clients), stats.held_by_clients ? `hold back ${many(stats.held_by_clients, "task")}` : "none holds tasks back"],
  };
}

const NO_TILES = Object.fromEntries(["Waiting", "In flight", "Completed", "Unsuccessful", "Run time", "Queue wait",
  "Worker crashes", "Clients"].map((name) => [name, ["–", "unknown"]]));

function showTiles(moment) {
  const tiles = Object.entries(moment.stats ? tilesOf(moment) : NO_TILES);
  keep(byId("tiles"), tiles, ([name]) => name,
    ([name]) => element("div", "", element("dt", "", name), element("dd", "", element("span"), element("small")), element("dd")),
    (tile, [, [value, note, tone = "", unit = ""]]) => {
      const [main, more] = tile.querySelectorAll("dd");
      say(main.firstChild, value);
      say(main.lastChild, value === "–" ? "" : unit);
      say(more, note);
      tile.dataset.tone = tone;
    });
}

function showVerdict(moment) {
  const { stats, away } = moment;
  document.body.dataset.level = moment.level;
  say(byId("headline"), moment.headline);
  if (away) {
    say(byId("subline"), `since ${timeOf(away.since)}, ${span(moment.at - away.since)} ago: ${away.reason}`);
  } else {
    const lacking = moment.missing.length ? ` Missing: ${moment.missing.join(", ")}.` : "";
    const busy = stats.active_workers ? `${count(stats.active_workers)} busy` : "all idle";
    const queue = stats.queue_depth ? `${many(stats.queue_depth, "task")} waiting` : "nothing waits";
    const all = moment.level === "ok" ? `${many(stats.total_workers, "worker")}, ` : "";
    say(byId("subline"), `${all}${busy}, ${queue}.${lacking}`);
  }
  document.title = `${moment.headline} · racepool`;
}

function showFooter({ at, stats, version }) {
  const broker = stats?.broker;
  say(byId("broker"), broker
    ? `Broker ${broker.version}, pid ${broker.pid}, up ${span(broker.uptime_s)}, ${memory(broker.rss_bytes)}, epoch ${broker.epoch}`
    : `Exporter ${version}`);
  say(byId("updated"), `updated ${timeOf(at)}`);
}

// --- workers, events, dead tasks -------------------------------------------------------------------------------------

function showWorkers({ at, stats, missing }) {
  const list = byId("worker-list");
  const workers = stats?.workers ?? [];
  const busyFirst = [...workers].sort((one, other) => (other.busy_for_s ?? -1) - (one.busy_for_s ?? -1));
  const shown = workers.length > MOST_WORKERS ? busyFirst.slice(0, MOST_WORKERS) : workers;
  const rows = [...missing.map((name) => ({ name, state: "missing" })), ...shown];
  if (rows.length <= MOST_WORKERS) rows.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  if (!rows.length) rows.push({ name: "", state: "note" });
  keep(list, rows, (row) => `${row.state === "note"}:${row.name}:${row.pid ?? ""}`, makeWorker, (card, row) => showWorker(card, row, at, stats));
  const hidden = workers.length - shown.length;
  say(byId("workers-note"), hidden > 0 ? `the ${shown.length} workers with the longest tasks; ${many(hidden, "more worker")}` : "");
}

function makeWorker({ state }) {
  if (state === "note") return element("li", "note");
  return element("li", "", element("div", "head", element("b"), element("span", "badge")), element("div", "task"), element("div", "more"));
}

function showWorker(card, worker, at, stats) {
  if (worker.state === "note") {
    say(card, stats ? "No worker has introduced itself to the broker." : "Unknown while the broker does not answer.");
    return;
  }
  const [head, task, more] = card.children;
  card.dataset.state = worker.state;
  say(head.firstChild, worker.name);
  say(head.lastChild, worker.state);
  if (worker.state === "missing") {
    say(task, "expected, but not there");
    say(more, "supervisord restarts it; if not, look at its log");
    return;
  }
  const holds = worker.task_id ? `task ${short(worker.task_id)} for ${span(worker.busy_for_s ?? 0)}` : "waits for a task";
  say(task, holds);
  task.title = worker.task_id ?? "";
  const failed = worker.tasks_failed ? `, ${count(worker.tasks_failed)} failed` : "";
  const rss = worker.rss_bytes === null ? "" : memory(worker.rss_bytes);
  const silence = worker.last_heartbeat_age_s;
  const silent = silence < 1 ? "" : `no sign of life for ${span(silence)}`;
  const up = Math.max(0, at - Date.parse(worker.started_at) / 1000);
  const facts = [`${count(worker.tasks_completed)} done${failed}`, `pid ${worker.pid}`, `up ${span(up)}`, rss, silent];
  say(more, facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · "));
}

function showEvents({ events }) {
  const keyOf = (event) => [event.at, event.event, event.worker, event.task_id].join(" ");
  const rows = events.length ? events : [{ nothing: "Nothing yet: no crash, no requeue, no restart." }];
  keep(byId("events"), rows, (row) => row.nothing ?? keyOf(row),
    (row) => (row.nothing ? element("li", "nothing", row.nothing) : makeEvent(row)), () => {});
  say(byId("events-note"), events.length ? many(events.length, "event") : "");
}

function makeEvent(event) {
  const [tone, words] = EVENTS[event.event] ?? ["warning", () => event.event];
  const when = element("time", "", instant(event.at));
  when.dateTime = new Date(event.at * 1000).toISOString();
  when.title = new Date(event.at * 1000).toLocaleString();
  const mark = element("span", "mark");
  mark.setAttribute("aria-hidden", "true");
  const item = element("li", "", mark, when, element("span", "what", words(event)));
  item.dataset.tone = tone;
  return item;
}

function showDead({ dead }) {
  const nothing = dead === null ? "They are on the broker's host: run `racepool dead list` there."
    : dead.problem ?? (dead.tasks.length ? null : "None: no task has killed its workers.");
  const rows = nothing === null ? dead.tasks : [{ nothing }];
  keep(byId("dead"), rows, (row) => row.nothing ?? row.task_id + row.given_up_at,
    (row) => (row.nothing ? element("li", "nothing", row.nothing) : makeDead(row)), () => {});
  const more = dead && dead.count > dead.tasks.length ? `; here are the latest ${dead.tasks.length}` : "";
  const damaged = dead?.unreadable ? `, ${many(dead.unreadable, "damaged file")}` : "";
  say(byId("dead-note"), dead?.count || damaged ? `${many(dead.count, "task")}${more}${damaged}` : "");
}

function makeDead(task) {
  const when = element("time", "muted", instant(Date.parse(task.given_up_at) / 1000));
  when.dateTime = task.given_up_at;
  const race = task.race_name ?? task.race_id ?? "a race without a name";
  const losses = task.attempts.map((attempt) => `${attempt.worker} (${REASONS[attempt.reason] ?? attempt.reason})`);
  return element("li", "", element("div", "head", element("b", "", race), when),
    element("div", "muted", `Lost ${losses.join(", ")}`), element("code", "", `racepool dead show ${task.short_id}`));
}

// --- charts ----------------------------------------------------------------------------------------------------------

const view = { points: null, interval: 1, range: 300, cursor: null, heardAt: performance.now() };

const charts = [
  { title: "Throughput", format: (value) => `${compact(value)}/s`, least: 1, series: [
    { key: "completed_per_s", label: "completed", style: "series-a" },
    { key: "unsuccessful_per_s", label: "unsuccessful", style: "series-b dashed" }] },
  { title: "Run time", format: milliseconds, least: 1, series: [
    { key: "run_p50_ms", label: "p50", style: "series-a" }, { key: "run_p99_ms", label: "p99", style: "series-c dashed" }] },
  { title: "Tasks", format: compact, whole: true, least: 3, series: [
    { key: "queue_depth", label: "waiting", style: "series-b" }, { key: "in_flight", label: "in flight", style: "series-a dashed" }] },
  { title: "Queue wait", format: milliseconds, least: 1, series: [
    { key: "wait_p50_ms", label: "p50", style: "series-a" }, { key: "wait_p99_ms", label: "p99", style: "series-c dashed" }] },
  { title: "Workers", format: compact, whole: true, least: 3, series: [
    { key: "active_workers", label: "busy", style: "series-a" }, { key: "ready_workers", label: "ready", style: "series-c dashed" }] },
  { title: "Memory", format: memory, least: 64 * 2 ** 20, unit: 2 ** 20, series: [
    { key: "workers_bytes", label: "all workers", style: "series-a" },
    { key: "broker_bytes", label: "broker", style: "series-b dashed" }] },
].map((about) => new Chart(about, onCursor));

function onCursor(time, byKeyboard) {
  view.cursor = time;
  drawCharts();
  if (!byKeyboard || !view.points) return;
  const chart = charts.find((each) => each.plot === document.activeElement);
  const index = time === null ? -1 : chart.nearest(view.points.at, time);
  say(byId("told"), index < 0 ? "" : `${timeOf(view.points.at[index])}, ${chart.words(view.points, index)}`);
}

function drawCharts() {
  if (!view.points?.at.length) return;
  const to = view.points.at.at(-1);
  for (const chart of charts) chart.draw(view.points, to - view.range, to, view.cursor, view.interval);
  const shownTo = view.cursor === null ? null : charts[0].nearest(view.points.at, view.cursor);
  say(byId("charts-title"), shownTo === null ? "The last minutes" : `At ${timeOf(view.points.at[shownTo])}`);
}

function addPoint(point) {
  const { points } = view;
  if (!points || points.at.at(-1) >= point.at) return;
  for (const [name, column] of Object.entries(points)) {
    column.push(point[name]);
    if (column.length > KEPT) column.shift();
  }
}

function makeRanges() {
  const buttons = Object.entries(RANGES).map(([label, seconds]) => {
    const button = element("button", "", label);
    button.type = "button";
    button.addEventListener("click", () => { view.range = seconds; mark(); drawCharts(); });
    return [button, seconds];
  });
  const mark = () => buttons.forEach(([button, seconds]) => button.setAttribute("aria-pressed", seconds === view.range));
  byId("ranges").append(...buttons.map(([button]) => button));
  mark();
}

// --- following -------------------------------------------------------------------------------------------------------

function show(moment) {
  view.heardAt = performance.now();
  view.lastAt = moment.at;
  delete document.body.dataset.stale;
  addPoint(moment.point);
  for (const part of [showVerdict, showTiles, showWorkers, showEvents, showDead, showFooter]) part(moment);
  drawCharts();
}

function noticeSilence() {
  if (performance.now() - view.heardAt < SILENCE_MS) return;
  document.body.dataset.level = "down";
  document.body.dataset.stale = "";
  say(byId("headline"), "The exporter does not answer");
  const since = view.lastAt ? `The page shows the state at ${timeOf(view.lastAt)}. ` : "";
  say(byId("subline"), `${since}Is \`racepool exporter\` running? This page tries again.`);
  document.title = "No answer · racepool";
}

function follow() {
  const source = new EventSource("/events");
  source.addEventListener("history", (event) => {
    const { interval_s: interval, points } = JSON.parse(event.data);
    Object.assign(view, { points, interval });
  });
  source.addEventListener("moment", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000); // refused: too many pages are open
  });
}

makeRanges();
byId("charts").append(...charts.map((chart) => chart.element));
new ResizeObserver(drawCharts).observe(byId("charts"));
setInterval(noticeSilence, 1000);
follow();
