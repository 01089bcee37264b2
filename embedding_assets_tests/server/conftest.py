"""A server in a home of its own, from a template that is made once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.server.places import Place, folder_for_all


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A data folder whose server was shut down."""
    home = folder_for_all()
    server = EmbeddedPostgres(home)
    server.ensure_running()
    server.stop()
    yield server.data_dir
    shutil.rmtree(home)


@pytest.fixture
def place(template: Path) -> Iterator[Place]:
    place = Place(folder_for_all(), template)
    yield place
    place.close()
