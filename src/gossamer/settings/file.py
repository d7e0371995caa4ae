"""Settings as a YAML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gossamer.errors import SettingsError
from gossamer.settings import Settings, from_dict, to_dict

LIMIT = 1 << 20  # bytes of a file of settings
# what PyYAML raises, beside its own errors, for dates that do not exist and for tags that the text has not (!!bool maybe)
BAD_TAGS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
MOST_DEEP = 500  # brackets within one another: PyYAML takes time with the third power of their depth
_BRACKET = re.compile(r"[\[\]{}]")


def load_settings(path: str | Path) -> Settings:
    """Settings from a YAML file. Raises SettingsError, UnknownNameError, MissingPackageError."""
    yaml = _yaml()
    try:
        if Path(path).is_dir():
            do = "give the settings.yaml in it" if (Path(path) / "settings.yaml").is_file() else "check the path"
            raise SettingsError(f"{path}: a folder", "a YAML file of settings", do)
        if Path(path).exists() and not Path(path).is_file():  # it may have no end, or never begin
            raise SettingsError(f"{path}: is a pipe, socket or device", "a YAML file of settings", "write it to a file")
        with Path(path).open("rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise SettingsError(f"{path}: more than {LIMIT} bytes", "a YAML file of settings", "check the path")
        values = _values(yaml, content.decode("utf-8-sig"), str(path))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}", "a readable YAML file", "check the path") from error
    except (yaml.YAMLError, *BAD_TAGS, RecursionError) as error:  # RecursionError for deep nesting
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise SettingsError(f"{path}: not YAML: {reason}", "lines of `name: value`", "fix the file") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds {type(values).__name__}", "lines of `name: value`", "fix the file")
    return from_dict(values)


def _values(yaml: Any, text: str, path: str) -> Any:
    """What the YAML says. Raises SettingsError where a name stands there twice, of which YAML would take the last."""
    check_depth(text)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        twice = [key for key in keys if isinstance(key, str) and keys.count(key) > 1]
        if twice:
            raise SettingsError(f"{path}: {twice[0]} is given twice", "each setting once", "remove one of the lines")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def check_depth(text: str) -> None:
    """Raises ValueError where the brackets of a YAML text are within one another as no person writes them."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match[0] in "[{" else max(0, depth - 1)
        if depth > MOST_DEEP:
            raise ValueError(f"nested too deep: over {MOST_DEEP} brackets within one another")


def dump_settings(settings: Settings) -> str:
    """YAML text that `load_settings` reads back to equal settings."""
    return str(
        _yaml().safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    )


def _yaml() -> Any:
    from gossamer.errors import MissingPackageError

    try:
        import yaml
    except ImportError as error:
        raise MissingPackageError("PyYAML", "train", "reading and writing settings.yaml") from error
    return yaml
