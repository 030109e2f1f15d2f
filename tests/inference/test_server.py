"""The server, with a service that does not tag."""

import json
import socket
import time
from contextlib import contextmanager
from threading import Event, Thread

import pandas as pd
import pytest
import requests

from fsat_kedro.inference.server import Server
from fsat_kedro.inference.service import Limits

LIMITS = Limits(max_rows=3, max_request_seconds=1, max_request_megabytes=0.01, max_requests=2)
ROWS = {"dataframe_records": [{"fname": "a.wav", "audio": "x"}, {"fname": None}, {}]}


class Service:
    """Answers with the rows, or waits for an end or for permission."""

    def __init__(self):
        self.started, self.continues, self.ended = Event(), Event(), Event()
        self.continues.set()

    def tag(self, rows, *, ends):
        self.started.set()
        while not self.continues.is_set():
            if ends():
                self.ended.set()
                break
            time.sleep(0.01)
        return pd.DataFrame({"fname": [str(fname) for fname, _ in rows]})


@contextmanager
def served(service):
    """Serve in a thread of this process; yield the server and its url."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(service, LIMITS, host="127.0.0.1", port=port)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        service.continues.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def url(service):
    with served(service) as (_, url):
        yield url


def test_rows_reach_the_service_and_its_table_comes_back(url):
    answer = requests.post(f"{url}/invocations", json=ROWS)
    assert answer.status_code == 200
    assert [row["fname"] for row in answer.json()["predictions"]] == ["a.wav", "None", "None"]
    assert requests.get(f"{url}/ping").ok


@pytest.mark.parametrize(
    "body",
    [
        *("", "no json", "[]", "5", "null", "{}", '{"dataframe_records": 5}'),
        *('{"dataframe_records": [5]}', '{"dataframe_records": {"a": 1}}', '{"a": '),
        *("[" * 9000, '{"dataframe_records": [null]}', b"\xff\xfe\x00"),
    ],
)
def test_another_form_is_refused_in_one_line(url, body):
    answer = requests.post(f"{url}/invocations", data=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the request is not of the form")
    assert "Traceback" not in answer.text


def test_a_request_with_too_many_rows_is_refused_at_once(url, service):
    answer = requests.post(f"{url}/invocations", json={"dataframe_records": [{}] * 4})
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "the request has 4 rows, more than 3",
    )
    assert not service.started.is_set()


def test_a_request_that_is_too_large_is_refused_before_it_has_arrived(url, service):
    def chunks():
        for _ in range(100):
            yield b" " * 1000
            time.sleep(0.001)

    for body in (b" " * 10_001, chunks()):
        answer = requests.post(f"{url}/invocations", data=body)
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "the request is larger than 0.01 MB: send fewer sounds",
        )
    text = json.dumps(ROWS).ljust(10_000)
    assert requests.post(f"{url}/invocations", data=text).status_code == 200


def test_a_request_that_does_not_arrive_is_refused(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        client.settimeout(20)
        answer = client.recv(10_000)
    assert b" 408 " in answer.splitlines()[0]


def test_work_for_a_client_that_went_away_ends(url, service):
    service.continues.clear()
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{url}/invocations", json=ROWS, timeout=0.2)
    assert service.ended.wait(timeout=20)


def test_a_signal_ends_the_work(service):
    service.continues.clear()
    with served(service) as (server, url):
        answers = []
        client = Thread(
            target=lambda: answers.append(requests.post(f"{url}/invocations", json=ROWS))
        )
        client.start()
        assert service.started.wait(timeout=20)
        server.handle_exit(15, None)
        client.join(timeout=20)
        assert service.ended.is_set()
        assert [answer.status_code for answer in answers] == [200]


def test_more_requests_than_the_limit_are_refused_and_the_others_answered(url, service):
    service.continues.clear()
    answers = []
    clients = [
        Thread(target=lambda: answers.append(requests.post(f"{url}/invocations", json=ROWS)))
        for _ in range(6)
    ]
    for client in clients:
        client.start()
    while len(answers) < 4:
        time.sleep(0.01)
    assert {answer.status_code for answer in answers} == {503}
    service.continues.set()
    for client in clients:
        client.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4
