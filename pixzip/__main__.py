"""`python -m pixzip` → the command line."""

import sys

from pixzip.cli import main

if __name__ == "__main__":
    sys.exit(main())
