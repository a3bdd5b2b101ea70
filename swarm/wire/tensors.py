"""Tensors as bytes and back: the model's own dtype, untouched, one copy each way."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from swarm.errors import Refused
from swarm.wire.v1 import tensor_pb2 as pb

_WIRE = {torch.float32: pb.DTYPE_FP32, torch.float16: pb.DTYPE_FP16, torch.bfloat16: pb.DTYPE_BF16}


def to_wire(tensor: Tensor) -> pb.Tensor:
    """A tensor of any shape as raw little-endian bytes."""
    here = tensor.to("cpu").contiguous()
    data = ctypes.string_at(here.data_ptr(), here.nbytes)  # torch's own way is four calls
    return pb.Tensor(dtype=_WIRE[tensor.dtype], shape=list(tensor.shape), data=data)


def from_wire(message: pb.Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The tensor that was sent, in memory of its own (aligned, so that products give the same bits as for local rows).

    Args:
        message: as it came.
        dtype: what the Plan says it must be.
        shape: what the frame's headers say it must be; checked before memory is taken.
        device: where it shall be.

    Raises:
        Refused: it is of another dtype, shape or length.
    """
    if message.dtype != _WIRE[dtype] or tuple(message.shape) != shape:
        raise Refused(f"a tensor of shape {tuple(message.shape)} came where {shape} was due")
    num_bytes = math.prod(shape) * dtype.itemsize
    data = message.data  # once: protobuf makes the bytes anew each time
    if len(data) != num_bytes:
        raise Refused(f"a tensor of {len(data)} bytes came where {num_bytes} were due")
    tensor = torch.empty(shape, dtype=dtype)
    ctypes.memmove(tensor.data_ptr(), data, num_bytes)
    return tensor.to(device)
