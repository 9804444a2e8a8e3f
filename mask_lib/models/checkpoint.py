"""Weights, manifest and optimizer state in one .safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from mask_lib.base import files

MANIFEST_FORMAT = 1
OPTIMIZER_PREFIX = "optimizer/"


def write_checkpoint(
    path: Path, state: Mapping[str, torch.Tensor], manifest: Mapping[str, Any], optimizer_state: dict | None = None
) -> None:
    """Write weights, manifest and optimizer state into one file, so that no kill can part them."""
    tensors, scalars = dict(state), {}
    for index, values in (optimizer_state or {"state": {}})["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{OPTIMIZER_PREFIX}{index}/{name}"] = value
            else:
                scalars[f"{index}/{name}"] = value
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps({"format": MANIFEST_FORMAT, **manifest, "optimizer_scalars": scalars})
    with files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"manifest": text})


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest; empty for a file of bare weights. OSError that names a file that cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            return json.loads((opened.metadata() or {}).get("manifest", "{}"))
    except Exception as error:
        raise OSError(f"{files.shown_path(path)} is no checkpoint that can be read: {error}") from error


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each of a checkpoint's weights, by name, without reading them."""
    with safetensors.safe_open(path, framework="pt") as opened:
        names = [name for name in opened.keys() if not name.startswith(OPTIMIZER_PREFIX)]  # noqa: SIM118
        return {name: opened.get_slice(name).get_shape() for name in names}


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights, manifest) of a .safetensors file; the optimizer's tensors are left out."""
    manifest = read_manifest(path)
    return {name: one for name, one in load_file(path).items() if not name.startswith(OPTIMIZER_PREFIX)}, manifest


def read_optimizer_state(path: Path) -> dict[int, dict[str, Any]]:
    """The `state` part of an optimizer's `state_dict`, as `write_checkpoint` kept it."""
    state, scalars = {}, read_manifest(path).get("optimizer_scalars", {})
    tensors = {name: one for name, one in load_file(path).items() if name.startswith(OPTIMIZER_PREFIX)}
    for key, value in (tensors | scalars).items():
        index, _, name = key.removeprefix(OPTIMIZER_PREFIX).partition("/")
        state.setdefault(int(index), {})[name] = value
    return state
