"""One training in several processes, as torchrun starts them, each on a GPU or CPU cores of its own.

Each process takes its part of a batch, and all of them give what one process would on the whole batch: logits are
put together before the loss, gradients are summed, batch normalisation counts all photos. Alone all of it does nothing.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LOST = "another process of this training has ended or cannot be reached: run the same command again to go on"


class PeerLostError(OSError):
    """One of several processes is gone."""


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Within it those that torchrun started know each other. Raises PeerLostError if one of them is lost."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or distributed.is_initialized():
        yield
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo")
    try:
        with SynchronisedBatchNorm():
            yield
    except RuntimeError as error:  # of gloo and of NCCL, each in words of its own
        if any(word in str(error) for word in ("gloo", "NCCL", "onnection", "imed out")):
            raise PeerLostError(f"{LOST} ({' '.join(str(error).split())[:200]})") from error
        raise
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; the first one writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(length: int) -> slice:
    """This process's part of so many things: parts differ in size by one at most."""
    small, larger = divmod(length, count())
    start = rank() * small + min(rank(), larger)
    return slice(start, start + small + (rank() < larger))


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """Within it the first process is alone; the others wait for it and come in after it."""
    if rank():
        distributed.barrier()
    try:
        yield
    finally:
        if not rank() and count() > 1:
            distributed.barrier()


def agreed(*flags: bool) -> tuple[bool, ...]:
    """Of each flag whether it is true in any process: asked by all of them at the same step."""
    if count() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.int32)  # on the CPU: no GPU is waited for
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return tuple(map(bool, found.tolist()))


def joined(part: Tensor, length: int) -> Tensor:
    """(length, …) of all processes' `share`s; the gradient goes to this process's own part alone."""
    if count() == 1:
        return part
    here, whole = share(length), part.new_zeros(length, *part.shape[1:])
    whole[here] = part.detach()
    distributed.all_reduce(whole)
    return torch.cat([whole[: here.start], part, whole[here.stop :]])


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in place."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = torch.cat([one.reshape(-1) for one in gradients])
    distributed.all_reduce(flat)
    for one, summed in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        one.copy_(summed.view(one.shape))


class _Summed(torch.autograd.Function):
    """The sum over all processes, and of its gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Summed.forward(context, gradient.contiguous())


class SynchronisedBatchNorm(TorchFunctionMode):
    """Batch normalisation in training by the photos of all processes; torch's SyncBatchNorm knows GPUs alone."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (_batch_norm if func is functional.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    maps: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if not training or count() == 1:
        return functional.batch_norm(maps, running_mean, running_var, weight, bias, training, momentum, eps)
    others, shape = [0, *range(2, maps.ndim)], [1, -1, *[1] * (maps.ndim - 2)]
    values, here = maps.float(), maps.new_tensor([maps.numel() / maps.shape[1]], dtype=torch.float32)
    total = _Summed.apply(here)
    mean = _Summed.apply(values.sum(others)) / total
    centred = values - mean.view(shape)
    var = _Summed.apply(centred.square().sum(others)) / total
    if running_mean is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * total / (total - 1), momentum)
    found = centred * (var + eps).rsqrt().view(shape)
    found = found if weight is None else found * weight.view(shape)
    return (found if bias is None else found + bias.view(shape)).to(maps.dtype)
