"""A real Prometheus scrapes the exporter of a real pool: the files in deploy/ work."""

import json
import math
import re
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from racepool.commands.exporter.address import listening_socket
from tests.programs import required
from tests.running import RACEPOOL, ROOT, Race, Running, WaitUntil
from tests.system.exporting import exporting, fetch_json

pytestmark = pytest.mark.system
DEPLOY = ROOT / "deploy"
TEMPLATES = {"$instance": ".*", "$__rate_interval": "6s"}
PANELS = json.loads((DEPLOY / "grafana" / "racepool.json").read_text(encoding="utf-8"))["panels"]


class Prometheus:
    """A query to Prometheus's HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def firing(self) -> set[str]:
        """The alerts that fire."""
        alerts = fetch_json(f"{self._url}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def is_scraping(self) -> bool:
        """Whether Prometheus has the exporter's metrics and has loaded all rules."""
        try:
            targets = fetch_json(f"{self._url}/api/v1/targets")["data"]["activeTargets"]
        except urllib.error.URLError:
            return False
        return [target["health"] for target in targets] == ["up"]

    def numbers(self, query: str) -> list[float]:
        """The numbers that a query gives for the last half a minute, without NaN."""
        now = time.time()
        asked = urlencode({"query": query, "start": now - 30, "end": now, "step": 1})
        result = fetch_json(f"{self._url}/api/v1/query_range?{asked}")["data"]["result"]
        values = [float(value) for series in result for _, value in series["values"]]
        return [value for value in values if not math.isnan(value)]


@contextmanager
def prometheus(folder: Path, exporter_url: str) -> Iterator[Prometheus]:
    """Runs Prometheus with the files of deploy/, with shorter intervals."""
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    configuration = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", configuration)
    configuration = re.sub(r"scrape_timeout: \w+", "scrape_timeout: 1s", configuration)
    configuration = configuration.replace("127.0.0.1:9724", urlsplit(exporter_url).netloc)
    rules = (DEPLOY / "prometheus" / "racepool.rules.yml").read_text(encoding="utf-8")
    (folder / "prometheus.yml").write_text(configuration)
    (folder / "racepool.rules.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules))
    with listening_socket("127.0.0.1", 0) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        required("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def watched(scripted: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the exporter of `scripted`."""
    with exporting(scripted.env) as url, prometheus(tmp_path_factory.mktemp("prometheus"), url) as server:
        yield server


def supervisorctl(running: Running, *arguments: str) -> None:
    command = [str(RACEPOOL.with_name("supervisorctl")), "-c", str(running.dir / "supervisord.conf"), *arguments]
    subprocess.run(command, check=True, timeout=30, capture_output=True)


def query_of(target: dict[str, str]) -> str:
    """A panel's query, as Grafana sends it."""
    query = target["expr"]
    for name, value in TEMPLATES.items():
        query = query.replace(name, value)
    return query


def test_every_panel_of_the_dashboard_has_data(
    scripted: Running, race: Race, watched: Prometheus, tmp_path: Path, wait_until: WaitUntil
) -> None:
    wait_until(watched.is_scraping, 20)
    scripted.exec(race(f"kill-once:{tmp_path / 'killed'}")).result(20)

    queries = {f"{panel['title']}: {query_of(each)}" for panel in PANELS for each in panel["targets"]}
    waiting = set(queries)

    def all_have_data() -> bool:
        scripted.exec(race("echo")).result(10)
        waiting.difference_update([each for each in waiting if watched.numbers(each.partition(": ")[2])])
        return not waiting

    try:
        wait_until(all_have_data, 25)
    except AssertionError:
        pytest.fail(f"no data for {sorted(waiting)}")
    assert len(queries) > 30


def test_alert_fires_when_a_worker_is_stopped_and_ends_when_it_is_back(
    scripted: Running, watched: Prometheus, wait_until: WaitUntil
) -> None:
    wait_until(watched.is_scraping, 20)
    wait_until(lambda: not {"RacepoolDegraded", "RacepoolBrokerDown", "RacepoolExporterDown"} & watched.firing())

    supervisorctl(scripted, "stop", "worker:worker-2")
    wait_until(lambda: "RacepoolDegraded" in watched.firing(), 15)
    wait_until(lambda: not {"RacepoolNoWorkers", "RacepoolBrokerDown"} & watched.firing())

    supervisorctl(scripted, "start", "worker:worker-2")
    wait_until(lambda: "RacepoolDegraded" not in watched.firing(), 20)


def test_alert_fires_while_the_broker_is_away(scripted: Running, watched: Prometheus, wait_until: WaitUntil) -> None:
    wait_until(watched.is_scraping, 20)

    supervisorctl(scripted, "stop", "broker")
    wait_until(lambda: "RacepoolBrokerDown" in watched.firing(), 15)
    wait_until(lambda: "RacepoolExporterDown" not in watched.firing())

    supervisorctl(scripted, "start", "broker")
    wait_until(lambda: "RacepoolBrokerDown" not in watched.firing(), 20)
