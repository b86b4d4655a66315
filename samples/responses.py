"""Writes an invented poll in the two shapes that the transform accepts."""

from random import Random
from typing import Any

from samples.form_guide import form_guide
from samples.polls import Poll
from samples.races import Race, Runner


def event_response(race: Race, poll: Poll, *, seed: str, last_starts: int) -> dict[str, Any]:
    """The poll as an NZ TAB event response; `seed` and `last_starts` make its form guides."""
    guides = Random(seed)  # noqa: S311  # a form guide is no secret
    return {
        "header": {
            "title": f"Event Details: {race.event_id}",
            "generated_time": f"{poll.at:%Y-%m-%dT%H:%M:%S.%f}Z",
            "url": f"/affiliates/v1/racing/events/{race.event_id}",
        },
        "params": {"enc": "json", "id": race.event_id, "with_money_tracker": True, "will_pays": True},
        "data": {
            "race": _event_race(race, poll),
            "results": None,
            "runners": [{**_runner(runner, race, poll), **form_guide(guides, last_starts)} for runner in race.runners],
            "money_tracker": {"entrants": _tracker(poll)},
            "tote_pools": [
                {**pool, "status": "OPEN" if poll.status == "Open" else "CLOSED", "guarantee": 0, "is_final": False}
                for pool in _tote_pools(poll)
            ],
            "error": "",
        },
    }


def normalised(race: Race, poll: Poll) -> dict[str, Any]:
    """The poll as a service holds it, with tote pools instead of pools of its own."""
    return {
        "id": race.event_id,
        "name": race.name,
        "status": poll.status.lower(),
        "race_date_nz": f"{race.start_nz:%Y-%m-%d}",
        "start_time_nz": f"{race.start_nz:%H:%M}",
        "race_number": race.number,
        "meeting_id": race.meeting_id,
        "entrants": [_entrant(runner, poll) for runner in race.runners],
        "pools": None,
        "tote_pools": _tote_pools(poll),
        "money_tracker": {"entrants": _tracker(poll)},
        "meeting": {
            "meeting": race.meeting_id,
            "name": race.meeting_name,
            "date": f"{race.start_nz:%Y-%m-%d}T00:00:00Z",
            "country": "NZ",
            "category": race.code,
            "track_condition": "Soft6",
            "tote_status": "open",
        },
    }


def _event_race(race: Race, poll: Poll) -> dict[str, Any]:
    return {
        "event_id": race.event_id,
        "meeting_name": race.meeting_name,
        "meeting_id": race.meeting_id,
        "status": poll.status,
        "description": race.name.upper(),
        "advertised_start": int(race.start.timestamp()),
        "advertised_start_string": f"{race.start:%Y-%m-%d %H:%M:%S} +0000 UTC",
        "race_date_nz": f"{race.start_nz:%Y-%m-%d}",
        "start_time_nz": f"{race.start_nz:%H:%M:%S} NZST",
        "race_number": race.number,
        "type": race.code,
        "start_type": "Mobile" if race.code == "H" else "",
        "country": "NZ",
        "state": "NZ",
        "weather": "Overcast",
        "track_condition": "Soft6" if race.code == "T" else "Fast",
        "silk_base_url": "silks.example",
        "entrant_count": len(race.runners),
        "field_size": len(race.runners),
    }


def _runner(runner: Runner, race: Race, poll: Poll) -> dict[str, Any]:
    return {
        "entrant_id": runner.entrant_id,
        "name": runner.name,
        "is_scratched": runner.is_scratched,
        "is_late_scratched": runner.is_late_scratched,
        "scratch_time": int(race.start.timestamp()) - 3600 if runner.is_scratched else 0,
        "barrier": runner.barrier,
        "runner_number": runner.runner_number,
        "jockey": runner.jockey,
        "trainer_name": runner.trainer,
        "silk_colours": runner.silk_colours,
        "silk_url_64x64": f"https://silks.example/{runner.entrant_id}_64x64.png",
        "favourite": runner.entrant_id == _favourite(poll),
        "mover": False,
        "odds": _odds(runner, poll),
    }


def _entrant(runner: Runner, poll: Poll) -> dict[str, Any]:
    odds = _odds(runner, poll)
    return {
        "entrantId": runner.entrant_id,
        "name": runner.name,
        "runnerNumber": runner.runner_number,
        "barrier": runner.barrier,
        "fixedWinOdds": odds["fixed_win"],
        "fixedPlaceOdds": odds["fixed_place"],
        "poolWinOdds": odds["pool_win"],
        "poolPlaceOdds": odds["pool_place"],
        "isScratched": runner.is_scratched,
        "isLateScratched": runner.is_late_scratched,
        "trainerName": runner.trainer,
        "silkColours": runner.silk_colours,
    }


def _odds(runner: Runner, poll: Poll) -> dict[str, float]:
    win = 0.0 if runner.is_scratched else poll.win_odds[runner.entrant_id]
    place = round(win and 1 + (win - 1) / 4, 2)
    return {"fixed_win": round(win * 0.95, 2), "fixed_place": place, "pool_win": win, "pool_place": round(place, 1)}


def _favourite(poll: Poll) -> str:
    return min(poll.win_odds, key=poll.win_odds.__getitem__)


def _tracker(poll: Poll) -> list[dict[str, Any]]:
    return [
        {"entrant_id": entry.entrant_id, "hold_percentage": entry.hold, "bet_percentage": entry.bet}
        for entry in poll.tracker
    ]


def _tote_pools(poll: Poll) -> list[dict[str, Any]]:
    return [{"product_type": product_type, "total": total} for product_type, total in poll.pools.items()]
