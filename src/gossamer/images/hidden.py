"""Files and folders that an operating system or a network drive keeps beside images, which belong to no dataset."""

from __future__ import annotations

import re

SYSTEM_FOLDERS = frozenset(
    {
        # Synology, QNAP and other network drives: thumbnails, deleted files, snapshots
        *(
            "@eadir",
            "@tmp",
            "#recycle",
            "#snapshot",
            "@recycle",
            "@recently-snapshot",
            "@__thumb",
            "@sharebin",
            "@eadir@tmp",
        ),
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
        *("@transcode", "@userpreference", "@__qini", "@synologydrive"),
        # tools that copy and compare folders
        "_gsdata_",
        # Windows
        *(
            "$recycle.bin",
            "recycler",
            "$extend",
            "recycle bin",
            "system volume information",
            "thumbs.db",
            "ehthumbs.db",
            "desktop.ini",
            "$sysreset",
            "$winreagent",
            "$windows.~bt",
            "$windows.~ws",
            "config.msi",
            "msdownld.tmp",
            "onedrivetemp",
        ),
        # FrontPage, iTunes and Picasa: copies of the images beside them
        *("_vti_cnf", "ipod photo cache", "[originals]"),
        # macOS, in archives and on shares
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        # Android, and tar files taken apart by tools that do not know their headers
        *("lost.dir", "paxheader", "paxheaders"),
        # Linux, and Python's own
        *("lost+found", "__pycache__"),
    }
)
"""In lower case."""

DOUBTFUL_FOLDERS = frozenset(
    "thumb thumbs thumbnail thumbnails mm-thumbs preview previews original originals trash recycled deleted".split()
)
"""In lower case: what tools and people call folders of copies and deleted files, and what a class may be called, too."""

_NUMBERED = re.compile(r"found\.\d{3}|paxheaders\.\d+")  # what Windows writes when it checks a disk; as above


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is hidden or the system's own: a leading point (as the
    ._NAME files of macOS have), a recycle bin, a folder of thumbnails."""
    lower = name.lower()
    return name.startswith(".") or lower in SYSTEM_FOLDERS or bool(_NUMBERED.fullmatch(lower))
