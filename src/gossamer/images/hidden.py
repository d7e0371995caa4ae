"""Files and folders that an operating system or a network drive keeps beside images, which belong to no dataset."""

from __future__ import annotations

import re

SYSTEM_FOLDERS = frozenset(
    {
        # Synology, QNAP and other network drives: thumbnails, deleted files, snapshots
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin"),
        *(
            "#sharesnap",
            "@sharesnap",
            "@appstore",
            "@appdata",
            "@apptemp",
            "@database",
            "@docker",
            "@s2s",
            "@cloudsync",
        ),
        *("@download", "@img_bkp_cache", "@autoupdate", "@quarantine", "~snapshot", "@synoresource", "@synoeastream"),
        # tools that copy and compare folders
        "_gsdata_",
        # Windows
        *(
            "$recycle.bin",
            "recycler",
            "recycle bin",
            "system volume information",
            "thumbs.db",
            "ehthumbs.db",
            "desktop.ini",
        ),
        # macOS, in archives and on shares
        *("__macosx", "network trash folder", "temporary items"),
        # Linux, and Python's own
        *("lost+found", "__pycache__"),
    }
)
"""In lower case."""

_CHECKED_DISK = re.compile(r"found\.\d{3}")  # what Windows writes when it checks a disk


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is hidden or the system's own: a leading point (as the
    ._NAME files of macOS have), a recycle bin, a folder of thumbnails."""
    lower = name.lower()
    return name.startswith(".") or lower in SYSTEM_FOLDERS or bool(_CHECKED_DISK.fullmatch(lower))
