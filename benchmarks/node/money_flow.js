// The transform of races/transform.py for a race's first poll: a race of `raceOf` in, a TransformedRace as JSON out.
// Null is what the poll does not tell. There is no poll before it, so each record belongs to the baseline.

import { addUp, exactSum, isPositive, percentageOf, shareOf, toNumber } from "./decimals.js";
import { fieldCount, racePools, readPools } from "./pools.js";
import { isDate, isoText, pollTime, startInstant } from "./race_clock.js";
import { UNKNOWN_STATUS, warnings } from "./warnings.js";

export function transformRace(told, polledAt) {
  const race = completed(told);
  const start = startInstant(race);
  const { report, pools } = readPools(race);
  const poll = { race, at: isoText(polledAt), time: pollTime(start, polledAt) };
  const holds = addUpEntries(race.money_tracker, "hold_percentage");
  const bets = addUpEntries(race.money_tracker, "bet_percentage");
  const entrants = race.entrants.map((entrant) => entrantPoll(entrant, holds, bets, pools));
  const records = entrants.filter(({ hasMoney }) => hasMoney).map((entrant) => record(entrant, poll));
  return {
    race_id: race.id,
    race_name: race.name,
    status: race.status,
    transformed_at: poll.at,
    metrics: {
      entrant_count: entrants.length,
      pool_field_count: report ? fieldCount(report) : 0,
      money_flow_record_count: records.length,
      hold_percentage_total: numberOf(holds.total),
      bet_percentage_total: numberOf(bets.total),
    },
    meeting: race.meeting && { ...race.meeting, date: isDate(race.meeting.date) ? race.meeting.date : null },
    race: {
      race_id: race.id,
      name: race.name,
      status: race.status,
      race_number: race.race_number,
      race_date_nz: race.race_date_nz,
      start_time_nz: race.start_time_nz,
      start_time: isoText(start),
      meeting_id: race.meeting_id,
    },
    entrants: entrants.map((entrant) => row(entrant, race.id)),
    money_flow_records: records,
    race_pools: report && racePools(report, race.id),
    baseline: baselineOf(entrants),
    warnings: warnings(race, holds, report, pools),
  };
}

function completed(race) {
  return {
    ...race,
    status: race.status?.trim().toLowerCase() || UNKNOWN_STATUS,
    entrants: race.entrants.map(({ barrier_position: position, ...entrant }) => ({
      ...entrant,
      name: entrant.name ?? "",
      barrier: barrierOf(position ?? entrant.barrier),
    })),
  };
}

function barrierOf(barrier) {
  return (typeof barrier === "string" ? Number(/\d+/.exec(barrier)?.[0] ?? 0) : barrier) || null;
}

function addUpEntries(entries, name) {
  const numbers = new Map();
  for (const { entrant_id: id, [name]: percentage } of entries) {
    if (percentage === null) continue;
    if (numbers.has(id)) numbers.get(id).push(percentage);
    else numbers.set(id, [percentage]);
  }
  const byEntrant = new Map([...numbers].map(([id, percentages]) => [id, exactSum(percentages)]));
  return { byEntrant, total: byEntrant.size ? addUp([...byEntrant.values()]) : null };
}

function numberOf(percentage) {
  return percentage && toNumber(percentage);
}

function entrantPoll(entrant, holds, bets, pools) {
  const hold = holds.byEntrant.get(entrant.entrant_id) ?? null;
  const arePoolsTold = pools.win !== null || pools.place !== null;
  return {
    entrant,
    hold: numberOf(hold),
    bet: numberOf(bets.byEntrant.get(entrant.entrant_id) ?? null),
    money: hold && arePoolsTold ? moneyOf(hold, pools) : null,
    hasMoney: Boolean(hold && isPositive(hold) && (pools.win || pools.place)),
  };
}

function moneyOf(hold, pools) {
  const [win, place] = [pools.win, pools.place].map((pool) => (pool === null ? 0 : shareOf(pool, hold)));
  return {
    win,
    place,
    total: pools.win === null || pools.place === null ? win + place : shareOf(pools.win + pools.place, hold),
    winPercentage: percentageOf(pools.win, win),
    placePercentage: percentageOf(pools.place, place),
  };
}

function baselineOf(entrants) {
  const told = entrants.filter(({ money }) => money);
  return told.length
    ? Object.fromEntries(told.map(({ entrant, money }) => [entrant.entrant_id, [money.win, money.place]]))
    : null;
}

function row({ entrant, hold, bet, money, hasMoney }, raceId) {
  const shown = hasMoney ? money : null;
  return {
    ...entrant,
    race_id: raceId,
    is_scratched: Boolean(entrant.is_scratched),
    is_late_scratched: Boolean(entrant.is_late_scratched),
    hold_percentage: hold,
    bet_percentage: bet,
    win_pool_percentage: shown && shown.winPercentage,
    place_pool_percentage: shown && shown.placePercentage,
    win_pool_amount: shown && shown.win,
    place_pool_amount: shown && shown.place,
  };
}

function record({ entrant, hold, bet, money }, { race, at, time }) {
  return {
    entrant_id: entrant.entrant_id,
    runner_number: entrant.runner_number,
    runner_name: entrant.name,
    race_id: race.id,
    race_date_nz: race.race_date_nz,
    is_baseline: true,
    time_to_start: time.minutes,
    time_interval: time.bucket,
    interval_type: time.intervalType,
    polling_timestamp: at,
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
