"""A GPU for machines without one: CPU tensors that say cuda:0, refuse those that do not, and count what waits.

Counted is what makes the host wait for a GPU: copies that are not both pinned and non-blocking, and values read back.
It cannot show speed. `torch.cuda`'s own questions are answered in `machine`.
"""

import collections
import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
READS = {"item", "tolist", "numpy", "nonzero", "masked_select", "unique", "equal", "allclose", "__bool__", "__int__"}
READS |= {"__float__", "__index__", "__contains__"}
WRITTEN_OUT = ("tensor", "as_tensor", "new_tensor")  # whose values come from Python
SHAPES = {"size", "dim", "numel", "stride", "__len__", "element_size"}
SHAPES |= {"is_floating_point", "is_contiguous", "is_complex"}
PLAIN = SHAPES | {"backward", "__hash__", "__repr__", "as_subclass", "requires_grad_", "register_hook", "data_ptr"}


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return _handled(function, args, kwargs or {})


class Waits(collections.Counter):
    """How often the host waited, by cause; `copies` are those for which it did not."""

    copies = 0


counted = Waits()
pinned: set[int] = set()  # addresses


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def _sent(value):
    """A result as the GPU holds it."""
    if isinstance(value, torch.Tensor):
        return value if isinstance(value, OnGpu) else value.as_subclass(OnGpu)
    if type(value).__module__ == "torch.return_types":
        return type(value)(tuple(map(_sent, value)))
    return type(value)(map(_sent, value)) if isinstance(value, list | tuple) else value


def _moved(tensor, args, kwargs):
    """`tensor.to(…)`."""
    kwargs = dict(kwargs)
    target, blocking = kwargs.pop("device", None), not kwargs.pop("non_blocking", False)
    others = []
    for one in args:
        if isinstance(one, torch.device | str):
            target = one
        elif isinstance(one, torch.Tensor):
            target, others = GPU if isinstance(one, OnGpu) else "cpu", [*others, one.dtype]
        else:
            others.append(one)
    found = tensor.to(*others, **kwargs) if others or kwargs else tensor
    was = isinstance(tensor, OnGpu)
    goes = was if target is None else torch.device(target).type == "cuda"
    if was == goes:
        return _sent(found) if goes else found
    if was:
        counted["read back: to"] += 1
        return found.clone().as_subclass(torch.Tensor)
    if blocking or tensor.data_ptr() not in pinned:
        counted["blocking copy"] += 1
    else:
        counted.copies += 1
    return _sent(found.clone())


def _handled(function, args, kwargs):
    name = getattr(function, "__name__", str(function))
    with torch._C.DisableTorchFunctionSubclass():
        mine = [one for one in _tensors((args, kwargs)) if isinstance(one, OnGpu)]
        if name == "__get__":
            asked = getattr(function.__self__, "__name__", "")
            found = {"device": GPU, "is_cuda": True}.get(asked) if mine else None
            found = function(*args) if found is None else found
            return _sent(found) if mine and isinstance(found, torch.Tensor) else found
        if name in ("to", "cpu", "cuda"):
            return _moved(args[0], (*args[1:], *([] if name == "to" else [name])), kwargs)
        if name == "__deepcopy__":
            return args[1].setdefault(
                id(args[0]), _sent(args[0].detach().clone()).requires_grad_(args[0].requires_grad)
            )
        if name == "pin_memory":
            pinned.add(args[0].data_ptr())
            return args[0]
        device = kwargs.get("device")
        if device is not None:
            if torch.device(device).type == "cuda" and name in WRITTEN_OUT:
                counted[f"blocking copy: {name}"] += 1
            found = function(*args, **{**kwargs, "device": "cpu"})
            return _sent(found) if torch.device(device).type == "cuda" else found
        if not mine or name in PLAIN or name == "__set__":
            return function(*args, **kwargs)
        if name in READS or name == "new_tensor":
            counted[f"waits: {name}"] += 1
        indices = list(_tensors(args[1])) if name in ("__getitem__", "__setitem__") else []
        if any(one.dtype in (torch.bool, torch.uint8) for one in indices):
            counted["waits: mask as index"] += 1
        strangers = [one for one in _tensors((args, kwargs)) if not isinstance(one, OnGpu) and one.dim()]
        if strangers and (name == "copy_" or (name == "__setitem__" and not indices)):
            counted[f"blocking copy: {name}"] += 1
        elif strangers:
            kinds = [(type(one).__name__, tuple(one.shape)) for one in strangers]
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, not {kinds[:3]}")
        found = function(*args, **kwargs)
        return found if name in READS else _sent(found)


class _Factories(TorchFunctionMode):
    """Sees what makes tensors on a GPU out of nothing."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        device = kwargs.get("device", None)
        goes = [one for one in args[1:] if name in ("to", "cuda") and isinstance(one, torch.device)]
        touched = name == "pin_memory" or any(isinstance(one, OnGpu) for one in _tensors((args, kwargs)))
        on_gpu = any(torch.device(one).type == "cuda" for one in (*goes, *([] if device is None else [device])))
        return _handled(function, args, kwargs) if touched or on_gpu else function(*args, **kwargs)


def put(network: torch.nn.Module) -> torch.nn.Module:
    """A network's parameters and statistics as if on the GPU."""
    for module in network.modules():
        for table in (module._parameters, module._buffers):
            for name, value in table.items():
                if value is not None:
                    moved = value.detach().clone().as_subclass(OnGpu).requires_grad_(value.requires_grad)
                    moved._is_param = table is module._parameters
                    table[name] = moved
    return network


@contextlib.contextmanager
def machine() -> Iterator[Waits]:
    """Within it there is a GPU; counts from 0."""
    answers = {"memory_reserved": 0, "memory_allocated": 0, "mem_get_info": (1 << 34, 1 << 34), "manual_seed_all": None}
    counted.clear()
    counted.copies = 0
    pinned.clear()
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *given, answer=answer: answer))
        generator = torch.Generator
        stack.enter_context(mock.patch.object(torch, "Generator", lambda device="cpu": generator()))
        # Written in C++, it would say that gradients are on the CPU.
        grouped = mock.Mock(side_effect=lambda lists, *rest: {(lists[0][0].device, None): (lists, None)})
        grouping = "torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype"
        stack.enter_context(mock.patch(grouping, grouped))
        stack.enter_context(_Factories())
        yield counted
