"""A proxy on loopback before Postgres, which cuts connections when it is told to."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

PIECE = 65_536


class Cut:
    """When a connection is cut: in the middle of a message to the server, or of its answer."""

    def __init__(self, marker: bytes, *, after_answer: bool = False) -> None:
        self.times = 0
        """How often it is still to be done."""
        self.done = 0
        self._marker = marker
        self._after_answer = after_answer
        self._lock = threading.Lock()

    def takes(self, data: bytes) -> bool:
        """Whether this piece on its way to the server is where it cuts."""
        with self._lock:
            if self.times == 0 or self._marker not in data:
                return False
            self.times -= 1
            self.done += 1
            return True

    @property
    def keep(self) -> Callable[[bytes], bytes]:
        """What of the piece still gets to the server."""
        return (lambda data: data) if self._after_answer else (lambda data: data[: len(data) // 2])

    @property
    def waits(self) -> bool:
        """Whether the server answers, and nobody hears of it."""
        return self._after_answer


@contextlib.contextmanager
def proxy(postgres: Path, cut: Cut) -> Iterator[int]:
    """Listens while the block goes on, and gives the port; `postgres` is the server's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, postgres, cut), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, postgres: Path, cut: Cut) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(postgres))
            for target, ends in ((_up, (client, server, cut)), (_down, (server, client))):
                threading.Thread(target=target, args=ends, daemon=True).start()


def _up(client: socket.socket, server: socket.socket, cut: Cut) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(PIECE):
            if not cut.takes(data):
                server.sendall(data)
                continue
            if cut.waits:
                client.shutdown(socket.SHUT_RDWR)  # the answer finds nobody
            server.sendall(cut.keep(data))
            break
    for each in (client, server):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR if each is client or not cut.waits else socket.SHUT_WR)
    client.close()


def _down(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(PIECE):
            client.sendall(data)
    for each in (client, server):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    server.close()
