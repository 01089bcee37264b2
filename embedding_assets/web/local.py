"""Answers one agent on this machine, over standard input and output."""

from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings
from embedding_assets.web.agents import over_stdio
from embedding_assets.web.readers import Doors, Readers, Who
from embedding_assets.web.service import Service
from embedding_assets.wiring import build_embedder

CONNECTIONS = 2


def answer_agent(settings: Settings, reader: str | None) -> None:
    """Answers until standard input ends.

    Args:
        settings: of the installation.
        reader: whose calls are found; None: the role of the connection decides.

    Raises:
        ConfigurationError: a setting is wrong or missing.
    """
    embedder = build_embedder(settings, is_for_search=True)
    with open_database(settings):
        pass  # starts the embedded server, and says what is wrong before the agent waits
    readers = Readers(Doors(allows_anonymous=False))
    service = Service(settings, embedder, readers, connections=CONNECTIONS)
    service.warm_up()
    try:
        over_stdio(service, Who("this machine", reader)).run("stdio")
    finally:
        service.close()
