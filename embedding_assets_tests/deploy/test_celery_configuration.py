"""That Celery's instance configuration differs from the project's in nothing but the launcher."""

import yaml

from embedding_assets_tests.checkout import ROOT


def test_all_but_the_launcher_is_as_on_one_machine() -> None:
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    celerys = yaml.safe_load((ROOT / "deploy" / "celery" / "dagster.yaml").read_text())
    launcher = celerys.pop("run_launcher")
    assert celerys == ours
    assert launcher["class"] == "CeleryRunLauncher"
    assert set(launcher["config"]) >= {"broker", "backend"}
