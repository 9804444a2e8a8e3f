"""Weights, manifest and optimizer state in one .safetensors file, with digests that tell damage.

A digest of every tensor stands in the manifest, and one of the manifest beside it; both are verified whenever they
are read. Bare weights from elsewhere are read without.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic
import safetensors
import torch
import xxhash
from safetensors.torch import save_file

from mask_lib.base import config, files

MANIFEST_FORMAT = 2
OPTIMIZER_PREFIX = "optimizer/"
State = dict[str, torch.Tensor]


class _Manifest(pydantic.BaseModel, extra="allow"):
    format: Literal[MANIFEST_FORMAT]
    digest: str  # of all the rest
    digests: dict[str, str]  # by tensor


class _RunManifest(_Manifest):
    """What every checkpoint of a run says."""

    run: dict[str, Any]
    fold: pydantic.NonNegativeInt
    data: str
    preprocessing: dict[str, Any]
    place: dict[str, Any] = {}


class Checkpoint(NamedTuple):
    """All that is in a file."""

    state: State  # the network's
    manifest: dict[str, Any]  # empty for bare weights
    optimizer_state: dict[int, State]  # the `state` part of an optimizer's `state_dict`


def write_checkpoint(
    path: Path, state: State, manifest: dict[str, Any], optimizer: dict | None = None, previous: Path | None = None
) -> None:
    """Write weights, manifest and an optimizer's `state_dict` into one file, so that no kill can part them. previous:
    where the file that is there before goes, once the new one is written.
    """
    tensors = dict(state)
    for index, values in (optimizer["state"] if optimizer else {}).items():
        tensors |= {f"{OPTIMIZER_PREFIX}{index}/{name}": value for name, value in values.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digests = {name: digest(value) for name, value in tensors.items()}
    about = {"format": MANIFEST_FORMAT, **manifest, "digests": digests}
    with files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"manifest": signed(about)})
        if previous and path.exists():
            path.replace(previous)


def digest(tensor: torch.Tensor) -> str:
    """Of a tensor on the CPU: its dtype, shape and bytes."""
    found = xxhash.xxh3_64(f"{tensor.dtype} {tuple(tensor.shape)}".encode())  # twenty times as fast as SHA-256
    found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def signed(manifest: Mapping[str, Any]) -> str:
    """A manifest as text with a digest of the rest in it: one entry, for safetensors keeps no order of several."""
    return json.dumps({**manifest, "digest": files.digest(dict(manifest))})


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(open file, verified manifest). Whatever goes wrong within is an OSError that names the file."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            yield opened, _verified(opened.metadata() or {})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {files.shown_path(path)}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        words = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise OSError(f"{files.shown_path(path)} is no checkpoint that can be read: its manifest, {words}") from error
    except Exception as error:  # safetensors has errors of its own for a damaged head
        raise OSError(f"{files.shown_path(path)} is no checkpoint that can be read: {error}") from error


def _verified(metadata: Mapping[str, str]) -> dict[str, Any]:
    if "manifest" not in metadata:
        if any(text.startswith('{"format": ') for text in metadata.values()):
            raise ValueError("its manifest has lost its name: the file is damaged")
        return {}
    manifest = json.loads(metadata["manifest"])
    (_RunManifest if "run" in manifest else _Manifest).model_validate(manifest)
    if manifest.pop("digest") != files.digest(manifest):
        raise ValueError("its manifest does not fit its digest: the file is damaged")
    return manifest


def _tensors(opened: Any, manifest: Mapping[str, Any], with_optimizer: bool) -> State:
    """The tensors of an open file by name, verified."""
    names, known = list(opened.keys()), manifest.get("digests")
    if known is not None and set(names) != set(known):
        raise ValueError(f"it lacks, or adds, the tensors {sorted(set(names) ^ set(known))[:3]}: the file is damaged")
    found = {}
    for name in names:
        if with_optimizer or not name.startswith(OPTIMIZER_PREFIX):
            found[name] = opened.get_tensor(name)
            if known is not None and digest(found[name]) != known[name]:
                raise ValueError(f"the tensor {name} does not fit its digest: the file is damaged")
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest; empty for a file of bare weights. OSError that names a file that cannot be read."""
    with _opened(path) as (_, manifest):
        return manifest


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each of a checkpoint's weights, by name, without reading them."""
    with _opened(path) as (opened, _):
        names = [name for name in opened.keys() if not name.startswith(OPTIMIZER_PREFIX)]  # noqa: SIM118
        return {name: opened.get_slice(name).get_shape() for name in names}


def read_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """(weights, manifest) of a .safetensors file; the optimizer's tensors are left out. Raises as `read_manifest`."""
    with _opened(path) as (opened, manifest):
        return _tensors(opened, manifest, with_optimizer=False), manifest


def read_all(path: Path) -> Checkpoint:
    """All that is in a file. Raises as `read_manifest`."""
    with _opened(path) as (opened, manifest):
        tensors, states = _tensors(opened, manifest, with_optimizer=True), {}
        for key in [name for name in tensors if name.startswith(OPTIMIZER_PREFIX)]:
            index, _, name = key.removeprefix(OPTIMIZER_PREFIX).partition("/")
            states.setdefault(int(index), {})[name] = tensors.pop(key)
        return Checkpoint(tensors, manifest, states)


def refuse_changed(differences: list[str], folder: Path, when_changed: str = "refuse") -> None:
    """Raise ChangedSettingsError that names what differs from what a fold's folder holds, unless restart is asked."""
    if when_changed != "restart":
        raise config.ChangedSettingsError(
            f"{files.shown_path(folder)} was trained with other settings ({'; '.join(differences)}). "
            "Give the new run another name, or set when_changed: restart to put the old one aside and begin anew."
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests of training in a way that changes results; what `now` lacks does not."""
    named = {
        "data": "the photos, their labels or the split",
        "task": "the task, its attributes or their values",
        "policy": f"the policy in {now['run']['augmentation']}",
        "years": "the ages in years",
        "dtype": f"arithmetic in {before.get('dtype')}, here {now.get('dtype')}",
    }
    return config.changed(before["run"], now["run"]) + [
        words for name, words in named.items() if name in now and before.get(name) != now[name]
    ]
