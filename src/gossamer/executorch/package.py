"""ExecuTorch's packages, imported without what they print."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any

from gossamer.errors import MissingPackageError
from gossamer.host.notices import without_notices

PACKAGE = "executorch"
# of its C++ side, "[cpuinfo_utils.cpp:71] ..."; of torchao, which tells of libraries for GPUs; of torch's log, "W1130 17:29:41 ..."
NOTICES = rb"\[\w+\.(cpp|h):\d+\] |Failed to load .*torchao|W\d{4} "


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Its warnings (that its interface is experimental, and of what it imports) and notices are left out."""
    # its C++ side writes to Python's standard error, other packages to that of the process
    printed = io.StringIO()
    disabled = logging.root.manager.disable
    try:
        with without_notices(NOTICES), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(disabled)
        for line in printed.getvalue().splitlines(keepends=True):
            if not re.match(NOTICES, line.encode()):
                sys.stderr.write(line)


def import_runtime() -> ModuleType:
    """The module `executorch.runtime`. Raises MissingPackageError."""
    try:
        with quiet():
            from executorch import runtime
    except ImportError as error:
        raise MissingPackageError(PACKAGE, PACKAGE, "the runtime executorch") from error
    return runtime  # type: ignore[no-any-return]


def import_threadpool() -> Any:
    """The module that has the number of its threads. Raises MissingPackageError."""
    import_runtime()
    from executorch.extension.pybindings import portable_lib

    return portable_lib


def package_version() -> str:
    """Of ExecuTorch, which is installed."""
    return version(PACKAGE)
