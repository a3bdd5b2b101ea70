"""Everything that can go wrong, as one tree.

    SwarmError                      exit code 1
    ├── UsageError                  exit code 2: the command line does not make sense
    ├── ModelError                  the model's files cannot be used
    │   ├── UnknownArchitecture
    │   ├── MissingWeights
    │   ├── NoRoom
    │   └── CorruptWeights
    ├── DeviceError                 a Device that cannot be used, and the remedy
    ├── PlacementError
    │   └── DoesNotFit              needed and available bytes
    ├── DoorError                   a swarm that cannot be reached or will not let us in
    │   ├── NoSwarm
    │   ├── WrongKey
    │   ├── VersionMismatch
    │   ├── Unreachable
    │   └── PortInUse
    └── StepError                   what a Worker answers for one Step or one Session
        ├── Gap                     the Stage does not hold the prefix
        ├── Moved                   the epoch is retired
        ├── Lost                    a Worker further down the Route is gone
        ├── Refused                 malformed, or against the Plan
        ├── Expired                 no time left
        ├── Full                    no room now
        └── TooLong                 never any room

Messages say what happened, where, and what to do. `swarm.wire.status` alone turns gRPC codes into these and back.
"""

from __future__ import annotations


class SwarmError(Exception):
    """Base of all errors that a person may see."""

    exit_code = 1


class UsageError(SwarmError):
    """The command line or a file that a person wrote does not make sense."""

    exit_code = 2


class ModelError(SwarmError):
    """The model's files cannot be used."""


class UnknownArchitecture(ModelError):
    """`config.json` names an architecture that the Block does not cover."""


class MissingWeights(ModelError):
    """A file or a tensor that the model needs is not there."""


class NoRoom(ModelError):
    """A disk has too little room for the files that are to be fetched; the message names rig, folder, needed and free."""


class CorruptWeights(ModelError):
    """A weights file is truncated, or its header contradicts itself or the config."""


class DeviceError(SwarmError):
    """A Device that cannot be used; the message names it and the remedy."""


class PlacementError(SwarmError):
    """No Plan can be made."""


class DoesNotFit(PlacementError):
    """The Devices together hold less than the model needs.

    Args:
        needed_bytes: weights, KV and workspace of the smallest Plan.
        available_bytes: what the Devices can give.
        what: what was to be placed, for the message.
    """

    def __init__(self, needed_bytes: int, available_bytes: int, what: str) -> None:
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        super().__init__(
            f"{what} needs {gib(needed_bytes)}, the devices have {gib(available_bytes)}: add a rig with `swarm join`, "
            "give more with --device or --ram, or ask for less with --context, --sessions or --dtype"
        )


class DoorError(SwarmError):
    """A swarm that cannot be reached, or that does not let us in."""


class NoSwarm(DoorError):
    """Nothing that speaks swarm answers at the address."""


class WrongKey(DoorError):
    """The swarm's key is missing or not this swarm's."""


class VersionMismatch(DoorError):
    """swarm, Python, Ray or torch differ from the swarm's; the message has the install line."""


class Unreachable(DoorError):
    """An address that must be reachable from another rig is not."""


class PortInUse(DoorError):
    """A port that is needed is taken."""


class StepError(SwarmError):
    """What a Worker answers for a Step or a Session that it does not serve.

    `where` names the Worker (and so the rig and Stage) that says so; empty where the client itself does.
    """

    def __init__(self, message: str, where: str = "") -> None:
        self.message = message
        self.where = where
        super().__init__(f"{where}: {message}" if where and where not in message else message)


class Gap(StepError):
    """The Stage does not hold the tokens before the Step's position.

    Args:
        held: positions of the Session that the Stage holds; 0 where it does not know the Session.
        hashes: prefix hashes that the Stage has, by position (see `swarm.plan.extend_hash`), for finding the longest
            common prefix.
    """

    def __init__(self, held: int, hashes: dict[int, int], where: str = "") -> None:
        self.held = held
        self.hashes = hashes
        super().__init__(f"holds {held} positions of this session", where)


class Moved(StepError):
    """The Step's epoch is retired; ask for the Plan in force and replay."""

    def __init__(self, epoch: int, where: str = "") -> None:
        self.epoch = epoch
        super().__init__(f"the plan changed (epoch {epoch})", where)


class Lost(StepError):
    """A Worker of the Route no longer answers."""


class Refused(StepError):
    """Malformed, or against the Plan (sizes, dtypes, positions, tokens)."""


class Expired(StepError):
    """The Step's time was over before it was served."""


class Full(StepError):
    """No room for another Session now, and the queue is full too."""


class TooLong(StepError):
    """More positions than the Plan has room for, ever."""


def gib(num_bytes: float) -> str:
    """Bytes for people: `22.4 GiB`, below a GiB `31.0 MiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def rate(*tokens_per_s: float) -> str:
    """Tokens a second for people, of one or from one to the next: `6.1 tok/s`, `0.04 → 0.12 tok/s`; slower yet: `250 s a token`."""
    if (least := min(tokens_per_s)) < 0.01:
        return " → ".join(f"{1 / each:.0f}" if each > 0 else "endless" for each in tokens_per_s) + " s a token"
    return " → ".join(f"{each:.{1 if least >= 0.1 else 2}f}" for each in tokens_per_s) + " tok/s"
