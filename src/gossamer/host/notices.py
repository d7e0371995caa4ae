"""What packages print on the process's standard error as they load, left out where it says nothing to a user."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

STANDARD_ERROR = 2
_changing = threading.Lock()  # one at a time changes where standard error leads


@contextlib.contextmanager
def without_notices(pattern: bytes) -> Iterator[None]:
    """Leave out the lines on standard error, also those of C++, that begin with `pattern`; all others are passed on after it."""
    with _changing, tempfile.TemporaryFile() as caught:
        try:
            kept = os.dup(STANDARD_ERROR)
        except OSError:  # a process without one
            yield
            return
        try:
            os.dup2(caught.fileno(), STANDARD_ERROR)
            yield
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)
            caught.seek(0)
            others = b"".join(line for line in caught if not re.match(pattern, line))
            if others:
                os.write(STANDARD_ERROR, others)


@contextlib.contextmanager
def quiet(pattern: bytes) -> Iterator[None]:
    """As `without_notices`; Python's warnings and the warnings of its log are left out as well."""
    printed = io.StringIO()  # what C++ writes through Python, and progress bars
    disabled = logging.root.manager.disable
    try:
        with without_notices(pattern), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(disabled)
        for line in printed.getvalue().splitlines(keepends=True):
            if not re.match(pattern, line.encode()):
                sys.stderr.write(line)
