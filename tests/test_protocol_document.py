"""docs/protocol.md against what the broker really says, reply by reply and byte by byte."""

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from racepool.broker.actions import Action, SendStats, SendToClient, SendToHeartbeat, SendToWorker
from racepool.broker.core import BrokerCore
from racepool.protocol.frames import encode
from racepool.protocol.messages import (
    Answer,
    AskStats,
    Bye,
    Cancel,
    CannotStart,
    Epoch,
    Expire,
    FromClient,
    FromWorker,
    Hello,
    Id,
    Name,
    Outcome,
    Ping,
    Returned,
    Submit,
    Text,
    Welcome,
)
from racepool.protocol.settings import Settings
from racepool.races.payloads import pack_request
from tests.broker.building import ALICE, EPOCH, H1, W1, an_id, beat, hello, ready, result, submit
from tests.running import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
COME_LATER = {("SUBMIT", "ANSWER"), ("RETURNED", "ASSIGN")}  # from the worker's RESULT; from the backlog

Speak = Callable[[BrokerCore], list[Action]]


def client(*said: FromClient) -> Speak:
    """What the broker does at the last of these."""
    return lambda broker: [broker.on_client(ALICE, message, now=1.0) for message in said][-1]


def worker(*said: FromWorker) -> Speak:
    return lambda broker: [broker.on_worker(W1, message, now=1.0, local_pid=101) for message in said][-1]


def heartbeat(broker: BrokerCore) -> list[Action]:
    return broker.on_heartbeat(H1, beat(), now=1.0)


def last_of(*all_speak: Speak) -> Speak:
    return lambda broker: [speak(broker) for speak in all_speak][-1]


RECALLED = (  # t1 runs, t2 was behind it
    worker(ready()),
    client(hello(), submit("t0")),
    worker(result("t0", 1)),
    client(submit("t1"), submit("t2"), Cancel(an_id("t2"), kill=False)),
)
CONVERSATIONS: list[tuple[str, bytes, Speak]] = [
    ("HELLO", ALICE, client(hello())),
    ("HELLO", ALICE, client(hello(), hello("another"))),
    ("SUBMIT", ALICE, client(hello(), submit("t1"))),
    ("SUBMIT", ALICE, client(hello(), submit("t1"), submit("t2"))),  # the backlog holds one
    ("SUBMIT", ALICE, client(submit("t1"))),
    ("SUBMIT", ALICE, client(hello(), submit("t1", is_shared=True))),
    ("EXPIRE", ALICE, client(hello(), submit("t1"), Expire(an_id("t1"), 0))),
    ("EXPIRE", ALICE, client(hello(), submit("t1"), Expire(an_id("t1"), 60_000))),
    ("EXPIRE", ALICE, client(hello(), Expire(an_id("t1"), 0))),
    ("EXPIRE", ALICE, client(Expire(an_id("t1"), 0))),
    ("CANCEL", ALICE, client(hello(), submit("t1"), Cancel(an_id("t1"), kill=True))),
    ("CANCEL", ALICE, last_of(worker(ready()), client(hello(), submit("t1"), Cancel(an_id("t1"), kill=True)))),
    ("CANCEL", ALICE, client(Cancel(an_id("t1"), kill=True))),
    ("PING", ALICE, client(hello(), Ping(0))),
    ("PING", ALICE, client(Ping(0))),
    ("PING", ALICE, last_of(worker(CannotStart(Name("w"), Text("no module"))), client(hello(), Ping(0)))),
    ("CANNOTSTART", W1, worker(CannotStart(Name("w"), Text("no module")))),
    ("ASKSTATS", ALICE, client(hello(), AskStats())),
    ("ASKSTATS", ALICE, client(AskStats())),
    ("BYE", ALICE, client(hello(), submit("t1"), Bye())),
    ("BYE", ALICE, client(Bye())),
    ("READY", W1, worker(ready())),
    ("READY", W1, last_of(client(hello(), submit("t1")), worker(ready()))),
    ("RESULT", W1, worker(ready(), result("t1", 1))),
    ("RESULT", W1, last_of(worker(ready()), client(hello(), submit("t1"), submit("t2")), worker(result("t1", 1)))),
    ("RESULT", W1, last_of(worker(ready()), client(hello(), submit("t1")), worker(result("t1", 1, recycle=True)))),
    ("RESULT", W1, worker(result("t1", 1))),
    ("RETURNED", W1, last_of(*RECALLED, worker(Returned(EPOCH, 3)))),
    ("RETURNED", W1, last_of(*RECALLED, client(submit("t3")), worker(result("t1", 2), Returned(EPOCH, 3)))),
    ("RETURNED", W1, last_of(*RECALLED, worker(result("t1", 2, recycle=True), Returned(EPOCH, 3)))),
    ("RETURNED", W1, worker(Returned(EPOCH, 3))),
    ("BYE", W1, worker(ready(), Bye())),
    ("HEARTBEAT", H1, last_of(worker(ready()), heartbeat)),
    ("HEARTBEAT", H1, heartbeat),
]


def documented() -> dict[str, set[str]]:
    """The replies that the page names for what a peer says to the broker, by command."""
    replies: defaultdict[str, set[str]] = defaultdict(set)
    from_client = PAGE.partition("### Client to broker")[2].partition("###")[0]
    rows = re.findall(r"^\| ([A-Z]+) \|.*\| ([^|]*) \|$", from_client, re.MULTILINE)
    rows += re.findall(r"^\| ([A-Z]+) \| to broker \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    for command, text in rows:
        replies[command] |= set(re.findall(r"\b[A-Z]{3,}\b", text))
    return dict(replies)


def observed() -> dict[str, set[str]]:
    """What the broker says at once to whoever spoke, by command."""
    replies: defaultdict[str, set[str]] = defaultdict(set)
    for command, peer, speak in CONVERSATIONS:
        replies[command] |= set()
        for action in speak(BrokerCore(Settings.load(backlog_limit=1), EPOCH)):
            match action:
                case SendStats(to):
                    replies[command] |= {"STATS"} if to == peer else set()
                case SendToClient(to, message) | SendToWorker(to, message) | SendToHeartbeat(to, message):
                    replies[command] |= {type(message).__name__.upper()} if to == peer else set()
    return dict(replies)


def test_every_reply_is_documented_and_every_documented_reply_is_given() -> None:
    given = observed()
    for command, reply in COME_LATER:
        given[command].add(reply)

    assert given == documented()


def test_the_examples_are_what_goes_over_the_wire() -> None:
    client_id, task_id = (
        Id(bytes.fromhex(digits)) for digits in ("00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100")
    )
    instant = datetime(2025, 7, 17, 0, 45, tzinfo=UTC)
    examples = re.findall(r"^((?:[0-9a-f]{2,} )+) +\[(.*)\]$", PAGE, re.MULTILINE)

    assert [bytes.fromhex(digits.replace(" ", "")) for digits, _ in examples] == [
        encode(Hello(client_id, 1, 1234, 0))[0],
        encode(Welcome(Epoch(bytes(range(1, 9))), 2**24, 2000))[0],
        encode(Submit(task_id, 30_000, 0, again=False, is_shared=False, payload=b""))[0],
        encode(Answer(task_id, Outcome.OK, 1, 250, 3_100, Name("w1"), b""))[0],
        encode(Ping(0))[0],
        pack_request(b'{"id": "r1"}', instant, None).payload(),
    ]
    assert str(int(instant.timestamp() * 1_000_000)) in examples[-1][1]
