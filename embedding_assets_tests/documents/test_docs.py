"""What the documents say is there: settings with their defaults, pages, commands, checks."""

import re
from pathlib import Path

import click
import pytest

from embedding_assets.cli import main
from embedding_assets.definitions import defs
from embedding_assets.engine.errors import ErrorKind
from embedding_assets.health.judging import CHECKS
from embedding_assets.settings import Settings
from embedding_assets_tests.checkout import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SETTING = re.compile(r"^\| `([A-Z0-9_]+)` \| (.*?) \| .+ \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"embedding-assets\s+(?!\|)([a-z][a-z-]*)((?:[ \t]+\S+)*)")


def _read(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def _headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def _anchor(heading: str) -> str:
    """How GitHub names a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _shown(default: object) -> str:
    return default.name if isinstance(default, Path) else str(default)


def test_every_setting_is_in_the_table_with_its_default_and_nothing_else_is() -> None:
    told = SETTING.findall(_read("settings.md"))
    assert len(dict(told)) == len(told)
    written = {
        name: default.strip("`") if default.startswith("`") else None for name, default in told
    }
    assert written == {
        name.upper(): None if field.default is None else _shown(field.default)
        for name, field in Settings.model_fields.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(ROOT)
        if is_there and anchor:
            is_there = anchor in map(_anchor, _headings(target.read_text()))
        if not is_there:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    wrong = []
    for name, rest in COMMAND.findall(page.read_text()):
        command: click.Command | None = main.commands.get(name)
        said = re.split(r"[`|;&#)\"]", rest)[0].split()
        if isinstance(command, click.Group) and said:
            command = command.commands.get(said[0])
        if command is None:
            wrong.append(f"{name} {rest}")
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        wrong += [f"{name} {o}" for o in said if o.startswith("--") and o not in options]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:embedding_assets|deploy|docs)/[\w./-]*\w/?)`", page.read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_runbook_has_a_heading_for_every_check_and_every_kind_of_error() -> None:
    headings = _headings(_read("runbook.md"))
    assert [name for name in CHECKS if f"`{name}`" not in headings] == []
    assert [kind for kind in ErrorKind if f"`{kind}`" not in _read("runbook.md")] == []


def test_the_page_on_how_it_works_names_all_that_dagster_runs() -> None:
    text = _read("how-it-works.md")
    repository = defs.get_repository_def()
    names = {
        *(sensor.name for sensor in repository.sensor_defs),
        *(schedule.name for schedule in repository.schedule_defs),
        *(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
    }
    assert [name for name in sorted(names) if name not in text] == []
