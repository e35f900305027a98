# SPDX-License-Identifier: Apache-2.0
"""The console's web server: fixed files and a WebSocket for each browser, in its own thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from dimp_ros.apps.console.access import AccessDenied, Gate
from dimp_ros.apps.console.connections import BACKLOG, Connections
from dimp_ros.apps.console.jpeg_encoder import JpegEncoder, ladder
from dimp_ros.apps.console.limited_log import LimitedLog
from dimp_ros.apps.console.protocol import MAX_BYTES, BadMessage, Login, parse
from dimp_ros.apps.console.session import Close, Session, TrackerClient, retrieve

if TYPE_CHECKING:
    from dimp_ros.apps.console.settings import ConsoleSettings
    from dimp_ros.apps.console.state import ConsoleState

STATIC = Path(__file__).resolve().parent / "static"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # The page loads only its own files, has no inline scripts or styles, and cannot be framed by another page.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
LOGIN_SECONDS = 3.0
WRONG_TOKEN_SECONDS = 1.0
"""Delay of the answer to a wrong token."""

WRONG_TOKEN, FULL = 4401, 4503
START_SECONDS = 10.0
CLOSE_SECONDS = 1.5

LOG = logging.getLogger(__name__)
"""Of aiohttp. A request that is not valid HTTP is answered, not logged: strangers could fill the disk so."""

LOG.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))


class ConsoleServer:
    """Serves the page and its WebSocket from `start` to `stop`.

    :param watchers: called with the number of connected browsers whenever it changes.
    :param log: takes log lines, which never contain the token; a few of each kind in some seconds, see `LimitedLog`.
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        state: ConsoleState,
        tracker: TrackerClient,
        *,
        watchers: Callable[[int], None] = lambda count: None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._tracker = tracker
        self._watchers = watchers
        self._gate = Gate(settings)
        self._files = {
            f"/{path.name}": (path.read_bytes(), TYPES[path.suffix])
            for path in STATIC.iterdir()
            if path.suffix in TYPES
        }
        self._files["/"] = self._files["/index.html"]
        self._jpegs = JpegEncoder(ladder(settings.max_width))
        self._sessions: set[Session] = set()
        self._handlers: set[asyncio.Task[Any]] = set()
        self._connections: Connections | None = None  # set once the port is open
        self._loop = asyncio.new_event_loop()
        self._log = LimitedLog(log, self._loop)
        self._thread = threading.Thread(target=self._run, name="console_server", daemon=True)
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._stopping = asyncio.Event()
        self.port = settings.port
        """The port, known after `start`."""

    @property
    def url(self) -> str:
        """The page's address, without the token."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"http://{host}:{self.port}/"

    @property
    def encoded(self) -> int:
        """Number of JPEGs encoded so far."""
        return self._jpegs.count

    # From other threads

    def start(self) -> None:
        """Open the port and serve.

        :raises ValueError: if the port cannot be opened.
        """
        self._thread.start()
        self._started.wait(START_SECONDS)
        if self._failure is not None:
            raise ValueError(
                f"{self._settings.host}:{self._settings.port} cannot be served on ({self._failure.strerror}): choose "
                "another port, or an address of this machine"
            )
        self._state.listen(self._changed)

    def stop(self, timeout: float) -> bool:
        """Close all connections; return whether the thread has ended within ``timeout`` seconds."""
        if self._thread.is_alive():
            self._call(self._stopping.set)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _changed(self) -> None:
        self._call(self._wake_all)

    def _call(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop has ended
            pass

    # In the server's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._jpegs.close()
            self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_BYTES)
        application.router.add_get("/socket", self._on_socket)
        for path in self._files:
            application.router.add_get(path, self._on_file)
        runner = web.AppRunner(application, access_log=None, logger=LOG)
        await runner.setup()
        server: asyncio.Server | None = None
        try:
            assert runner.server is not None
            self._connections = Connections(runner.server)
            server = await self._loop.create_server(
                self._connections, self._settings.host, self._settings.port, backlog=BACKLOG
            )
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stopping.wait()
        except OSError as error:
            self._failure = error
        finally:
            if server is not None:
                server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)
            if self._connections is not None:
                self._connections.close()
            await runner.cleanup()
            await _end_tasks()
            self._log.close()

    def _wake_all(self) -> None:
        for session in self._sessions:
            session.wake()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse requests that were not addressed to this machine; add the security headers to every answer."""
        try:
            self._gate.check_host(request.headers.get("Host"))
            response = await handler(request)
        except AccessDenied as denied:
            response = web.Response(status=403, text=f"{denied}\n")
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _on_file(self, request: web.Request) -> web.StreamResponse:
        """Answer with one of the fixed files; no path is looked up."""
        content, kind = self._files[request.path]
        return web.Response(body=content, content_type=kind, charset="utf-8")

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        self._gate.check_origin(request.headers.get("Origin"), request.headers.get("Host"))
        socket = web.WebSocketResponse(max_msg_size=MAX_BYTES, compress=False, autoping=False, timeout=1.0)
        socket.headers.update(HEADERS)
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client has closed it
            return web.Response(status=400)
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        why: Close | None = Close(1011, "the console failed; its log says why")
        try:
            why = await self._log_in(socket) or await self._serve_session(request, socket)
        except (ConnectionError, asyncio.TimeoutError):
            why = None
        except asyncio.CancelledError:
            why = Close(1001, "the console has ended")
        except Exception:
            self._log("browsers not served", f"a browser could not be served:\n{traceback.format_exc()}")
        finally:
            self._handlers.discard(handler)
            await _end(request, socket, why)
        return socket

    async def _log_in(self, socket: web.WebSocketResponse) -> Close | None:
        """Ask for the token if one is needed; return why the browser is refused."""
        if self._gate.needs_token:
            try:
                await socket.send_json({"type": "login"})
                if not self._gate.admits(await _token(socket)):
                    await asyncio.sleep(WRONG_TOKEN_SECONDS)
                    self._log("wrong tokens", "a browser was refused: wrong token")
                    return Close(WRONG_TOKEN, "this token is not the right one")
            except (BadMessage, asyncio.TimeoutError):
                return Close(WRONG_TOKEN, "the token must be shown first")
        return None

    async def _serve_session(self, request: web.Request, socket: web.WebSocketResponse) -> Close | None:
        """Serve a browser until it ends; return why it must leave.

        One without a token has a place from its first message on: those that only connect take none from others.
        """
        admit = partial(self._admit, request)
        session = Session(socket, self._state, self._jpegs, self._tracker, self._settings, admit)
        if self._gate.needs_token and (full := session.admit()):
            return full
        why: Close | None = None
        try:
            settings = self._settings
            hello: dict[str, Any] = {
                "type": "hello",
                "stale_after": settings.stale_after,
                "freeze_seconds": settings.freeze_seconds,
                "tracker": settings.tracker,
            }
            await asyncio.wait_for(socket.send_json(hello), settings.client_timeout)
            why = await session.serve()
        finally:
            if session in self._sessions:
                self._sessions.discard(session)
                self._watchers(len(self._sessions))
                reason = f": {why.text}" if why else ""
                left = f"{len(self._sessions)} left"
                self._log("browsers disconnected", f"browser {request.remote} disconnected{reason}, {left}")
        return why

    def _admit(self, request: web.Request, session: Session) -> Close | None:
        """Give a session its place; return why not, if all are taken."""
        limit = self._settings.max_clients
        if len(self._sessions) >= limit:
            return Close(FULL, f"{limit} browsers are connected, which is the limit max_clients")
        assert self._connections is not None
        self._connections.admit(request.transport)
        self._sessions.add(session)
        self._watchers(len(self._sessions))
        self._log("browsers connected", f"browser {request.remote} connected, {len(self._sessions)} in all")
        return None


async def _end_tasks() -> None:
    """Cancel what aiohttp has left, such as a request whose rest does not come."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.add_done_callback(retrieve)
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)


async def _end(request: web.Request, socket: web.WebSocketResponse, why: Close | None) -> None:
    """Close a connection with a reason, if it can be sent in time; otherwise abort it."""
    if why is None:
        return
    with suppress(ConnectionError, asyncio.TimeoutError):
        await asyncio.wait_for(socket.close(code=why.code, message=why.text.encode()[:120]), CLOSE_SECONDS)
    if request.transport is not None:
        request.transport.abort()  # else data for a browser that does not read stay in memory


async def _token(socket: web.WebSocketResponse) -> str:
    """Return the token of the first message.

    :raises BadMessage: for another message. :raises asyncio.TimeoutError: if none arrives in time.
    """
    message = await asyncio.wait_for(socket.receive(), LOGIN_SECONDS)
    login = parse(message.data) if message.type is WSMsgType.TEXT else None
    if not isinstance(login, Login):
        raise BadMessage("the token must be shown first")
    return login.token
