"""gossamer: small convolutional networks, measured where they run.

The public names are loaded when first used, so that a deployment that only runs a model file
never imports what it does not need.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
