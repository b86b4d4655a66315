// What looks wrong in a race's first poll but breaks no rule, in the words of races/transform.py.

import { isBetween, isPositive, toNumber } from "./decimals.js";
import { isDate } from "./race_clock.js";

export const UNKNOWN_STATUS = "unknown";
const STATUSES = ["open", "closed", "interim", "final", "abandoned", "live"];
const EXPECTED_HOLD = 100;
const LEAST_HOLD = 95;
const MOST_HOLD = 105;
const KEPT = "each runner keeps the amount of the last poll that told it";

export function warnings(race, holds, report, pools) {
  return [
    ...doubtfulFields(race),
    ...gaps(race, holds, pools),
    ...doubtfulTotal(holds),
    ...(report?.unrecognised ?? []).map((type) => `pool type ${quoted(type)} is not recognised; it counts as other`),
    ...(race.entrants.length ? strangers(race, holds) : []),
  ];
}

function doubtfulFields({ status, meeting, entrants }) {
  const told = [];
  if (status === UNKNOWN_STATUS) told.push("the status of the race is not told");
  else if (!STATUSES.includes(status)) told.push(`status ${quoted(status)} is not one of ${STATUSES.join(", ")}`);
  if (meeting?.date && !isDate(meeting.date)) {
    told.push(`the date of the meeting is ${quoted(meeting.date)}, which is no date; it is left out`);
  }
  const nameless = entrants.filter(({ name }) => !name);
  return [...told, ...nameless.map(({ runner_number: number }) => `runner ${number} has no name`)];
}

function gaps(race, holds, pools) {
  const told = [];
  if (!race.entrants.length) told.push(`no runners are told: no records; ${KEPT}`);
  if (holds.total === null) told.push(`no money tracker is told: no records; ${KEPT}`);
  if (pools.win === null && pools.place === null) {
    told.push(`neither the win nor the place pool is told: no records; ${KEPT}`);
  }
  return told;
}

function doubtfulTotal({ total }) {
  if (total === null || isBetween(total, LEAST_HOLD, MOST_HOLD)) return [];
  return [`hold percentages add up to ${brief(toNumber(total))}, not to about ${EXPECTED_HOLD}`];
}

// Ids with a hold that are not among the entrants.
function strangers(race, holds) {
  const listed = new Set(race.entrants.map((entrant) => entrant.entrant_id));
  return [...holds.byEntrant]
    .filter(([id, hold]) => isPositive(hold) && !listed.has(id))
    .map(([id, hold]) => {
      const only = `its hold of ${brief(toNumber(hold))} % counts in the total only`;
      return `money tracker: id ${quoted(id)} is no entrant; ${only}`;
    });
}

// As Python's repr writes a text of plain characters.
function quoted(text) {
  if (text === null) return "None";
  return text.includes("'") && !text.includes('"') ? `"${text}"` : `'${text}'`;
}

// As Python's `:g` writes it: six digits at most.
function brief(number) {
  const [mantissa, exponent] = number.toExponential(5).split("e");
  if (exponent >= -4 && exponent < 6) return String(Number(number.toPrecision(6)));
  return `${Number(mantissa)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}
