"""Writes tests/hostile/boxes/: small files that break readers of annotations. Run it again to get the same files.

    python tests/hostile/make_boxes.py

The name says what must happen: bad-*.* are refused with DataError, good-*.* are read. Every good one says the same: one
box of class "café" on an image of 48 x 32 pixels, from 4, 8 to 20, 30 (see test_boxdata.py).
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent / "boxes"

OBJECT = (
    "<object><name>caf\xe9</name><bndbox><xmin>5</xmin><ymin>9</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
)
PLAIN = f"<annotation><filename>a.png</filename><size><width>48</width><height>32</height></size>{OBJECT}</annotation>"
ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))


def coco(file_name: str = "a.png", **changed: object) -> dict[str, object]:
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [4, 8, 16, 22], "area": 352, "iscrowd": 0, **changed}
    return {
        "images": [{"id": 1, "file_name": file_name, "width": 48, "height": 32}],
        "categories": [{"id": 7, "name": "caf\xe9"}],
        "annotations": [box],
    }


def files() -> dict[str, bytes]:
    names = "names: [caf\xe9]\n"
    return {
        "good-plain.xml": PLAIN.encode(),
        "good-latin1.xml": b'<?xml version="1.0" encoding="iso-8859-1"?>' + PLAIN.encode("latin-1"),
        "good-utf16.xml": PLAIN.encode("utf-16"),
        "good-no-size.xml": PLAIN.replace("<width>48</width>", "").encode(),
        "bad-entities.xml": f'<!DOCTYPE a [<!ENTITY e0 "lol">{ENTITIES}]><annotation>&e9;</annotation>'.encode(),
        "bad-external.xml": f'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>{PLAIN}'.encode(),
        "bad-doctype-utf16.xml": f"<!DOCTYPE annotation>{PLAIN}".encode("utf-16"),
        "bad-undefined-entity.xml": PLAIN.replace("caf\xe9", "&cafe;").encode(),
        "bad-deep.xml": b"<annotation>" + b"<a>" * 2_000,
        "bad-truncated.xml": PLAIN.encode()[:100],
        "bad-encoding.xml": b'<?xml version="1.0" encoding="x-none"?><annotation/>',
        "bad-bytes.xml": PLAIN.encode("latin-1"),
        "bad-root.xml": b"<html></html>",
        "bad-no-name.xml": PLAIN.replace("caf\xe9", " ").encode(),
        "bad-no-box.xml": PLAIN.replace("bndbox", "polygon").encode(),
        "bad-huge-number.xml": PLAIN.replace(">20<", f">{'9' * 5000}<").encode(),
        "good-bom.json": b"\xef\xbb\xbf" + json.dumps(coco()).encode(),
        "good-plain.json": json.dumps(coco()).encode(),
        "bad-deep.json": b'{"images":' + b"[" * 9_000,
        "bad-digits.json": json.dumps(coco()).replace("[4, 8, 16,", f"[4, 8, {'9' * 5000},").encode(),
        "bad-nan.json": json.dumps(coco(bbox=[4, 8, float("nan"), 22])).encode(),
        "bad-outside.json": json.dumps(coco("../a.png")).encode(),
        "bad-absolute.json": json.dumps(coco("/etc/passwd")).encode(),
        "bad-null.json": json.dumps(coco("a\0.png")).encode(),
        "bad-name-list.json": json.dumps(coco()).replace('"caf\\u00e9"', '["a"]').encode(),
        "bad-image-id-list.json": json.dumps(coco(image_id=[1])).encode(),
        "bad-latin1.json": json.dumps(coco(), ensure_ascii=False).encode("latin-1"),
        "bad-surrogate.json": json.dumps(coco()).replace("caf\\u00e9", "\\ud800").encode(),
        "good-plain.yaml": names.encode(),
        "good-numbers.yaml": b'names: {0: "caf\xc3\xa9"}\n',
        "bad-aliases.yaml": b"a: &a [x,x]\nb: &b [*a,*a]\nnames: [*b,*b]\n",
        "bad-python.yaml": b"names: !!python/object/apply:os.getcwd []\n",
        "bad-deep.yaml": b"names: " + b"[" * 5_000,
        "bad-gap.yaml": b"names: {0: a, 2: b}\n",
        "bad-scalar.yaml": b"names: 3\n",
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)
