"""Writes the five files in manifests/ and the Helm chart from the kustomize bases, and the images' names into all of them.

python -m tools.manifests            write them
python -m tools.manifests --check    say which of them are out of date, and exit 1

What the files hold is what `kubectl kustomize` makes of overlays/five-files. An object that kustomize leaves as its
source has it is written in the source's own words, so that the comments stay.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from dumpagent import __version__
from tools import chart
from tools.kubectl import kustomize
from tools.project import PROJECT, names, runbook_url

FOLDER = PROJECT / "manifests"
AGENT, DEMO = "heap-dumps", "memory-leak-demo"
_SOURCES = ("base", "components", "demo", "overlays")
_IMAGES = {"dumpagent": "IMAGE", "dumpagent-analyze": "ANALYZE_IMAGE", "memory-leak-app": "DEMO_IMAGE"}
_MADE = "# Written by `make manifests` from manifests/base, components, demo and overlays; do not edit: your own values\n# belong into an overlay (docs/install.md).\n"
_HEADERS = {
    "openshift-rbac.yaml": "# 1 of 5: the namespace, one service account per daemon, and what each may do. docs/security.md gives the reasons.\n",
    "statefulset-volume.yaml": "# 2 of 5: the dump volume of each node. `dumpagent mount` binds it to /mnt/dump on the node and keeps it there.\n",
    "s3-uploader-statefulset.yaml": "# 3 of 5: uploads finished dumps to S3. The uploader refuses to start while a REPLACE_ME is left.\n",
    "deployment.yaml": "# 4 of 5: the demo application, which leaks on request until its JVM dies of an OutOfMemoryError.\n",
    "openshift-route.yaml": "# 5 of 5: the demo application from outside, by TLS that ends at the router.\n",
}

Object = dict[str, Any]


def _file_of(made: Object) -> str:
    """Say into which of the five files an object goes."""
    kind, name = made["kind"], made["metadata"]["name"]
    if kind == "Route":
        return "openshift-route.yaml"
    if DEMO in (name, made["metadata"].get("namespace")):
        return "deployment.yaml"
    if kind == "PriorityClass" or (name == "dump-volume-manager" and kind != "ServiceAccount"):
        return "statefulset-volume.yaml"
    if kind in ("ConfigMap", "Secret") or (name == "heap-dump-s3-uploader" and kind != "ServiceAccount"):
        return "s3-uploader-statefulset.yaml"
    return "openshift-rbac.yaml"


def sources() -> list[str]:
    """Give the text of every object in the sources, comments and all."""
    files = [path for folder in _SOURCES for path in sorted((FOLDER / folder).rglob("*.yaml"))]
    texts = [text for path in files for text in re.split(r"^---\n", path.read_text(), flags=re.MULTILINE)]
    return [text for text in texts if re.search(r"^kind: (?!Kustomization|Component)", text, re.MULTILINE)]


def text_of(made: Object, known: list[str]) -> str:
    """Give an object as text: its source's if that says the same, else as YAML."""
    for text in known:
        for candidate in (
            text,
            re.sub(r"^(  name: .*)$", rf"\1\n  namespace: {AGENT}", text, count=1, flags=re.MULTILINE),
        ):
            if yaml.safe_load(candidate) == made:
                return candidate
    ordered = {key: made[key] for key in ("apiVersion", "kind", "metadata", *made) if key in made}
    return yaml.safe_dump(ordered, sort_keys=False, width=1000)


def rendered(overlay: str) -> list[Object]:
    """Give the objects that an overlay makes. Raises RuntimeError."""
    return [made for made in yaml.safe_load_all(kustomize(FOLDER / "overlays" / overlay)) if made]


def five_files() -> dict[str, str]:
    """Give the content of each of the five files."""
    known = sources()
    parts: dict[str, list[str]] = {name: [] for name in _HEADERS}
    for made in rendered("five-files"):
        parts[_file_of(made)].append(text_of(made, known))
    return {name: _HEADERS[name] + _MADE + "---\n".join(texts) for name, texts in parts.items()}


def chart_files() -> dict[str, str]:
    """Give the content of each file of the chart, by its path below manifests/."""
    known = sources()
    forms = {
        overlay: [(made, text_of(made, known)) for made in rendered(overlay)]
        for overlay in ("kubernetes", "openshift", "daemonset")
    }
    settings = (FOLDER / "base" / "settings.yaml").read_text().partition("\ndata:\n")[2]
    made = chart.files(forms, settings=settings, image=names()["IMAGE"], version=__version__)
    return {f"chart/{name}": text for name, text in made.items()}


def with_images() -> dict[str, str]:
    """Give every source that names an image, with the names that project.env has now."""
    wanted = names()
    found = {}
    for folder in (*_SOURCES, "."):
        for path in sorted((FOLDER / folder).glob("*.yaml" if folder == "." else "**/*.yaml")):
            text = path.read_text()
            for name, variable in _IMAGES.items():
                text = re.sub(rf"(image: )\S*\b{name}[:@][\w.:-]+", rf"\g<1>{wanted[variable]}", text)
            found[str(path.relative_to(FOLDER))] = text
    return {path: text for path, text in found.items() if path not in _HEADERS}


def with_runbooks() -> dict[str, str]:
    """Give the alerts with the address of each one's runbook."""
    path = "monitoring/prometheusrule.yaml"
    text = (FOLDER / path).read_text()
    return {path: re.sub(r"(runbook_url: )\S+#(\S+)", lambda m: m[1] + runbook_url(m[2]), text)}


def stale() -> dict[str, str]:
    """Give the files that do not hold what they should, with what they should hold."""
    wrong_names = [
        variable for name, variable in _IMAGES.items() if not re.search(rf"\b{name}[:@]", names()[variable])
    ]
    if wrong_names:
        raise SystemExit(
            f"project.env: {', '.join(wrong_names)}: the image must keep its name; its registry and tag are yours"
        )
    for content in (with_images, with_runbooks, five_files, chart_files):
        wrong = {
            path: text
            for path, text in content().items()
            if not (FOLDER / path).exists() or (FOLDER / path).read_text() != text
        }
        if wrong:
            return wrong
    return {}


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        wrong = stale()
        for path in wrong:
            print(f"manifests/{path} is out of date: run `make manifests`", file=sys.stderr)
        sys.exit(1 if wrong else 0)
    while wrong := stale():  # the images' names first: the others are made of what they stand in
        for path, text in wrong.items():
            target = Path(FOLDER / path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            print(f"wrote manifests/{path}")


if __name__ == "__main__":
    main()
