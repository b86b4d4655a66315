"""The domain, pure: a poll of a race in, its money flow out. Knows no socket, clock or process.

How a poll becomes money: `race.py` reads the poll, `transform.py` computes, and `transformed_race.py` is the result.
The transform takes the pools from `pools.py`, adds up the shares of the entrants (`money_tracker.py`), and makes
amounts and records of them (`money_flow.py`, with the exact arithmetic of `money.py`).
"""
