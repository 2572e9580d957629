"""One machine or many, whole batches or parts, all bits or fewer: how a step is computed."""

from ravine.training.devices.devices import Devices
from ravine.training.devices.joining import is_first, joined, own_device
from ravine.training.devices.layouts import placed, whole
from ravine.training.devices.notes import notes_of
from ravine.training.devices.team import Team, check_same
from ravine.training.devices.way import MAY_CHANGE, Way, settled

__all__ = [
    "MAY_CHANGE",
    "Devices",
    "Team",
    "Way",
    "check_same",
    "is_first",
    "joined",
    "notes_of",
    "own_device",
    "placed",
    "settled",
    "whole",
]
