// Either form of a race as one shape with snake_case keys and null for what is not given, as RaceData.parse makes it.

import { withLocalStart } from "./race_clock.js";

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

const picker = (...names) => {
  const pairs = names.map((name) => [name, camel(name)]);
  return (part) => Object.fromEntries(pairs.map(([name, other]) => [name, part[name] ?? part[other] ?? null]));
};

const RUNNER_KEYS = [
  "entrant_id", "runner_number", "name", "barrier", "barrier_position", "is_scratched", "is_late_scratched",
  "jockey", "trainer_name", "silk_colours", "favourite", "mover",
];
const pickRace = picker(
  "id", "name", "status", "race_date_nz", "start_time_nz", "advertised_start", "race_number", "meeting_id",
);
const pickRunner = picker(...RUNNER_KEYS);
const pickEntrant = picker(...RUNNER_KEYS, "fixed_win_odds", "fixed_place_odds", "pool_win_odds", "pool_place_odds");
const pickEntry = picker("entrant_id", "hold_percentage", "bet_percentage");
const pickPool = picker("product_type", "total");
const pickDividend = picker("product_name", "pool_size");
const pickPools = picker("win_pool", "place_pool");
const pickMeeting = picker("meeting_id", "name", "date", "country", "category", "track_condition", "tote_status");

export function raceOf(input) {
  return input.data ? ofResponse(input.data) : ofNormalised(input);
}

function ofNormalised(race) {
  return {
    ...withLocalStart(pickRace(race)),
    entrants: (race.entrants ?? []).map(pickEntrant),
    pools: race.pools ? pickPools(race.pools) : null,
    tote_pools: (race.tote_pools ?? race.totePools ?? []).map(pickPool),
    dividends: (race.dividends ?? []).map(pickDividend),
    money_tracker: entriesOf(race.money_tracker ?? race.moneyTracker),
    meeting: race.meeting ? meetingOf({ ...race.meeting, meeting_id: race.meeting.meeting ?? race.meeting.meeting_id }) : null,
  };
}

function ofResponse({ race: told, runners, entrants, money_tracker: tracker, tote_pools: totePools, dividends }) {
  const race = withLocalStart(pickRace({ ...told, id: told.event_id, name: told.description }));
  const hasMeeting = (told.meeting_id ?? told.meeting_name ?? null) !== null;
  return {
    ...race,
    entrants: (runners?.length ? runners : (entrants ?? [])).map(entrantOf),
    pools: null,
    tote_pools: (totePools ?? []).map(pickPool),
    dividends: (dividends ?? []).map(pickDividend),
    money_tracker: entriesOf(tracker),
    meeting: hasMeeting
      ? meetingOf({ ...told, name: told.meeting_name, date: race.race_date_nz, category: told.type, tote_status: null })
      : null,
  };
}

function entrantOf(runner) {
  const odds = runner.odds ?? {};
  return {
    ...pickRunner(runner),
    fixed_win_odds: odds.fixed_win ?? null,
    fixed_place_odds: odds.fixed_place ?? null,
    pool_win_odds: odds.pool_win ?? null,
    pool_place_odds: odds.pool_place ?? null,
  };
}

function entriesOf(tracker) {
  return (tracker?.entrants ?? []).map(pickEntry);
}

function meetingOf(meeting) {
  const picked = pickMeeting(meeting);
  return { ...picked, date: picked.date?.slice(0, 10) ?? null };
}
