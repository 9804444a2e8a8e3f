"""How many wrong labels stand in the first tenth of label cleaning's queue, before any training.

Run it with `python benchmarks/suspects.py DATA_DIR OUTPUT_DIR`, of an experiment that 00_prepare_data made, the demo if
none is given; `--backbones` and `--plugins` as in 01_label_cleaning. On top of the experiment's own labels, wrong ones
among them, each seed plants wrong ones: for each attribute 2% of the people have another value on all their photos, or,
where it is the photo's, two photos that changed places. Of 4,900 photos a backbone takes half a minute a seed on two
CPU cores, and a pass over the photos.
"""

import argparse
from collections import Counter

import numpy as np
import pandas as pd

from mask_lib.base import config, files, labels
from mask_lib.data import duplicates, photos, store
from mask_lib.models.features import ARCHITECTURE, stage_features
from mask_lib.relabel import probabilities, suspects
from mask_lib.training import dataset

SHARE = 0.02  # of the people, for each attribute


def planted(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """The photo table with wrong labels, and by path of those photos which attribute is wrong."""
    generator, values = np.random.default_rng(seed), labels.decode_all(table["label"].to_numpy())
    people, wrong, table = generator.permutation(table["person"].unique()), {}, table.copy()
    count = max(round(SHARE * len(people)), 1)
    for place, one in enumerate(labels.attributes()):
        for person in people[place * count : (place + 1) * count]:
            rows = np.flatnonzero(table["person"] == person)
            given = values[one.name][rows]
            if one.of_person:
                other = generator.choice(np.delete(np.arange(one.size), given[0]))
                if one.edges:  # a number such as others of that group have
                    table.loc[rows, one.name] = generator.choice(table.loc[values[one.name] == other, one.name])
                values[one.name][rows] = other
            elif len(set(given)) > 1:
                first = generator.choice(rows)
                rows = np.array([first, generator.choice(rows[given != values[one.name][first]])])
                values[one.name][rows] = values[one.name][rows[::-1]]
            else:
                continue
            wrong |= dict.fromkeys(table["path"].iloc[rows], one.name)
    return table.assign(label=labels.encode_all(values)), wrong


def main() -> None:
    """Print by attribute the share of planted labels that is found, for each number of backbones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_dir", nargs="?", default="data/sample")
    parser.add_argument("output_dir", nargs="?", default="outputs/demo")
    parser.add_argument("--backbones", nargs="+", default=[ARCHITECTURE])
    parser.add_argument("--plugins", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 192), help="width and height in pixels")
    asked = parser.parse_args()
    config.import_plugins(asked.plugins)
    output = files.project_path(asked.output_dir)
    table, copies = photos.read_labeled(output), duplicates.read_duplicates(output, "phash")
    data = photos.find_data(asked.data_dir, output / "unpacked")
    decoded = dataset.open_photos(data, output, table, store.Frame(*asked.size))
    stages: list[np.ndarray] = []
    for count, name in enumerate(asked.backbones, start=1):
        stages += stage_features(decoded, output / "features", architecture=name)
        found, all_of = Counter(), Counter()
        for seed in range(asked.seeds):
            changed, wrong = planted(table, seed)
            ranked = suspects.rank(changed, probabilities.out_of_fold(stages, changed), copies)
            first = set(ranked["path"][: len(ranked) // 10])
            all_of.update(wrong.values())
            found.update(which for path, which in wrong.items() if path in first)
        shares = ", ".join(f"{one} {found[one] / all_of[one]:.1%} of {all_of[one]}" for one in all_of)
        whole = found.total() / all_of.total()
        print(f"{' and '.join(asked.backbones[:count])}: {whole:.1%} in the first tenth ({shares})", flush=True)


if __name__ == "__main__":
    main()
