// What a race may hold, for zod: the rules of races/race.py.

import { z } from "zod";

const LARGEST_NUMBER = 1_000_000_000_000;
const LARGEST_WHOLE = 1_000_000_000;
const LARGEST_INSTANT = 253_402_300_799;

const text = z.string();
const identifier = z.string().min(1);
const number = z.number().min(0).max(LARGEST_NUMBER);
const count = z.int().min(0).max(LARGEST_WHOLE);

const entrant = z.object({
  entrant_id: identifier,
  runner_number: z.int().min(1).max(LARGEST_WHOLE),
  name: text.nullable(),
  barrier: z.union([count, text]).nullable(),
  barrier_position: z.union([count, text]).nullable(),
  is_scratched: z.boolean().nullable(),
  is_late_scratched: z.boolean().nullable(),
  fixed_win_odds: number.nullable(),
  fixed_place_odds: number.nullable(),
  pool_win_odds: number.nullable(),
  pool_place_odds: number.nullable(),
  jockey: text.nullable(),
  trainer_name: text.nullable(),
  silk_colours: text.nullable(),
  favourite: z.boolean().nullable(),
  mover: z.boolean().nullable(),
});

export const Race = z.object({
  id: identifier,
  name: text,
  status: text.nullable(),
  race_date_nz: z.iso.date(),
  start_time_nz: z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?: *(?:NZST|NZDT))?$/),
  advertised_start: z.int().min(0).max(LARGEST_INSTANT).nullable(),
  race_number: count.nullable(),
  meeting_id: text.nullable(),
  entrants: z
    .array(entrant)
    .refine((entrants) => new Set(entrants.map((each) => each.entrant_id)).size === entrants.length, "ids must differ"),
  pools: z.object({ win_pool: number.nullable(), place_pool: number.nullable() }).nullable(),
  tote_pools: z.array(z.object({ product_type: text.nullable(), total: number.nullable() })),
  dividends: z.array(z.object({ product_name: text.nullable(), pool_size: number.nullable() })),
  money_tracker: z.array(
    z.object({ entrant_id: text.nullable(), hold_percentage: number.nullable(), bet_percentage: number.nullable() }),
  ),
  meeting: z
    .object({
      meeting_id: text.nullable(),
      name: text.nullable(),
      date: text.nullable(),
      country: text.nullable(),
      category: text.nullable(),
      track_condition: text.nullable(),
      tote_status: text.nullable(),
    })
    .nullable(),
});
