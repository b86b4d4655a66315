// Where a poll stands in time, as races/race_clock.py has it; instants are milliseconds since 1970.

const MINUTE = 60_000;
const HOUR = 3_600_000;
const ZONES = { NZST: 12, NZDT: 13 };
const ZONE_NAMES = { 12: "NZST", 13: "NZDT" };
const BUCKETS = [
  -5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5,
  0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60,
];
const AUCKLAND = new Intl.DateTimeFormat("en-NZ", { timeZone: "Pacific/Auckland", timeZoneName: "longOffset" });

// A local date or time that is not told is that of the advertised start, as races/start.py derives it.
export function withLocalStart(race) {
  if ((race.race_date_nz !== null && race.start_time_nz !== null) || !(race.advertised_start > 0)) return race;
  const hours = hoursAt(race.advertised_start * 1000);
  const local = new Date(race.advertised_start * 1000 + hours * HOUR).toISOString();
  return {
    ...race,
    race_date_nz: race.race_date_nz ?? local.slice(0, "YYYY-MM-DD".length),
    start_time_nz: race.start_time_nz ?? `${local.slice("YYYY-MM-DDT".length, -".000Z".length)} ${ZONE_NAMES[hours]}`,
  };
}

export function startInstant(race) {
  if (race.advertised_start) return race.advertised_start * 1000;
  const [clock, zone] = race.start_time_nz.split(/ *(?=NZ)/);
  const local = Date.parse(`${race.race_date_nz}T${clock}Z`);
  const hours = ZONES[zone] ?? (hoursAt(local - 13 * HOUR) === 13 ? 13 : 12);
  return local - hours * HOUR;
}

export function pollTime(start, polledAt) {
  const minutes = thousandths(start - polledAt);
  return { minutes, bucket: bucketOf(minutes), intervalType: intervalTypeOf(minutes) };
}

export function isoText(instant) {
  return new Date(instant).toISOString().replace(".000Z", "Z").replace(/\.(\d{3})Z$/, ".$1000Z");
}

// What the clocks of Auckland are ahead by, since 1946.
function hoursAt(instant) {
  const offset = AUCKLAND.formatToParts(instant).find((part) => part.type === "timeZoneName").value;
  return Number(offset.slice("GMT+".length, "GMT+13".length));
}

// Milliseconds as minutes, rounded half to even as Python does; only multiples of 1/16 are halves in binary.
function thousandths(milliseconds) {
  const minutes = milliseconds / MINUTE;
  if (Math.abs(minutes * 16) % 2 === 1) {
    const floor = Math.floor(minutes * 1000);
    return (minutes * 1000 - floor === 0.5 ? floor + Math.abs(floor % 2) : minutes * 1000) / 1000 + 0;
  }
  return Number(minutes.toFixed(3)) + 0;
}

function bucketOf(minutes) {
  return minutes >= BUCKETS[0] ? BUCKETS.findLast((bucket) => bucket <= minutes) : Math.trunc(minutes);
}

function intervalTypeOf(minutes) {
  if (minutes > 30) return "5m";
  if (minutes > 5) return "2m";
  return minutes > 0 ? "30s" : "live";
}

// Whether a text is a calendar date as YYYY-MM-DD, from the year 1900 on.
export function isDate(text) {
  if (!/^(?:19|[2-9]\d)\d\d-\d\d-\d\d$/.test(text ?? "")) return false;
  const day = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text);
}
