"""The image: what is in it, and that what it says of the project is so."""

import re
import tomllib
from pathlib import Path

from embedding_assets.server.installation import dagster_home
from embedding_assets.settings import Settings
from embedding_assets_tests.checkout import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
LET_THROUGH = {
    line.removeprefix("!")
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line.startswith("!")
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_only_what_it_is_made_of_gets_into_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    copied = set()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        copied |= set(sources.split())
    assert copied == LET_THROUGH
    assert all((ROOT / name).exists() for name in copied)


def test_the_base_is_a_version_of_python_that_the_project_takes() -> None:
    (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    minor = re.fullmatch(r"3\.(\d+)-slim-\w+", tag)
    assert minor is not None
    assert int(minor[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:${PYTHON}"}


def test_what_it_installs_is_pinned_and_nothing_for_developers() -> None:
    installs = re.findall(r"pip install (.+)", DOCKERFILE)
    assert installs
    assert all("--constraint constraints.txt" in each or "--no-deps" in each for each in installs)
    assert "dev" not in re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    pinned = {
        re.split(r"[=;]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for name, requirements in PROJECT["optional-dependencies"].items():
        for each in requirements:
            assert re.split(r"[<>=\[;]", each)[0].lower().replace("_", "-") in pinned, name


def test_it_runs_as_somebody_without_rights_whom_kubernetes_can_tell_from_root() -> None:
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert [int(user) > 0 for user in users] == [True]
    assert f"--uid {users[0]} " in DOCKERFILE


def test_its_dagster_home_is_that_of_its_home() -> None:
    (home,) = re.findall(r"EMBEDDING_ASSETS_HOME=(\S+)", DOCKERFILE)
    (dagster,) = re.findall(r"DAGSTER_HOME=(\S+)", DOCKERFILE)
    assert dagster_home(Settings(embedding_assets_home=Path(home))) == Path(dagster)
