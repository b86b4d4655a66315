"""The exporter beside a real pool, over HTTP."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from racepool.commands.exporter.server import STREAMS
from tests.programs import required
from tests.running import RACEPOOL, Race, Running, WaitUntil, broker_held_back, environment, frozen, racepool
from tests.system.exporting import exporting, fetch, fetch_json, started

pytestmark = pytest.mark.system
SCRAPE_S = 3.0  # 0.8 of them are for the broker's answer


@pytest.fixture(scope="module")
def url(scripted: Running) -> Iterator[str]:
    with exporting(scripted.env) as url:
        yield url


def up(url: str) -> bool:
    """Whether the scrape says that the broker answered. No scrape may be slow or fail."""
    asked_at = time.monotonic()
    text = fetch(f"{url}metrics")
    assert time.monotonic() - asked_at < SCRAPE_S
    return "racepool_up 1.0" in text


def opens(url: str) -> bool:
    """Whether the page opens an event stream."""
    try:
        with urllib.request.urlopen(url, timeout=5) as stream:  # noqa: S310  # loopback
            return bool(stream.readline())
    except HTTPError as refused:
        refused.close()
        return False


def request(url: str, method: str = "GET", path: str = "/", host: str | None = None) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read(4_000).decode()  # a stream has no end
    connection.close()
    return answer, body


def test_scrape_tells_what_the_broker_tells(scripted: Running, race: Race, url: str) -> None:
    done = scripted.stats().counters.completed

    assert scripted.exec(race("echo")).result(10)

    text = fetch(f"{url}metrics")
    assert f'racepool_tasks_total{{outcome="completed"}} {done + 1}.0' in text
    assert (
        f'racepool_broker_info{{epoch="{scripted.stats().broker.epoch}",pid="{scripted.stats().broker.pid}"}} 1.0'
        in text
    )
    assert "racepool_broker_process_cpu_seconds_total" in text
    assert "\nprocess_resident_memory_bytes" in text


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_promtool_finds_no_fault_in_a_scrape(url: str, accept: str) -> None:
    text = fetch(f"{url}metrics", Accept=accept)
    command = [required("promtool"), "check", "metrics"]

    done = subprocess.run(
        command, input=text.replace("# EOF\n", ""), capture_output=True, text=True, timeout=20, check=False
    )

    assert "racepool_up 1.0" in text
    assert text.endswith("# EOF\n") == ("openmetrics" in accept)
    if accept == "text/plain":
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_frozen_broker_is_away_to_prometheus_and_no_scrape_hangs(
    scripted: Running, url: str, wait_until: WaitUntil
) -> None:
    wait_until(lambda: up(url))

    with frozen(scripted.stats().broker.pid):
        assert not up(url)

    wait_until(lambda: up(url))


def test_killed_broker_is_told_with_since_when_and_its_successor(
    scripted: Running, url: str, wait_until: WaitUntil
) -> None:
    wait_until(lambda: fetch_json(f"{url}api/status")["level"] == "ok")
    before = fetch_json(f"{url}api/status")

    with broker_held_back(scripted):
        wait_until(lambda: fetch_json(f"{url}api/status")["away"])
        away = fetch_json(f"{url}api/status")
        assert not up(url)

    wait_until(lambda: fetch_json(f"{url}api/status")["level"] == "ok", 15)
    back = fetch_json(f"{url}api/status")
    assert (away["level"], away["stats"]) == ("down", None)
    assert before["at"] <= away["away"]["since"] <= away["at"]
    assert "no broker answered" in away["away"]["reason"]
    assert back["stats"]["broker"]["epoch"] != before["stats"]["broker"]["epoch"]
    assert "broker_away" in {each["event"] for each in back["events"]}
    columns = fetch_json(f"{url}api/history")["points"]
    assert None in columns["ready_workers"]
    assert columns["ready_workers"][-1] == 3


def test_events_are_a_history_and_a_moment_each_second(url: str) -> None:
    with urllib.request.urlopen(f"{url}events", timeout=5) as stream:  # noqa: S310  # loopback
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [stream.readline().decode() for _ in range(15)]

    assert [line.partition(":")[0] for line in lines] == ["event", "data", "\n"] * 5
    assert [line.strip() for line in lines[::3]] == ["event: history", *["event: moment"] * 4]
    first, last = (json.loads(lines[index].removeprefix("data: ")) for index in (4, 13))
    assert 1.5 < last["at"] - first["at"] < 8


def test_one_open_page_too_many_is_told_so_and_may_come_when_another_goes(
    scripted: Running, wait_until: WaitUntil
) -> None:
    with exporting(scripted.env) as url, ExitStack() as pages:
        for _ in range(STREAMS):
            pages.enter_context(urllib.request.urlopen(f"{url}events", timeout=5)).readline()  # noqa: S310

        with pytest.raises(HTTPError, match="503") as refused:
            fetch(f"{url}events")
        assert "close one" in refused.value.read().decode()
        wait_until(lambda: up(url))
        pages.close()
        wait_until(lambda: opens(f"{url}events"))


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/status", "/events"])
def test_request_for_another_name_is_refused_with_the_remedy(url: str, path: str) -> None:
    answer, body = request(url, path=path, host="evil.example")

    assert answer.status == 421
    assert "--allow-host" in body
    assert "racepool_up" not in body


def test_page_is_kept_from_other_sites(url: str) -> None:
    answer, body = request(url)

    assert answer.status == 200
    assert "<title>racepool</title>" in body
    assert answer.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self';"
    )
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(url: str, method: str) -> None:
    assert {request(url, method, path)[0].status for path in ("/", "/metrics", "/api/status")} == {405}


def test_path_that_is_none_is_404_and_files_beside_the_page_are_none(url: str) -> None:
    with pytest.raises(HTTPError, match="404"):
        fetch(f"{url}server.py")
    assert request(url, path="/../server.py")[0].status == 404


def test_allowed_name_is_answered(scripted: Running) -> None:
    env = scripted.env | {"RACEPOOL_EXPORTER_ALLOW_HOST": "pool1.example other.example"}

    with exporting(env) as url:
        assert request(url, host="pool1.example:80")[0].status == 200
        assert request(url, host="evil.example")[0].status == 421


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_though_a_page_is_open(scripted: Running, number: signal.Signals) -> None:
    with started(scripted.env) as (process, url), urllib.request.urlopen(f"{url}events", timeout=5) as stream:  # noqa: S310
        assert stream.readline()

        process.send_signal(number)
        output, _ = process.communicate(timeout=10)

        assert process.returncode == 0
        assert "exporter_stopped" in output
        assert "Traceback" not in output


def test_crowd_of_silent_peers_keeps_prometheus_out_of_no_exporter_however_few_files_it_may_open(run_dir: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh")

    with started(environment(run_dir), prefix=few) as (process, url), ExitStack() as crowd:
        netloc = urlsplit(url)
        for _ in range(200):
            crowd.enter_context(socket.create_connection((netloc.hostname, netloc.port), timeout=5))
        scrapes = [up(url) for _ in range(3)]

        assert scrapes == [False] * 3  # there is no broker, and each scrape says so
        assert process.poll() is None


def test_without_a_broker_it_runs_and_says_so(run_dir: Path) -> None:
    with exporting(environment(run_dir)) as url:
        assert not up(url)
        assert fetch_json(f"{url}api/status")["headline"] == "The broker does not answer"


def test_taken_port_and_bad_settings_are_told_in_one_line(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = racepool("exporter", "--port", port, env=environment(run_dir))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"racepool: cannot listen at 127.0.0.1:{port} (Address already in use); choose another"
    )
    assert len(done.stderr.splitlines()) == 1
    assert racepool("exporter", env=environment(run_dir, liveness="soon")).returncode == 78
    everywhere = racepool("exporter", "--host", "0.0.0.0", env=environment(run_dir))  # noqa: S104  # refused
    assert everywhere.returncode == 2
    assert "--allow-host NAME" in everywhere.stderr


def exporter_pid(directory: Path) -> int:
    command = [str(RACEPOOL.with_name("supervisorctl")), "-c", str(directory / "supervisord.conf"), "pid", "exporter"]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout)


def test_up_with_an_exporter_keeps_it_up_and_ends_it(run_dir: Path, wait_until: WaitUntil) -> None:
    env = environment(run_dir, workers=1, exporter_port=0, log_format="json")
    log = run_dir / "log" / "exporter.log"

    def pages() -> list[str]:
        """The named events, in order."""
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line)["page"] for line in lines if "exporter_started" in line]

    with subprocess.Popen([RACEPOOL, "up", "--exporter"], env=env, stdout=subprocess.DEVNULL) as supervisord:
        try:
            wait_until(pages, 15)
            wait_until(lambda: up(pages()[-1]), 15)
            os.kill(exporter_pid(run_dir), signal.SIGKILL)
            wait_until(lambda: len(pages()) == 2, 15)
            wait_until(lambda: up(pages()[-1]))
        finally:
            supervisord.terminate()
    assert supervisord.returncode == 0
    with pytest.raises(OSError, match="refused"):
        fetch(pages()[-1])
