"""A service that polls the tote and keeps the money flow of its races: `python -m examples.service`.

settings.py   what may be set, each as SERVICE_... in the environment
schedule.py   when: a tick every 15 s, never two polls of one race at a time
polling.py    what: fetch, transform in the pool, store
store.py      where to: memory, or SQLite
tally.py      what became of the polls, counted
health.py     whether the service can serve, decided from figures alone
app.py        the application: starts and stops all that in its lifespan, answers HTTP
"""
