"""ExecuTorch's packages, imported without what they print."""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from types import ModuleType
from typing import Any

from gossamer.errors import MissingPackageError
from gossamer.host import notices

PACKAGE = "executorch"
# of its C++ side, "[cpuinfo_utils.cpp:71] ..."; of torchao, which tells of libraries for GPUs; of torch's log, "W1130 17:29:41 ..."
NOTICES = rb"\[\w+\.(cpp|h):\d+\] |Failed to load .*torchao|W\d{4} "


def quiet() -> contextlib.AbstractContextManager[None]:
    """Its warnings (that its interface is experimental, and of what it imports) and notices are left out."""
    return notices.quiet(NOTICES)


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
