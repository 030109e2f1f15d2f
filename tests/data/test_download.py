import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kill_and_resume import make_project

from fsat_kedro.data import download
from fsat_kedro.data.download import DOWNLOAD_FOLDER, download_release, fetch_file
from fsat_kedro.errors import InputError

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


class Handler(BaseHTTPRequestHandler):
    """Serves the release of its server, with the faults that the release asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        release = self.server.release
        name = self.path.rpartition("/")[2]
        release.requests.append((name, self.headers.get("Range")))
        if name == "record":
            return self.answer(release.status, release.record_body())
        if name not in release.files:
            return self.answer(404, b"")
        if release.busy:
            release.busy -= 1
            return self.answer(503, b"")
        content, start = release.files[name], 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and release.ranges:
            start = int(asked[1])
        return self.answer(206 if start else 200, content, start + release.shift * bool(start))

    def answer(self, status, content, start=0):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        release = self.server.release
        limits = release.limits if "record" not in self.path else []
        stop = start + limits.pop(0) if limits else len(content)
        self.wfile.write(content[start:stop])
        release.sent += len(content[start:stop])
        if release.pause is not None and "record" not in self.path:
            release.pause.wait(60)
        self.close_connection = stop < len(content)

    def log_message(self, *args):
        pass


class Release:
    """A record and its files, on a server that can simulate faults."""

    def __init__(self):
        self.files = {}
        self.changes = {}  # Changes of the record's entries, by file name.
        self.status, self.body = 200, None
        self.limits = []  # Bytes to send before breaking off, one per request.
        self.ranges, self.shift = True, 0
        self.pause = None  # An event to wait for after sending.
        self.busy = 0  # Number of requests for files to refuse.
        self.requests, self.sent = [], 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.release = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.record = f"{self.url}/record"

    def record_body(self):
        if self.body is not None:
            return self.body
        entries = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{self.url}/{name}"},
                **self.changes.get(name, {}),
            }
            for name, content in self.files.items()
        ]
        return json.dumps({"files": entries}).encode()

    def pop_requests(self):
        """Return the requests since the last call."""
        requests, self.requests = self.requests, []
        return requests

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def packed(members):
    """Return the bytes of a zip archive of names or ZipInfos and their content."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return archive.getvalue()


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch):
    """No delay between attempts, and no proxy for this machine."""
    monkeypatch.setattr(download, "_BACKOFF", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def release(rng):
    """A release with an archive of noise, which does not compress, and an archive of a table."""
    release = Release()
    noise = rng.integers(0, 256, 500_000, np.uint8).tobytes()
    release.files["Set.audio.zip"] = packed([("Set.audio/1.wav", noise), ("Set.audio/2.wav", "")])
    release.files["Set.meta.zip"] = packed([("table.csv", "fname\n1.wav\n")])
    yield release
    release.close()


@pytest.fixture
def audio(release):
    """The content of the release's only file, for tests of one transfer."""
    del release.files["Set.meta.zip"]
    return release.files["Set.audio.zip"]


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def visible(folder):
    """Return the names in a folder that are not hidden."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def partial_bytes(folder):
    (partial,) = (folder / DOWNLOAD_FOLDER).rglob("*.partial")
    return partial.stat().st_size


def test_every_file_of_a_record_is_downloaded_and_every_archive_unpacked(release, raw):
    release.files["notes.txt"] = b"read me"
    table = download_release(release.record, raw)
    assert visible(raw) == ["Set.audio", "Set.meta", "notes.txt"]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]
    assert (raw / "Set.audio" / "1.wav").stat().st_size == 500_000
    assert (raw / "Set.meta" / "table.csv").read_text() == "fname\n1.wav\n"
    assert (raw / "notes.txt").read_text() == "read me"
    assert visible(raw / DOWNLOAD_FOLDER) == ["record.json"]
    assert table["file"].tolist() == list(release.files)
    assert table["path"].tolist() == visible(raw)
    assert table["bytes"].tolist() == [len(content) for content in release.files.values()]
    assert table["md5"].str.fullmatch("[0-9a-f]{32}").all()


def test_a_second_run_requests_only_the_record(release, raw):
    release.files["notes.txt"] = b"read me"
    first = download_release(release.record, raw)
    assert len(release.pop_requests()) == 4
    pd.testing.assert_frame_equal(download_release(release.record, raw), first)
    assert release.pop_requests() == [("record", None)]


def test_only_missing_files_are_downloaded(release, raw):
    download_release(release.record, raw)
    release.pop_requests()
    shutil.rmtree(raw / "Set.meta")
    download_release(release.record, raw)
    assert release.pop_requests() == [("record", None), ("Set.meta.zip", None)]
    assert visible(raw) == ["Set.audio", "Set.meta"]


def test_a_complete_download_needs_no_network(release, raw):
    first = download_release(release.record, raw)
    release.close()
    pd.testing.assert_frame_equal(download_release(release.record, raw), first)
    shutil.rmtree(raw / "Set.meta")
    with pytest.raises(InputError, match="cannot be read"):
        download_release(release.record, raw)


def test_an_interrupted_transfer_resumes(release, audio, raw):
    release.limits = [200_000, 0, 100_000]
    download_release(release.record, raw)
    ranges = [bytes_range for name, bytes_range in release.pop_requests() if name != "record"]
    assert ranges[0] is None
    starts = [int(bytes_range[len("bytes=") : -1]) for bytes_range in ranges[1:]]
    assert len(starts) == 3
    # At most one incomplete chunk is requested again.
    for start, sent in zip(starts, [200_000, 200_000, 300_000], strict=True):
        assert sent - 2 * download._CHUNK < start <= sent
    assert visible(raw) == ["Set.audio"]


def test_a_request_that_times_out_is_repeated(release, audio, raw, monkeypatch):
    release.limits, release.pause = [200_000], threading.Event()
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    monkeypatch.setattr(time, "sleep", lambda _: release.pause.set())
    download_release(release.record, raw)
    assert len(release.pop_requests()) == 3
    assert visible(raw) == ["Set.audio"]


def test_a_request_to_a_busy_server_is_repeated_a_few_times(release, audio, raw):
    release.busy = 99
    with pytest.raises(InputError, match=r"Set\.audio\.zip cannot be downloaded: 503 Server Error"):
        download_release(release.record, raw)
    release.busy = 1
    download_release(release.record, raw)
    assert visible(raw) == ["Set.audio"]


def test_a_download_that_gave_up_resumes_in_the_next_run(release, audio, raw):
    release.limits = [200_000] + [0] * download._MAX_ATTEMPTS
    with pytest.raises(InputError, match=r"broke off 5 times in a row .* Run again") as error:
        download_release(release.record, raw)
    n_bytes = partial_bytes(raw)
    assert f"after {n_bytes} of {len(audio)} bytes of Set.audio.zip. Run again to resume" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    assert n_bytes > 0
    assert visible(raw) == []
    release.pop_requests()
    sent = release.sent
    download_release(release.record, raw)
    assert release.pop_requests()[1:] == [("Set.audio.zip", f"bytes={n_bytes}-")]
    assert release.sent - sent < len(audio)
    assert visible(raw) == ["Set.audio"]


def test_a_server_without_ranges_makes_the_download_start_over(release, audio, raw):
    release.ranges = False
    release.limits = [200_000]
    download_release(release.record, raw)
    ranges = [bytes_range for name, bytes_range in release.pop_requests() if name != "record"]
    assert len(ranges) == 2
    assert ranges[1].startswith("bytes=")
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_wrong_range_makes_the_download_start_over(release, audio, raw):
    release.shift = 1
    release.limits = [200_000]
    download_release(release.record, raw)
    assert release.pop_requests()[-1] == ("Set.audio.zip", None)
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_wrong_checksum_is_an_error_after_a_second_download(release, audio, raw):
    release.changes["Set.audio.zip"] = {"checksum": f"md5:{'0' * 32}"}
    with pytest.raises(InputError) as error:
        download_release(release.record, raw)
    for part in ("Set.audio.zip", "0" * 32, hashlib.md5(audio).hexdigest()):
        assert part in str(error.value)
    assert release.pop_requests()[1:] == [("Set.audio.zip", None)] * 2
    assert visible(raw) == []
    assert not list((raw / DOWNLOAD_FOLDER).rglob("Set*"))


def test_a_file_longer_than_the_record_says_is_refused(release, audio, raw):
    release.changes["Set.audio.zip"] = {"size": 100_000}
    with pytest.raises(InputError, match=r"has \d+ bytes instead of 100000") as error:
        download_release(release.record, raw)
    assert int(re.search(r"has (\d+) bytes", str(error.value))[1]) < len(audio) / 2
    assert visible(raw) == []


def test_a_file_shorter_than_the_record_says_is_never_complete(release, audio, raw):
    release.changes["Set.audio.zip"] = {"size": len(audio) + 1}
    with pytest.raises(InputError, match=r"Set\.audio\.zip broke off 5 times in a row"):
        download_release(release.record, raw)
    assert visible(raw) == []


def test_a_partial_file_with_wrong_bytes_is_replaced(release, audio, raw):
    release.limits = [200_000] + [0] * download._MAX_ATTEMPTS
    with pytest.raises(InputError, match="broke off"):
        download_release(release.record, raw)
    (partial,) = (raw / DOWNLOAD_FOLDER).rglob("*.partial")
    partial.write_bytes(bytes(partial.stat().st_size))
    release.pop_requests()
    download_release(release.record, raw)
    assert release.pop_requests()[-1] == ("Set.audio.zip", None)
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


LINK = zipfile.ZipInfo("Set.meta/link")
LINK.create_system, LINK.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize("member", ["../evil.txt", "/evil.txt", "..\\evil.txt", LINK], ids=str)
def test_an_archive_with_an_unsafe_member_is_refused(release, raw, member):
    release.files["Set.meta.zip"] = packed([("Set.meta/good", ""), (member, "../../evil.txt")])
    with pytest.raises(InputError, match=r"Set\.meta\.zip is not safe to unpack: its member"):
        download_release(release.record, raw)
    assert visible(raw) == ["Set.audio"]
    assert visible(raw.parent) == ["raw"]
    assert not [path for path in raw.rglob("*") if path.name in ("good", "evil.txt", "link")]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"", "404 Client Error"),
        (500, b"", "500 Server Error"),
        (200, b"<html>", "not the JSON of a Zenodo record"),
        (200, b"[]", "not the JSON of a Zenodo record"),
        (200, b'{"files": [{"key": "x.zip"}]}', "not the JSON of a Zenodo record"),
        (200, b'{"files": []}', "has no files"),
    ],
)
def test_a_url_without_a_record_is_an_error(release, raw, status, body, message):
    release.status, release.body = status, body
    with pytest.raises(InputError, match=message) as error:
        download_release(release.record, raw)
    assert release.record in str(error.value)
    assert "download.record" in str(error.value)
    assert "\n" not in str(error.value)
    assert not raw.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"key": "../evil.zip"},
        {"key": "/evil.zip"},
        {"key": "..\\evil.zip"},
        {"key": ".evil.zip"},
        {"checksum": "sha1:" + "0" * 40},
        {"size": "large"},
        {"links": {}},
    ],
    ids=str,
)
def test_a_record_with_an_invalid_entry_is_refused(release, raw, change):
    release.changes["Set.meta.zip"] = change
    with pytest.raises(InputError, match="not the JSON of a Zenodo record"):
        download_release(release.record, raw)
    assert not raw.exists()


def test_a_file_that_is_not_on_the_server_is_an_error_that_names_it(release, raw):
    release.changes["Set.audio.zip"] = {"links": {"self": "gone.zip"}}
    with pytest.raises(InputError, match=r"Set\.audio\.zip cannot be downloaded: 404 .*gone\.zip"):
        download_release(release.record, raw)


def test_an_unreachable_server_is_an_error_with_the_reason(raw):
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/x cannot be read: .*refused"):
        download_release("http://127.0.0.1:9/x", raw)


def test_an_archive_from_the_user_is_unpacked_and_kept(release, audio, raw):
    raw.mkdir()
    (raw / "Set.audio.zip").write_bytes(audio)
    download_release(release.record, raw)
    assert release.pop_requests() == [("record", None)]
    assert visible(raw) == ["Set.audio", "Set.audio.zip"]


def test_files_of_another_origin_are_neither_used_nor_replaced(release, audio, raw):
    (raw / "Set.audio").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Set\.audio exists, but .* move it away"):
        download_release(release.record, raw)
    (raw / "Set.audio").rmdir()
    (raw / "Set.audio.zip").write_bytes(b"half of it")
    with pytest.raises(
        InputError, match=r"Set\.audio\.zip has 10 bytes instead of .* move it away"
    ):
        download_release(release.record, raw)
    assert (raw / "Set.audio.zip").read_bytes() == b"half of it"
    assert release.pop_requests() == [("record", None)] * 2


def test_too_little_space_is_an_error_before_anything_is_downloaded(release, raw, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**6, 0, 10**6 - 1))
    with pytest.raises(InputError, match=r"needs at least 1\.00MB, but .* has 1\.00MB free"):
        download_release(release.record, raw)
    assert release.pop_requests() == [("record", None)]


def test_interrupted_unpacking_leaves_nothing_that_looks_complete(release, audio, raw, monkeypatch):
    extract = zipfile.ZipFile.extract

    def stop_at_second(self, member, folder):
        if member.filename.endswith("2.wav"):
            raise KeyboardInterrupt
        return extract(self, member, folder)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            download_release(release.record, raw)
    assert visible(raw) == []
    release.pop_requests()
    download_release(release.record, raw)
    assert release.pop_requests() == [("record", None)]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]
    assert visible(raw / DOWNLOAD_FOLDER) == ["record.json"]


def test_an_archive_left_by_an_interrupted_run_is_removed_by_the_next(
    release, audio, raw, monkeypatch
):
    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            download_release(release.record, raw)
    assert visible(raw) == ["Set.audio"]
    assert len(list((raw / DOWNLOAD_FOLDER).rglob("*.zip"))) == 1
    release.pop_requests()
    download_release(release.record, raw)
    assert release.pop_requests() == [("record", None)]
    assert visible(raw / DOWNLOAD_FOLDER) == ["record.json"]


def test_the_next_run_resumes_a_killed_one(release, audio, raw):
    release.limits, release.pause = [300_000], threading.Event()
    module = "fsat_kedro.data.download"
    run = f"from {module} import *; download_release({release.record!r}, {str(raw)!r})"
    killed = subprocess.Popen([sys.executable, "-c", run], cwd=ROOT / "src")
    try:
        while not any(path.stat().st_size for path in (raw / DOWNLOAD_FOLDER).rglob("*.partial")):
            assert killed.poll() is None
            time.sleep(0.02)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    release.pause.set()
    n_bytes = partial_bytes(raw)
    assert 0 < n_bytes < len(audio)
    assert visible(raw) == []
    release.pop_requests()
    download_release(release.record, raw)
    assert release.pop_requests()[1:] == [("Set.audio.zip", f"bytes={n_bytes}-")]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_kedro_run_downloads_into_the_raw_folder_and_saves_a_list(release, tmp_path):
    project = make_project(tmp_path / "project")
    parameters = f"download.record={release.record},raw_dir=here"
    finished = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipelines", "download", "--params", parameters],
        cwd=project,
        env={**os.environ, "DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert visible(project / "here") == ["Set.audio", "Set.meta"]
    table = pd.read_csv(project / "data" / "02_intermediate" / "downloaded_files.csv")
    assert table["file"].tolist() == list(release.files)
    assert "Downloading Set.audio.zip" in finished.stdout
    assert "%|" not in finished.stderr  # No progress bar unless stderr is a terminal.


def fetch(release, folder, *, size=None, sha256=None):
    return fetch_file(f"{release.url}/a.pt", folder, size=size, sha256=sha256, remedy="Set it.")


def test_a_single_file_is_fetched_once(release, tmp_path):
    release.files["a.pt"] = content = bytes(range(200))
    digest = hashlib.sha256(content).hexdigest()
    path = fetch(release, tmp_path / "cache", size=200, sha256=digest)
    assert path == tmp_path / "cache" / "a.pt"
    assert path.read_bytes() == content
    assert release.pop_requests() == [("a.pt", None)]
    assert fetch(release, tmp_path / "cache", size=200, sha256=digest) == path
    assert release.pop_requests() == []
    assert visible(tmp_path / "cache") == ["a.pt"]


def test_a_single_file_of_unknown_size_resumes(release, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_BACKOFF", 0)
    release.files["a.pt"] = content = os.urandom(200_000)
    release.limits = [0, 2**16]  # The first request only asks for the size.
    assert fetch(release, tmp_path).read_bytes() == content
    assert [asked for _, asked in release.pop_requests()] == [None, None, "bytes=65536-"]


def test_a_single_file_that_differs_is_refused(release, tmp_path):
    release.files["a.pt"] = content = bytes(200)
    with pytest.raises(InputError, match=r"the SHA256 .* instead of 0000.*again later\. Set it"):
        fetch(release, tmp_path, sha256="0" * 64)
    with pytest.raises(InputError, match=r"200 bytes instead of 199"):
        fetch(release, tmp_path, size=199)
    assert not (tmp_path / "a.pt").exists()
    (tmp_path / "a.pt").write_bytes(content[1:])
    with pytest.raises(InputError, match=r"a\.pt has 199 bytes instead of 200: remove it"):
        fetch(release, tmp_path, size=200)


def test_a_single_file_without_a_network_is_an_error_with_a_remedy(release, tmp_path):
    for size in (None, 200):
        with pytest.raises(InputError, match=r"404.*Set it\."):
            fetch(release, tmp_path, size=size)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be saved in .*Set it\."):
        fetch(release, tmp_path / "file")
