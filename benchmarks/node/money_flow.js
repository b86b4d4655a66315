// The transform of races/transform.py for a race's first poll: a race of `raceOf` in, a TransformedRace as JSON out.

import { addUp, exactSum, isPositive, percentageOf, shareOf, toNumber } from "./decimals.js";
import { fieldCount, moneyPools, racePools, reportPools } from "./pools.js";
import { isoText, pollTime, startInstant } from "./race_clock.js";

const EXPECTED_HOLD = 100;
const HOLD_TOLERANCE = 5;

export function transformRace(race, polledAt) {
  const start = startInstant(race);
  const report = reportPools(race);
  const poll = { raceId: race.id, at: isoText(polledAt), time: pollTime(start, polledAt), pools: moneyPools(race, report) };
  const holds = addUpEntries(race.money_tracker, "hold_percentage");
  const bets = addUpEntries(race.money_tracker, "bet_percentage");
  const entrants = race.entrants.map((entrant) => entrantPoll(entrant, holds, bets, poll.pools));
  const records = entrants.filter(({ money }) => money).map((entrant) => record(entrant, poll));
  const status = race.status.toLowerCase();
  return {
    race_id: race.id,
    race_name: race.name,
    status,
    transformed_at: poll.at,
    metrics: {
      entrant_count: entrants.length,
      pool_field_count: report ? fieldCount(report) : 0,
      money_flow_record_count: records.length,
      hold_percentage_total: toNumber(holds.total),
      bet_percentage_total: toNumber(bets.total),
    },
    meeting: race.meeting,
    race: {
      race_id: race.id,
      name: race.name,
      status,
      race_number: race.race_number,
      race_date_nz: race.race_date_nz,
      start_time_nz: race.start_time_nz,
      start_time: isoText(start),
      meeting_id: race.meeting_id,
    },
    entrants: entrants.map((entrant) => row(entrant, poll)),
    money_flow_records: records,
    race_pools: report && racePools(report),
    warnings: warnings(race, holds, bets, report),
  };
}

function addUpEntries(entries, name) {
  const numbers = new Map();
  for (const { entrant_id: id, [name]: percentage } of entries) {
    if (percentage === null) continue;
    if (numbers.has(id)) numbers.get(id).push(percentage);
    else numbers.set(id, [percentage]);
  }
  const byEntrant = new Map([...numbers].map(([id, percentages]) => [id, exactSum(percentages)]));
  return { byEntrant, total: addUp([...byEntrant.values()]) };
}

function entrantPoll(entrant, holds, bets, pools) {
  const hold = holds.byEntrant.get(entrant.entrant_id);
  const bet = bets.byEntrant.get(entrant.entrant_id);
  const hasMoney = hold && isPositive(hold) && (pools.win || pools.place);
  return {
    entrant,
    hold: hold ? toNumber(hold) : null,
    bet: bet ? toNumber(bet) : null,
    money: hasMoney ? moneyOf(hold, pools) : null,
  };
}

function moneyOf(hold, pools) {
  const win = shareOf(pools.win, hold);
  const place = shareOf(pools.place, hold);
  return {
    win,
    place,
    total: shareOf(pools.win + pools.place, hold),
    winPercentage: percentageOf(pools.win, win),
    placePercentage: percentageOf(pools.place, place),
  };
}

function row({ entrant, hold, bet, money }, poll) {
  return {
    ...entrant,
    barrier: barrierOf(entrant.barrier),
    race_id: poll.raceId,
    is_scratched: Boolean(entrant.is_scratched),
    is_late_scratched: Boolean(entrant.is_late_scratched),
    hold_percentage: hold,
    bet_percentage: bet,
    win_pool_percentage: money && money.winPercentage,
    place_pool_percentage: money && money.placePercentage,
    win_pool_amount: money && money.win,
    place_pool_amount: money && money.place,
  };
}

function barrierOf(barrier) {
  return (typeof barrier === "string" ? Number(/\d+/.exec(barrier)?.[0] ?? 0) : barrier) || null;
}

function record({ entrant, hold, bet, money }, poll) {
  return {
    entrant_id: entrant.entrant_id,
    race_id: poll.raceId,
    time_to_start: poll.time.minutes,
    time_interval: poll.time.bucket,
    interval_type: poll.time.intervalType,
    polling_timestamp: poll.at,
    hold_percentage: hold,
    bet_percentage: bet,
    win_pool_percentage: money.winPercentage,
    place_pool_percentage: money.placePercentage,
    win_pool_amount: money.win,
    place_pool_amount: money.place,
    total_pool_amount: money.total,
    incremental_win_amount: money.win,
    incremental_place_amount: money.place,
    fixed_win_odds: entrant.fixed_win_odds,
    fixed_place_odds: entrant.fixed_place_odds,
    pool_win_odds: entrant.pool_win_odds,
    pool_place_odds: entrant.pool_place_odds,
  };
}

function warnings(race, holds, bets, report) {
  const told = [];
  const total = toNumber(holds.total);
  if (Math.abs(total - EXPECTED_HOLD) >= HOLD_TOLERANCE) {
    told.push(`hold percentages add up to ${brief(total)}, not to about ${EXPECTED_HOLD}`);
  }
  const listed = new Set(race.entrants.map((entrant) => entrant.entrant_id));
  for (const id of new Set([...holds.byEntrant.keys(), ...bets.byEntrant.keys()])) {
    if (listed.has(id)) continue;
    const hold = holds.byEntrant.has(id) ? toNumber(holds.byEntrant.get(id)) : 0;
    const name = id === null ? "None" : `'${id}'`;
    told.push(`money tracker: id ${name} is no entrant; its hold of ${brief(hold)} % counts in the total only`);
  }
  for (const type of report?.unrecognised ?? []) {
    told.push(`pool type '${type}' is not recognised; it counts as other`);
  }
  return told;
}

// As Python's `:g` writes it: six digits at most.
function brief(number) {
  const [mantissa, exponent] = number.toExponential(5).split("e");
  if (exponent >= -4 && exponent < 6) return String(Number(number.toPrecision(6)));
  return `${Number(mantissa)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}
