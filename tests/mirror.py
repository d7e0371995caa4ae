"""A local server of weights in the place of download.pytorch.org and the Hugging Face hub."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path
from typing import Any

import pytest


class Mirror:
    """Serves `files`, path -> bytes. requests: (method, path, range) of every request. broken: paths cut after half."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.broken: set[str] = set()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.reply(body=False)

            def do_GET(self) -> None:
                self.reply(body=True)

            def reply(self, *, body: bool) -> None:
                wanted = self.headers.get("Range", "")
                mirror.requests.append((self.command, self.path, wanted))
                if self.path not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[self.path]
                start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                if body and self.path in mirror.broken:
                    mirror.broken.discard(self.path)
                    self.wfile.write(content[: len(content) // 2])
                elif body:
                    self.wfile.write(content[start:])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Mirror:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def hub(self, repository: str, content: bytes, name: str = "model.safetensors") -> None:
        """Serve a file as the hub does."""
        self.files[f"/{repository}/resolve/main/{name}"] = content

    def environment(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Let everything be fetched from here, into an empty cache."""
        monkeypatch.setenv("GOSSAMER_WEIGHTS_MIRROR", self.address)
        monkeypatch.setenv("no_proxy", "*")
        for name in ("GOSSAMER_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.setenv(name, str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
