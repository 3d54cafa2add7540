"""`python -m pipeline`: the commands for people."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
