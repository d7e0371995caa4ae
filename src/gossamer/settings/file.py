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
MOST_BITS = 1023  # of a whole number
_BRACKET = re.compile(r"[\[\]{}]")


def load_settings(path: str | Path) -> Settings:
    """Settings from a YAML file. Raises SettingsError, UnknownNameError, MissingPackageError."""
    return from_dict(read_mapping(path))


def read_mapping(path: str | Path, content: str = "settings", links: bool = True) -> dict[str, Any]:
    """The `name: value` lines of a YAML file, each name once. content: what it is a file of.

    links: whether aliases may stand for what is written elsewhere in it; a few lines of them grow to any size.
    Raises SettingsError, MissingPackageError.
    """
    yaml = _yaml()
    try:
        if Path(path).is_dir():
            do = "give the settings.yaml in it" if (Path(path) / "settings.yaml").is_file() else "check the path"
            raise SettingsError(f"{path}: a folder", f"a YAML file of {content}", do)
        if Path(path).exists() and not Path(path).is_file():  # it may have no end, or never begin
            raise SettingsError(
                f"{path}: is a pipe, socket or device", f"a YAML file of {content}", "write it to a file"
            )
        with Path(path).open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise SettingsError(f"{path}: more than {LIMIT} bytes", f"a YAML file of {content}", "check the path")
        values = _values(yaml, data.decode("utf-8-sig"), str(path), links)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}", "a readable YAML file", "check the path") from error
    except (yaml.YAMLError, *BAD_TAGS, RecursionError) as error:  # RecursionError for deep nesting
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise SettingsError(f"{path}: not YAML: {reason}", "lines of `name: value`", "fix the file") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds {type(values).__name__}", "lines of `name: value`", "fix the file")
    return values


def _values(yaml: Any, text: str, path: str, links: bool) -> Any:
    """What the YAML says. Raises SettingsError where a name stands there twice, of which YAML would take the last."""
    check_depth(text)
    if not links and any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(text)):
        raise SettingsError(f"{path}: has anchors or aliases (& and *)", "each value written out", "fix the file")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        waiting = [node]
        while waiting:  # without links also within: there a line cannot come back to one above it
            node_now = waiting.pop()
            if isinstance(node_now, yaml.MappingNode):
                keys = [key.value for key, _ in node_now.value]
                twice = [key for key in keys if isinstance(key, str) and keys.count(key) > 1]
                if twice:
                    raise SettingsError(
                        f"{path}: {twice[0]} is given twice", "each setting once", "remove one of the lines"
                    )
                waiting += [] if links else [value for _, value in node_now.value]
        values = None if node is None else loader.construct_document(node)
        check_sizes(values)
        return values
    finally:
        loader.dispose()


def check_sizes(values: Any) -> None:
    """Raises ValueError where a whole number is beyond the floats: Python neither compares nor prints it as others."""
    waiting, seen = [values], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, int) and one.bit_length() > MOST_BITS:
            raise ValueError(f"a whole number of {one.bit_length()} bits")
        if isinstance(one, (dict, list, tuple)) and id(one) not in seen:  # aliases may make it a part of itself
            seen.add(id(one))
            waiting += [*one, *one.values()] if isinstance(one, dict) else one


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
