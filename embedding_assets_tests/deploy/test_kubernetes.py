"""A cluster: deploy/kubernetes says the same as the project, and its parts find each other."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from embedding_assets.definitions import defs
from embedding_assets.settings import Settings
from embedding_assets.web.guard import PROBES
from embedding_assets_tests.checkout import ROOT
from embedding_assets_tests.deploy.files import KUBERNETES, NAMES, commands, read, refused

VALUES = read(KUBERNETES / "values.yaml")
INSTANCE = read(ROOT / "dagster.yaml")
DAEMON = VALUES["dagsterDaemon"]
(CODE_SERVER,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
RUNS = LAUNCHER["runK8sConfig"]
SEARCH = {
    each["kind"]: each
    for each in yaml.safe_load_all((KUBERNETES / "search-server.yaml").read_text())
}
MIGRATE = read(KUBERNETES / "migrate-job.yaml")
PODS = {
    "search": SEARCH["Deployment"]["spec"]["template"]["spec"],
    "migrate": MIGRATE["spec"]["template"]["spec"],
}
SERVER = PODS["search"]["containers"][0]
HOME = "/var/lib/embedding-assets"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _as_in_dagster_yaml(values: Any) -> Any:
    if isinstance(values, dict):
        return {_snake(name): _as_in_dagster_yaml(value) for name, value in values.items()}
    return values


def test_runs_are_limited_as_in_dagster_yaml() -> None:
    queue = DAEMON["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert _as_in_dagster_yaml(queue) == INSTANCE["concurrency"]["runs"]


def test_runs_are_monitored_as_in_dagster_yaml_and_a_lost_pod_is_seen_sooner() -> None:
    monitoring = _as_in_dagster_yaml(DAEMON["runMonitoring"])
    assert INSTANCE["run_monitoring"].items() <= monitoring.items()
    more = monitoring.keys() - INSTANCE["run_monitoring"].keys()
    assert {name: monitoring[name] for name in more} == {
        "poll_interval_seconds": 60,
        "max_resume_run_attempts": 0,
    }


def test_ticks_are_kept_as_in_dagster_yaml() -> None:
    kept = _as_in_dagster_yaml(VALUES["retention"])
    assert kept.pop("enabled")
    started = kept["sensor"]["purge_after_days"].pop("started")  # the chart wants it said
    assert (kept, started) == (INSTANCE["retention"], -1)


def test_the_rest_of_dagster_yaml_is_there_too() -> None:
    said = {"storage", "concurrency", "run_monitoring", "retention", "telemetry", "nux"}
    assert set(INSTANCE) == said
    assert VALUES["telemetry"] == INSTANCE["telemetry"]
    assert VALUES["additionalInstanceConfig"] == {"nux": INSTANCE["nux"]}
    assert not VALUES["postgresql"]["enabled"]


def test_a_failed_run_is_launched_again_once_by_the_projects_sensors_alone() -> None:
    assert not DAEMON["runRetries"]["enabled"]
    assert RUNS["jobSpecConfig"].keys() == {"ttlSecondsAfterFinished"}  # no backoffLimit but 0
    assert {"relaunch_failed_recordings", "relaunch_cancelled_recordings"} <= {
        sensor.name for sensor in defs.sensors or []
    }


def test_runs_have_the_settings_and_secrets_that_the_code_server_has() -> None:
    assert not CODE_SERVER["includeConfigInLaunchedRuns"]["enabled"]
    for name in ("envConfigMaps", "envSecrets"):
        assert LAUNCHER[name] == CODE_SERVER[name] == [{"name": "embedding-assets"}]


def test_every_process_runs_the_same_image() -> None:
    image = CODE_SERVER["image"]
    assert DAEMON["image"] == VALUES["dagsterWebserver"]["image"] == image
    assert "image" not in LAUNCHER  # that of the code server
    for pod in PODS.values():
        assert pod["containers"][0]["image"] == f"{image['repository']}:{image['tag']}"


def test_the_code_server_is_started_in_words_that_it_understands() -> None:
    words = ["dagster", "api", "grpc", "--port", str(CODE_SERVER["port"])]
    assert refused([*words, *CODE_SERVER["dagsterApiGrpcArgs"]]) is None


@pytest.mark.parametrize("name", PODS)
def test_every_command_is_understood(name: str) -> None:
    for command in commands(PODS[name]["containers"][0]["command"]):
        assert refused(command) is None


def test_the_settings_are_ones_that_somebody_reads_and_no_secrets() -> None:
    settings = read(KUBERNETES / "settings.yaml")["data"]
    assert settings.keys() <= NAMES
    read_as = Settings(**{name.lower(): value for name, value in settings.items()})
    shown = read_as.model_dump(mode="json")
    assert all("***" not in str(shown[name.lower()]) for name in settings)


def test_the_search_server_is_asked_where_it_answers() -> None:
    (port,) = SERVER["ports"]
    assert f"--port={port['containerPort']}" in SERVER["command"]
    probes = {name: SERVER[name]["httpGet"] for name in SERVER if name.endswith("Probe")}
    assert probes.keys() == {"readinessProbe", "livenessProbe", "startupProbe"}
    assert {each["port"] for each in probes.values()} == {port["name"]}
    assert {each["path"] for each in probes.values()} == set(PROBES)
    # A database that is away must not make Kubernetes restart what waits for it.
    assert probes["livenessProbe"]["path"] == "/healthz"
    (service,) = SEARCH["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]


def test_the_search_servers_parts_find_each_other() -> None:
    deployment = SEARCH["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert SEARCH["Service"]["spec"]["selector"] == labels
    assert SEARCH["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    target = SEARCH["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]


def _containers() -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Any], list[Any]]]:
    """Of each pod: its rights, its container's rights, its volumes and what is mounted."""
    for each in (CODE_SERVER, DAEMON, VALUES["dagsterWebserver"]):
        yield (
            each["podSecurityContext"], each["securityContext"], each["volumes"],
            each["volumeMounts"],
        )  # fmt: skip
    pod, container = RUNS["podSpecConfig"], RUNS["containerConfig"]
    yield (
        pod["securityContext"], container["securityContext"], pod["volumes"],
        container["volumeMounts"],
    )  # fmt: skip
    for each in PODS.values():
        (container,) = each["containers"]
        yield (
            each["securityContext"], container["securityContext"], each["volumes"],
            container["volumeMounts"],
        )  # fmt: skip


def test_nobody_is_root_and_all_write_only_where_the_image_says() -> None:
    user = int(re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1])
    for pod, container, volumes, mounts in _containers():
        assert pod["runAsNonRoot"]
        assert pod["runAsUser"] == user
        assert container["readOnlyRootFilesystem"]
        assert not container["allowPrivilegeEscalation"]
        assert {mount["mountPath"] for mount in mounts} == {HOME, "/tmp"}
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in volumes}


def test_every_container_says_what_memory_it_needs() -> None:
    told = [
        CODE_SERVER, DAEMON, VALUES["dagsterWebserver"], RUNS["containerConfig"],
        *(pod["containers"][0] for pod in PODS.values()),
    ]  # fmt: skip
    for each in told:
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}
        assert each["resources"]["limits"].keys() == {"memory"}
