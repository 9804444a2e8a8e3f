"""An ensemble, or one run, as one ONNX file: a photo in, probabilities out.

    python -m mask_lib.ensemble.export RESULTS model.onnx

Input `photo`: (H, W, 3) uint8, upright, of any size; of four-channel runs (H, W, 4). Outputs, float32: by each
attribute's name the probabilities of its values, and `classes`; the metadata hold their words as JSON. Preprocessing is
inside, as Pillow does it. Each photo is answered by itself, without a vote.
"""

import json
from pathlib import Path

import torch
from torch import nn

from mask_lib.base import files, labels
from mask_lib.ensemble import blending, pack, predict
from mask_lib.models import networks, pillow_resize

LIMIT = 2 * 10**9  # bytes of one ONNX file


class PhotoNetwork(nn.Module):
    """A recipe's networks as one, in float32."""

    def __init__(self, members: list[predict.Member], blend: blending.Recipe):
        """Raises ValueError for runs of four channels among others."""
        super().__init__()
        self.members, self.blend = members, blend
        each = [one.network for member in members for one in member.networks]
        self.networks = nn.ModuleList(part for one in each for part in (one if isinstance(one, list) else [one]))
        self.channels = {max(one.frame.channels, 3) for one in members}
        if len(self.channels) > 1:
            raise ValueError("some runs take four channels and some do not: export them one by one, by --run")

    def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(H, W, channels) uint8 → for each attribute its values' probabilities, then the classes', float32."""
        seen = {one.frame: pillow_resize.fit(photo, one.frame).float()[None] / 255 for one in self.members}
        means = torch.stack([self.mean(one, seen[one.frame]) for one in self.members], dim=-1)  # (C, M)
        found = means @ torch.tensor(self.blend.weights)
        if self.blend.photo_weights:
            others = means @ torch.tensor(self.blend.photo_weights)
            (found,) = labels.with_photo_attributes(found[None], others[None])
        if self.blend.temperature != 1:
            found = (found / found.max()) ** (1 / self.blend.temperature)
            found = found / found.sum()
        cube, axes = found.view(1, *labels.shape()), range(1, len(labels.shape()) + 1)
        return *(cube.sum([0, *(other for other in axes if other != axis)]) for axis in axes), found

    def mean(self, member: predict.Member, batch: torch.Tensor) -> torch.Tensor:
        """(C,) over a member's networks."""
        found, views = [], torch.cat([*member.tta.views(batch)])  # (V, channels, H, W)
        for one in member.networks:
            seen, together = one.preprocessing.prepared(views), isinstance(one.network, list)
            logits = networks.of_one_backbone(one.network, seen) if together else one.network(seen).float()
            found.append(member.tta.averaged(logits).view(-1, labels.class_count()))
        return torch.cat(found).mean(dim=0)


def words() -> dict[str, list[str]]:
    """What the numbers of each output stand for."""
    classes = [labels.describe(label) for label in range(labels.class_count())]
    return {one.name: list(one.words) for one in labels.attributes()} | {"classes": classes}


def export(results_path: files.AnyPath, target: files.AnyPath, run: str = "") -> Path:
    """Write the file, whole or not at all; with `run` of that run alone.

    Raises as `pack.opened`, `predict.load` and `PhotoNetwork`, and ValueError for more than one file can hold.
    """
    target = files.project_path(target)
    with pack.opened(results_path, run) as (output, recipe):
        network = PhotoNetwork(*predict.load(output, recipe, torch.device("cpu"))).eval()
    if (size := sum(one.nbytes for one in network.state_dict().values())) > LIMIT:
        raise ValueError(f"its weights are {size / 1e9:.1f} GB, and a file holds 2: export one run, by --run")
    example = torch.zeros(64, 48, *network.channels, dtype=torch.uint8)
    sizes = {"photo": dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)}
    names = {"input_names": ["photo"], "output_names": list(words())}
    with torch.no_grad():
        network(example)  # `devices.constant` keeps what it makes, which must not be made while tracing
        program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=sizes, verbose=False, **names)
    program.model.metadata_props["words"] = json.dumps(words())
    with files.replacing(target) as temporary:
        program.save(temporary)
    return target


if __name__ == "__main__":
    print(f"Written: {files.shown_path(pack.command(export, 'export', __doc__, 'results_path', 'target'))}.")
