"""What all programs of one simulated pool share."""

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Clock, Network
from tests.simulation.promises import Witness


@dataclass(frozen=True)
class Stage:
    """Where programs live."""

    clock: Clock
    network: Network
    random: Random
    witness: Witness
