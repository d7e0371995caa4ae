"""Tar shards: indexed by their headers, read in place, and one clear line for each way in which they can be broken."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data import shards as shards_module
from gossamer.data.open import open_data, open_source
from gossamer.data.tar import TarMember, members
from gossamer.errors import DataError, ImageError

Files = list[tuple[str, bytes]]


def write_tar(path: Path, files: Files, form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(count: int, first: int = 0, classes: int = 3, suffix: str = "jpg") -> Files:
    files: Files = []
    for i in range(first, first + count):
        files += [(f"{i:05}.{suffix}", b"image %d" % i), (f"{i:05}.cls", b"%d\n" % (i % classes))]
    return files


def shard_folder(root: Path, shards: int = 3, each: int = 10) -> Path:
    for number in range(shards):
        write_tar(root / f"train-{number:05}.tar", samples(each, number * each))
    write_tar(root / "val-00000.tar", samples(6, 1000))
    return root


# what is read


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_the_standard_library_finds(tmp_path: Path, form: int) -> None:
    files = [("a.jpg", b"x" * 1000), ("b/c.cls", b"1"), ("empty.txt", b""), ("d/" + "e" * 90 + "/f.jpg", b"yy")]
    if form != tarfile.USTAR_FORMAT:
        files += [("long/" * 60 + "é.jpg", b"zzz")]
    path = write_tar(tmp_path / "a.tar", files, form)
    with tarfile.open(path) as tar:
        expected = [TarMember(info.name, info.offset_data, info.size) for info in tar]
    assert list(members(path)) == expected


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("p", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("../../outside.jpg")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"ok"))
    assert [member.name for member in members(path)] == ["../../outside.jpg"]


def test_sizes_in_base_256_and_in_pax_records_are_understood(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"abc"), ("b.jpg", b"defg")])
    raw = bytearray(path.read_bytes())
    raw[124:136] = b"\x80" + (3).to_bytes(11, "big")
    fix_checksum(raw, 0)
    path.write_bytes(raw)
    assert [member.size for member in members(path)] == [3, 4]
    record = b"10 size=4\n"
    head = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    head[156:157], head[124:136] = b"x", b"%011o\0" % len(record)
    fix_checksum(head, 0)
    raw[1024 + 124 : 1024 + 136] = b"%011o\0" % 0
    fix_checksum(raw, 1024)
    path.write_bytes(raw[:1024] + head + record.ljust(512, b"\0") + raw[1024:])
    assert [(member.name, member.size) for member in members(path)] == [("a.jpg", 3), ("b.jpg", 4)]


def fix_checksum(raw: bytearray, at: int) -> None:
    raw[at + 148 : at + 156] = b" " * 8
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])


def test_shards_with_split_names_give_their_splits(tmp_path: Path) -> None:
    data = open_data(shard_folder(tmp_path))
    assert len(data.train) == 30 and len(data.val) == 6 and data.classes == ("0", "1", "2")
    assert data.train.names[0] == "train-00000.tar/00000.jpg"
    assert [data.train.read(i) for i in (0, 17, 29)] == [b"image 0", b"image 17", b"image 29"]
    assert data.train.labels.tolist() == [i % 3 for i in range(30)]


def test_shards_may_lie_in_split_folders_with_classes_beside(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "0.tar", samples(6))
    write_tar(tmp_path / "validation" / "0.tar", samples(3))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndodo\n")
    data = open_data(tmp_path)
    assert data.classes == ("ant", "bee", "cat", "dodo") and len(data.train) == 6 and len(data.val) == 3
    assert any("dodo" in note for note in data.notes)


def test_a_single_shard_and_a_pattern_of_braces_are_opened(tmp_path: Path) -> None:
    shard_folder(tmp_path)
    one = open_data(tmp_path / "train-00001.tar")
    assert len(one.train) + len(one.val) == 10
    two = open_data(tmp_path / "train-{00000..00001}.tar", val=tmp_path / "val-00000.tar")
    assert len(two.train) == 20 and len(two.val) == 6
    assert len(open_source(tmp_path / "{train,val}-00000.tar", ("0", "1", "2"))) == 6
    with pytest.raises(DataError, match=r"train-00003.tar"):
        open_data(tmp_path / "train-{00000..00003}.tar")
    with pytest.raises(DataError, match="lower number first"):
        open_data(tmp_path / "train-{9..1}.tar")


def test_labels_may_be_text_or_json(tmp_path: Path) -> None:
    files: Files = [
        ("1.png", b"1"), ("1.txt", b"dog"), ("2.webp", b"2"), ("2.json", b'{"label": "cat", "w": 3}'),
        ("d.x/3.JPEG", b"3"), ("d.x/3.json", b'{"label": "dog"}'), ("4.jpg", b"4"), ("4.txt", b"cat"), ("4.seg.png", b"mask"),
    ]  # fmt: skip
    source = open_source(write_tar(tmp_path / "a.tar", files), ("cat", "dog"))
    assert source.labels.tolist() == [1, 0, 1, 0]
    assert [source.read(i) for i in range(4)] == [b"1", b"2", b"3", b"4"]


def test_labels_of_cls_files_may_be_names_and_whole_numbers_as_fractions(tmp_path: Path) -> None:
    """A refusal of b'cat' said that a class name is allowed."""
    files: Files = [
        (f"{i}.{end}", content)
        for i in range(4)
        for end, content in (("jpg", b"x"), ("cls", b"dog" if i % 2 else b"cat\n"))
    ]
    assert open_source(write_tar(tmp_path / "a.tar", files), ("cat", "dog")).labels.tolist() == [0, 1, 0, 1]
    numbers: Files = [
        (f"{i}.{end}", content) for i in range(4) for end, content in (("jpg", b"x"), ("cls", b"%d.0" % (i % 2)))
    ]
    assert open_source(write_tar(tmp_path / "b.tar", numbers), ("cat", "dog")).labels.tolist() == [0, 1, 0, 1]


def test_images_without_label_hidden_files_and_repeated_keys_are_noted(tmp_path: Path) -> None:
    files = [*samples(4), ("x.jpg", b"no label"), ("._00001.jpg", b"mac"), ("00002.png", b"again")]
    data = open_data(write_tar(tmp_path / "a.tar", files))
    assert len(data.train) + len(data.val) == 4 - 1 + 1
    assert any("1 image without a label" in note and "x.jpg" in note for note in data.notes)
    assert any("1 image has the key of another" in note for note in data.notes)


# how they are read


def test_an_order_goes_from_shard_to_shard_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "WINDOW", 8)
    source = open_data(shard_folder(tmp_path, shards=5, each=20)).train
    order = source.order(0, 0)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == source.order(0, 0).tolist() != source.order(1, 0).tolist()
    shard = order // 20
    assert len(set(shard[:8])) <= 2  # a window touches two shards at most
    firsts = [int(np.flatnonzero(shard == number)[0]) for number in range(5)]
    lasts = [int(np.flatnonzero(shard == number)[-1]) for number in range(5)]
    assert all(last - first < 20 + 2 * 12 for first, last in zip(firsts, lasts, strict=True))
    assert (
        len(
            {
                tuple(np.argsort([np.median(np.flatnonzero(source.order(e, 0) // 20 == n)) for n in range(5)]))
                for e in range(6)
            }
        )
        > 1
    )
    balanced = source.order(0, 0, "balanced")
    assert max(np.bincount(source.labels[balanced])) - min(np.bincount(source.labels[balanced])) <= 1


def test_threads_and_pickled_copies_read_the_same_with_few_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "_OPEN_SHARDS", 2)
    source = open_data(shard_folder(tmp_path, shards=6)).train
    wrong: list[int] = []

    def read(seed: int) -> None:
        for i in np.random.default_rng(seed).permutation(60).tolist() * 5:
            if source.read(i) != b"image %d" % i:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pickle.loads(pickle.dumps(source)).read(59) == b"image 59"


def test_a_shard_that_shrinks_or_goes_makes_its_images_unreadable(tmp_path: Path) -> None:
    source = open_data(shard_folder(tmp_path)).train
    os.truncate(tmp_path / "train-00000.tar", 600)
    (tmp_path / "train-00001.tar").unlink()
    with pytest.raises(ImageError, match="has become shorter"):
        source.read(5)
    with pytest.raises(ImageError, match="No such file"):
        source.read(15)
    assert source.read(25) == b"image 25"
    assert len(source.fingerprint()) == 64


def test_fifty_thousand_real_samples_are_indexed_and_decodable(real_data: Path) -> None:
    data = open_data(real_data / "cifar10-shards")
    assert len(data.train) + len(data.val) == 50_000 and data.test is not None and len(data.test) == 5_000
    assert data.classes[0] == "airplane" and len(data.classes) == 10
    assert np.bincount(data.val.labels).tolist() == [1000] * 10
    assert all(data.train.read(i).startswith(b"\xff\xd8") for i in range(0, 40_000, 997))


# broken shards


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("a.jpg", b"1"), ("a.cls", b"o\0ne")], r"a\.cls holds b'o"),
        ([("a.jpg", b"1"), ("a.cls", b"one"), ("b.jpg", b"1"), ("b.cls", b"0")], "label 0, and 'one' elsewhere"),
        ([("a.jpg", b"1"), ("a.cls", b"-1")], "label -1"),
        ([("a.jpg", b"1"), ("a.cls", b"99999999")], "label 99999999"),
        ([("a.jpg", b"1"), ("a.json", b"{")], r"a\.json holds"),
        ([("a.jpg", b"1"), ("a.json", b"[" * 100_000)], r"a\.json holds"),
        ([("a.jpg", b"1"), ("a.json", b'{"label": [1]}')], r"a\.json holds"),
        ([("a.jpg", b"1"), ("a.txt", b"")], r"a\.txt holds"),
        ([("a.jpg", b"1"), ("a.txt", b"cat"), ("b.jpg", b"1"), ("b.cls", b"0")], "label 0, and 'cat' elsewhere"),
        ([("a.jpg", b"1"), ("b.jpg", b"1")], "no labelled images"),
        ([("a.cls", b"1")], "no labelled images"),
        ([("a.jpg", b"1"), ("a.cls", b"0" * (1 << 21))], "2097152 bytes"),
    ],
)
def test_labels_that_cannot_be_used_get_one_line(tmp_path: Path, files: Files, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(write_tar(tmp_path / "a.tar", files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ant\n", "label 1; allowed: 0 to 0, or a name of classes.txt"),
        ("ant\n\nbee\n", "an empty line"),
        ("ant\nant\n", "'ant' twice"),
        ("".join(f"{number}\n" for number in [*range(60_000), 59_999]), "'59999' twice"),
        ("\xff", "UTF-8"),
    ],
)
def test_a_class_list_that_does_not_fit_gets_one_line(tmp_path: Path, text: str, words: str) -> None:
    write_tar(tmp_path / "a.tar", samples(6))
    (tmp_path / "classes.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        open_data(tmp_path)


@pytest.mark.parametrize("name", ["{1..99999}{1..99999}.tar", "{a,b}{1..99999}.tar", "{1..100002}.tar", "{5..4}.tar"])
def test_a_pattern_of_more_shards_than_there_can_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="up to 100,000 shards"):
        open_data(tmp_path / name)


def test_a_compressed_shard_says_so_under_any_name(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "x", samples(4)).read_bytes()
    for number, name in enumerate(("a.tar.gz", "b.tar", "c.tgz")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(gzip.compress(plain))
        with pytest.raises(DataError, match="compressed"):
            open_data(folder)


def test_a_shard_that_is_cut_off_says_how_many_files_are_complete(tmp_path: Path) -> None:
    shard_folder(tmp_path)
    path = tmp_path / "train-00002.tar"
    raw = path.read_bytes()
    for cut, complete in ((1024 * 7 + 100, 7), (1024 * 7 + 512, 7), (1024 * 7 + 513, 7), (300, 0)):
        path.write_bytes(raw[:cut])
        with pytest.raises(DataError, match=f"train-00002.tar: is cut off: {complete} files are complete"):
            open_data(tmp_path)
    path.write_bytes(raw[: 1024 * 8])  # ends between two files, without the closing zeros: it may have been complete
    data = open_data(tmp_path)
    assert len(data.train) == 24 and any("train-00002.tar: ends without" in note for note in data.notes)


def test_damaged_headers_and_impossible_sizes_are_named_with_their_place(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(4))
    raw = bytearray(path.read_bytes())

    def broken(at: int, field: slice, value: bytes, fix: bool = True) -> str:
        copy = bytearray(raw)
        copy[at + field.start : at + field.stop] = value
        if fix:
            fix_checksum(copy, at)
        path.write_bytes(copy)
        with pytest.raises(DataError) as caught:
            list(members(path))
        return str(caught.value)

    assert "checksum does not fit at byte 1024" in broken(1024, slice(0, 1), b"X", fix=False)
    assert "is cut off: 1 file is complete" in broken(1024, slice(124, 136), b"77777777777\0")
    assert "its next file has" in broken(1024, slice(124, 136), b"\x80" + b"\x7f" * 11)
    assert "size below zero" in broken(1024, slice(124, 136), b"\xff" * 12)
    assert "size that is no number" in broken(1024, slice(124, 136), b"12x45678901\0")
    assert "extended header of" in broken(1024, slice(124, 157), b"00777777777\0" + bytes(12) + bytes(8) + b"L")
    assert "is not a tar file" in broken(0, slice(0, 1), b"X", fix=False)


def test_paths_that_are_no_shards_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_bytes(b"hello " * 500)
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    for name, words in (
        ("empty", "no labelled"),
        ("text", "not a tar"),
        ("zeros", "no labelled"),
        ("gone", "not exist"),
    ):
        with pytest.raises(DataError, match=words):
            open_data(tmp_path / f"{name}.tar")


@given(
    st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.booleans(),
    st.integers(0, 12_000),
)
def test_whatever_is_changed_in_a_tar_only_a_data_error_is_raised(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], form: int, repaired: bool, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tar"
    write_tar(path, [*samples(2), ("é" * 40 + "/" + "f" * 90 + ".jpg", b"p"), ("b.cls", b"1")], form)
    raw = bytearray(path.read_bytes()[: max(512, cut)])
    for at, value in changes:
        raw[at : at + len(value)] = value
    if repaired:  # so that what is behind the checksum is reached
        for at in range(0, len(raw) - 511, 512):
            if raw[at + 257 : at + 262] == b"ustar":
                fix_checksum(raw, at)
    path.write_bytes(raw)
    try:
        for member in members(path):
            assert 0 <= member.start <= member.start + member.size <= len(raw)
        open_source(path, ("0", "1", "2"))
    except DataError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=600), st.sampled_from(b"xgLK0"))
def test_any_extended_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "extended.tar"
    head = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    head[156], head[124:136] = kind, b"%011o\0" % len(content)
    fix_checksum(head, 0)
    plain = write_tar(path, samples(1)).read_bytes()
    path.write_bytes(head + content.ljust(-(-len(content) // 512) * 512, b"\0") + plain)
    try:
        assert len(list(members(path))) >= 1
    except DataError as error:
        assert "\n" not in str(error)


def test_a_shard_larger_than_memory_would_be_read_at_its_place(tmp_path: Path) -> None:
    """A sparse file of 20 GB: offsets beyond 32 bits, and no content read on the way."""
    path = write_tar(tmp_path / "a.tar", samples(3, suffix="png"))
    raw = bytearray(path.read_bytes())[: 1024 * 6]
    big = 20 << 30
    head = bytearray(tarfile.TarInfo("big.bin").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\x80" + struct.pack(">3xQ", big)
    fix_checksum(head, 0)
    with path.open("wb") as file:
        file.write(head)
        file.seek(512 + big)
        file.write(raw + bytes(1024))
    source = open_source(path, ("0", "1", "2"))
    assert [source.read(i) for i in range(3)] == [b"image 0", b"image 1", b"image 2"]
