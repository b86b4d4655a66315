// The race's pools in cents, as races/pools.py reads them.

import { cents, exactSum } from "./decimals.js";

const WIN = "win_pool_total";
const PLACE = "place_pool_total";
const OTHER = "other_pool_total";
const MULTI_LEG = [
  "double", "runningdouble", "dailydouble", "treble", "quadrella", "earlyquadrella", "quaddie", "earlyquaddie",
  "place6", "pick6", "big6",
];
const FIELD_OF_TYPE = new Map([
  ["win", WIN],
  ["place", PLACE],
  ["quinella", "quinella_pool_total"],
  ["trifecta", "trifecta_pool_total"],
  ["exacta", "exacta_pool_total"],
  ["first4", "first4_pool_total"],
  ["firstfour", "first4_pool_total"],
  ...MULTI_LEG.map((kind) => [kind, "multi_leg_pool_total"]),
]);
const NOTHING = Object.fromEntries([...FIELD_OF_TYPE.values(), OTHER].map((field) => [field, 0]));

// The report for the result; and the money pools, of which each entrant gets a share: null if a pool is not told.
export function readPools(race) {
  const [held, tote, paid] = [ofHeldPools(race.pools), ofTotePools(race.tote_pools), ofDividends(race.dividends)];
  const first = (field) => [held, tote, paid].find(({ totals }) => field in totals)?.totals[field] ?? null;
  const report = [tote, paid, held].find(({ extracted }) => extracted > 0) ?? null;
  return { report, pools: { win: first(WIN), place: first(PLACE) } };
}

export function fieldCount({ totals }) {
  return Object.values(totals).filter(Boolean).length;
}

export function racePools({ totals, extracted, unrecognised }, raceId) {
  const isIncomplete = !(totals[WIN] && totals[PLACE]);
  return {
    race_id: raceId,
    ...NOTHING,
    ...totals,
    total_race_pool: Object.values(totals).reduce((sum, total) => sum + total, 0),
    currency: "NZD",
    data_quality_score: Math.max(0, 100 - 5 * unrecognised.length - (isIncomplete ? 30 : 0)),
    extracted_pools: extracted,
  };
}

function ofHeldPools(pools) {
  return addedUp([
    { kind: "win", dollars: pools?.win_pool ?? null },
    { kind: "place", dollars: pools?.place_pool ?? null },
  ]);
}

function ofTotePools(pools) {
  return addedUp(pools.map(({ product_type: name, total }) => ({ kind: kindOf(name), name, dollars: total })));
}

// The pools that pay. The largest size of each counts; a product that is no pool is ignored.
function ofDividends(dividends) {
  const largest = new Map();
  for (const { product_name: name, pool_size: dollars } of dividends) {
    const product = kindOf(name);
    if (!product.startsWith("pool") || dollars === null) continue;
    const kind = product.slice("pool".length).replaceAll("firstfour", "first4"); // two spellings of one pool
    const known = largest.get(kind);
    if (known) known.dollars = Math.max(known.dollars, dollars);
    else largest.set(kind, { kind, name, dollars });
  }
  return addedUp([...largest.values()]);
}

function addedUp(pools) {
  const read = pools.filter(({ dollars }) => dollars !== null);
  const byField = {};
  const unrecognised = new Map();
  for (const { kind, name, dollars } of read) {
    const field = FIELD_OF_TYPE.get(kind) ?? OTHER;
    (byField[field] ??= []).push(dollars);
    if (field === OTHER && !unrecognised.has(kind)) unrecognised.set(kind, name ?? "");
  }
  const totals = Object.fromEntries(Object.entries(byField).map(([field, numbers]) => [field, cents(exactSum(numbers))]));
  return { totals, extracted: read.length, unrecognised: [...unrecognised.values()] };
}

function kindOf(name) {
  return (name ?? "").toLowerCase().replaceAll("-", " ").split(/\s+/).join("");
}
