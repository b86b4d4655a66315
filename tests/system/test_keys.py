"""A pool on tcp with keys: `racepool up` on one side, clients and commands on the other."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from racepool import BrokerUnavailableError, SettingsError, TaskTimeoutError, ZmqPool
from racepool.protocol.keys import BROKER, Role
from tests.key_files import allowed_file, tcp_endpoints
from tests.running import RACEPOOL, ROOT, Race, Running, StartPool, WaitUntil, environment, frozen

pytestmark = pytest.mark.system
LIVENESS_S = 2.0
REFUSED_S = 11.0  # the watchdog would have killed a broker that hangs


@dataclass(frozen=True)
class Site:
    """The key directories of the broker's host (`keys`) and of others, and the broker's addresses."""

    folder: Path
    endpoints: dict[str, str]

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def run(self, *arguments: object, keys: Path) -> subprocess.CompletedProcess[str]:
        env = environment(self.folder / "run", keys=keys, **self.endpoints)
        command = [str(RACEPOOL), *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    def typed(self, *arguments: object, keys: Path | None = None) -> str:
        """Runs a command on the broker's host or another one; returns its output. It must succeed."""
        done = self.run(*arguments, keys=keys or self.keys)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def host(self, name: str, role: str = Role.CLIENT) -> Path:
        """Makes the key directory of another host, whose key the broker allows."""
        elsewhere = self.folder / name
        self.typed("keygen", "client", keys=elsewhere)
        shutil.copy(self.keys / f"{BROKER}.key", elsewhere)
        self.typed("keys", "allow", elsewhere / "client.key", "--as", name, "--role", role)
        return elsewhere

    def answers(self, keys: Path) -> bool:
        return self.run("ping", keys=keys).returncode == 0


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    made = Site(folder, tcp_endpoints())
    made.typed("keygen")
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def guarded(start_pool: StartPool, site: Site) -> Running:
    """The broker binds all addresses; workers and clients of its own host connect by loopback."""
    everywhere = {setting: endpoint.replace("127.0.0.1", "*") for setting, endpoint in site.endpoints.items()}
    return start_pool(
        transform="transforms:scripted", keys=site.keys, liveness=LIVENESS_S, log_level="debug", **everywhere
    )


def test_commands_of_another_host_work_with_its_key(guarded: Running, site: Site, wait_until: WaitUntil) -> None:
    desk = site.host("desk")
    wait_until(lambda: site.answers(desk), 15)

    assert "3 workers are ready" in site.typed("wait", keys=desk)
    assert '"total_workers": 3' in site.typed("stats", "--json", keys=desk)
    transformed = site.typed("transform", ROOT / "samples" / "harness.json", "--format", "json", keys=desk)
    assert "starting a local pool" not in transformed
    assert guarded.stats().counters.completed


def test_monitor_sees_figures_and_has_nothing_done(
    guarded: Running, site: Site, race: Race, wait_until: WaitUntil
) -> None:
    screen = site.host("screen", Role.MONITOR)
    wait_until(lambda: site.answers(screen), 15)

    with ZmqPool(site.endpoints["endpoint"], curve=screen, connect_timeout_s=1) as pool:
        assert isinstance(pool.exec(race()).exception(20), BrokerUnavailableError)
    assert guarded.stats().total_workers == 3


def test_silence_tells_the_death_of_a_worker_that_no_kernel_here_knows(
    guarded: Running, race: Race, wait_until: WaitUntil, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    future = guarded.exec(race(f"wait-for:{gate}"))
    wait_until(lambda: guarded.stats().in_flight == 1)
    victim = guarded.holder(future.task_id)

    with frozen(guarded.supervisord_pid):  # a later worker of that name would log it, too
        killed_at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: victim.name not in guarded.pids())
        took_s = time.monotonic() - killed_at
        wait_until(lambda: guarded.stats().in_flight == 1)
        assert guarded.holder(future.task_id).name != victim.name
        gate.touch()
        assert future.result(20)["worker"] != victim.name

    assert took_s > LIVENESS_S / 2
    assert guarded.logged("worker_lost", worker=victim.name)["reason"] == "silence"
    wait_until(lambda: guarded.stats().total_workers == 3, 15)


def test_client_with_a_wrong_key_is_told_to_look_at_its_key(guarded: Running, site: Site, race: Race) -> None:
    stranger, misled = site.folder / "stranger", site.folder / "misled"
    site.typed("keygen", "client", keys=stranger)
    shutil.copy(site.keys / f"{BROKER}.key", stranger)
    site.typed("keygen", keys=misled)  # the key of another broker

    for directory in (stranger, misled):
        with ZmqPool(site.endpoints["endpoint"], curve=str(directory), connect_timeout_s=1) as pool:
            for question in (pool.exec(race()), pool._connected().ask_stats()):
                with pytest.raises(BrokerUnavailableError, match=r"is our key in its list.*racepool keys allow"):
                    question.result(20)
            with pytest.raises(BrokerUnavailableError, match="is our key in its list"):
                pool.wait_for_workers(timeout_s=0.5)
        done = site.run("ping", keys=directory)
        assert done.returncode == 69
        assert "is our key in its list" in done.stderr
    assert guarded.logged("key_refused")


def test_client_without_keys_is_told_of_the_setting(guarded: Running, site: Site, race: Race) -> None:
    with ZmqPool(site.endpoints["endpoint"], connect_timeout_s=1) as pool:
        error = pool.exec(race()).exception(20)
    assert isinstance(error, BrokerUnavailableError)
    assert "with the same endpoints and RACEPOOL_KEYS" in str(error)
    assert guarded.stats().total_workers == 3


def test_broken_keys_come_through_the_future(site: Site, race: Race) -> None:
    site.typed("keygen", "client", keys=site.folder / "lonely")

    with ZmqPool(site.endpoints["endpoint"], curve=site.folder / "lonely") as pool:
        error = pool.exec(race()).exception(5)
    assert isinstance(error, SettingsError)
    assert "copy broker.key from the broker's key directory" in str(error)


def test_revoked_client_is_cut_off_and_comes_back_when_allowed(
    guarded: Running, site: Site, race: Race, wait_until: WaitUntil
) -> None:
    web = site.host("web")
    with ZmqPool(site.endpoints["endpoint"], curve=web) as pool:
        pool.exec(race()).result(20)
        before = guarded.stats().clients

        site.typed("keys", "revoke", "web")
        wait_until(lambda: guarded.stats().clients == before - 1)
        with pytest.raises(TaskTimeoutError, match=r"no broker for .* is our key in its list"):
            pool.exec(race(), queue_timeout_s=LIVENESS_S + 2).result(20)

        future = pool.exec(race())
        site.typed("keys", "allow", web / "client.key", "--as", "web", "--role", "client")
        future.result(20)
    assert guarded.logged("key_revoked", name="web")["role"] == "client"


def test_revoked_workers_stop_and_come_back_when_allowed(
    guarded: Running, site: Site, race: Race, wait_until: WaitUntil, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    future = guarded.exec(race(f"wait-for:{gate}"))
    wait_until(lambda: guarded.stats().in_flight == 1)
    kept = allowed_file(site.keys, Role.WORKER, "local").rename(tmp_path / "local.key")

    wait_until(lambda: guarded.stats().total_workers == 0)
    stats = guarded.stats()
    assert (stats.queue_depth, stats.in_flight) == (1, 0)

    shutil.copy(kept, allowed_file(site.keys, Role.WORKER, "local"))
    gate.touch()
    assert future.result(30)["name"].startswith("wait-for")
    wait_until(lambda: guarded.stats().total_workers == 3, 15)


def test_restart_of_the_broker_costs_no_result(guarded: Running, race: Race, wait_until: WaitUntil) -> None:
    futures = [guarded.exec(race("sleep:0.1", f"race-{index}")) for index in range(100)]
    wait_until(lambda: guarded.stats().in_flight == 3)

    os.kill(guarded.stats().broker.pid, signal.SIGKILL)

    assert [future.result(30)["id"] for future in futures] == [f"race-{index}" for index in range(100)]


def test_up_refuses_keys_that_cannot_be_used(site: Site) -> None:
    site.typed("keygen", "client", "worker", keys=site.folder / "half")

    done = site.run("up", keys=site.folder / "half")

    assert done.returncode == 78
    assert "broker.key_secret: is not there; make it with `racepool keygen broker`" in done.stderr


def test_no_secret_is_ever_shown(guarded: Running, site: Site) -> None:
    secrets = [
        line.split('"')[1]
        for path in site.folder.rglob("*.key_secret")
        for line in path.read_text().splitlines()
        if "secret-key" in line
    ]
    assert len(secrets) >= 6

    shown = [path.read_text() for path in guarded.dir.rglob("*") if path.is_file()]
    shown += [site.typed("config"), site.typed("config", "--json")]
    shown += [site.typed("stats", "--json"), site.typed("keys", "list")]
    shown += [repr(guarded.pool), repr(guarded.pool._connected().settings), str(vars(guarded.pool._connected()))]
    shown.append(site.typed("keygen", "--force", keys=site.folder / "other"))
    assert any("key_refused" in text for text in shown)
    assert [secret for secret in secrets if any(secret in text for text in shown)] == []


def test_watchdog_whose_key_is_refused_for_a_while_kills_nobody(
    guarded: Running, site: Site, wait_until: WaitUntil
) -> None:
    watched = guarded.stats().broker.pid
    ours = site.keys / "allowed" / Role.CLIENT / "local.key"
    aside = ours.with_name("local.aside")

    ours.rename(aside)
    time.sleep(REFUSED_S)
    aside.rename(ours)

    wait_until(lambda: site.answers(site.keys))
    time.sleep(REFUSED_S)
    assert guarded.stats().broker.pid == watched
    assert guarded.events("broker_killed") == []


def test_pool_without_a_key_for_its_watchdog_does_not_start(site: Site) -> None:
    lacking = site.folder / "lacking"
    site.typed("keygen", "broker", "worker", keys=lacking)

    done = site.run("up", keys=lacking)

    assert done.returncode == 78
    assert f"{lacking}/client.key" in done.stderr
    assert "keygen" in done.stderr
