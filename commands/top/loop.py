"""The loop of `racepool top`: asks the broker, reads keys and signals, draws."""

import os
import signal
import time
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil

import zmq
from rich.console import Console
from rich.live import Live

from racepool.commands.dead.tasks import record_count
from racepool.commands.top.enquiry import Enquiry
from racepool.commands.top.screen import ORDERS, View, frame
from racepool.commands.top.terminal import INTERRUPT, Terminal
from racepool.commands.top.trend import PoolTrend
from racepool.protocol.settings import Settings

PATIENCE_S = 1.0  # a broker that does not answer in this time counts as away
REDRAW_S = 1.0  # the longest time between two drawings: the clock on the screen goes on without a broker
QUIT = {"q", "Q", INTERRUPT}
PAUSE = {"p", "P", " "}
SORT = {"s", "S"}


class TopLoop:
    """Shows one pool on a terminal until the user ends it."""

    def __init__(self, settings: Settings, console: Console, interval_s: float) -> None:
        self._settings = settings
        self._console = console
        self._interval_s = interval_s
        self._enquiry = Enquiry(settings)
        self._trend = PoolTrend(time.monotonic())
        self._ask_at = time.monotonic()
        self._order = 0
        self._paused: View | None = None
        self._is_over = False
        self._is_suspended = False

    def run(self) -> None:
        """Runs until q, Ctrl-C or SIGTERM. Ctrl-Z gives the terminal back until SIGCONT."""
        try:
            while not self._is_over:
                self._is_suspended = False
                live = Live(console=self._console, auto_refresh=False, screen=True, transient=True)
                with Terminal() as terminal, live:
                    self._sit(terminal, live)
                if self._is_suspended:
                    os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            self._enquiry.close()

    def _sit(self, terminal: Terminal, live: Live) -> None:
        self._draw(live)
        while not (self._is_over or self._is_suspended):
            self._turn(terminal)
            self._draw(live)

    def _turn(self, terminal: Terminal) -> None:
        poller = zmq.Poller()
        poller.register(self._enquiry.socket, zmq.POLLIN)
        poller.register(terminal.signals_fd, zmq.POLLIN)
        if terminal.keys_fd is not None:
            poller.register(terminal.keys_fd, zmq.POLLIN)
        asleep_s = min(max(self._ask_at - time.monotonic(), 0.0), REDRAW_S)
        ready = dict(poller.poll(ceil(asleep_s * 1000)))
        if terminal.signals_fd in ready:
            self._on_signals(terminal.signals())
        if terminal.keys_fd in ready:
            for key in terminal.typed():
                self._on_key(key)
        if self._enquiry.socket in ready:
            self._hear()
        if time.monotonic() >= self._ask_at:
            self._ask()

    def _ask(self) -> None:
        now = time.monotonic()
        if self._enquiry.is_out:
            self._trend.on_silence(now)
        self._enquiry.ask()
        self._ask_at = now + PATIENCE_S

    def _hear(self) -> None:
        stats = self._enquiry.answer()
        if stats is not None:
            now = time.monotonic()
            self._trend.on_stats(stats, now, datetime.now(UTC))
            self._ask_at += self._interval_s - PATIENCE_S

    def _on_signals(self, numbers: set[int]) -> None:
        """SIGWINCH needs nothing here: the next drawing has the new size."""
        self._is_over |= bool({signal.SIGTERM, signal.SIGINT} & numbers)
        self._is_suspended |= signal.SIGTSTP in numbers

    def _on_key(self, key: str) -> None:
        if key in QUIT:
            self._is_over = True
        elif key in PAUSE:
            self._paused = None if self._paused else self._still()
        elif key in SORT:
            self._order = (self._order + 1) % len(ORDERS)

    def _still(self) -> View:
        """A copy of the present view, which does not change while the trend goes on."""
        return replace(self._view(), trend=deepcopy(self._trend), is_paused=True)

    def _view(self) -> View:
        settings = self._settings
        return View(
            self._trend,
            time.monotonic(),
            datetime.now(UTC),
            settings.stats_endpoint,
            settings.remedy(settings.stats_endpoint),
            record_count(settings.dir),
            ORDERS[self._order],
        )

    def _draw(self, live: Live) -> None:
        size = self._console.size
        view = replace(self._paused, order=ORDERS[self._order]) if self._paused else self._view()
        live.update(frame(view, size.width, size.height), refresh=True)
