"""`python -m gossamer`, which torchrun needs."""

import sys

from gossamer.cli import main

sys.exit(main())
