"""`python -m gossamer`, which torchrun needs."""

import sys

from gossamer.cli.main import main

sys.exit(main())
