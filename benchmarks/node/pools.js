// The race's pools in cents, as races/pools.py reads them.

import { cents, exactSum } from "./decimals.js";

const FIELD_OF_TYPE = {
  win: "win_pool_total",
  place: "place_pool_total",
  quinella: "quinella_pool_total",
  trifecta: "trifecta_pool_total",
  exacta: "exacta_pool_total",
  first4: "first4_pool_total",
  firstfour: "first4_pool_total",
  ...Object.fromEntries(
    [
      "double", "runningdouble", "treble", "quadrella", "earlyquadrella", "quaddie", "earlyquaddie",
      "place6", "pick6", "big6",
    ].map((kind) => [kind, "multi_leg_pool_total"]),
  ),
};
const OTHER = "other_pool_total";
const NOTHING = Object.fromEntries([...Object.values(FIELD_OF_TYPE), OTHER].map((field) => [field, 0]));

export function reportPools(race) {
  if (race.tote_pools.length) return ofTotePools(race.tote_pools);
  return isGiven(race.pools) ? ofHeldPools(race.pools) : null;
}

export function moneyPools(race, report) {
  const totals = (isGiven(race.pools) ? ofHeldPools(race.pools) : report)?.totals;
  return { win: totals?.win_pool_total ?? 0, place: totals?.place_pool_total ?? 0 };
}

export function fieldCount(report) {
  return Object.values(report.totals).filter(Boolean).length;
}

export function racePools({ totals, extracted, unrecognised }) {
  const isIncomplete = !(totals.win_pool_total && totals.place_pool_total);
  return {
    ...totals,
    total_race_pool: Object.values(totals).reduce((sum, total) => sum + total, 0),
    currency: "NZD",
    data_quality_score: Math.max(0, 100 - 5 * unrecognised.length - (isIncomplete ? 30 : 0)),
    extracted_pools: extracted,
  };
}

function isGiven(pools) {
  return pools !== null && (pools.win_pool !== null || pools.place_pool !== null);
}

function ofHeldPools({ win_pool: win, place_pool: place }) {
  const read = Object.entries({ win_pool_total: win, place_pool_total: place }).filter(([, total]) => total !== null);
  const totals = Object.fromEntries(read.map(([field, dollars]) => [field, cents(exactSum([dollars]))]));
  return { totals: { ...NOTHING, ...totals }, extracted: read.length, unrecognised: [] };
}

function ofTotePools(pools) {
  const read = pools.filter((pool) => pool.total !== null);
  const dollars = {};
  const unrecognised = new Map();
  for (const { product_type: type, total } of read) {
    const kind = (type ?? "").toLowerCase().replaceAll("-", " ").split(/\s+/).join("");
    const field = FIELD_OF_TYPE[kind] ?? OTHER;
    (dollars[field] ??= []).push(total);
    if (field === OTHER && !unrecognised.has(kind)) unrecognised.set(kind, type ?? "");
  }
  const totals = Object.fromEntries(Object.entries(dollars).map(([field, numbers]) => [field, cents(exactSum(numbers))]));
  return { totals: { ...NOTHING, ...totals }, extracted: read.length, unrecognised: [...unrecognised.values()] };
}
