"""The Kubernetes manifests, held against the API's schemas and against the code.

They are built by kubectl where there is one, and plainly otherwise; no cluster is asked.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from samplemind.jobs.wire import queue_keys
from samplemind.settings import StorageKind
from tests.unit.deploy.kustomize import (
    Manifest,
    build,
    build_by_kubectl,
    build_plainly,
    containers,
)
from tests.unit.deploy.offered import (
    DEPLOY,
    assert_exists,
    assert_whole,
    console_serves,
    make_secrets,
    role_of,
    settings_under,
    unknown_variables,
)
from worker.roles import ROLES

_KUBERNETES = DEPLOY / "kubernetes"
_VERSION = "1.34"
_KEDA = {"ScaledObject", "TriggerAuthentication"}
_WORKLOADS = {"Deployment", "Job", "StatefulSet"}


@pytest.fixture(scope="module")
def overlay(tmp_path_factory) -> Path:
    """A copy of the example overlay, with its secrets made as an operator makes them."""
    place = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(_KUBERNETES, place, ignore=shutil.ignore_patterns("secrets"))
    make_secrets(place / "overlays" / "example" / "secrets")
    return place / "overlays" / "example"


@pytest.fixture(scope="module")
def manifests(overlay) -> list[Manifest]:
    return build(overlay)


@pytest.fixture(scope="module")
def secrets(overlay) -> dict[str, Path]:
    """Where each folder of secrets that a pod mounts lies here."""
    folders = ("samplemind", "samplemind-backups", "samplemind-console")
    return {f"/run/secrets/{name}": overlay / "secrets" for name in folders}


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [each for each in of_kind(manifests, kind) if each["metadata"]["name"] == name]
    return found


def pod_of(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]


def ours(manifests: list[Manifest]) -> list[Manifest]:
    """The workloads that run the platform's own image."""
    return [
        each
        for each in of_kind(manifests, *_WORKLOADS)
        if "samplemind-jobs" in pod_of(each)["containers"][0]["image"]
    ]


def variables_of(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Return a container's variables as the kubelet makes them."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each["value"] for each in container.get("env", ())}


def roles(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The Deployment of each role."""
    return {
        role: each
        for each in of_kind(manifests, "Deployment")
        if (role := role_of(pod_of(each)["containers"][0].get("args", ())))
    }


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["base", "overlays/example"])
def test_the_plain_build_makes_what_kubectl_makes(overlay, folder):
    place = overlay.parents[1] / folder
    assert _comparable(build_plainly(place)) == _comparable(build_by_kubectl(place))


def _comparable(manifests: list[Manifest]) -> dict[tuple[str, str], str]:
    return {
        (each["kind"], each["metadata"]["name"]): json.dumps(_in_order(each), indent=1)
        for each in manifests
    }


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sorted((_in_order(each) for each in value), key=json.dumps)
    return value


def test_every_manifest_follows_the_api(manifests):
    checked = [each for each in manifests if each["kind"] not in _KEDA]
    for each in checked:
        kubernetes_validate.validate(each, _VERSION, strict=True)
    assert len(checked) > 15


def test_every_role_is_deployed_once_and_its_commands_exist(manifests):
    assert set(roles(manifests)) == set(ROLES)
    for workload in ours(manifests):
        for container in containers(workload):
            assert_exists(container["args"])
    assert roles(manifests)["beat"]["spec"]["replicas"] == 2


def test_every_variable_is_a_setting(manifests):
    for workload in ours(manifests):
        for container in containers(workload):
            assert unknown_variables(variables_of(manifests, container)) == []


def test_every_process_finds_its_stores_and_keys(monkeypatch, manifests, secrets):
    for workload in ours(manifests):
        for container in containers(workload):
            with monkeypatch.context() as patch:
                settings = settings_under(patch, variables_of(manifests, container), secrets)
                assert_whole(settings)


def test_backups_are_known_to_those_that_write_or_read_them(monkeypatch, manifests, secrets):
    for role, workload in roles(manifests).items():
        [container] = pod_of(workload)["containers"]
        with monkeypatch.context() as patch:
            settings = settings_under(patch, variables_of(manifests, container), secrets)
        known = role in ("index", "maintenance", "console")
        assert (settings.storage.kind is StorageKind.S3) == known, role
        assert bool(settings.backup.keys) == known, role
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert ("samplemind/object-store" in labels) == known, role


def test_every_file_that_a_setting_names_is_mounted_from_a_secret_that_is_made(manifests):
    [secret] = of_kind(manifests, "Secret")
    for workload in ours(manifests):
        volumes = {each["name"]: each for each in pod_of(workload)["volumes"]}
        for container in containers(workload):
            mounted = {
                f"{mount['mountPath']}/{item['path']}"
                for mount in container["volumeMounts"]
                for item in volumes[mount["name"]].get("secret", {}).get("items", ())
                if item["key"] in secret["data"]
            }
            variables = variables_of(manifests, container).values()
            read = {value for value in variables if value.startswith("/run/secrets/")}
            assert read <= mounted, workload["metadata"]["name"]


def test_only_the_console_knows_its_password(manifests):
    knowing = {
        workload["metadata"]["name"]
        for workload in ours(manifests)
        if "console_auth" in set(strings(pod_of(workload)["volumes"]))
    }
    assert knowing == {"console"}


def test_volumes_that_are_mounted_exist(manifests):
    claims = {each["metadata"]["name"] for each in of_kind(manifests, "PersistentVolumeClaim")}
    used = set()
    for workload in of_kind(manifests, *_WORKLOADS):
        volumes = {each["name"]: each for each in pod_of(workload).get("volumes", ())}
        made = workload["spec"].get("volumeClaimTemplates", ())
        names = volumes.keys() | {each["metadata"]["name"] for each in made}
        for container in containers(workload):
            assert {each["name"] for each in container["volumeMounts"]} <= names
        used |= {
            each["persistentVolumeClaim"]["claimName"]
            for each in volumes.values()
            if "persistentVolumeClaim" in each
        }
    assert used == claims


def test_samples_are_read_by_many_pods_and_written_by_none(manifests):
    claim = named(manifests, "PersistentVolumeClaim", "samples")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    [container] = pod_of(roles(manifests)["audio"])["containers"]
    root = variables_of(manifests, container)["SAMPLEMIND_AUDIO_ROOT"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "samples"]
    assert mount == {"name": "samples", "mountPath": root, "readOnly": True}


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"console"}))
def test_a_process_is_asked_for_its_health_where_it_tells_it(manifests, role):
    [container] = pod_of(roles(manifests)[role])["containers"]
    variables = variables_of(manifests, container)
    assert variables["SAMPLEMIND_WORKER_HEALTH_HOST"] == "0.0.0.0"  # noqa: S104
    [port] = container["ports"]
    assert str(port["containerPort"]) == variables["SAMPLEMIND_WORKER_HEALTH_PORT"]
    asked = {
        kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    }
    assert {each["port"] for each in asked.values()} == {port["name"]}
    # A worker that waits for Redis lives: to restart it would not bring Redis back.
    assert {kind: each["path"] for kind, each in asked.items()} == {
        "startup": "/live",
        "liveness": "/live",
        "readiness": "/ready",
    }


def test_the_console_is_asked_and_reached_where_it_answers(manifests):
    [container] = pod_of(roles(manifests)["console"])["containers"]
    [port] = container["ports"]
    assert variables_of(manifests, container)["SAMPLEMIND_CONSOLE_PORT"] == str(
        port["containerPort"]
    )
    for kind in ("startup", "liveness", "readiness"):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked["port"] == port["name"]
        assert console_serves(asked["path"])
    service = named(manifests, "Service", "console")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    [ingress] = of_kind(manifests, "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {
        "name": service["metadata"]["name"],
        "port": {"name": service["spec"]["ports"][0]["name"]},
    }


def test_nothing_starts_before_the_migration_and_the_job_waits_for_nobody(manifests):
    for role, workload in roles(manifests).items():
        [waiting] = pod_of(workload)["initContainers"]
        assert waiting["args"][:3] == ["samplemind", "migrate", "--wait"], role
    [job] = of_kind(manifests, "Job")
    assert [each["args"] for each in containers(job)] == [["samplemind", "migrate"]]


def test_no_process_may_do_much(manifests):
    for workload in ours(manifests):
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        account = named(manifests, "ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        for container in containers(workload):
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_asks_for_what_it_needs_and_is_bounded(manifests):
    for workload in of_kind(manifests, *_WORKLOADS):
        for container in containers(workload):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_a_process_is_given_longer_than_its_drain(monkeypatch, manifests, secrets):
    for role, workload in roles(manifests).items():
        pod = pod_of(workload)
        with monkeypatch.context() as patch:
            variables = variables_of(manifests, pod["containers"][0])
            drain_s = settings_under(patch, variables, secrets).worker.drain_s
        assert pod["terminationGracePeriodSeconds"] >= 2 * drain_s, role


def test_a_node_may_be_drained_of_every_deployment(manifests):
    budgets = {
        each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"]
        for each in of_kind(manifests, "PodDisruptionBudget")
    }
    for workload in roles(manifests).values():
        selector = workload["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        assert budgets[selector]["maxUnavailable"] == 1


def test_selectors_select_what_they_are_for(manifests):
    pods = [
        each["spec"]["template"]["metadata"]["labels"] for each in of_kind(manifests, *_WORKLOADS)
    ]
    selectors = [each["spec"]["podSelector"] for each in of_kind(manifests, "NetworkPolicy")]
    selectors += [each["spec"]["selector"] for each in of_kind(manifests, "PodDisruptionBudget")]
    wanted = [each["matchLabels"] for each in selectors]
    wanted += [each["spec"]["selector"] for each in of_kind(manifests, "Service")]
    for labels in wanted:
        assert any(labels.items() <= pod.items() for pod in pods), labels
    for workload in of_kind(manifests, "Deployment"):
        own = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"].items() <= own.items()
        for spread in pod_of(workload).get("topologySpreadConstraints", ()):
            assert spread["labelSelector"] == workload["spec"]["selector"]


def test_only_the_console_is_reached_and_only_by_the_ingress(manifests):
    open_for = [
        each["spec"] for each in of_kind(manifests, "NetworkPolicy") if "ingress" in each["spec"]
    ]
    [console] = [each for each in open_for if "component" in str(each["podSelector"])]
    assert console["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "console"}
    [rule] = console["ingress"]
    [container] = pod_of(roles(manifests)["console"])["containers"]
    assert [each["port"] for each in rule["ports"]] == [
        each["containerPort"] for each in container["ports"]
    ]
    [source] = rule["from"]
    assert source["namespaceSelector"]["matchLabels"]
    closed = named(manifests, "NetworkPolicy", "samplemind")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed
    for workload in ours(manifests):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert closed["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_process_may_reach_the_ports_of_its_stores(manifests, overlay):
    allowed = {
        port["port"]
        for rule in named(manifests, "NetworkPolicy", "samplemind")["spec"]["egress"]
        for port in rule["ports"]
    }
    for name in ("postgres_url", "mongo_url", "broker_url", "cache_url"):
        found = re.search(r"@[\w-]+:(\d+)", (overlay / "secrets" / name).read_text())
        assert found is not None
        assert int(found[1]) in allowed


@pytest.mark.parametrize("role", ["audio", "index"])
def test_a_worker_is_scaled_on_all_lists_of_its_queues(manifests, role):
    deployment = roles(manifests)[role]
    scaled = named(manifests, "ScaledObject", deployment["metadata"]["name"])["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # applying again would undo the scaling
    lists = {each["metadata"]["listName"] for each in scaled["triggers"]}
    assert lists == {key for queue in ROLES[role].queues for key in queue_keys(queue)}
    names = [each["name"] for each in scaled["triggers"]]
    modifiers = scaled["advanced"]["scalingModifiers"]
    assert modifiers["formula"].split(" + ") == names
    assert len(set(names)) == len(names)
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "redis"
        assert trigger["metadata"]["databaseIndex"] == "0"
        assert trigger["metadata"]["listLength"] == modifiers["target"]
    follow_keda(scaled)


def follow_keda(scaled: Manifest) -> None:
    """Check what KEDA's own definition of a ScaledObject asks for, in the fields used here."""
    assert scaled.keys() == {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval"),
        *("cooldownPeriod", "advanced", "triggers"),
    }
    assert scaled["advanced"].keys() == {"horizontalPodAutoscalerConfig", "scalingModifiers"}
    modifiers = scaled["advanced"]["scalingModifiers"]
    assert modifiers.keys() == {"formula", "target", "activationTarget", "metricType"}
    assert all(isinstance(each, str) for each in modifiers.values())
    assert modifiers["metricType"] in ("AverageValue", "Value")
    for number in ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"):
        assert isinstance(scaled[number], int)
    for trigger in scaled["triggers"]:
        assert trigger.keys() == {"type", "name", "metadata", "authenticationRef"}
        assert all(isinstance(each, str) for each in trigger["metadata"].values())


def test_the_scaler_signs_in_with_what_the_secret_holds(manifests, overlay):
    [secret] = of_kind(manifests, "Secret")
    [authentication] = of_kind(manifests, "TriggerAuthentication")
    references = authentication["spec"]["secretTargetRef"]
    assert {each["parameter"] for each in references} == {"address", "password"}
    for each in references:
        assert each["name"] == secret["metadata"]["name"]
        assert each["key"] in secret["data"]
    for scaled in of_kind(manifests, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    values = {each["parameter"]: overlay / "secrets" / each["key"] for each in references}
    url = (overlay / "secrets" / "broker_url").read_text()
    assert url == f"redis://:{values['password'].read_text()}@{values['address'].read_text()}/0"


def test_a_worker_goes_down_to_none_only_when_no_job_can_be_running(
    monkeypatch, manifests, secrets
):
    audio = named(manifests, "ScaledObject", "worker-audio")["spec"]
    assert audio["minReplicaCount"] == 0
    [container] = pod_of(roles(manifests)["audio"])["containers"]
    with monkeypatch.context() as patch:
        settings = settings_under(patch, variables_of(manifests, container), secrets)
    assert audio["cooldownPeriod"] > settings.worker.time_limit_s
    # Beat's own jobs are among those of the index worker.
    assert named(manifests, "ScaledObject", "worker-index")["spec"]["minReplicaCount"] >= 1


def test_one_batch_can_use_every_process_that_there_may_be(monkeypatch, manifests, secrets):
    audio = named(manifests, "ScaledObject", "worker-audio")["spec"]
    [container] = pod_of(roles(manifests)["audio"])["containers"]
    with monkeypatch.context() as patch:
        settings = settings_under(patch, variables_of(manifests, container), secrets)
    processes = settings.worker.audio_concurrency
    assert str(processes) == container["resources"]["requests"]["cpu"]
    assert audio["advanced"]["scalingModifiers"]["target"] == str(processes)
    assert audio["maxReplicaCount"] * processes == settings.batch.window


def test_the_base_holds_no_secret_and_no_address_of_an_operator():
    base = build(_KUBERNETES / "base")
    assert of_kind(base, "Secret", "Ingress", "Namespace") == []
    assert "example.org" not in str(base)
