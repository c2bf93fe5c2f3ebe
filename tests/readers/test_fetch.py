"""Fetching from a server on this machine that misbehaves: whatever it does, no half file stays, and the error says what happened."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from spectrakit import manifests
from spectrakit.errors import DataFileError
from spectrakit.readers import fetch

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.behave = [], []  # paths in order; what to do with the next requests, then "well"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        way = self.server.behave.pop(0) if self.server.behave else "well"
        body = {"html": b"<!DOCTYPE html><html><body>Sign in</body></html>", "wrong": CONTENT[:-1] + b"x", "short": CONTENT[:-5], "empty": b""}.get(way, CONTENT)
        if way == "refuse":
            return self.connection.close()
        self.send_response(404 if way == "404" else 500 if way == "500" else 200)
        if way not in ("endless", "silent end"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if way == "slow":
            time.sleep(0.3)
        self.wfile.write(body[: len(body) // 2] if way in ("break off", "silent end") else body)
        if way == "endless":
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except OSError:
                pass
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    """A server that behaves as ``server.behave`` lists, request by request, and then well."""
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def shelf(tmp_path, monkeypatch, server):
    """A manifest "toy" of some files on that server, and an empty cache."""
    (tmp_path / "manifests").mkdir()
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path / "manifests")
    monkeypatch.setenv("SPECTRAKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPECTRAKIT_OFFLINE", raising=False)

    def put(n=1, **changes):
        entry = {"url": f"{server.url}/a.bin", "what": "x", "bytes": len(CONTENT), "sha256": SHA256, **changes}
        files = [{k: v for k, v in {**entry, "file": name, "url": f"{entry['url']}?{name}"}.items() if v is not None} for name in (f"f{i}.bin" for i in range(n))]
        (tmp_path / "manifests" / "toy.yml").write_text(yaml.safe_dump(
            dict(name="toy", kind="files", title="Toy", what="a test", home="http://example.org", licence="none", origin=[{"repository": "a/b"}],
                 citation=["@article{Toy}"], files=files)))
        return tmp_path / "cache" / "toy"
    return put


def left(place):
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def test_a_file_is_fetched_once(shelf, server):
    place = shelf()
    path = fetch.fetch("toy", "f0.bin")
    assert path == place / "f0.bin" and path.read_bytes() == CONTENT
    assert fetch.fetch("toy", "f0.bin") == path and len(server.asked) == 1


@pytest.mark.parametrize("way", ["break off", "silent end", "wrong", "short", "empty", "html", "404", "500", "refuse"])
def test_one_failure_is_made_good_by_another_attempt(shelf, server, way):
    place = shelf()
    server.behave = [way]
    assert fetch.fetch("toy", "f0.bin").read_bytes() == CONTENT
    assert len(server.asked) == 2 and left(place) == ["f0.bin"]


REASONS = {"break off": "IncompleteRead", "silent end": "does not match", "wrong": "SHA256 hash of downloaded file .f0.bin. does not match",
           "short": "does not match", "empty": "does not match", "html": r"the server answered with a web page \(HTML\), not with the file",
           "404": "404 Client Error", "500": "500 Server Error", "refuse": "Connection aborted|Connection broken|RemoteDisconnected",
           "endless": "the server sent more than 102400 bytes, more than the file has"}


@pytest.mark.parametrize("way", REASONS)
def test_what_never_comes_right_leaves_nothing(shelf, server, way):
    place = shelf()
    server.behave = [way] * 9
    message = f"f0.bin of 'toy' could not be fetched from {server.url}/a.bin.* in 3 attempts .*({REASONS[way]}).*Nothing of it was kept"
    with pytest.raises(DataFileError, match=message):
        fetch.fetch("toy", "f0.bin")
    assert len(server.asked) == 3 and left(place) == []


def test_a_server_that_is_not_there(shelf, server):
    place = shelf(url="http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(DataFileError, match="could not be fetched from http://127.0.0.1:9.* in 3 attempts .*Connection refused"):
        fetch.fetch("toy", "f0.bin")
    assert left(place) == []


def test_a_damaged_copy_in_the_cache_is_replaced(shelf, server):
    place = shelf()
    place.mkdir(parents=True)
    (place / "f0.bin").write_bytes(CONTENT[:100])
    assert fetch.fetch("toy", "f0.bin").read_bytes() == CONTENT
    (place / "f0.bin").write_bytes(CONTENT[:100])
    server.behave = ["wrong"] * 3
    with pytest.raises(DataFileError, match="does not match"):
        fetch.fetch("toy", "f0.bin")


def test_offline_names_what_is_missing_and_asks_nobody(shelf, server, monkeypatch):
    place = shelf(n=3)
    fetch.fetch("toy", "f1.bin")
    monkeypatch.setenv("SPECTRAKIT_OFFLINE", "1")
    assert fetch.fetch("toy", "f1.bin").read_bytes() == CONTENT
    with pytest.raises(DataFileError, match=rf"f0.bin of 'toy' is not in {place}, and SPECTRAKIT_OFFLINE forbids the network. Unset it, or copy the files there"):
        fetch.fetch("toy", "f0.bin")
    with pytest.raises(DataFileError, match="f0.bin and 1 more of 'toy' are not in"):
        fetch.fetch_all(manifests.load("toy"), manifests.load("toy").public())
    (place / "f1.bin").write_bytes(b"damaged")
    with pytest.raises(DataFileError, match="f1.bin of 'toy' is not in"):
        fetch.fetch("toy", "f1.bin")
    assert len(server.asked) == 1


def test_what_came_before_an_error_is_kept(shelf, server, monkeypatch):
    place = shelf(n=6)
    monkeypatch.setattr(fetch, "AT_ONCE", 1)
    server.behave = ["well"] * 3 + ["html"] * 99
    manifest = manifests.load("toy")
    with pytest.raises(DataFileError, match="f3.bin of 'toy' could not be fetched"):
        fetch.fetch_all(manifest, manifest.public())
    assert left(place) == ["f0.bin", "f1.bin", "f2.bin"] and len(server.asked) <= 9  # the files behind the first bad one are not asked for one by one
    server.behave, server.asked[:] = [], []
    paths = fetch.fetch_all(manifest, manifest.public())
    assert [path.name for path in paths] == [f"f{i}.bin" for i in range(6)] and len(server.asked) == 3


def test_nothing_is_fetched_unchecked(shelf, server):
    shelf(sha256=None, bytes=None)
    with pytest.raises(DataFileError, match=r"The SHA-256 of f0.bin is not known to the manifest 'toy', and nothing is fetched unchecked. .* give it: fetch\("):
        fetch.fetch("toy", "f0.bin")
    assert not server.asked
    assert fetch.fetch("toy", "f0.bin", sha256=SHA256).read_bytes() == CONTENT
    with pytest.raises(DataFileError, match="does not match"):
        fetch.fetch("toy", "f0.bin", sha256="0" * 64)


def test_a_file_that_is_not_listed_is_refused(shelf, server):
    shelf(n=2)
    for name in ("f9.bin", "../f0.bin", "/etc/passwd"):
        with pytest.raises(DataFileError, match="The manifest 'toy' lists no public file .*; it has: f0.bin, f1.bin."):
            fetch.fetch("toy", name)


PROCESS = """
import sys, pathlib
from spectrakit import manifests
manifests.folder = lambda: pathlib.Path(sys.argv[1])
from spectrakit.readers import fetch
manifest = manifests.load("toy")
for path in fetch.fetch_all(manifest, manifest.public()):
    assert len(path.read_bytes()) == 102400
"""


def test_two_processes_at_once(shelf, server, tmp_path):
    place = shelf(n=8)
    server.behave = ["slow"] * 16
    workers = [subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "manifests")], stderr=subprocess.PIPE, env=os.environ) for _ in range(2)]
    for worker in workers:
        _, problem = worker.communicate(timeout=100)
        assert worker.returncode == 0, problem.decode()
    assert left(place) == [f"f{i}.bin" for i in range(8)] and all((place / name).read_bytes() == CONTENT for name in left(place))


def test_killed_in_the_middle(shelf, server, tmp_path):
    place = shelf(n=1)
    server.behave = ["endless"]
    manifests_file = tmp_path / "manifests" / "toy.yml"
    manifests_file.write_text(manifests_file.read_text().replace(f"bytes: {len(CONTENT)}", "bytes: 100000000000"))
    worker = subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "manifests")], stderr=subprocess.PIPE, env=os.environ)
    while not any(path.stat().st_size > 2**18 for path in place.glob("*")):
        assert worker.poll() is None, worker.communicate()[1].decode()
        time.sleep(0.05)
    worker.kill()
    worker.communicate()
    assert not (place / "f0.bin").exists()
    manifests_file.write_text(manifests_file.read_text().replace("bytes: 100000000000", f"bytes: {len(CONTENT)}"))
    assert fetch.fetch("toy", "f0.bin").read_bytes() == CONTENT
