"""When enough workers are ready: the one rule for all code that waits for workers. Does no I/O, and never waits."""

from racepool.protocol.stats import PoolStats

FRESH_S = 3.0  # a worker that cannot start tries again, and fails again, about once a second


class Readiness:
    """Takes the answers of a broker, one after the other, and says whether enough workers are ready.

    Args:
        wanted: how many workers; None = as many as the broker expects.

    Attributes:
        shortage: "only 2 of 3 workers", by the last answer; None while no broker has answered.
        obstacle: why a worker has just failed to start, so that waiting is of no use; empty if none has.
    """

    def __init__(self, wanted: int | None) -> None:
        self._wanted = wanted
        self.shortage: str | None = None
        self.obstacle = ""

    def is_reached(self, stats: PoolStats | None) -> bool:
        """Takes the next answer; None stands for a question that was not answered, and changes nothing."""
        if stats is None:
            return False
        wanted = stats.expected_workers if self._wanted is None else self._wanted
        self.shortage = f"only {stats.total_workers} of {wanted} workers"
        failed = [each for each in stats.failed_starts if each.age_s < FRESH_S]
        self.obstacle = f"{failed[-1].worker} cannot start: {failed[-1].reason}" if failed else ""
        return stats.total_workers >= wanted
