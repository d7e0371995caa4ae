"""Weights from addresses and from the hub: fetched once, checked, kept in the cache."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch

from gossamer.errors import MissingPackageError, StorageError, WeightsError
from gossamer.host.storage import user_cache
from gossamer.networks.fetch import fetch
from tests.test_weights import same, small

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, well or badly by the path; notes the requests."""

    requests: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.requests.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if self.path == "/gone":
            self.send_error(404)
        elif self.path == "/moved":
            self.redirect("/good")
        elif self.path == "/to-a-file":
            self.redirect("file:///etc/passwd")
        elif self.path == "/round":
            self.redirect("/round")
        elif start >= len(CONTENT):
            self.send_error(416)
        elif wanted and self.path == "/good":
            self.reply(206, CONTENT[start:], [("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")])
        elif wanted and self.path == "/other-part":
            self.reply(206, CONTENT, [("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")])
        elif self.path == "/short":
            self.reply(200, CONTENT[:300_000], [], length=len(CONTENT))
        elif self.path == "/stalls":
            self.reply(200, CONTENT[:1000], [], length=len(CONTENT))
            self.server.stop.wait(10)
        else:
            self.reply(200, CONTENT, [])

    def redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.end_headers()

    def reply(self, status: int, body: bytes, headers: list[tuple[str, str]], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body) if length is None else length))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    Handler.requests.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.stop = threading.Event()
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.stop.set()
        served.shutdown()
        thread.join()


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def test_a_path_is_returned_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"x")
    assert fetch(str(tmp_path / "w")) == tmp_path / "w"
    with pytest.raises(WeightsError, match="no such file"):
        fetch(str(tmp_path / "nothing"))


@pytest.mark.parametrize("path", ["/good", "/moved"])
def test_a_file_is_fetched_once_and_then_read_from_the_cache(path: str, server: str, tmp_path: Path) -> None:
    got = fetch(f"{server}{path}#sha256={DIGEST.upper()}", tmp_path)
    assert got.read_bytes() == CONTENT and got.parent == tmp_path and not parts(tmp_path)
    count = len(Handler.requests)
    assert fetch(f"{server}{path}#sha256={DIGEST}", tmp_path) == got
    assert len(Handler.requests) == count


def test_a_damaged_copy_in_the_cache_is_fetched_again(server: str, tmp_path: Path) -> None:
    got = fetch(f"{server}/good#sha256={DIGEST}", tmp_path)
    got.write_bytes(CONTENT[:-1] + b"\0")
    assert fetch(f"{server}/good#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT


def test_a_download_that_broke_off_goes_on_where_it_ended(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"ended 724000 bytes early.*go on where it ended"):
        fetch(f"{server}/short#sha256={DIGEST}", tmp_path)
    (part,) = parts(tmp_path)
    assert part.read_bytes() == CONTENT[:300_000]
    part.rename(part.with_name(part.name.replace("short", "good")))
    assert fetch(f"{server}/good#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT
    assert Handler.requests[-1] == ("/good", "bytes=300000-")
    assert not parts(tmp_path)


def test_a_server_that_cannot_resume_sends_all_again(server: str, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[:16]}-complete.part").write_bytes(CONTENT[:5])
    assert fetch(f"{server}/complete#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(server: str, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[:16]}-good.part").write_bytes(CONTENT + b"more")
    assert fetch(f"{server}/good#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT


def test_a_complete_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[:16]}-w.part").write_bytes(CONTENT)
    assert fetch(f"http://127.0.0.1:9/w#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("{server}/good", "has no SHA-256.*sha256sum"),
        ("{server}/good#sha256=12ab", "has no SHA-256"),
        ("{server}/good#md5=" + "0" * 64, "has no SHA-256"),
        ("{server}/good#sha256=" + "0" * 64, f"its SHA-256 is {DIGEST}, not 0000"),
        ("{server}/gone#sha256=" + DIGEST, "HTTP 404"),
        ("{server}/round#sha256=" + DIGEST, "HTTP 302"),
        ("{server}/to-a-file#sha256=" + DIGEST, "HTTP 302|out of reach"),
        ("{server}/stalls#sha256=" + DIGEST, "out of reach.*timed out"),
        ("ftp://host/w#sha256=" + DIGEST, "ftp:// is not fetched"),
        ("file:///etc/passwd#sha256=" + DIGEST, "file:// is not fetched"),
        ("http://127.0.0.1:9/w#sha256=" + DIGEST, "out of reach.*refused"),
        ("https://nowhere.invalid/w#sha256=" + DIGEST, "out of reach"),
        ("http://[half/w#sha256=" + DIGEST, "out of reach"),
        ("hf://owner#sha256=" + DIGEST, "names no file"),
    ],
)
def test_a_reference_that_gives_no_file_is_told_in_one_line(
    ref: str, message: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.networks.fetch.TIMEOUT", 0.5)
    with pytest.raises(WeightsError, match=message) as caught:
        fetch(ref.format(server=server), tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".part", ".lock")]


def test_another_part_than_requested_is_not_appended(server: str, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[:16]}-other-part.part").write_bytes(CONTENT[:5])
    with pytest.raises(WeightsError, match="another part than requested"):
        fetch(f"{server}/other-part#sha256={DIGEST}", tmp_path)


def test_a_wrong_file_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing was kept"):
        fetch(f"{server}/good#sha256={'0' * 64}", tmp_path)
    assert not parts(tmp_path)


def test_a_cache_that_cannot_be_written_is_told(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        fetch(f"{server}/good#sha256={DIGEST}", tmp_path / "file" / "cache")


def test_many_at_once_fetch_the_file_once(server: str, tmp_path: Path) -> None:
    got: list[Path] = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(f"{server}/good#sha256={DIGEST}", tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1 and len(got) == 4
    assert got[0].read_bytes() == CONTENT
    assert len(Handler.requests) == 1


def test_the_cache_lies_with_the_users_other_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert user_cache() == tmp_path / "gossamer"


def test_a_network_starts_from_fetched_weights(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small()
    content = safetensors.torch.save(source.state_dict())
    monkeypatch.setattr("tests.test_fetch.CONTENT", content)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    model = small(pretrained=f"{server}/w.safetensors#sha256={hashlib.sha256(content).hexdigest()}")
    assert same(model, source.state_dict())


def test_a_hub_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[hub\]"):
        fetch(f"hf://owner/repository/w#sha256={DIGEST}")


def test_a_file_of_the_hub_is_checked_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    requests = []

    def download(repository: str, name: str, cache_dir: Path | None, **_: Any) -> str:
        requests.append((repository, name, cache_dir))
        (tmp_path / "w").write_bytes(CONTENT)
        return str(tmp_path / "w")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert fetch(f"hf://owner/repository/sub/w#sha256={DIGEST}", tmp_path) == tmp_path / "w"
    assert requests == [("owner/repository", "sub/w", tmp_path)]
    with pytest.raises(WeightsError, match="its SHA-256 is"):
        fetch(f"hf://owner/repository/w#sha256={'0' * 64}", tmp_path)


def test_a_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def download(*_: Any, **__: Any) -> str:
        raise OSError("no\nroute")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="out of reach: OSError: no route"):
        fetch(f"hf://owner/repository/w#sha256={DIGEST}", tmp_path)
