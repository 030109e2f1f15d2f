"""Requests of an attacker, sent to `kedro serve` in a separate process on this machine.

As a command: `python tests/whole_runs/attack_server.py DATA_DIR`, with the results of a training.
Each attack has to leave a server that tags a sound as before, within bounds of memory and time.
"""

import argparse
import io
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import requests
import soundfile

LIMITS = {
    "FSAT_KEDRO_MAX_ROWS": "20",
    "FSAT_KEDRO_MAX_MEGABYTES": "2",
    "FSAT_KEDRO_MAX_SECONDS": "10",
    "FSAT_KEDRO_MAX_REQUEST_SECONDS": "4",
    "FSAT_KEDRO_MAX_REQUEST_MEGABYTES": "8",
    "FSAT_KEDRO_MAX_REQUESTS": "4",
}
MAX_GROWTH = 400e6
"""Bytes that the server may take in addition to what it had after its first request."""

WAVE = np.random.default_rng(0).normal(0, 0.1, 44_100)


def encode(wave: np.ndarray, file_format: str = "WAV") -> str:
    """Return a sound file at 44.1 kHz in base64."""
    file = io.BytesIO()
    soundfile.write(file, wave, 44_100, format=file_format)
    return b64encode(file.getvalue()).decode()


GOOD = {"fname": "good.wav", "audio": encode(WAVE)}


@dataclass
class Target:
    """A server, and what it answered before all attacks."""

    process: subprocess.Popen
    url: str
    log: Path
    tags: dict | None = None
    memory: int = 0

    def post(self, rows: list, **options: object) -> requests.Response:
        """Send a request of rows."""
        return requests.post(
            f"{self.url}/invocations",
            json={"dataframe_records": rows},
            **{"timeout": 60, **options},
        )

    def resident(self) -> int:
        """Return the bytes of memory that the server has."""
        return psutil.Process(self.process.pid).memory_info().rss

    def require_unharmed(self) -> None:
        """Check that the server tags a sound as before, in about its memory of before."""
        (tags,) = self.post([GOOD]).json()["predictions"]
        if self.tags is None:
            self.tags, self.memory = tags, self.resident()
        assert tags == self.tags, f"{tags} instead of {self.tags}"
        growth = self.resident() - self.memory
        assert growth < MAX_GROWTH, f"{growth / 1e6:.0f} MB more than at the start"


@contextmanager
def attacked(project: Path, data_dir: Path, folder: Path) -> Iterator[Target]:
    """Serve an ensemble to attack; `folder` is empty, and gets the server's log and sounds."""
    sounds = folder / "sounds"
    sounds.mkdir()
    (folder / "secret.wav").write_bytes(b"secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kedro", "serve", "--data-dir", data_dir, "--port", str(port)]
    environment = {**os.environ, **LIMITS, "FSAT_KEDRO_SOUNDS_DIR": str(sounds)}
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
    target = Target(process, f"http://127.0.0.1:{port}", folder / "serve.log")
    try:
        while not _answers(target.url):
            assert process.poll() is None, target.log.read_text()
            time.sleep(0.2)
        yield target
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=5).ok
    except requests.ConnectionError:
        return False


def send_hostile_rows(target: Target) -> None:
    """Mix a good row with others: each of them gets a reason, and nothing of the server's."""
    names = ["a\0.wav", "n" * 300_000, None, 5, [], {}, True, "\ud800\0", ""]
    names += ["../secret.wav", "/etc/passwd", "/dev/zero", "serve.log", "." * 5000]
    audio = [5, [], {}, True, "no base64", "====", "", b64encode(b"RIFF").decode(), "A" * 3_000_000]
    answers = []
    for rows in ([{"fname": name} for name in names], [{**GOOD, "audio": each} for each in audio]):
        answer = target.post([GOOD, *rows])
        assert answer.status_code == 200, answer.text
        good, *others = answer.json()["predictions"]
        assert good == target.tags
        assert all(row["reason"] and row["tag_1"] is None for row in others), others
        answers.append(answer.text)
    assert "Traceback" not in "".join(answers)
    assert str(target.log.parent) not in "".join(answers)


def send_other_forms(target: Target) -> None:
    """Send what is no request: a short error, and no part of the program."""
    for body in (b"", b"\xff\xfe", b"[" * 1_000_000, b'{"a":' * 100_000, b"null", b"{}" * 9):
        answer = requests.post(f"{target.url}/invocations", data=body, timeout=60)
        assert answer.status_code == 400, answer.text
        assert len(answer.text) < 300
        assert "Traceback" not in answer.text


def send_large_requests(target: Target) -> None:
    """Send 300 MB, millions of empty rows and a thousand sounds: refused, soon and in bounds."""
    began = time.monotonic()
    with suppress(requests.ConnectionError):  # The server stops reading.
        answer = requests.post(f"{target.url}/invocations", data=_zeros(300), timeout=60)
        assert answer.status_code == 413, answer.text
    rows = b'{"dataframe_records": [' + b"{}," * 2_000_000 + b"{}]}"
    answer = requests.post(f"{target.url}/invocations", data=rows, timeout=60)
    assert answer.status_code == 413, answer.text
    assert target.post([{"fname": "a.wav", "audio": "UklGRg=="}] * 1000).status_code == 413
    assert time.monotonic() - began < 20


def _zeros(megabytes: int) -> Iterator[bytes]:
    yield from [bytes(1_000_000)] * megabytes


def send_long_sounds(target: Target) -> None:
    """Send three requests of sounds of ten minutes: answered about when their time is over."""
    silence = np.zeros(44_100 * 600)
    silence[:44_100] = WAVE
    rows = [{"fname": f"{index}.flac", "audio": encode(silence, "FLAC")} for index in range(12)]
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(target.post, [rows] * 3))
    # Three groups of sounds may be waited for after the limit.
    assert time.monotonic() - began < 60
    for answer in answers:
        predictions = answer.json()["predictions"]
        assert len(predictions) == 12
        assert all(row["tag_1"] or "took more than 4 s" in row["reason"] for row in predictions)


def stay_silent(target: Target) -> None:
    """Open connections that send nothing more: they are closed, and others are served."""
    host, port = target.url.removeprefix("http://").split(":")
    clients = []
    for _ in range(3):
        client = socket.create_connection((host, int(port)))
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        clients.append(client)
    target.require_unharmed()
    for client in clients:
        client.settimeout(20)
        assert b" 408 " in client.recv(1000)
        client.close()


def go_away(target: Target) -> None:
    """Leave twenty requests before they are answered: the server has time for the next one."""
    for _ in range(20):
        with suppress(requests.RequestException):
            target.post([GOOD] * 20, timeout=0.05)
    deadline = time.monotonic() + 30
    while target.post([GOOD]).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def send_many(target: Target) -> None:
    """Send many requests at once: each is answered or refused, and memory does not grow."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(target.post, [[GOOD]] * 60))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert any(answer.status_code == 200 for answer in answers)


ATTACKS = (
    send_hostile_rows,
    send_other_forms,
    send_large_requests,
    send_long_sounds,
    stay_silent,
    go_away,
    send_many,
)


def require_a_quick_end(target: Target) -> None:
    """End the server while it works: it takes no more than five seconds."""
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(target.post, [GOOD] * 20)
        time.sleep(0.3)
        target.process.send_signal(signal.SIGTERM)
        target.process.wait(timeout=5)
        with suppress(requests.ConnectionError):
            work.result()
    log = target.log.read_text()
    assert "Traceback" not in log, log


def main() -> None:
    """Attack a server, and print the time and the memory that each attack took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("folder", type=Path, help="a new folder for the server's log")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    project = Path(__file__).parents[2]
    with attacked(project, options.data_dir.absolute(), options.folder) as target:
        target.require_unharmed()
        print(f"started with {target.memory / 1e6:.0f} MB")
        for attack in ATTACKS:
            began = time.monotonic()
            attack(target)
            target.require_unharmed()
            seconds, megabytes = time.monotonic() - began, target.resident() / 1e6
            print(f"{attack.__name__}: held, {seconds:.1f} s, {megabytes:.0f} MB", flush=True)
        require_a_quick_end(target)
    print("require_a_quick_end: held")


if __name__ == "__main__":
    main()
