"""One machine or many, whole batches or parts, all bits or fewer: how a step is computed."""

from ravine.training.devices.devices import Devices
from ravine.training.devices.joining import is_first, joined, own_device
from ravine.training.devices.notes import notes_of
from ravine.training.devices.slices import Complex, Part, Place, Slices, mapped, parted, placed
from ravine.training.devices.team import Team, check_same
from ravine.training.devices.way import MAY_CHANGE, Way, settled

__all__ = [
    "MAY_CHANGE",
    "Complex",
    "Devices",
    "Part",
    "Place",
    "Slices",
    "Team",
    "Way",
    "check_same",
    "is_first",
    "joined",
    "mapped",
    "notes_of",
    "own_device",
    "parted",
    "placed",
    "settled",
]
