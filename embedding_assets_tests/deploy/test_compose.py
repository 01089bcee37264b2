"""One server: every process of deploy/compose.yaml is one that this project has, and is watched."""

import ast
import re
from typing import Any

import pytest

from embedding_assets.web.guard import PROBES
from embedding_assets_tests.deploy.files import DEPLOY, NAMES, commands, read, refused

TEXT = (DEPLOY / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = read(DEPLOY / "compose.yaml")["services"]
OURS = {name: each for name, each in SERVICES.items() if name != "postgres"}
SERVING = {name: each for name, each in OURS.items() if name != "init"}
OF_COMPOSE = {"POSTGRES_PASSWORD", "EMBEDDING_ASSETS_IMAGE"}


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_understood(name: str) -> None:
    for command in commands(OURS[name]["command"]):
        assert refused(command) is None


@pytest.mark.parametrize("name", SERVING)
def test_every_process_is_asked_how_it_is_in_words_that_it_understands(name: str) -> None:
    kind, *test = SERVING[name]["healthcheck"]["test"]
    assert kind == "CMD"
    if test[0] != "python":
        assert refused(test) is None
        return
    ast.parse(test[2])
    port, path = re.search(r"http://127.0.0.1:(\d+)(/\w+)", test[2]).groups()  # type: ignore[union-attr]
    assert f"--port={port}" in SERVING[name]["command"]
    assert path in ({*PROBES} if name == "search" else {"/server_info"})


def test_an_argument_that_is_not_known_would_be_noticed() -> None:
    assert "--grpc-prt" in (refused([*OURS["daemon"]["command"], "--grpc-prt=1"]) or "")


def test_all_find_the_code_server_where_it_listens() -> None:
    (port,) = {word for word in OURS["code-server"]["command"] if word.startswith("--port=")}
    assert port in OURS["code-server"]["healthcheck"]["test"]
    for name in ("daemon", "webserver"):
        assert "--grpc-host=code-server" in OURS[name]["command"]
        assert f"--grpc-{port.removeprefix('--')}" in OURS[name]["command"]


def test_every_name_in_the_environment_is_one_that_somebody_reads() -> None:
    for service in OURS.values():
        assert set(service["environment"]) <= NAMES
        assert service["env_file"] == ".env"
    assert set(re.findall(r"\$\{(\w+)", TEXT)) <= NAMES | OF_COMPOSE


def test_no_secret_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if name.endswith(("_URL", "_PASSWORD", "_KEY", "_KEYS", "_SECRETS")):
                assert "${POSTGRES_PASSWORD" in value


def test_nothing_is_reached_from_elsewhere() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_whoever_waits_waits_for_something_that_comes() -> None:
    for name, service in OURS.items():
        waits = service["depends_on"]
        assert waits if name == "init" else "init" in waits
        for other, how in waits.items():
            wanted = how["condition"]
            assert (
                wanted == "service_completed_successfully"
                if other == "init"
                else (wanted == "service_healthy" and "healthcheck" in SERVICES[other])
            )


def test_the_processes_may_write_only_where_data_are_kept_and_start_again() -> None:
    for service in OURS.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["volumes"] == ["home:/var/lib/embedding-assets"]
    assert {each["restart"] for each in SERVING.values()} == {"unless-stopped"}
