"""What this machine has to give: its GPUs, its RAM, its cores."""

from cluster.hardware.cards import Card, Cards, probe_cards
from cluster.hardware.detect import Device, detect
from cluster.hardware.host import Host, read_host

__all__ = ["Card", "Cards", "Device", "Host", "detect", "probe_cards", "read_host"]
