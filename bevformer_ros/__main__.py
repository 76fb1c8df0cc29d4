"""`python -m bevformer_ros`: the command line without an installed script."""

import sys

from bevformer_ros.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
