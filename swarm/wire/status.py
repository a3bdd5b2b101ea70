"""The one place that turns our errors into the wire's codes and back."""

from __future__ import annotations

import json

import grpc
import grpc.aio

from swarm import errors
from swarm.errors import Expired, Full, Gap, Lost, Moved, Refused, StepError, SwarmError, TooLong
from swarm.wire.v1 import stage_pb2 as pb

_TO_RPC: list[tuple[type[SwarmError], grpc.StatusCode]] = [
    (errors.WrongKey, grpc.StatusCode.UNAUTHENTICATED),
    (errors.DoesNotFit, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.VersionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unreachable, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Full, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.TooLong, grpc.StatusCode.OUT_OF_RANGE),
    (errors.Moved, grpc.StatusCode.ABORTED),
    (errors.Gap, grpc.StatusCode.ABORTED),
    (errors.Lost, grpc.StatusCode.UNAVAILABLE),
    (errors.Expired, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ModelError, grpc.StatusCode.NOT_FOUND),
    (errors.SwarmError, grpc.StatusCode.INVALID_ARGUMENT),
]
_CLASSES = {
    cls.__name__: cls
    for cls in (
        errors.WrongKey, errors.VersionMismatch, errors.Unreachable, errors.NoSwarm, errors.PortInUse, errors.DeviceError,
        errors.PlacementError, errors.UsageError, errors.ModelError, errors.UnknownArchitecture, errors.MissingWeights,
        errors.NoRoom, errors.CorruptWeights, Full, TooLong, Lost, Expired, Refused,
    )
}  # fmt: skip


UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What is raised where details are no JSON, or not what ours are."""


def in_one_line(text: str) -> str:
    """Without what a terminal would obey: whoever answers decides what it says, and not what it does here."""
    return "".join(c if c.isprintable() else " " for c in text)


def to_rpc(error: SwarmError) -> tuple[grpc.StatusCode, str]:
    """The gRPC code for an error, and details from which `from_rpc` makes the same error again."""
    code = next(code for cls, code in _TO_RPC if isinstance(error, cls))
    details: dict[str, str | int] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.DoesNotFit):
        details |= {"needed": error.needed_bytes, "available": error.available_bytes}
    if isinstance(error, Moved):
        details["epoch"] = error.epoch
    if isinstance(error, StepError) and error.where:
        details["where"] = error.where
    return code, json.dumps(details)


def from_rpc(error: grpc.RpcError, what: str) -> SwarmError:
    """The error that the other side meant, or the one that its silence means.

    Args:
        error: as gRPC raised it.
        what: whom we talked to, for the message: `the swarm at 10.0.0.2:7700`, `worker rig-b/cuda:0`.
    """
    code, text = error.code(), error.details() or ""
    try:
        details = json.loads(text)
        return _rebuild(details["error"], details)
    except UNREADABLE:
        text = in_one_line(text)  # not one of ours: gRPC itself speaks
    if code == grpc.StatusCode.UNAVAILABLE:
        return _unavailable(text, what)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Expired(f"{what} did not answer in time")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return errors.NoSwarm(f"{what} does not speak swarm: check the address and the version there")
    return SwarmError(f"{what} failed ({code.name}): {text}")


def from_details(text: str) -> SwarmError:
    """The error of which `to_rpc` made these details."""
    try:
        details = json.loads(text)
        return _rebuild(details["error"], details)
    except UNREADABLE:
        return SwarmError(f"what was answered is no error that this version reads: {in_one_line(text[:200])}")


def _unavailable(text: str, what: str) -> SwarmError:
    """What it means that no connection came about. gRPC has one code for all of it, and says why in words."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return errors.WrongKey(
            f"{what} does not accept this key: give the one that `swarm up` printed with --key, "
            "or ask for the new one if it was changed (`swarm key rotate`)"
        )
    if reason := _at_the_handshake(text):
        return errors.NoSwarm(f"{what} cannot be talked to: {reason}")
    return errors.NoSwarm(f"{what} does not answer: check the address, and that `swarm up` runs there")


def silence(error: grpc.RpcError) -> str:
    """Why somebody could not be talked to, for inside a message; gRPC's own words where those say it."""
    text = in_one_line(str(error.details() or error.code().name))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "it does not accept this key"
    return _at_the_handshake(text) or text


def _at_the_handshake(text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS, as who has a swarm's key does; check the address, or give no key"
    if "failed to connect" in text and ("Socket closed" in text or "Connection reset" in text):
        return "it hangs up; it is ending, or wants a key (--key), or an invitation that has not expired"
    return ""


def _rebuild(name: str, details: dict[str, str | int]) -> SwarmError:
    message = in_one_line(str(details["message"]))
    if name == "DoesNotFit":
        again = errors.DoesNotFit(int(details["needed"]), int(details["available"]), "")
        again.args = (message,)
        return again
    if name in ("Moved", "Gap"):
        step: StepError = Moved(int(details["epoch"])) if name == "Moved" else Gap(0, {})
        step.args = (message,)
        return step
    found = _CLASSES.get(name, SwarmError)(message)
    if isinstance(found, StepError):
        found.where = in_one_line(str(details.get("where", "")))
    return found


_STEP_CODES: dict[type[StepError], pb.Code] = {
    Gap: pb.GAP, Moved: pb.MOVED, Lost: pb.LOST, Refused: pb.REFUSED, Expired: pb.EXPIRED, Full: pb.FULL, TooLong: pb.TOO_LONG,
}  # fmt: skip


def to_step(error: StepError, session: bytes, serial: int, worker: str) -> pb.StepStatus:
    """How a Worker reports that it does not serve a Step."""
    status = pb.StepStatus(
        session=session, serial=serial, code=_STEP_CODES[type(error)], message=error.message, worker=error.where or worker
    )
    if isinstance(error, Gap):
        status.held = error.held
        status.held_hashes.update(error.hashes)
    if isinstance(error, Moved):
        status.epoch = error.epoch
    return status


def from_step(status: pb.StepStatus) -> StepError:
    """The inverse of `to_step`, for the client."""
    if status.code == pb.GAP:
        return Gap(status.held, dict(status.held_hashes), status.worker)
    if status.code == pb.MOVED:
        return Moved(status.epoch, status.worker)
    cls = next((c for c, code in _STEP_CODES.items() if code == status.code), Refused)
    return cls(in_one_line(status.message), in_one_line(status.worker))
