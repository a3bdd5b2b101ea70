"""What a rig has installed and a client lacks."""

from __future__ import annotations

from importlib.util import find_spec

RIG_MODULES = frozenset({"torch", "ray", "numpy", "safetensors", "huggingface_hub", "psutil", "scipy", "zeroconf"})


def need(*modules: str) -> None:
    """Raise ModuleNotFoundError unless these are installed, before a command looks at anything else."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def remedy(error: ModuleNotFoundError) -> str | None:
    """One sentence for a module that only a rig has; None for any other, which is a bug."""
    missing = (error.name or "").partition(".")[0]
    if missing not in RIG_MODULES:
        return None
    return (
        f"this command needs {missing}, which a rig has and a client does not: "
        "run `pip install '.[rig]'` in the clone that swarm was installed from"
    )
