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
from fsat_kedro.data.download import HIDDEN, download_release
from fsat_kedro.errors import InputError

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


class Handler(BaseHTTPRequestHandler):
    """Answers for the release that its server holds, as badly as that wants."""

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
        if release.hold is not None and "record" not in self.path:
            release.hold.wait(60)
        self.close_connection = stop < len(content)

    def log_message(self, *args):
        pass


class Release:
    """A record and its files, served by a server that can be told to misbehave."""

    def __init__(self):
        self.files = {}
        self.changes = {}  # of the record's entries, by file name
        self.status, self.body = 200, None
        self.limits = []  # how many bytes to send before breaking off, a request each
        self.ranges, self.shift = True, 0
        self.hold = None  # an event to wait for after sending
        self.busy = 0  # how many requests for files to turn away
        self.requests, self.sent = [], 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.release = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.record = f"{self.address}/record"

    def record_body(self):
        if self.body is not None:
            return self.body
        entries = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{self.address}/{name}"},
                **self.changes.get(name, {}),
            }
            for name, content in self.files.items()
        ]
        return json.dumps({"files": entries}).encode()

    def asked(self):
        """The requests since this was last called."""
        asked, self.requests = self.requests, []
        return asked

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def packed(members):
    """The bytes of a zip archive, of names or ZipInfos and their content."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return archive.getvalue()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """No waiting between attempts, and no proxy on the way to this machine."""
    monkeypatch.setattr(download, "_BACKOFF", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def release(rng):
    """A release of an archive of noise, which does not get smaller, and one of a table."""
    release = Release()
    noise = rng.integers(0, 256, 500_000, np.uint8).tobytes()
    release.files["Set.audio.zip"] = packed([("Set.audio/1.wav", noise), ("Set.audio/2.wav", "")])
    release.files["Set.meta.zip"] = packed([("table.csv", "fname\n1.wav\n")])
    yield release
    release.close()


@pytest.fixture
def audio(release):
    """The same release with the audio alone, for a look at one transfer."""
    del release.files["Set.meta.zip"]
    return release.files["Set.audio.zip"]


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def visible(folder):
    """Names in a folder that are not hidden."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def partial_bytes(folder):
    (partial,) = (folder / HIDDEN).rglob("*.partial")
    return partial.stat().st_size


def test_every_file_of_a_record_is_fetched_and_every_archive_unpacked(release, raw):
    release.files["notes.txt"] = b"read me"
    table = download_release(release.record, raw)
    assert visible(raw) == ["Set.audio", "Set.meta", "notes.txt"]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]
    assert (raw / "Set.audio" / "1.wav").stat().st_size == 500_000
    assert (raw / "Set.meta" / "table.csv").read_text() == "fname\n1.wav\n"
    assert (raw / "notes.txt").read_text() == "read me"
    assert visible(raw / HIDDEN) == ["record.json"]
    assert table["file"].tolist() == list(release.files)
    assert table["path"].tolist() == visible(raw)
    assert table["bytes"].tolist() == [len(content) for content in release.files.values()]
    assert table["md5"].str.fullmatch("[0-9a-f]{32}").all()


def test_a_second_run_asks_for_the_record_and_nothing_else(release, raw):
    release.files["notes.txt"] = b"read me"
    first = download_release(release.record, raw)
    assert len(release.asked()) == 4
    pd.testing.assert_frame_equal(download_release(release.record, raw), first)
    assert release.asked() == [("record", None)]


def test_only_what_is_missing_is_fetched(release, raw):
    download_release(release.record, raw)
    release.asked()
    shutil.rmtree(raw / "Set.meta")
    download_release(release.record, raw)
    assert release.asked() == [("record", None), ("Set.meta.zip", None)]
    assert visible(raw) == ["Set.audio", "Set.meta"]


def test_without_a_network_all_that_is_there_will_do(release, raw):
    first = download_release(release.record, raw)
    release.close()
    pd.testing.assert_frame_equal(download_release(release.record, raw), first)
    shutil.rmtree(raw / "Set.meta")
    with pytest.raises(InputError, match="cannot be read"):
        download_release(release.record, raw)


def test_a_broken_transfer_goes_on_where_it_stopped(release, audio, raw):
    release.limits = [200_000, 0, 100_000]
    download_release(release.record, raw)
    asked = [bytes_range for name, bytes_range in release.asked() if name != "record"]
    assert asked[0] is None
    starts = [int(bytes_range[len("bytes=") : -1]) for bytes_range in asked[1:]]
    assert len(starts) == 3
    # What had come in part of a chunk may be asked for again, but no more than that.
    for start, sent in zip(starts, [200_000, 200_000, 300_000], strict=True):
        assert sent - 2 * download._CHUNK < start <= sent
    assert visible(raw) == ["Set.audio"]


def test_a_server_that_falls_silent_is_asked_again(release, audio, raw, monkeypatch):
    release.limits, release.hold = [200_000], threading.Event()
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    monkeypatch.setattr(time, "sleep", lambda _: release.hold.set())
    download_release(release.record, raw)
    assert len(release.asked()) == 3
    assert visible(raw) == ["Set.audio"]


def test_a_busy_server_is_asked_again_but_not_for_ever(release, audio, raw):
    release.busy = 99
    with pytest.raises(InputError, match=r"Set\.audio\.zip cannot be fetched: 503 Server Error"):
        download_release(release.record, raw)
    release.busy = 1
    download_release(release.record, raw)
    assert visible(raw) == ["Set.audio"]


def test_a_server_that_breaks_off_again_and_again_is_given_up_and_gone_on_with(release, audio, raw):
    release.limits = [200_000] + [0] * download._ATTEMPTS
    with pytest.raises(InputError, match=r"broke off 5 times in a row .* Run again") as error:
        download_release(release.record, raw)
    there = partial_bytes(raw)
    assert f"{there} of {len(audio)} bytes of Set.audio.zip are there" in str(error.value)
    assert "\n" not in str(error.value)
    assert there > 0
    assert visible(raw) == []
    release.asked()
    sent = release.sent
    download_release(release.record, raw)
    assert release.asked()[1:] == [("Set.audio.zip", f"bytes={there}-")]
    assert release.sent - sent < len(audio)
    assert visible(raw) == ["Set.audio"]


def test_a_server_that_takes_no_ranges_has_the_file_started_over(release, audio, raw):
    release.ranges = False
    release.limits = [200_000]
    download_release(release.record, raw)
    asked = [bytes_range for name, bytes_range in release.asked() if name != "record"]
    assert len(asked) == 2
    assert asked[1].startswith("bytes=")
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_server_that_gives_another_range_than_asked_for_has_the_file_started_over(
    release, audio, raw
):
    release.shift = 1
    release.limits = [200_000]
    download_release(release.record, raw)
    assert release.asked()[-1] == ("Set.audio.zip", None)
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_wrong_checksum_is_tried_afresh_once_and_then_told(release, audio, raw):
    release.changes["Set.audio.zip"] = {"checksum": f"md5:{'0' * 32}"}
    with pytest.raises(InputError) as error:
        download_release(release.record, raw)
    for part in ("Set.audio.zip", "0" * 32, hashlib.md5(audio).hexdigest()):
        assert part in str(error.value)
    assert release.asked()[1:] == [("Set.audio.zip", None)] * 2
    assert visible(raw) == []
    assert not list((raw / HIDDEN).rglob("Set*"))


def test_a_file_longer_than_the_record_says_is_cut_off_and_refused(release, audio, raw):
    release.changes["Set.audio.zip"] = {"size": 100_000}
    with pytest.raises(InputError, match=r"with \d+ bytes where 100000 were expected") as error:
        download_release(release.record, raw)
    assert int(re.search(r"with (\d+) bytes", str(error.value))[1]) < len(audio) / 2
    assert visible(raw) == []


def test_a_file_shorter_than_the_record_says_never_gets_its_name(release, audio, raw):
    release.changes["Set.audio.zip"] = {"size": len(audio) + 1}
    with pytest.raises(InputError, match=r"Set\.audio\.zip broke off 5 times in a row"):
        download_release(release.record, raw)
    assert visible(raw) == []


def test_a_partial_file_with_wrong_bytes_is_found_out_and_replaced(release, audio, raw):
    release.limits = [200_000] + [0] * download._ATTEMPTS
    with pytest.raises(InputError, match="broke off"):
        download_release(release.record, raw)
    (partial,) = (raw / HIDDEN).rglob("*.partial")
    partial.write_bytes(bytes(partial.stat().st_size))
    release.asked()
    download_release(release.record, raw)
    assert release.asked()[-1] == ("Set.audio.zip", None)
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


LINK = zipfile.ZipInfo("Set.meta/link")
LINK.create_system, LINK.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize("member", ["../evil.txt", "/evil.txt", "..\\evil.txt", LINK], ids=str)
def test_an_archive_that_could_write_elsewhere_is_refused(release, raw, member):
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
def test_an_address_without_a_record_is_told(release, raw, status, body, message):
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
def test_a_record_with_an_entry_that_makes_no_file_is_refused(release, raw, change):
    release.changes["Set.meta.zip"] = change
    with pytest.raises(InputError, match="not the JSON of a Zenodo record"):
        download_release(release.record, raw)
    assert not raw.exists()


def test_a_file_that_is_not_on_the_server_is_named(release, raw):
    release.changes["Set.audio.zip"] = {"links": {"self": "gone.zip"}}
    with pytest.raises(InputError, match=r"Set\.audio\.zip cannot be fetched: 404 .*gone\.zip"):
        download_release(release.record, raw)


def test_a_server_that_is_not_there_is_named_with_its_reason(raw):
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/x cannot be read: .*refused"):
        download_release("http://127.0.0.1:9/x", raw)


def test_an_archive_put_there_by_hand_is_unpacked_and_stays(release, audio, raw):
    raw.mkdir()
    (raw / "Set.audio.zip").write_bytes(audio)
    download_release(release.record, raw)
    assert release.asked() == [("record", None)]
    assert visible(raw) == ["Set.audio", "Set.audio.zip"]


def test_what_lies_there_from_elsewhere_is_neither_taken_nor_replaced(release, audio, raw):
    (raw / "Set.audio").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Set\.audio is there, but .* move it away"):
        download_release(release.record, raw)
    (raw / "Set.audio").rmdir()
    (raw / "Set.audio.zip").write_bytes(b"half of it")
    with pytest.raises(InputError, match=r"Set\.audio\.zip has 10 bytes where .* move it away"):
        download_release(release.record, raw)
    assert (raw / "Set.audio.zip").read_bytes() == b"half of it"
    assert release.asked() == [("record", None)] * 2


def test_too_little_space_is_told_before_anything_is_fetched(release, raw, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**6, 0, 10**6 - 1))
    with pytest.raises(InputError, match=r"takes at least 1\.00MB, but .* has 1\.00MB free"):
        download_release(release.record, raw)
    assert release.asked() == [("record", None)]


def test_unpacking_that_stops_half_way_leaves_nothing_that_passes_for_whole(
    release, audio, raw, monkeypatch
):
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
    release.asked()
    download_release(release.record, raw)
    assert release.asked() == [("record", None)]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]
    assert visible(raw / HIDDEN) == ["record.json"]


def test_what_a_stop_after_unpacking_left_behind_is_removed_by_the_next_run(
    release, audio, raw, monkeypatch
):
    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            download_release(release.record, raw)
    assert visible(raw) == ["Set.audio"]
    assert len(list((raw / HIDDEN).rglob("*.zip"))) == 1
    release.asked()
    download_release(release.record, raw)
    assert release.asked() == [("record", None)]
    assert visible(raw / HIDDEN) == ["record.json"]


def test_a_killed_run_is_gone_on_with_by_the_next(release, audio, raw):
    release.limits, release.hold = [300_000], threading.Event()
    module = "fsat_kedro.data.download"
    run = f"from {module} import *; download_release({release.record!r}, {str(raw)!r})"
    killed = subprocess.Popen([sys.executable, "-c", run], cwd=ROOT / "src")
    try:
        while not any(path.stat().st_size for path in (raw / HIDDEN).rglob("*.partial")):
            assert killed.poll() is None
            time.sleep(0.02)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    release.hold.set()
    there = partial_bytes(raw)
    assert 0 < there < len(audio)
    assert visible(raw) == []
    release.asked()
    download_release(release.record, raw)
    assert release.asked()[1:] == [("Set.audio.zip", f"bytes={there}-")]
    assert visible(raw / "Set.audio") == ["1.wav", "2.wav"]


def test_a_kedro_run_fetches_into_the_raw_folder_and_keeps_a_list(release, tmp_path):
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
    assert "Fetching Set.audio.zip" in finished.stdout
    assert "%|" not in finished.stderr  # no progress bar where nobody watches
