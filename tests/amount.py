"""How often a fault is injected: a few times in the suite, more often with FAULTS=all."""

import os


def amount(quick: int, all_: int) -> int:
    """`quick`, or with FAULTS=all in the environment `all_`."""
    return all_ if os.environ.get("FAULTS") == "all" else quick
