"""A host on the loopback interface: git over HTTP and a real LFS server, in one process."""

from __future__ import annotations

import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

from tests.support.repo import Repo

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
_App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Server:
    """Serves repositories below ``root/git`` and keeps their LFS objects below ``root/lfs``.

    ``requests`` lists ("METHOD", "/path") of everything asked, in order. ``refuse`` maps a part
    of a path to the HTTP status ("507 Insufficient Storage") that such a request gets instead.
    With ``challenge`` every request is answered by a request for a password. ``before`` is called
    with each path before it is answered.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self.refuse: dict[str, str] = {}
        self.challenge = False
        self.before: Callable[[str], object] = lambda path: None
        self._git = _GitBackend(root / "git")
        self._lfs = _lfs_app(root / "lfs")

    def __enter__(self) -> Server:
        # git-lfs opens 8 connections; more threads than that, and none waits for another.
        self._server = create_server(self._app, host="127.0.0.1", port=0, threads=12, ident=None)
        self.url = f"http://127.0.0.1:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.task_dispatcher.shutdown(timeout=5)
        # Runs in the loop's own thread, which then finds no socket left and ends.
        self._server.trigger.pull_trigger(partial(wasyncore.close_all, self._server._map))
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the test server did not stop"

    def repository(self, name: str = "team/model.git") -> str:
        """The URL of a new bare repository that accepts pushes."""
        bare = Repo.init(self.root / "git" / name, "--bare")
        bare.git("config", "http.receivepack", "true")
        # giftless makes the folder in each of several uploads at once, and fails in the others.
        (self.root / "lfs" / name.removesuffix(".git")).mkdir(parents=True, exist_ok=True)
        return f"{self.url}/{name}"

    def bare(self, name: str = "team/model.git") -> Repo:
        """The served repository itself."""
        return Repo(self.root / "git" / name)

    def objects(self, name: str = "team/model") -> dict[str, Path]:
        """The LFS objects that the server holds, by oid."""
        folder = self.root / "lfs" / name
        return {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}

    def _app(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.requests.append((environ["REQUEST_METHOD"], path))
        self.before(path)
        if self.challenge:
            environ["wsgi.input"].read()
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="test"')])
            return [b""]
        for part, status in self.refuse.items():
            if part in path:
                environ["wsgi.input"].read()
                start(status, [("Content-Type", "text/plain")])
                return [status.encode()]
        app = self._lfs if "/info/lfs/" in path else self._git
        return app(environ, start)


def _lfs_app(storage: Path) -> _App:
    # giftless warns about its own defaults while it is imported and configured.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from giftless.app import init_app

        options = {"storage_options": {"path": str(storage)}}
        app = init_app(
            additional_config={
                "LEGACY_ENDPOINTS": False,
                "TRANSFER_ADAPTERS": {"basic": {"options": options}},
            }
        )
    app.config["AUTH_PROVIDERS"] = ["tests.support.anyone:provide"]
    # Its tokens for anonymous users are ones that its own JWT library refuses.
    app.config["PRE_AUTHORIZED_ACTION_PROVIDER"] = None
    return app.wsgi_app


class _GitBackend:
    """`git http-backend`, the CGI program, behind WSGI."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env={**os.environ, **self._variables(environ, len(body))},
            capture_output=True,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [_header(line) for line in head.decode().split("\r\n") if line]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start(status, [(name, value) for name, value in headers if name != "Status"])
        return [content]

    def _variables(self, environ: dict[str, Any], length: int) -> dict[str, str]:
        passed = {
            name: value
            for name, value in environ.items()
            if isinstance(value, str)
            and (name.startswith("HTTP_") or name in {"REQUEST_METHOD", "CONTENT_TYPE"})
        }
        return {
            **passed,
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": environ["PATH_INFO"],
            "QUERY_STRING": environ.get("QUERY_STRING", ""),
            "CONTENT_LENGTH": str(length),
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_USER": "",
            "GIT_PROTOCOL": environ.get("HTTP_GIT_PROTOCOL", ""),
        }


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()
