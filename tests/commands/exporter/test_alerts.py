"""The alert rules, run by promtool: each fires for its own trouble, and none for a healthy pool."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import required
from tests.running import ROOT

RULES = ROOT / "deploy" / "prometheus" / "racepool.rules.yml"
DOCUMENT = ROOT / "docs" / "monitoring.md"
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8"))
MINUTES = 20
WELL = {
    'up{job="racepool"}': "1",
    "racepool_up": "1",
    "racepool_broker_uptime_seconds": "100+60",
    "racepool_ready_workers": "3",
    "racepool_degraded": "0",
    "racepool_worker_crashes_total": "0",
    'racepool_tasks_total{outcome="crashed"}': "0",
    'racepool_tasks_total{outcome="timed_out"}': "0",
    'racepool_tasks_total{outcome="completed"}': "0+600",
    "racepool_tasks_rejected_total": "0",
    "racepool_dropped_messages_total": "0",
    "racepool_dead_tasks": "0",
    "racepool_oldest_queued_seconds": "1",
    "racepool_queue_depth": "90",
    "racepool_held_by_clients": "80",
    "racepool_backlog_limit": "100",
}
STEADY_CRASHES = {"racepool_worker_crashes_total": "0+5"}
TROUBLES: list[tuple[dict[str, str | None], set[str]]] = [
    ({}, set()),
    ({'up{job="racepool"}': "0"}, {"RacepoolExporterDown"}),
    ({'up{job="racepool"}': None}, {"RacepoolExporterDown"}),
    ({"racepool_up": "0"}, {"RacepoolBrokerDown"}),
    ({"racepool_broker_uptime_seconds": "one restart"}, {"RacepoolBrokerRestarted"}),
    ({"racepool_broker_uptime_seconds": "many restarts"}, {"RacepoolBrokerRestarted", "RacepoolBrokerCrashLoop"}),
    ({"racepool_ready_workers": "0", "racepool_degraded": "1"}, {"RacepoolNoWorkers", "RacepoolDegraded"}),
    ({"racepool_degraded": "1"}, {"RacepoolDegraded"}),
    ({"racepool_worker_crashes_total": "one more"}, {"RacepoolWorkerCrashes"}),
    ({**STEADY_CRASHES}, {"RacepoolWorkerCrashes", "RacepoolCrashLoop"}),
    ({'racepool_tasks_total{outcome="crashed"}': "one more"}, {"RacepoolTaskGivenUp"}),
    ({'racepool_tasks_total{outcome="timed_out"}': "one more"}, {"RacepoolTasksTimeOut"}),
    ({"racepool_dead_tasks": "2"}, {"RacepoolQuarantined"}),
    ({"racepool_oldest_queued_seconds": "31"}, {"RacepoolTaskWaitsLong"}),
    ({"racepool_held_by_clients": "0"}, {"RacepoolBacklogNearLimit"}),
    ({"racepool_tasks_rejected_total": "one more"}, {"RacepoolTasksRejected"}),
    ({"racepool_dropped_messages_total": "one more"}, {"RacepoolMessagesDropped"}),
]
SHAPES = {  # changes come three minutes before the end
    "one restart": f"100+60x{MINUTES - 4} 5 65 125 185",
    "many restarts": f"100+60x{MINUTES - 4} 5 1 3 2",
    "one more": f"0x{MINUTES - 4} 1x3",
}


def play(folder: Path, series: dict[str, str], expected: set[str]) -> subprocess.CompletedProcess[str]:
    """Lets promtool check which alerts fire at the end."""
    cases = [
        {
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if alert in expected else [],
        }
        for alert in ALERTS
    ]
    values = {
        name: SHAPES.get(value) or f"{value if '+' in value else value + '+0'}x{MINUTES}"
        for name, value in series.items()
    }
    group = {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in values.items()],
        "promql_expr_test": cases,
    }
    file = folder / "alerts.json"  # JSON is YAML, too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [group]}))
    command = [required("promtool"), "test", "rules", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("trouble", "expected"), TROUBLES, ids=lambda value: "-".join(sorted(value)) or "nothing")
def test_alerts_fire_for_their_trouble_and_no_other(
    tmp_path: Path, trouble: dict[str, str | None], expected: set[str]
) -> None:
    series = {name: value for name, value in (WELL | trouble).items() if value is not None}

    done = play(tmp_path, series, expected)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_does_not_fire_would_be_noticed(tmp_path: Path) -> None:
    assert play(tmp_path, WELL, {"RacepoolDegraded"}).returncode != 0


def test_every_alert_has_its_trouble_and_stands_in_the_document() -> None:
    told = re.findall(r"^\| `(Racepool\w+)` \| (\w+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    ruled = re.findall(r"alert: (\w+)\n.*?severity: (\w+)\}", RULES.read_text(encoding="utf-8"), re.DOTALL)

    assert told == ruled
    assert set().union(*(expected for _, expected in TROUBLES)) == set(ALERTS)


@pytest.mark.parametrize(("kind", "file"), [("rules", RULES), ("config", RULES.with_name("prometheus.yml"))])
def test_prometheus_accepts_what_is_shipped(kind: str, file: Path) -> None:
    command = [required("promtool"), "check", kind, str(file)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
