import json
import re
from itertools import combinations
from typing import Any

from racepool.commands.exporter.metrics import families
from tests.commands.exporter.test_metrics import FULL
from tests.running import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "racepool.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def test_panels_have_ids_and_places_of_their_own() -> None:
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in PANELS)
    ]

    assert len({panel["id"] for panel in PANELS}) == len(PANELS) > 15
    assert not any(one & other for one, other in combinations(cells, 2))
    assert max(x for each in cells for x, _ in each) < 24


def test_every_panel_says_what_it_shows_of_the_chosen_instance_and_source() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"], panel["title"]
            assert target["datasource"]["uid"] == "${datasource}"


def test_workers_of_two_pools_are_not_added_up() -> None:
    """Two pools both have a worker-0."""
    queries = [target["expr"] for panel in PANELS for target in panel["targets"] if "worker_" in target["expr"]]
    each = [re.search(r"by \(([^)]*)\)", query) for query in queries]

    assert len([found for found in each if found]) > 3
    assert {found[1] for found in each if found} <= {"instance, worker", "pool_worker", "state"}
    assert all('"instance", "worker")' in query for query in queries if "by (pool_worker)" in query)


def test_queries_name_metrics_that_there_are() -> None:
    known = {sample.name for family in families(FULL) for sample in family.samples}
    known |= {"racepool_up", "racepool_dead_tasks"}
    known |= {f"racepool_broker_process_{name}" for name in ("cpu_seconds_total", "open_fds", "max_fds")}
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    rules = (ROOT / "deploy" / "prometheus" / "racepool.rules.yml").read_text(encoding="utf-8")

    named = set(re.findall(r"\bracepool_\w+", " ".join([*queries, *re.findall(r"expr: (.*)", rules)])))

    assert len(named) > 25
    assert named - known == set()
