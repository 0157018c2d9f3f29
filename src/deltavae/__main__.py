"""Run the command line with ``python -m deltavae``."""

import sys

from deltavae.cli import main

sys.exit(main())
