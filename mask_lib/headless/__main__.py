"""`python -m mask_lib.headless NOTEBOOK OUT.ipynb -f FILE.yml -p NAME VALUE`; `--help` says more."""

import signal
import sys

from mask_lib.headless import runner

if __name__ == "__main__":
    # A batch system ends jobs by SIGTERM: leave as on an error, so that kernel and files are seen to.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(runner.main())
