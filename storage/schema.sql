-- The tables of PostgresStore. schema.py runs this once, in one transaction.

CREATE SCHEMA IF NOT EXISTS racepool;

CREATE TABLE racepool.schema_version (
  version integer PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE racepool.schema_version IS 'Which version of the tables this is: one row.';
INSERT INTO racepool.schema_version (version) VALUES (1);

CREATE TABLE racepool.polls (
  race_id text NOT NULL,
  polling_timestamp timestamptz NOT NULL,
  race_date_nz date NOT NULL,
  start_time timestamptz NOT NULL,
  kept jsonb NOT NULL,
  PRIMARY KEY (race_id, polling_timestamp)
);
COMMENT ON TABLE racepool.polls IS 'One row for each written poll, also for a poll without rows in money_flow.';
COMMENT ON COLUMN racepool.polls.race_id IS 'The race''s id at the tote.';
COMMENT ON COLUMN racepool.polls.polling_timestamp IS 'The instant of the poll.';
COMMENT ON COLUMN racepool.polls.race_date_nz IS 'The day of the race in New Zealand: the partition of the poll''s rows.';
COMMENT ON COLUMN racepool.polls.start_time IS 'The instant at which the race should start, as this poll tells it.';
COMMENT ON COLUMN racepool.polls.kept IS
  'The part of the baseline that has no row of this poll: entrant id -> [win cents, place cents]. Zeros, and amounts of earlier polls.';

CREATE TABLE racepool.money_flow (
  entrant_id text NOT NULL,
  runner_number integer NOT NULL,
  runner_name text NOT NULL,
  race_id text NOT NULL,
  race_date_nz date NOT NULL,
  is_baseline boolean NOT NULL,
  time_to_start numeric NOT NULL,
  time_interval numeric NOT NULL,
  interval_type text NOT NULL,
  polling_timestamp timestamptz NOT NULL,
  hold_percentage double precision,
  bet_percentage double precision,
  win_pool_percentage double precision,
  place_pool_percentage double precision,
  win_pool_amount bigint NOT NULL,
  place_pool_amount bigint NOT NULL,
  total_pool_amount bigint NOT NULL,
  incremental_win_amount bigint NOT NULL,
  incremental_place_amount bigint NOT NULL,
  fixed_win_odds double precision,
  fixed_place_odds double precision,
  pool_win_odds double precision,
  pool_place_odds double precision,
  race_name text NOT NULL,
  race_number integer,
  meeting_name text,
  start_time timestamptz NOT NULL,
  is_scratched boolean NOT NULL,
  PRIMARY KEY (race_id, entrant_id, polling_timestamp, race_date_nz)
) PARTITION BY RANGE (race_date_nz);
COMMENT ON TABLE racepool.money_flow IS
  'The money on one entrant at one poll. A poll that tells no money has no rows. One partition for each race_date_nz.';
COMMENT ON COLUMN racepool.money_flow.entrant_id IS 'The entrant''s id at the tote.';
COMMENT ON COLUMN racepool.money_flow.runner_number IS 'The number of the runner.';
COMMENT ON COLUMN racepool.money_flow.runner_name IS 'Its name; empty for a reserve without a name.';
COMMENT ON COLUMN racepool.money_flow.race_id IS 'The race''s id at the tote.';
COMMENT ON COLUMN racepool.money_flow.race_date_nz IS 'The day of the race in New Zealand.';
COMMENT ON COLUMN racepool.money_flow.is_baseline IS
  'No earlier poll told any money of this race: the increments are the whole amounts, which may have come in long before.';
COMMENT ON COLUMN racepool.money_flow.time_to_start IS 'Minutes from the poll to the start, negative after it.';
COMMENT ON COLUMN racepool.money_flow.time_interval IS 'The time bucket, in minutes before the start. Not always whole: -0.5.';
COMMENT ON COLUMN racepool.money_flow.interval_type IS 'The phase before the start: 5m, 2m, 30s or live.';
COMMENT ON COLUMN racepool.money_flow.polling_timestamp IS 'The instant of the poll.';
COMMENT ON COLUMN racepool.money_flow.hold_percentage IS 'The share of all money that is on this entrant, 0 to 100.';
COMMENT ON COLUMN racepool.money_flow.bet_percentage IS 'The share of all bets that are on this entrant, 0 to 100.';
COMMENT ON COLUMN racepool.money_flow.win_pool_percentage IS
  '100 * win_pool_amount / win pool; null if the win pool is 0 or not told.';
COMMENT ON COLUMN racepool.money_flow.place_pool_percentage IS
  '100 * place_pool_amount / place pool; null if the place pool is 0 or not told.';
COMMENT ON COLUMN racepool.money_flow.win_pool_amount IS 'Cents on this entrant in the win pool.';
COMMENT ON COLUMN racepool.money_flow.place_pool_amount IS 'Cents on this entrant in the place pool.';
COMMENT ON COLUMN racepool.money_flow.total_pool_amount IS 'Cents in both pools, rounded once.';
COMMENT ON COLUMN racepool.money_flow.incremental_win_amount IS
  'win_pool_amount less that of the last poll that told it; negative if money was withdrawn.';
COMMENT ON COLUMN racepool.money_flow.incremental_place_amount IS
  'place_pool_amount less that of the last poll that told it; negative if money was withdrawn.';
COMMENT ON COLUMN racepool.money_flow.fixed_win_odds IS 'Dollars paid for a bet of one dollar; likewise the other odds.';
COMMENT ON COLUMN racepool.money_flow.fixed_place_odds IS 'Dollars paid for a bet of one dollar.';
COMMENT ON COLUMN racepool.money_flow.pool_win_odds IS 'Dollars paid for a bet of one dollar.';
COMMENT ON COLUMN racepool.money_flow.pool_place_odds IS 'Dollars paid for a bet of one dollar.';
COMMENT ON COLUMN racepool.money_flow.race_name IS 'The name of the race.';
COMMENT ON COLUMN racepool.money_flow.race_number IS 'The number of the race at its meeting.';
COMMENT ON COLUMN racepool.money_flow.meeting_name IS 'The name of the meeting.';
COMMENT ON COLUMN racepool.money_flow.start_time IS 'The instant at which the race should start, as this poll tells it.';
COMMENT ON COLUMN racepool.money_flow.is_scratched IS 'The runner was scratched or late scratched at this poll.';

CREATE VIEW racepool.bucket_flows AS
SELECT
  race_id,
  entrant_id,
  time_interval,
  (array_agg(win_pool_amount ORDER BY polling_timestamp DESC))[1] AS win_pool_amount,
  (array_agg(place_pool_amount ORDER BY polling_timestamp DESC))[1] AS place_pool_amount,
  sum(incremental_win_amount)::bigint AS incremental_win_amount,
  sum(incremental_place_amount)::bigint AS incremental_place_amount,
  coalesce(sum(incremental_win_amount) FILTER (WHERE is_baseline), 0)::bigint AS baseline_win_amount,
  coalesce(sum(incremental_place_amount) FILTER (WHERE is_baseline), 0)::bigint AS baseline_place_amount,
  bool_or(is_baseline) AS is_baseline,
  count(*) AS poll_count,
  min(polling_timestamp) AS first_at,
  max(polling_timestamp) AS last_at
FROM racepool.money_flow
GROUP BY race_id, entrant_id, time_interval;
COMMENT ON VIEW racepool.bucket_flows IS
  'The money on one entrant in one time bucket. What came in during the bucket is the increment less the baseline.';

CREATE FUNCTION racepool.drop_days_before(first_kept date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  old regclass;
  dropped integer := 0;
BEGIN
  LOCK TABLE racepool.polls IN SHARE ROW EXCLUSIVE MODE;  -- before the days, in the order in which writers lock; writers wait
  PERFORM pg_advisory_xact_lock(7224150);  -- the lock of schema.py: nobody makes a day meanwhile
  FOR old IN
    SELECT inhrelid::regclass
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'racepool.money_flow'::regclass
      AND relname::text COLLATE "C" < 'money_flow_' || to_char(first_kept, 'YYYYMMDD')
  LOOP
    EXECUTE format('DROP TABLE %s', old);
    dropped := dropped + 1;
  END LOOP;
  DELETE FROM racepool.polls WHERE race_date_nz < first_kept;
  RETURN dropped;
END $$;
COMMENT ON FUNCTION racepool.drop_days_before IS
  'Removes the rows and polls of all races before this day in New Zealand. Returns how many days were removed.';
