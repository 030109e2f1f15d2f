"""A web server that tags sounds, for clients that nobody vouches for.

It takes and gives the JSON of MLflow's server, so that clients of either work with both.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fsat_kedro.inference.service import Limits, Row, TaggingService

_SECONDS_TO_STOP = 3
"""From SIGTERM until requests that are not answered are given up."""

_POLL_SECONDS = 0.5


class Server(uvicorn.Server):
    """Serves an ensemble.

    `POST /invocations` takes `{"dataframe_records": [{"fname": …, "audio": …}, …]}` and answers
    with `{"predictions": […]}`, a row for each record, see `TaggingService.tag`. Any other answer
    has an `error`. `GET /ping` answers once sounds can be tagged.

    Args:
        service: what tags.
        limits: of a request.
        host: address to listen on.
        port: port to listen on.
    """

    def __init__(self, service: TaggingService, limits: Limits, *, host: str, port: int) -> None:
        self._service = service
        self._limits = limits
        self._stops = False
        # The objects of a request may take twenty times the memory of its text.
        self._parses = asyncio.Lock()
        routes = [
            Route("/ping", self._ping),
            Route("/invocations", self._invocations, methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _explain})
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                limit_concurrency=int(limits.max_requests) + 1,
                timeout_graceful_shutdown=_SECONDS_TO_STOP,
                server_header=False,
                log_level="warning",
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the work on requests too, which the signal alone would not."""
        self._stops = True
        super().handle_exit(sig, frame)

    async def _ping(self, request: Request) -> Response:
        return Response("\n")

    async def _invocations(self, request: Request) -> Response:
        rows = await self._read_rows(request)
        gone = False
        work = asyncio.create_task(
            asyncio.to_thread(self._service.tag, rows, ends=lambda: gone or self._stops)
        )
        while not (await asyncio.wait({work}, timeout=_POLL_SECONDS))[0]:
            gone = await request.is_disconnected()
        return JSONResponse({"predictions": (await work).to_dict("records")})

    async def _read_rows(self, request: Request) -> list[Row]:
        """Read a request's rows.

        Raises:
            HTTPException: it is too large, too slow, or not of the right form.
        """
        seconds = self._limits.max_request_seconds
        try:
            body = await asyncio.wait_for(self._read_body(request.stream()), seconds)
        except asyncio.TimeoutError as error:
            reason = f"the request did not arrive within {seconds:g} s"
            raise HTTPException(408, reason) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client went away") from error
        async with self._parses:
            rows = await asyncio.to_thread(_parse, body)
        if len(rows) > self._limits.max_rows:
            most = f"{self._limits.max_rows:g}"
            raise HTTPException(413, f"the request has {len(rows)} rows, more than {most}")
        return rows

    async def _read_body(self, chunks: AsyncIterator[bytes]) -> bytearray:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._limits.max_request_megabytes * 1e6:
                most = f"{self._limits.max_request_megabytes:g} MB"
                raise HTTPException(413, f"the request is larger than {most}: send fewer sounds")
        return body


def _parse(body: bytearray) -> list[Row]:
    """Return the rows of a request.

    Raises:
        HTTPException: it has another form.
    """
    form = '{"dataframe_records": [{"fname": …, "audio": …}, …]}'
    try:
        records = json.loads(body)["dataframe_records"]
        return [(record.get("fname"), record.get("audio")) for record in records]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise HTTPException(400, f"the request is not of the form {form}") from error


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: dict[str, Any] = {"Connection": "close"} if error.status_code in (408, 413) else {}
    return JSONResponse({"error": error.detail}, error.status_code, headers)
