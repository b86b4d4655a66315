"""What all programs of one simulated pool share."""

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Clock, Network
from tests.simulation.promises import Witness


@dataclass(frozen=True)
class Stage:
    """The clock, the network and the witness of all programs."""

    clock: Clock
    network: Network
    random: Random
    witness: Witness
