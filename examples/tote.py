"""A replacement for the tote, so that the example service runs without a network: `python -m examples.tote`.

It plays invented races. Each request for a race gets the next poll of that race, so time goes on with each request.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock
from typing import Any, Final

from samples.polls import Poll, polls
from samples.races import Race, invented_race
from samples.responses import event_response

EVENTS: Final = "/affiliates/v1/racing/events/"
RACES: Final = "/races"
_AFTER_START: Final = timedelta(seconds=60)  # the last poll; the result is final by then
_LAST_STARTS: Final = 4
_SEED: Final = "tote"
_BROKEN: Final = b'{"header": {"title": "Event Det'


@dataclass(slots=True)
class Card:
    """One race of the tote, and how many of its polls were served."""

    race: Race
    coming: Iterator[Poll]
    is_broken: bool = False
    served: int = 0
    status: str = "Open"
    body: bytes = b""

    def next_body(self) -> bytes:
        """The next poll's response; after the last poll, the last response again."""
        self.served += 1
        if self.is_broken:
            return _BROKEN
        poll = next(self.coming, None)
        if poll is not None:
            response = event_response(self.race, poll, seed=_SEED, last_starts=_LAST_STARTS)
            self.body, self.status = json.dumps(response).encode(), poll.status
        return self.body


@dataclass(slots=True)
class Tote:
    """The races of the day, by id. Thread-safe."""

    cards: dict[str, Card]
    _lock: Lock = field(default_factory=Lock)

    def answer(self, path: str) -> bytes | None:
        """The body for a path; None if the path is unknown."""
        with self._lock:
            if path == RACES:
                return json.dumps({"races": [_listed(card) for card in self.cards.values()]}).encode()
            card = self.cards.get(path.removeprefix(EVENTS))
            return None if card is None else card.next_body()


def invented_tote(races: int, poll_count: int, interval: timedelta, *, broken: int = 0) -> Tote:
    """A tote of races that start soon, with `poll_count` polls each. The last `broken` races send half a response."""
    cards = [_card(number, poll_count, interval) for number in range(1, races + 1)]
    for card in cards[max(0, races - broken) :]:
        card.is_broken = True
    return Tote({card.race.event_id: card for card in cards})


def _card(number: int, poll_count: int, interval: timedelta) -> Card:
    rng = Random(f"{_SEED}/{number}")  # noqa: S311  # invented races are no secrets
    first = datetime.now(UTC)
    last = first + (poll_count - 1) * interval
    race = replace(invented_race(rng, number=number, field=8 + number % 7), start=last - _AFTER_START)
    return Card(race, polls(race, [first + index * interval for index in range(poll_count)], rng))


def _listed(card: Card) -> dict[str, Any]:
    return {
        "event_id": card.race.event_id,
        "description": card.race.name,
        "advertised_start": int(card.race.start.timestamp()),
        "status": card.status,
        "served": card.served,
    }


class _Handler(BaseHTTPRequestHandler):
    tote: Tote
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.tote.answer(self.path)
        self.send_response(HTTPStatus.OK if body is not None else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_arguments: object) -> None:
        """Logs no requests."""


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.tote", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8070, help="0 = any that is free")
    parser.add_argument("--races", type=int, default=5, help="races on the card")
    parser.add_argument("--polls", type=int, default=40, help="polls of each race, the last one after its start")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds from poll to poll, as the service's")
    parser.add_argument("--broken", type=int, default=0, help="so many of the races answer with half a response")
    options = parser.parse_args()
    tote = invented_tote(options.races, options.polls, timedelta(seconds=options.interval), broken=options.broken)
    handler = type("Handler", (_Handler,), {"tote": tote})
    with ThreadingHTTPServer((options.host, options.port), handler) as server:
        print(f"tote: {options.races} races at http://{options.host}:{server.server_port}{RACES}", flush=True)  # noqa: T201
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("tote: closed")  # noqa: T201


if __name__ == "__main__":
    main()
