"""Every kernel of `swarm.model.kernels`, as it is really started, compiled for kinds of cards that are not here; none runs.

    TRITON_INTERPRET=0 python -m benchmarks.cuda_kernels 75 80 86 90 [--dtypes fp16,bf16,fp32] [--mixtral]

Prints a line of JSON for each kernel and kind (compute capability): bytes of shared memory, registers a thread, bytes that did
not fit into them, tensor core instructions, loads of 16 bytes. A kernel that needs more than the kind has is an error.
`--mixtral`: heads of 128 numbers, four to a key-value head, and no small proof.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from swarm.model.dtypes import TORCH_DTYPES
from swarm.model.kernels import proof
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.on_triton import OnTriton

SHARED = {75: 64 * 2**10, 80: 163 * 2**10, 86: 99 * 2**10, 89: 99 * 2**10, 90: 227 * 2**10, 120: 99 * 2**10}
"""Bytes that a program may have, by compute capability (CUDA C++ programming guide, technical specifications)."""


BF16 = 80


class Driver:
    """Compiles for a kind of card and starts nothing."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)
        room = {"max_shared_mem": SHARED[capability], "multiprocessor_count": 1, "warpSize": 32, "max_num_regs": 65536}
        self.utils = SimpleNamespace(get_device_properties=lambda device: room, load_binary=lambda *given: (None, None, 0, 0, 1024))

    def launcher_cls(self, src: Any, metadata: Any) -> Any:
        return lambda *args, **kwargs: None

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu


def compiled(capability: int, dtype: torch.dtype, mixtral: bool, forms: list[str]) -> list[dict[str, Any]]:
    """What came out for one kind."""
    found: list[dict[str, Any]] = []

    def note(*, key: str, fn: Any, compile: Any, already_compiled: bool, **_: Any) -> None:
        kernel = fn.jit_function.device_caches[capability][0][key]
        found.append({"kind": capability, "dtype": str(dtype), "kernel": kernel.name} | resources(kernel))

    driver.set_active(Driver(capability))
    triton.knobs.runtime.jit_post_compile_hook = note
    proof.far = lambda answer, truth: 0.0  # nothing runs: the answers are garbage
    everything = proof.drawn
    proof.drawn = lambda *given: {name: parts for name, parts in everything(*given).items() if name in forms or not forms}
    if mixtral:
        attend(dtype)
    else:
        assert not proof.differences(OnTriton(), torch.device("cpu"), dtype)
    return found


def attend(dtype: torch.dtype) -> None:
    """Attention as Mixtral has it: a chunk of a prompt, then a row alone."""
    keys, values = torch.zeros(2, 3, 32, 2, 128, dtype=dtype)
    for span in ((0, 40), (40, 41)):
        lanes = Lanes.of([span], [[2, 0]], 32, 4, torch.arange(*span))
        OnTriton().attend(torch.zeros(span[1] - span[0], 8, 128, dtype=dtype), keys, values, lanes)


def resources(kernel: Any) -> dict[str, int]:
    """Of one compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", said)}
    ptx = kernel.asm["ptx"]
    wide = len(re.findall(r"cp\.async\.cg|ld\.global[.\w:]*\.v4\.b32|ld\.global[.\w:]*\.v2\.b64", ptx))
    tensor_cores = len(re.findall(r"mma\.sync|wgmma\.mma", ptx))
    return {"shared": kernel.metadata.shared, "registers": used["REG"], "stack": used["STACK"], "mma": tensor_cores, "wide": wide}


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", type=int, nargs="+", choices=sorted(SHARED))
    parser.add_argument("--dtypes", default="fp16,bf16,fp32")
    parser.add_argument("--mixtral", action="store_true")
    parser.add_argument("--forms", nargs="*", default=[], help="of matrices, as `swarm.model.kernels.proof` names them")
    given = parser.parse_args()
    for kind in given.kinds:
        for name in given.dtypes.split(","):
            if name != "bf16" or kind >= BF16:
                for line in compiled(kind, TORCH_DTYPES[name], given.mixtral, given.forms):
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
