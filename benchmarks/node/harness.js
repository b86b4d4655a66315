// The driver of benchmarks/driver.py and the measures of benchmarks/measures.py for Node: `harness.js LOADS WORKERS`.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

const POLLERS = 100;
const BURST = 5;
const TICK_MS = 1;
const SETTLE_MS = 50;
const RACES = 8; // kinds of race in the mixed load, of which every tenth is large
const ONE_LARGE_IN = 10;

const [folder, workers, polledAtText] = process.argv.slice(2);
const polledAt = Number(polledAtText);

function read(name) {
  const count = readdirSync(folder).filter((file) => file.startsWith(`${name}-`) && file.endsWith(".result.json")).length;
  return Array.from({ length: count }, (_, index) => {
    const body = readFileSync(join(folder, `${name}-${index}.json`));
    const result = JSON.parse(readFileSync(join(folder, `${name}-${index}.result.json`), "utf8"));
    return { race: name === "raw" ? new Uint8Array(body) : JSON.parse(body), money: moneyIn(result) };
  });
}

function moneyIn(result) {
  return result.money_flow_records.reduce((sum, record) => sum + record.win_pool_amount, 0);
}

function readLoads() {
  const [normalised, raw] = [read("normalised"), read("raw")];
  const mixed = Array.from({ length: RACES * ONE_LARGE_IN }, (_, turn) => {
    const load = turn % ONE_LARGE_IN === ONE_LARGE_IN - 1 ? raw : normalised;
    return load[turn % load.length];
  });
  return { normalised, raw, mixed };
}

const loads = readLoads();
let next = 0;
let submit;

const used = async ({ race }) => moneyIn(await submit(race));

const take = (load, tasks) => Array.from({ length: tasks }, () => loads[load][next++ % loads[load].length]);

function check(load, races, money) {
  const expected = races.reduce((sum, race) => sum + race.money, 0);
  if (money !== expected) throw new Error(`the results of ${load} races hold ${money} cents, not ${expected}`);
}

async function settle() {
  globalThis.gc();
  await setTimeout(SETTLE_MS);
}

async function repeatedly(times, measure) {
  await settle();
  const figures = [];
  for (let index = 0; index < times; index += 1) figures.push(await measure());
  return figures;
}

async function together(load, tasks) {
  const races = take(load, tasks);
  const startedAt = performance.now();
  const money = (await Promise.all(races.map(used))).reduce((sum, each) => sum + each, 0);
  const took = performance.now() - startedAt;
  check(load, races, money);
  return took;
}

async function sustained(load, tasks) {
  await settle();
  const races = take(load, tasks);
  let [index, money] = [0, 0];
  const poll = async () => {
    while (index < races.length) {
      const result = await used(races[index++]);
      money += result;
    }
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: Math.min(POLLERS, tasks) }, poll));
  const took = performance.now() - startedAt;
  check(load, races, money);
  return took / 1000;
}

async function submission(load) {
  const [{ race }] = take(load, 1);
  const startedAt = performance.now();
  const result = submit(race);
  const took = performance.now() - startedAt;
  await result;
  return took * 1000;
}

async function lateness(isOver) {
  let worst = 0;
  while (!isOver()) {
    const before = performance.now();
    await setTimeout(TICK_MS);
    worst = Math.max(worst, performance.now() - before - TICK_MS);
  }
  return worst;
}

async function stall(load, tasks) {
  await settle();
  let isOver = false;
  const ticker = lateness(() => isOver);
  await setTimeout(10 * TICK_MS);
  await together(load, tasks);
  isOver = true;
  return ticker;
}

const does = {
  results: async (load) => Promise.all(loads[load].map(({ race }) => submit(race))),
  sustained,
  together,
  idle: (load, tasks) => repeatedly(tasks, () => together(load, 1)),
  bursts: (load, tasks) => repeatedly(tasks, () => together(load, BURST)),
  submit: (load, tasks) => repeatedly(tasks, () => submission(load)),
  stall,
  bare_stall: async (_, tasks) => {
    await settle();
    let ticks = 0;
    return lateness(() => ticks++ >= tasks);
  },
};

function answer(content) {
  process.stdout.write(`${JSON.stringify(content)}\n`);
}

const startedAt = performance.now();
const { Piscina } = await import("piscina");
const pool = new Piscina({
  filename: new URL("./worker.js", import.meta.url).href,
  minThreads: Number(workers),
  maxThreads: Number(workers),
});
submit = (race) => pool.run({ race, polledAt });
await submit(loads.normalised[0].race);
answer({ started_s: (performance.now() - startedAt) / 1000 });

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  answer({ value: await does[command.do](command.load, command.tasks) });
}
await pool.destroy();
