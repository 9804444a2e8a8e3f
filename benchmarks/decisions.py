"""How long a long log of decisions takes to open: read, checked and replayed.

Run it with `python benchmarks/decisions.py [decisions]`. It prints the seconds, of which at most two are
asked for 100,000 decisions, and the share of them that reading the same lines as bare JSON takes.
"""

import json
import sys
import tempfile
from pathlib import Path

import timing

from mask_lib.relabel import decision_log

PEOPLE = 2_700
PHOTOS = ("normal", "incorrect_mask", "mask1", "mask2", "mask3", "mask4", "mask5")


def written(folder: Path, count: int) -> Path:
    """A log as an annotator leaves it who went several times through all photos."""
    log = decision_log.DecisionLog(decision_log.log_path(folder, "anna"), "anna")
    entry = {"path": "0", "field": "mark", "old": None, "new": "wrong", "reason": "inspect", "sha256": "ab" * 32}
    (made,) = log.append([{**entry, "source_score": None}])
    with log.path.open("w", encoding="utf-8") as handle:
        for number in range(count):
            person, photo = divmod(number % (PEOPLE * len(PHOTOS)), len(PHOTOS))
            path = f"{person:06d}_female_Asian_33/{PHOTOS[photo]}.jpg"
            handle.write(json.dumps({**made, "id": f"anna:{number}", "path": path}) + "\n")
    return log.path


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), count)
        opened = timing.median(lambda: decision_log.DecisionLog(path, "anna"))
        bare = timing.median(lambda: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    print(f"{count:,} decisions: opened in {opened:.2f} s; bare JSON {bare / opened:.0%} of that")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
