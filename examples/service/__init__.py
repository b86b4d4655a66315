"""A service that polls the tote and stores the money flow of its races: `python -m examples.service`.

settings.py   the settings, SERVICE_... in the environment
schedule.py   when to poll: a tick every 15 s, never two polls of one race at a time
polling.py    one poll: fetch, transform in the pool, store
store.py      where the records are kept: memory, SQLite or PostgreSQL
tally.py      counts what happened to the polls
health.py     decides from numbers alone whether the service can serve
app.py        the application: starts and stops all of this in its lifespan, and answers HTTP
"""
