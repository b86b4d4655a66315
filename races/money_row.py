"""The rows of a table of money flow: records with the names and numbers of their race, poll by poll."""

from collections.abc import Iterator

from pydantic import AwareDatetime, BaseModel, ConfigDict

from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace


class MoneyRow(MoneyFlowRecord):
    """A MoneyFlowRecord, with the names and numbers of its race.

    Attributes:
        start_time: the instant at which the race should start, as this poll tells it; UTC.
        is_scratched: whether the runner was scratched or late scratched at this poll.
    """

    race_name: str
    race_number: int | None
    meeting_name: str | None
    start_time: AwareDatetime
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
            is_scratched=entrant.is_scratched or entrant.is_late_scratched,
        )


class PollRows(BaseModel):
    """One poll of one race as rows. A poll that tells no money has no rows; its baseline is that of the poll before.

    Attributes:
        race_id: the race's id at the tote.
        race_date_nz: the day of the race in New Zealand, YYYY-MM-DD.
        start_time: the instant at which the race should start, as this poll tells it; UTC.
        polled_at: the instant of the poll, UTC.
        rows: in the order of the entrants.
        baseline: that of the TransformedRace: the amounts of each entrant, as of the last poll that told them.
    """

    model_config = ConfigDict(frozen=True)

    race_id: str
    race_date_nz: str
    start_time: AwareDatetime
    polled_at: AwareDatetime
    rows: tuple[MoneyRow, ...]
    baseline: dict[str, tuple[int, int]] | None

    @staticmethod
    def of(race: TransformedRace) -> "PollRows":
        """The rows of a transformed race."""
        return PollRows.model_construct(  # not validated again, for speed: the parts are valid
            race_id=race.race_id,
            race_date_nz=race.race.race_date_nz,
            start_time=race.race.start_time,
            polled_at=race.transformed_at,
            rows=tuple(rows_of(race)),
            baseline=race.baseline,
        )
