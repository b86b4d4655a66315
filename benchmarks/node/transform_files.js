// `node transform_files.js POLLED_AT_MS FILE…`: the results of valid races as a JSON array; needs no package.

import { readFileSync } from "node:fs";

import { transformRace } from "./money_flow.js";
import { raceOf } from "./normalise.js";

const [polledAt, ...files] = process.argv.slice(2);
const results = files.map((file) => transformRace(raceOf(JSON.parse(readFileSync(file, "utf8"))), Number(polledAt)));
process.stdout.write(JSON.stringify(results));
