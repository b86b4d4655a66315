// A thread of the pool: one race in, as fetched or as a mapping, validated and transformed.

import { transformRace } from "./money_flow.js";
import { raceOf } from "./normalise.js";
import { Race } from "./schema.js";

const decoder = new TextDecoder();

export default function transform({ race, polledAt }) {
  const input = race instanceof Uint8Array ? JSON.parse(decoder.decode(race)) : race;
  return transformRace(Race.parse(raceOf(input)), polledAt);
}
