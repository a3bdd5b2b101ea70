"""What the command line knows of this machine and this user: folders, the swarm's address, and its key.

The only place that reads the environment:

    SWARM_HOME        keeps state, config and cache in this one folder instead of the three below
    XDG_STATE_HOME    state (what runs here) is under it in `swarm`; ~/.local/state by default
    XDG_CONFIG_HOME   config (addresses and keys of swarms) is under it in `swarm`; ~/.config by default
    XDG_CACHE_HOME    the cache (quantized weights) is under it in `swarm`; ~/.cache by default
    SWARM_CACHE       keeps the cache, and models of the Hub, in this folder, where --cache does not say
    HF_*              is huggingface_hub's, and means what its users expect; HF_HUB_CACHE gives way to the line above
    SWARM_ADDRESS     the swarm to talk to, where --swarm does not say
    SWARM_KEY         its key, where --key and --key-file do not say
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from swarm.errors import NoSwarm, UsageError, WrongKey

DEFAULT_PORT = 7700


@dataclass(frozen=True)
class Remembered:
    """The swarms that this user has been let into."""

    address: str = ""
    """host:port of the latest one."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key by address. A key is a secret of one swarm and is never offered to another."""


def silence_libraries() -> None:
    """Keep the log lines of gRPC and huggingface_hub off standard error, where our sentences stand; before they are imported.

    A GRPC_VERBOSITY or HF_HUB_VERBOSITY that is set already stays, for debugging.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def let_threads_sleep() -> None:
    """Have threads that wait for each other sleep soon, here and in the Workers that are started here; before torch is loaded.

    GNU's OpenMP, which torch computes on, lets them spin for milliseconds. Where others use the same cores (our own threads do,
    `team.h`), who is waited for does not run meanwhile (docs/performance.md). A GOMP_SPINCOUNT or OMP_WAIT_POLICY that is set
    already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def state_dir() -> Path:
    """Where this user's running swarm leaves its notes. Not made here."""
    return _home("XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """Where this user's addresses and keys are kept. Not made here."""
    return _home("XDG_CONFIG_HOME", ".config")


def unit_dir() -> Path:
    """Where this user's systemd units are. Not made here."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user"


def cache_dir(given: Path | None = None) -> Path:
    """Where this user's quantized weights are cached: --cache, SWARM_CACHE, or the user's cache folder. Not made here."""
    said = given or os.environ.get("SWARM_CACHE")
    return (Path(said).expanduser() if said else _home("XDG_CACHE_HOME", ".cache")).absolute() / "weights"


def hub_cache(given: Path | None) -> Path | None:
    """Where models of the Hub are kept: with --cache or SWARM_CACHE in the same folder; None: where huggingface_hub keeps them.

    With a folder it holds from now on for huggingface_hub here (if that is not imported yet) and in processes started here.
    """
    said = given or os.environ.get("SWARM_CACHE")
    if not said:
        return None
    folder = Path(said).expanduser().absolute() / "hub"
    os.environ["HF_HUB_CACHE"] = str(folder)
    return folder


def remember(address: str, key: str) -> None:
    """Keep a swarm's address and key for this user, as the one that commands talk to from now on."""
    known = recall()
    document = asdict(Remembered(address, {**known.keys, address: key}))
    write_private(config_dir() / "swarms.json", json.dumps(document, indent=1))


def note_swarm(address: str, key: str, replaces: bool = True) -> None:
    """Keep a swarm that was named and answered, as the one that commands talk to from now on; best effort.

    Args:
        key: that was typed for it; empty: none was.
        replaces: whether it takes the place of one that is kept.
    """
    with suppress(OSError, UsageError):
        known = recall()
        kept = known.keys.get(address, "")
        own = key if key and (replaces or not kept) else kept
        new = Remembered(address, {**known.keys, **({address: own} if own else {})})
        if new != known:
            write_private(config_dir() / "swarms.json", json.dumps(asdict(new), indent=1))


def recall() -> Remembered:
    """What `remember` kept; nothing where there is nothing.

    Raises:
        UsageError: the file is there and makes no sense.
        OSError: it, or its folder, cannot be read (see `why`).
    """
    path = config_dir() / "swarms.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Remembered(str(raw["address"]), {str(a): str(k) for a, k in raw["keys"].items()})
    except FileNotFoundError:
        return Remembered()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} cannot be read: delete it, and give --swarm and --key once more") from None


def resolve_swarm(given: str | None) -> str:
    """host:port of the swarm to talk to: --swarm, SWARM_ADDRESS, or the one remembered.

    Raises:
        NoSwarm: none of them says.
        UsageError: what they say is no address.
    """
    address = given or os.environ.get("SWARM_ADDRESS") or recall().address
    if not address:
        raise NoSwarm("no swarm is known here: start one with `swarm up`, or name one with --swarm HOST:PORT")
    return parse_address(address)


def resolve_key(given: str | None, key_file: Path | None, address: str) -> str:
    """The key of the swarm at that address: --key, --key-file, SWARM_KEY, the one remembered for it, or a prompt.

    Raises:
        WrongKey: nothing has one, and no terminal is there to ask.
        UsageError: the key file cannot be read.
    """
    key = explicit_key(given, key_file) or recall().keys.get(address, "")
    if not key and sys.stdin.isatty() and sys.stderr.isatty():
        key = _checked(getpass.getpass(f"Key of the swarm at {address}: ", stream=sys.stderr), "the answer")
    if not key:
        raise WrongKey(f"the swarm at {address} needs its key: give --key, --key-file or SWARM_KEY (`swarm up` prints it)")
    return key


def explicit_key(given: str | None, key_file: Path | None) -> str:
    """The key that --key, --key-file or SWARM_KEY give; empty where none does.

    Raises:
        WrongKey: one of them is there and empty: who meant to give a key must not be taken for one who wants none.
        UsageError: the key file cannot be read.
    """
    if given is not None:
        return _checked(given, "--key")
    if key_file is None:
        said = os.environ.get("SWARM_KEY")
        return "" if said is None else _checked(said, "SWARM_KEY")
    try:
        return _checked(key_file.read_text(encoding="utf-8"), f"the key file {key_file}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key file {key_file} cannot be read ({error}): give another --key-file") from None


def own_key() -> str:
    """The key of the swarms that this user starts here: drawn once, so that a join line stays good.

    Raises:
        WrongKey: the file has no key in it. OSError: it, or its folder, cannot be used (see `why`).
    """
    path = config_dir() / "own-key"
    try:
        return _checked(path.read_text(encoding="utf-8"), f"{path} (delete it, and the next `swarm up` draws a new one)")
    except FileNotFoundError:
        key = draw_key()
        write_private(path, key + "\n")
        return key
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read ({error}): delete it, and the next `swarm up` draws a new key") from None


def user_name() -> str:
    """Whose process this is; empty where that user has no name here, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def kept_keys() -> set[str]:
    """Every key that is kept here for this user, for leaving them out of what others may read."""
    own = config_dir() / "own-key"
    return {*recall().keys.values(), *(own.read_text(encoding="utf-8", errors="replace").split() if own.exists() else ())}


def change_own_key() -> str:
    """Draw another key for the swarms that this user starts here, also where their addresses are remembered.

    Raises:
        OSError: the folder cannot be used (see `why`).
    """
    old, new = own_key(), draw_key()
    replace_key(old, new)
    return new


def draw_key() -> str:
    """A key that nobody has."""
    return secrets.token_urlsafe(24)


def replace_key(old: str, new: str) -> None:
    """Wherever the old key is kept for this user, keep the new one. Raises OSError (see `why`)."""
    path = config_dir() / "own-key"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace").strip() == old:
        write_private(path, new + "\n")
    known = recall()
    if old in known.keys.values():
        keys = {address: new if key == old else key for address, key in known.keys.items()}
        write_private(config_dir() / "swarms.json", json.dumps(asdict(Remembered(known.address, keys)), indent=1))


def _checked(text: str, where: str) -> str:
    """The key in a text. Raises WrongKey where there is none, or one that no header can carry."""
    key = text.strip()
    if not key:
        raise WrongKey(f"{where} has no key in it: give the one that `swarm up` prints")
    if not key.isascii() or not key.isprintable():
        raise WrongKey("the key has characters that no swarm's key has: copy it again from what `swarm up` printed")
    return key


def parse_address(text: str) -> str:
    """host:port of `host`, `host:port`, `[v6]` or `[v6]:port`; 7700 where no port is said. Raises UsageError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text.strip(), str(DEFAULT_PORT)
    bare_v6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or "/" in host or bare_v6 or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not an address: write HOST or HOST:PORT, such as 192.168.1.20:{DEFAULT_PORT}")
    return f"{host}:{port}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes the file with mode 0600; renaming it is atomic.
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).replace(path)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise


def why(error: OSError) -> str:
    """What the system refused, in one sentence; where it is this user's own folders, how to choose others."""
    said, where = error.strerror or str(error), Path(str(error.filename)) if error.filename else None
    for folder in (state_dir(), config_dir()):
        if where and (where.is_relative_to(folder) or folder.is_relative_to(where)):
            return f"{where} cannot be used ({said}): make it a folder of yours, or set SWARM_HOME to one"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room to write to {where or 'standard output'} ({said}): make some, or write elsewhere"
    return f"{where or 'the system'} does not let this go on ({said}): mend that and try again"


def _home(variable: str, default: str) -> Path:
    if home := os.environ.get("SWARM_HOME"):
        return Path(home)
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "swarm"
