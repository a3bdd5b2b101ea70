"""Who may import whom (docs/design.md): the walls between the parts, walked import by import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
RIG = ("torch", "ray", "numpy", "safetensors", "huggingface_hub", "psutil", "scipy", "zeroconf")
VOCABULARY = (
    "swarm.plan",
    "swarm.plan_check",
    "swarm.config",
    "swarm.bits",
    "swarm.errors",
    "swarm.logs",
    "swarm.wire",
    "swarm.__version__",
)


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of a module, or of each module of a package."""
    base = ROOT / package.replace(".", "/")
    for path in sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in it, also only for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


def breaches(package: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] = (), outside: tuple[str, ...] = ()) -> list[str]:
    """Imports of `forbidden` in `package`, but for those of `allowed`; modules below `outside` are not looked at."""
    return [
        f"{name} imports {target}"
        for name, path in modules(package)
        if not below(name, outside)
        for target in imports(path)
        if below(target, forbidden) and not below(target, allowed)
    ]


def test_the_data_plane_knows_nothing_of_the_control_plane_or_ray() -> None:
    assert breaches("swarm", ("cluster", "ray"), outside=("swarm.cli",)) == []


def test_the_control_plane_knows_of_the_data_plane_only_its_vocabulary_and_its_wire() -> None:
    assert breaches("cluster", ("swarm",), VOCABULARY) == []


def test_the_model_and_its_weights_know_no_network() -> None:
    for package in ("swarm.model", "swarm.weights"):
        assert (
            breaches(package, ("grpc", "ray", "google.protobuf", "swarm.wire", "swarm.worker", "swarm.client", "swarm.cli")) == []
        )


def test_the_client_names_nothing_of_a_rig() -> None:
    light = ("swarm.weights.describe", "swarm.weights.source")
    assert breaches("swarm.client", (*RIG, "swarm.model", "swarm.worker", "swarm.weights", "swarm.cli"), light) == []


def test_the_worker_knows_no_client_and_no_command_line() -> None:
    assert breaches("swarm.worker", ("swarm.client", "swarm.cli", "swarm.api")) == []


def test_the_planner_is_made_of_the_vocabulary_the_standard_library_and_a_solver() -> None:
    ours = ("swarm.plan", "swarm.plan_check", "swarm.config", "swarm.errors", "cluster.planner", "numpy", "scipy")
    for _, path in modules("cluster.planner"):
        foreign = [t for t in imports(path) if t.partition(".")[0] not in sys.stdlib_module_names and not below(t, ours)]
        assert foreign == []


@pytest.mark.parametrize("module", ["swarm.plan", "swarm.config", "swarm.errors", "swarm.logs"])
def test_the_vocabulary_needs_the_standard_library_only(module: str) -> None:
    for _, path in modules(module):
        foreign = [t for t in imports(path) if t.partition(".")[0] not in (*sys.stdlib_module_names, "swarm")]
        assert foreign == []


def test_only_the_command_line_reads_the_environment() -> None:
    for package in ("swarm", "cluster"):
        for name, path in modules(package):
            text = path.read_text(encoding="utf-8")
            assert below(name, ("swarm.cli",)) or "getenv" not in text, name
            assert below(name, ("swarm.cli",)) or "os.environ[" not in text, name
            assert below(name, ("swarm.cli",)) or "os.environ.get" not in text, name


def load_without(blocked: tuple[str, ...], names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in an interpreter in which some packages are not installed."""
    program = """
import importlib, importlib.abc, sys
blocked, names = sys.argv[1].split(","), sys.argv[2].split(",")
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Wall())
for name in names:
    importlib.import_module(name)
assert not set(blocked) & set(sys.modules), set(blocked) & set(sys.modules)
"""
    command = [sys.executable, "-c", program, ",".join(blocked), ",".join(names)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_wall_of_this_test_holds() -> None:
    assert "No module named 'json'" in load_without(("json",), ["json.decoder", "swarm.plan"]).stderr


def test_every_client_module_loads_where_no_rig_is_installed() -> None:
    names = [name for name, _ in modules("swarm.client")]
    done = load_without((*RIG, "mistral_common", "transformers"), names)
    assert names
    assert done.returncode == 0, done.stderr


def test_every_command_loads_where_no_rig_is_installed_so_that_its_help_can_be_read() -> None:
    done = load_without(RIG, ["swarm.cli.main", *(f"swarm.cli.{name}" for name in COMMANDS)])
    assert done.returncode == 0, done.stderr


def test_planning_loads_where_neither_torch_nor_ray_is_installed() -> None:
    names = ["cluster.planner", "cluster.hardware", "cluster.device_spec", "swarm.cli.plan", "swarm.cli.planned"]
    done = load_without(("torch", "ray", "grpc_tools"), names)
    assert done.returncode == 0, done.stderr


def test_a_worker_loads_where_ray_is_not_installed() -> None:
    pytest.importorskip("torch")
    names = [name for package in ("swarm.model", "swarm.weights", "swarm.worker") for name, _ in modules(package)]
    done = load_without(("ray",), names)
    assert done.returncode == 0, done.stderr
