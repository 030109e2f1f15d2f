"""An S3 server on this machine, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import requests
from moto.server import ThreadedMotoServer

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Start a server with an empty bucket, and yield the settings that fsspec needs to use it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
        # Servers of one process share their content.
        requests.post(f"{settings['endpoint_url']}/moto-api/reset").raise_for_status()
        fsspec.filesystem("s3", **settings).mkdir(BUCKET)
        yield settings
    finally:
        server.stop()
