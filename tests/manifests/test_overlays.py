"""The overlays, the components and the chart: each makes valid objects, and what is written from them is up to date."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.harness import manifests, schemas
from tests.harness.manifests import Object
from tools import dashboard, project
from tools import manifests as written
from tools.kubectl import kustomize, program
from tools.manifests import rendered

OVERLAYS = sorted(path.parent.name for path in (manifests.FOLDER / "overlays").glob("*/kustomization.yaml"))
VERSIONS = ("1.30", kubernetes_validate.latest_version())  # 1.30 is the oldest with admission policies
_EXTENSIONS = set(schemas.KINDS)


def _by_name(objects: list[Object]) -> dict[tuple[str, str, str], Object]:
    return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in objects}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_makes_objects_that_kubernetes_accepts(overlay: str) -> None:
    made = rendered(overlay)
    assert made
    for version in VERSIONS:
        for document in made:
            if document["kind"] not in _EXTENSIONS:
                kubernetes_validate.validate(document, version, strict=True)


def test_openshifts_console_gets_a_link_a_download_a_quick_start_and_the_dashboard() -> None:
    """Each by OpenShift's own schema; the dashboard has Grafana's queries, in panels that the console draws."""
    made = _by_name(rendered("console"))
    for kind, name in (("ConsoleLink", "dumpagent"), ("ConsoleCLIDownload", "dumpagent"), ("ConsoleQuickStart", "dumpagent-opt-in")):  # fmt: skip
        document, known = made[kind, "", name], schemas.kind(kind)
        assert document["apiVersion"] == f"{known.group}/v1"
        jsonschema.validate(document, schemas.strict(known.schema))
    board = made["ConfigMap", "openshift-config-managed", "dumpagent-dashboard"]
    assert board["metadata"]["labels"]["console.openshift.io/dashboard"] == "true"
    (shown,) = (json.loads(text) for text in board["data"].values())
    panels = [panel for row in shown["rows"] for panel in row["panels"]]
    assert {panel["type"] for panel in panels} == {"graph", "singlestat", "table"}
    assert [
        (panel["title"], target["expr"]) for panel in panels for target in panel["targets"]
    ] == dashboard.queries()


def test_what_is_written_from_the_sources_is_up_to_date() -> None:
    """`make manifests` would change nothing: the five files, the chart, the images' names."""
    assert list(written.stale()) == []


def test_the_address_of_the_runbooks_has_one_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once DOCS_URL is named in project.env, `make manifests` writes it into every alert."""
    monkeypatch.setattr(project, "names", lambda: {"DOCS_URL": "https://docs.example.com/dumpagent/"})
    (text,) = written.with_runbooks().values()
    urls = re.findall(r"runbook_url: (\S+)", text)
    assert urls
    assert all(url.startswith("https://docs.example.com/dumpagent/runbooks/#") for url in urls)


def test_the_agent_alone_has_nothing_of_the_demo() -> None:
    """Who installs the agent gets no application that leaks, and no namespace for it."""
    for overlay in ("kubernetes", "openshift", "daemonset"):
        assert "memory-leak" not in str(rendered(overlay)), overlay


@pytest.mark.parametrize("overlay", ["openshift", "demo-openshift", "five-files"])
def test_what_admits_pods_comes_before_them(overlay: str) -> None:
    """kustomize puts kinds that it does not know last; the pods of a first `apply` would be refused until a retry."""
    kinds = [o["kind"] for o in rendered(overlay)]
    last_of_admission = max(
        n for n, kind in enumerate(kinds) if kind in ("SecurityContextConstraints", "RoleBinding")
    )
    assert last_of_admission < kinds.index("StatefulSet")


def test_the_daemonset_form_covers_every_node_and_needs_no_claim() -> None:
    made = _by_name(rendered("daemonset"))
    assert not [key for key in made if key[0] == "StatefulSet"]
    for name in ("dump-volume-manager", "heap-dump-s3-uploader"):
        spec = made["DaemonSet", "heap-dumps", name]["spec"]
        assert {"replicas", "serviceName", "volumeClaimTemplates", "podManagementPolicy"}.isdisjoint(spec)
        assert spec["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
        assert set(spec["template"]["spec"]["affinity"]) == {"nodeAffinity"}
    pod = made["DaemonSet", "heap-dumps", "dump-volume-manager"]["spec"]["template"]["spec"]
    (volume,) = (v for v in pod["volumes"] if v["name"] == "dump-storage-pvc")
    assert volume["hostPath"] == {"path": "/var/lib/heap-dumps", "type": "DirectoryOrCreate"}
    (kept,) = (e["value"] for e in pod["containers"][0]["env"] if e["name"] == "UNMOUNT_ON_EXIT")
    assert kept == "false"


@pytest.mark.parametrize(
    ("flags", "overlay"), [((), "kubernetes"), (("--set", "form=daemonset"), "daemonset"), (("--set", "openshift=true"), "openshift")]
)  # fmt: skip
def test_the_chart_makes_what_the_overlay_makes(flags: tuple[str, ...], overlay: str) -> None:
    words = ("template", "x", str(manifests.FOLDER / "chart"), "--namespace", "heap-dumps", *flags)
    done = subprocess.run([program("helm"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = _by_name([o for o in yaml.safe_load_all(done.stdout) if o])
    wanted = _by_name([o for o in rendered(overlay) if o["kind"] != "Namespace"])
    for (
        workload
    ) in made.values():  # the chart says in any case whether the Secret may be missing; false is the default
        for container in workload.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            for source in container.get("envFrom", []):
                assert source.get("secretRef", {}).pop("optional", False) is False
    assert set(made) == set(wanted)
    for key, document in wanted.items():
        assert made[key] == document, key


@pytest.mark.parametrize("flag", ["imge=x", "form=deployment", "nodes=0", "settings.S3_BUCKET=null"])
def test_the_chart_refuses_a_wrong_value(flag: str) -> None:
    words = ("template", "x", manifests.FOLDER / "chart", "--set", flag)
    done = subprocess.run([program("helm"), *words], capture_output=True, text=True, check=False)
    if flag.endswith("null"):  # helm's way to leave a value out
        assert "S3_BUCKET" not in done.stdout
    else:
        assert done.returncode != 0
        assert flag.partition("=")[0] in done.stderr


def test_the_chart_has_no_finding_of_helm() -> None:
    done = subprocess.run(
        [program("helm"), "lint", "--strict", manifests.FOLDER / "chart"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _built(folder: Path, text: str, **files: str) -> list[Object]:
    """Give what an overlay of somebody's own makes; `../manifests` is ours."""
    (folder / "mine").mkdir()
    (folder / "manifests").symlink_to(manifests.FOLDER)
    for name, content in {"kustomization": text, **files}.items():
        (folder / "mine" / f"{name}.yaml").write_text(content)
    return [o for o in yaml.safe_load_all(kustomize(folder / "mine")) if o]


def test_the_documented_overlay_is_built(tmp_path: Path) -> None:
    """docs/install.md, "An overlay of your own", as it stands there."""
    page = (manifests.PROJECT / "docs" / "install.md").read_text().partition("## An overlay of your own")[2]
    match = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert match
    made = _by_name(_built(tmp_path, match[1]))
    for name in ("dump-volume-manager", "heap-dump-s3-uploader"):
        workload = made["StatefulSet", "heap-dumps", name]
        assert workload["spec"]["replicas"] == 3
        pod = workload["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["image"].startswith("registry.example.com/dumpagent@sha256:")
    data = made["ConfigMap", "heap-dumps", "s3-uploader-config"]["data"]
    assert (data["S3_BUCKET"], data["COMPRESSION"], data["CLAIM"]) == ("my-heap-dumps", "gzip", "true")
    uploader = str(made["StatefulSet", "heap-dumps", "heap-dump-s3-uploader"])
    assert "'name': 'AWS_CA_BUNDLE', 'value': '/etc/s3-ca/ca.crt'" in uploader


_APPLICATION = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {heap-dumps: enabled}}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      securityContext: {runAsNonRoot: true}
      containers: [{name: app, image: shop, env: [{name: A, value: b}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: app, image: other}]}
"""


@pytest.mark.parametrize("component", ["application", "application-sidecar"])
def test_an_application_opts_in_by_a_component(tmp_path: Path, component: str) -> None:
    """The labelled Deployment is changed and valid; one without the label stays as it is."""
    text = f"resources: [app.yaml]\ncomponents: [../manifests/components/{component}]\n"
    made = _by_name(_built(tmp_path, text, app=_APPLICATION))
    before = _by_name(list(yaml.safe_load_all(_APPLICATION)))
    assert made["Deployment", "", "other"] == before["Deployment", "", "other"]
    shop = made["Deployment", "", "shop"]
    kubernetes_validate.validate(shop, VERSIONS[-1], strict=True)
    pod = shop["spec"]["template"]["spec"]
    app = next(c for c in pod["containers"] if c["name"] == "app")
    env = [entry["name"] for entry in app["env"]]
    assert env.index("POD_NAME") < env.index("JAVA_TOOL_OPTIONS"), (
        "a variable is expanded from those before it"
    )
    assert {"name": "A", "value": "b"} in app["env"]
    if component == "application":
        (wait,) = pod["initContainers"]
        assert wait["args"][0] == "wait"
        assert {"POD_NAME", "POD_NAMESPACE"} < {entry["name"] for entry in wait["env"]}
        assert "runAsUser" not in str(pod), "the directory must belong to the application's user"
        for container in (wait, app):
            assert {"name": "host-mnt", "mountPath": "/mnt", "mountPropagation": "HostToContainer"} in container["volumeMounts"]  # fmt: skip
    else:
        assert "hostPath" not in str(pod)
        assert {"name": "heap-dumps", "mountPath": "/mnt/dump", "subPathExpr": "$(POD_NAMESPACE)_$(POD_NAME)"} in app["volumeMounts"]  # fmt: skip
        assert "'add'" not in str(pod)


def test_a_component_for_an_identity_makes_the_secret_optional(tmp_path: Path) -> None:
    text = "resources: [../manifests/overlays/kubernetes]\ncomponents: [../manifests/components/workload-identity, ../manifests/components/daemonset, ../manifests/components/selinux-recursive, ../manifests/pod-events]\n"
    made = _by_name(_built(tmp_path, text))
    account = made["ServiceAccount", "heap-dumps", "heap-dump-s3-uploader"]
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == "REPLACE_ME"
    uploader = made["DaemonSet", "heap-dumps", "heap-dump-s3-uploader"]["spec"]["template"]["spec"]
    assert {"secretRef": {"name": "s3-credentials", "optional": True}} in uploader["containers"][0]["envFrom"]
    assert "api-token" in str(uploader["containers"])
    manager = made["DaemonSet", "heap-dumps", "dump-volume-manager"]["spec"]["template"]["spec"]
    assert manager["securityContext"]["seLinuxChangePolicy"] == "Recursive"


def test_who_stays_in_the_namespace_of_the_first_version_finds_everything_there(tmp_path: Path) -> None:
    """As docs/upgrade.md has it: the subjects of the bindings move too, which `namespace:` alone does not do."""
    page = (manifests.PROJECT / "docs" / "upgrade.md").read_text()
    match = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert match
    made = _built(tmp_path, match[1])
    assert "heap-dumps" not in {o["metadata"].get("namespace") for o in made}
    for binding in (o for o in made if o["kind"] == "RoleBinding"):
        assert [s["namespace"] for s in binding["subjects"]] == ["memory-leak-demo"]


class _GitOverHttp(http.server.CGIHTTPRequestHandler):
    """`git http-backend` behind a plain server. Source: git-http-backend(1)."""

    have_fork = False

    def is_cgi(self) -> bool:
        self.cgi_info = ("/backend", self.path)
        return True

    def do_GET(self) -> None:
        self.run_cgi()

    def run_cgi(self) -> None:
        path, _, query = self.path.partition("?")
        size = int(self.headers.get("Content-Length") or 0)
        environ = os.environ | {
            "GIT_PROJECT_ROOT": str(self.directory), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        answer = subprocess.run(["git", "http-backend"], input=self.rfile.read(size), env=environ, capture_output=True, check=True).stdout  # fmt: skip
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base has
        pass


@contextlib.contextmanager
def _git_server(folder: Path) -> Iterator[str]:
    """Serve a bare copy of the manifests as they are now; give its address."""
    work = folder / "work"
    (work / "x").mkdir(parents=True)
    subprocess.run(["cp", "-r", manifests.FOLDER, work / "manifests"], check=True)
    git: list[str | Path] = ["git", "-C", work, "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, folder / "served" / "dumpagent.git"], check=True)

    def handler(*args: object) -> _GitOverHttp:
        return _GitOverHttp(*args, directory=str(folder / "served"))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/dumpagent.git"
        server.shutdown()


def test_overlays_work_by_address_from_a_git_server(tmp_path: Path) -> None:
    """Who has no checkout names the repository; what comes is the same."""
    with _git_server(tmp_path) as address:
        for overlay in ("kubernetes", "demo-openshift", "daemonset"):
            mine = tmp_path / overlay
            mine.mkdir()
            (mine / "kustomization.yaml").write_text(
                f"resources: ['{address}//manifests/overlays/{overlay}?ref=main']\n"
            )
            made = [o for o in yaml.safe_load_all(kustomize(mine)) if o]
            assert _by_name(made) == _by_name(rendered(overlay))


@pytest.mark.parametrize("overlay", ["analyze", "prune"])
def test_a_job_beside_the_bucket_can_reach_the_bucket_alone(overlay: str) -> None:
    """No token, no directory of a node, no capability, an account and a Secret of its own."""
    (job,) = (made for made in rendered(overlay) if made["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (account,) = (made for made in rendered(overlay) if made["kind"] == "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"] == f"heap-dump-{overlay}"
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    assert all(set(volume) <= {"name", "emptyDir"} for volume in pod.get("volumes", []))
    assert pod["securityContext"]["runAsNonRoot"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {"secretRef": {"name": f"s3-{overlay}-credentials"}} in container["envFrom"]
    assert container["resources"]["limits"]["memory"]


def test_the_analysis_ends_by_itself_before_its_job_is_ended() -> None:
    """A job that the deadline of Kubernetes kills releases no claim."""
    (job,) = (made for made in rendered("analyze") if made["kind"] == "CronJob")
    (settings,) = (made for made in rendered("analyze") if made["kind"] == "ConfigMap")
    seconds = float(settings["data"]["ANALYZE_DEADLINE"].removesuffix("m")) * 60
    assert seconds < job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] - 60
