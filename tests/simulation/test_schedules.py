"""Random schedules of work and faults for a whole pool of real cores; after each, every guarantee holds.

Five hundred of them; twenty thousand with `scripts/test --long`.
"""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.profiles import is_long
from tests.simulation.world import Setting, World

WORK = (
    "submit",
    "submit",
    "submit_many",
    "submit_quick",
    "pass_time",
    "pass_time",
    "pass_time",
    "cancel",
    "cancel_in_hand",
    "ask_stats",
)
FAULTS = (
    ("kill_worker",),
    ("freeze_worker", "resume_worker"),
    ("terminate_worker",),
    ("kill_broker",),
    ("freeze_broker", "resume_broker"),
    ("terminate_broker",),
    ("freeze_client", "resume_client"),
    ("end_client",),
    ("repeat_result",),
    ("cut_line",),
)

Step = tuple[str, int, int]


@dataclass(frozen=True)
class Schedule:
    """A pool, and what happens to it."""

    setting: Setting
    steps: list[Step]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Each with few kinds of faults, so that two faults of these kinds meet more often."""
    setting = draw(
        st.builds(
            Setting,
            seed=st.integers(0, 2**32),
            is_local=st.booleans(),
            send_limit=st.sampled_from([1_024, 1]),
            backlog_limit=st.sampled_from([100_000, 100_000, 100_000, 3]),
            max_tasks=st.sampled_from([0, 0, 2]),
            leaves_frozen=st.booleans(),
        )
    )
    kinds = draw(st.lists(st.sampled_from(FAULTS), max_size=4, unique=True))
    verbs = [*WORK, *(verb for kind in kinds for verb in kind)]
    steps = st.tuples(st.sampled_from(verbs), st.integers(0, 15), st.integers(0, 15))
    length = draw(st.integers(0, 40))  # without a drawn length, a list would rarely have ten steps
    return Schedule(setting, draw(st.lists(steps, min_size=length, max_size=length)))


def play(schedule: Schedule) -> None:
    """Plays the whole schedule, then lets the pool recover. Every guarantee must hold all the time."""
    world = World(schedule.setting)
    for verb, which, how in schedule.steps:
        getattr(world, verb)(which, how)
        world.check()
    world.heal_and_finish()


@given(schedules())
@settings(
    max_examples=(10 if is_long() else 5) * settings().max_examples,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    print_blob=True,
)
def test_every_guarantee_holds_after_any_schedule(schedule: Schedule) -> None:
    play(schedule)
