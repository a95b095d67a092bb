"""`python -m sgm`, the command line."""

import sys

from sgm.cli import main

sys.exit(main())
