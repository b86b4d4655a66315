"""The status page in a real browser, beside a real pool."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from racepool import WorkerCrashedError
from tests.programs import required
from tests.running import Race, Running, WaitUntil, broker_held_back, frozen
from tests.system.exporting import exporting, started

pytestmark = pytest.mark.system
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage",
)  # fmt: skip
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
HTML = "<img src=x onerror=document.title='broken'>"
READ_ALOUD = """
    const unnamed = [...document.querySelectorAll('button, a, [tabindex="0"], section, svg[role], [role=group]')]
        .filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim()
            || document.getElementById(each.getAttribute('aria-labelledby'))));
    return unnamed.map((each) => each.outerHTML.slice(0, 80));
"""


class Page:
    """The page as a person sees it."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        self.browser.get(url)

    def text(self, css: str = "body") -> str:
        return str(self.browser.execute_script("return document.querySelector(arguments[0]).innerText", css))

    def texts(self, css: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        return list(self.browser.execute_script(script, css))

    def headline(self) -> str:
        return self.text("#headline")

    def run(self, script: str) -> Any:  # noqa: ANN401  # any result of the script
        return self.browser.execute_script(script)

    def complaints(self) -> list[str]:
        """The browser's console: errors, and everything that the content security policy refused."""
        return [str(entry["message"]) for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = required("chromium")
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(required("chromedriver")))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def url(scripted: Running) -> Iterator[str]:
    with exporting(scripted.env) as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, url: str, scripted: Running, wait_until: WaitUntil) -> Iterator[Page]:
    """The open page, with all workers ready; the console must stay empty."""
    wait_until(lambda: scripted.stats().total_workers == 3, 15)
    page = Page(browser)
    page.open(url)
    wait_until(lambda: page.headline() == "All workers are ready")
    yield page
    assert page.complaints() == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.open("about:blank")


def test_page_shows_workers_at_work(page: Page, scripted: Running, blocked: Any, wait_until: WaitUntil) -> None:  # noqa: ANN401  # a fixture
    assert page.texts("#worker-list b") == ["worker-0", "worker-1", "worker-2"]

    with blocked(scripted, workers=2):
        wait_until(lambda: sorted(page.texts(".badge")) == ["busy", "busy", "idle"])
        task_ids = {worker.task_id[:8] for worker in scripted.stats().workers if worker.task_id}
        shown = " ".join(page.texts("#worker-list .task"))
        assert all(task_id in shown for task_id in task_ids)
        assert "2 of 3 workers busy" in page.text("#tiles")

    wait_until(lambda: page.texts(".badge") == ["idle"] * 3)


def test_page_follows_a_killed_worker_within_two_seconds_and_its_return(
    page: Page, scripted: Running, wait_until: WaitUntil
) -> None:
    page.run("window.sameDocument = true")
    took_s: list[float] = []
    while len(took_s) < 3 and not any(each < 2 for each in took_s):  # a busy machine may delay one
        with frozen(scripted.supervisord_pid):  # nothing restarts the broker meanwhile
            killed_at = time.monotonic()
            os.kill(scripted.pids()["worker-1"], signal.SIGKILL)
            wait_until(lambda: page.headline() == "2 of 3 workers are ready")
            took_s.append(time.monotonic() - killed_at)
            assert "Missing: worker-1" in page.text("#subline")
            assert page.texts(".badge") == ["idle", "missing", "idle"]
            assert page.run("return document.body.dataset.level") == "warning"
            assert "worker-1 was lost: its process ended" in page.texts("#events .what")
        wait_until(lambda: page.headline() == "All workers are ready")
        wait_until(lambda: "worker-1 is back" in page.texts("#events .what"))

    assert min(took_s) < 2
    assert page.run("return window.sameDocument"), "the page was reloaded"


def test_page_says_that_the_broker_is_away_and_since_when(page: Page, scripted: Running, wait_until: WaitUntil) -> None:
    with broker_held_back(scripted):
        wait_until(lambda: page.headline() == "The broker does not answer")
        assert page.text("#subline").startswith("since ")
        assert "no broker answered" in page.text("#subline")
        assert page.texts("#worker-list li") == ["Unknown while the broker does not answer."]
        assert set(page.texts("#tiles dd:first-of-type")) == {"–"}  # noqa: RUF001  # as the page has it
        wait_until(lambda: page.run("return document.querySelectorAll('.plot .away').length") == 6)

    wait_until(lambda: page.headline() == "All workers are ready", 15)
    assert "Another broker has started" in page.texts("#events .what")


def test_page_says_that_the_exporter_does_not_answer_and_recovers(
    page: Page, scripted: Running, wait_until: WaitUntil
) -> None:
    with started(scripted.env) as (process, url):
        page.open(url)
        wait_until(lambda: page.headline() == "All workers are ready")
        with frozen(process.pid):
            wait_until(lambda: page.headline() == "The exporter does not answer")

        wait_until(lambda: page.headline() == "All workers are ready")


def test_quarantined_task_is_shown_as_the_text_that_its_race_has(
    page: Page, scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    future = scripted.exec(race(f"kill:{HTML}"))
    with pytest.raises(WorkerCrashedError):
        future.result(30)

    wait_until(lambda: page.texts("#dead b") == [f"kill:{HTML}"])

    assert "racepool dead show " in page.text("#dead code")
    assert page.run("return document.images.length") == 1
    wait_until(lambda: page.headline() == "All workers are ready")
    assert "broken" not in page.browser.title


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_fits_a_phone_in_either_theme(page: Page, wait_until: WaitUntil, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)

    wait_until(lambda: page.run("return window.innerWidth") == PHONE["width"])
    assert page.run("return document.documentElement.scrollWidth") == PHONE["width"]
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(12, 18, 24)") == (theme == "dark")
    widest = page.run("return Math.max(...[...document.querySelectorAll('.plot')].map((each) => each.clientWidth))")
    assert 300 < widest < PHONE["width"]


def test_page_can_be_used_by_keyboard_and_read_aloud(page: Page, wait_until: WaitUntil) -> None:
    wait_until(lambda: page.run("return document.querySelectorAll('.plot .line').length") > 0)
    assert page.run(READ_ALOUD) == []
    assert page.run("return document.documentElement.lang") == "en"
    assert page.run("return document.querySelectorAll('h1').length") == 1

    page.run("document.querySelector('.plot').focus()")
    webdriver.ActionChains(page.browser).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT).perform()

    wait_until(lambda: "Throughput: completed" in page.run("return document.getElementById('told').textContent"))
    assert page.text("#charts-title").startswith("At ")
    page.run("document.querySelector('#ranges button').focus()")
    webdriver.ActionChains(page.browser).send_keys(Keys.ENTER).perform()
    pressed = "return [...document.querySelectorAll('#ranges button')].map((each) => each.ariaPressed)"
    wait_until(lambda: page.run(pressed) == ["true", "false", "false"])
    assert page.text("#charts-title") == "The last minutes"
