"""Builds of the Kustomize folders: by kubectl where there is one, else by the little used here.

What is done here are the fields that the manifests use, and the names without the hash of their
content; a test holds it against kubectl.
"""

import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {
    *("apiVersion", "kind", "namespace", "resources", "components", "labels", "images"),
    *("configMapGenerator", "secretGenerator", "configurations", "patches"),
}
# By which field lists are merged, as the Kubernetes API says; others are replaced.
_MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
}
_HASH = re.compile(r"-[0-9a-z]{10}$")
_CLUSTER_WIDE = {"Namespace"}


def build(folder: Path) -> list[Manifest]:
    """Return the manifests of a folder, in no particular order."""
    return build_by_kubectl(folder) if shutil.which("kubectl") else build_plainly(folder)


def build_by_kubectl(folder: Path) -> list[Manifest]:
    """Return what kubectl makes of it, the hashes taken from the names."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    manifests = list(yaml.safe_load_all(done.stdout))
    made = {
        (each["kind"], each["metadata"]["name"])
        for each in manifests
        if each["kind"] in ("ConfigMap", "Secret") and _HASH.search(each["metadata"]["name"])
    }
    names = {name: _HASH.sub("", name) for _, name in made}
    for secret in manifests:
        if secret["kind"] == "Secret":  # long values are broken into lines
            secret["data"] = {key: "".join(text.split()) for key, text in secret["data"].items()}
    return [_renamed(each, names) for each in manifests]


def build_plainly(folder: Path) -> list[Manifest]:
    """Return the same without kubectl."""
    return list(_built(folder, []))


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def _built(folder: Path, manifests: list[Manifest]) -> list[Manifest]:
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert plan.keys() <= _KNOWN, plan.keys() - _KNOWN
    for name in plan.get("resources", ()):
        place = folder / name
        if place.is_dir():
            manifests += _built(place, [])
        else:
            manifests += [each for each in yaml.safe_load_all(place.read_text()) if each]
    for name in plan.get("components", ()):
        manifests = _built(folder / name, manifests)
    for kind in ("ConfigMap", "Secret"):
        for wish in plan.get(f"{kind[0].lower()}{kind[1:]}Generator", ()):
            _generate(folder, kind, wish, manifests)
    for patch in plan.get("patches", ()):
        content = yaml.safe_load(patch.get("patch") or (folder / patch["path"]).read_text())
        # What it calls itself does not count where a target is named.
        changes = {"spec": content["spec"]}
        for each in _targets(patch["target"], manifests):
            _merge(each, changes)
    for each in manifests:
        _finish(each, plan)
    return manifests


def _targets(target: Manifest, manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    for each in manifests:
        kind_fits = re.fullmatch(target.get("kind", ".*"), each["kind"])
        if kind_fits and re.fullmatch(target.get("name", ".*"), each["metadata"]["name"]):
            yield each


def _generate(folder: Path, kind: str, wish: Manifest, manifests: list[Manifest]) -> None:
    texts = [(folder / name).read_text() for name in wish.get("envs", ())]
    lines = [*"\n".join(texts).split("\n"), *wish.get("literals", ())]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    data = {name: value for name, _, value in pairs}
    data |= {Path(name).name: (folder / name).read_text() for name in wish.get("files", ())}
    if wish.get("behavior") == "merge":
        [found] = _targets({"kind": kind, "name": wish["name"]}, manifests)
        found["data"] |= data
        return
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": wish["name"]}, "data": data}
    if kind == "Secret":
        made["type"] = "Opaque"
        made["data"] = {key: b64encode(text.encode()).decode() for key, text in data.items()}
    manifests.append(made)


def _merge(into: Manifest, patch: Manifest) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key in _MERGED_BY and key in into:
            _merge_list(into[key], value, _MERGED_BY[key])
        else:
            into[key] = deepcopy(value)


def _merge_list(into: list[Manifest], patch: Sequence[Manifest], by: str) -> None:
    present = {each[by]: each for each in into}
    for each in patch:
        if each[by] in present:
            _merge(present[each[by]], each)
        else:
            into.append(deepcopy(each))


def _finish(manifest: Manifest, plan: Manifest) -> None:
    metadata = manifest["metadata"]
    if "namespace" in plan and manifest["kind"] not in _CLUSTER_WIDE:
        metadata["namespace"] = plan["namespace"]
    for labels in plan.get("labels", ()):
        metadata.setdefault("labels", {}).update(labels["pairs"])
        template = manifest.get("spec", {}).get("template")
        if labels.get("includeTemplates") and template:
            template["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for image in plan.get("images", ()):
        for container in containers(manifest):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"


def containers(manifest: Manifest) -> list[Manifest]:
    """Return all containers of a manifest's pods, those that run first first."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]
