"""Every random stream of the data layer, as a pure function of counters.

No generator is carried from one sample to the next, so what is drawn for a sample, an epoch or a step is the same on
any number of workers and processes, and after a resume at any step.
"""

from __future__ import annotations

import numpy as np

# The kind makes the streams different. SAMPLE is 0 because numpy pads the entropy with zeros, which makes
# stream(seed, epoch, position) the same as np.random.default_rng((seed, epoch, position)).
SAMPLE, ORDER, MIX, SPLIT = 0, 1, 2, 3


def stream(seed: int, epoch: int = 0, position: int = 0, kind: int = SAMPLE) -> np.random.Generator:
    """The generator of one sample (its position in the epoch), order (epoch), mix (its step) or split."""
    return np.random.default_rng((seed, epoch, position, kind))
