"""One row of a table of money flow: a record, with the names and numbers of its race and runner."""

from collections.abc import Iterator

from pydantic import AwareDatetime

from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace


class MoneyRow(MoneyFlowRecord):
    """A MoneyFlowRecord, with the names and numbers of its race and runner.

    Attributes:
        start_time: the instant at which the race should start, as this poll tells it; UTC.
        is_scratched: whether the runner was scratched or late scratched at this poll.
    """

    race_name: str
    race_number: int | None
    meeting_name: str | None
    start_time: AwareDatetime
    runner_number: int
    runner_name: str
    is_scratched: bool


def rows_of(race: TransformedRace) -> Iterator[MoneyRow]:
    """The rows of one poll, in the order of the entrants."""
    entrants = {entrant.entrant_id: entrant for entrant in race.entrants}
    for record in race.money_flow_records:
        entrant = entrants[record.entrant_id]
        yield MoneyRow.model_construct(  # not validated again, for speed: the parts are valid
            **vars(record),
            race_name=race.race_name,
            race_number=race.race.race_number,
            meeting_name=race.meeting.name if race.meeting else None,
            start_time=race.race.start_time,
            runner_number=entrant.runner_number,
            runner_name=entrant.name,
            is_scratched=entrant.is_scratched or entrant.is_late_scratched,
        )
