"""Settings as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gossamer.errors import SettingsError
from gossamer.settings import Settings, from_dict, to_dict


def load_settings(path: str | Path) -> Settings:
    """Settings from a YAML file. Raises SettingsError, UnknownNameError, MissingPackageError."""
    yaml = _yaml()
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}", "a readable YAML file", "check the path") from error
    # beside its own errors the parser raises ValueError for dates that do not exist, RecursionError for deep nesting
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise SettingsError(f"{path}: not YAML: {reason}", "lines of `name: value`", "fix the file") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds {type(values).__name__}", "lines of `name: value`", "fix the file")
    return from_dict(values)


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
