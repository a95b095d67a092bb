"""Train a diffusion model, draw samples from it and evaluate it: `python main.py --config NAME`, the same as `sgm`."""

import sys

from sgm.cli import main

if __name__ == "__main__":
    sys.exit(main())
