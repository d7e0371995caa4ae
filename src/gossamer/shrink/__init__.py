"""Making a trained network smaller and faster, and measuring what that costs.

The package itself is the recipe: `gossamer.shrink(run, out, max_ms=1.0)` calls `gossamer.shrink.recipe.recipe.shrink`, which
quantises, prunes and distils; `gossamer.shrink.quantise` and the others are its modules, as those of any package.
"""

from __future__ import annotations

import sys
import types

TYPE_CHECKING = False  # as typing has it, which takes as long to load as Python itself
if TYPE_CHECKING:
    from inspect import Signature
    from typing import Any


class _CallablePackage(types.ModuleType):
    """A package that can be called: one name is both, so that neither hides the other, in whatever order they are loaded.

    Python lets a module have a class of its own ("Customizing module attribute access" in its data model).
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from gossamer.shrink.recipe.recipe import shrink

        return shrink(*arguments, **named)

    @property
    def __signature__(self) -> Signature:
        """Of the recipe, for `help` and `inspect.signature`."""
        from inspect import signature

        from gossamer.shrink.recipe.recipe import shrink

        return signature(shrink)


sys.modules[__name__].__class__ = _CallablePackage
