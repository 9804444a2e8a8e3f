"""`python -m mask_lib.headless NOTEBOOK OUT.ipynb -f FILE.yml -p NAME VALUE`; `--help` says more."""

import sys

from mask_lib.headless import runner

if __name__ == "__main__":
    sys.exit(runner.main())
