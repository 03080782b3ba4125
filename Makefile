# Everything here makes what it needs first: `make test` and `make demo` work in a fresh checkout with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
OLD_PYTHON = dumpagent needs Python 3.11 or later; name one: make PYTHON=/path/to/python3
MAKE_VENV = $(PYTHON) -c 'import sys; sys.exit("$(OLD_PYTHON)" if sys.version_info < (3, 11) else 0)' \
	&& $(PYTHON) -m venv $(VENV)

.PHONY: audit base-digests release-images soak-leaks soak-stores check format test-stores soak-applications arm64 release soak help attack test test-fast coverage e2e test-vm lint docs docs-site images manifests dashboard-picture demo bench bench-docs bench-quick bench-mount bench-analyze java-fixtures lock clean fuzz torture
help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

PIP_INSTALL = -m pip install --quiet
EDITABLE := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

$(STAMP): pyproject.toml requirements/dev.txt requirements/build.txt
	@PYTHON=$(PYTHON) tools/setup.sh venv
	@$(MAKE_VENV)
	$(BIN)/python $(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt --requirement requirements/build.txt
	$(BIN)/python $(EDITABLE)
	@touch $@ $(DEMO_STAMP)

# The demo wants the agent and a small S3 server, which is a third of what tests and linters want.
$(DEMO_STAMP): pyproject.toml requirements/demo.txt requirements/build.txt
	@echo "installing into $(VENV) (once)"
	@PYTHON=$(PYTHON) MAKE_TARGET=demo tools/setup.sh venv
	@$(MAKE_VENV)
	$(BIN)/python $(PIP_INSTALL) --require-hashes --requirement requirements/demo.txt --requirement requirements/build.txt
	$(BIN)/python $(EDITABLE)
	@touch $@

demo: $(DEMO_STAMP)  ## see a real heap dump travel into a bucket (ARGS=--keep: look around afterwards)
	$(BIN)/python -m demo $(ARGS)

setup-%:  # the Debian packages of this purpose: test, cluster
	@PYTHON=$(PYTHON) tools/setup.sh venv $*

test: setup-test $(STAMP)  ## every test, with real JVMs, real mounts and real S3 servers; as root it installs what it needs (INSTALL=no: it does not)
	$(BIN)/python -m pytest -m 'not e2e and not attack' -n 3 --dist loadgroup

test-stores: setup-test $(STAMP)  ## those of them that run the acceptance suite over every store
	$(BIN)/python -m pytest tests/stores -n 3 --dist loadgroup

test-fast: $(STAMP)  ## the tests that take milliseconds
	$(BIN)/python -m pytest -m 'not slow and not e2e' -n 2 --dist loadgroup

coverage: setup-test $(STAMP)  ## the fast tests and those of mount mode, with the share of lines that they run (cheap from Python 3.12 on)
	rm -rf .cache/coverage && mkdir -p .cache/coverage
	COVERAGE_CORE=sysmon $(BIN)/coverage run -m pytest -m 'not slow and not e2e' -n 2 --dist loadgroup
	COVERAGE_CORE=sysmon $(BIN)/coverage run -m pytest -m slow -n 2 tests/mount
	$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet -o .cache/coverage/report.json
	$(BIN)/python -m tools.coverage_of_folders .cache/coverage/report.json

attack: $(STAMP)  ## a hostile tenant beside the real daemons, each attack TIMES times, the first beside version 0.1.0 as control (root)
	TIMES=$(or $(TIMES),1) $(BIN)/python -m pytest -m attack tests/attacks -n 2 --timeout 400

e2e: setup-cluster $(STAMP)  ## the manifests on a real kubelet, following the guide; on any cluster with KUBECONFIG
	$(BIN)/python -m pytest -m e2e tests/e2e -rP --durations=20

test-vm: setup-vm $(STAMP)  ## SELinux enforcing and cgroup v2, in a virtual machine (root; half an hour at most, emulated)
	timeout 5600 $(BIN)/python -m pytest -m vm tests/vm -v --durations=10

arm64: $(STAMP)  ## every dependency has a wheel for arm64 (asks the package index)
	$(BIN)/python -m tools.arm64_wheels

RELEASE_VENV := .cache/release-venv
RELEASE_STAMP := $(RELEASE_VENV)/.installed

$(RELEASE_STAMP): requirements/release.txt
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python $(PIP_INSTALL) --no-deps --require-hashes --requirement requirements/release.txt
	@touch $@

release: $(RELEASE_STAMP)  ## wheel, sdist, SBOM and provenance statement of this commit, in build/release
	rm -rf build/release
	$(RELEASE_VENV)/bin/python -m tools.release build/release

soak: test-vm arm64 release soak-applications soak-stores soak-leaks  ## what takes longer than CI may, or asks the world outside

lint: $(STAMP)  ## ruff, mypy, import contracts, the layout's limits
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.house
	$(BIN)/python tools/reference.py --check
	$(BIN)/python -m tools.dashboard --check
	$(BIN)/python -m tools.manifests --check

check: lint test-fast  ## what to run before each commit

format: $(STAMP)  ## format the code, and write the reference pages and the manifests from their sources
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .
	$(MAKE) --no-print-directory docs manifests

docs: $(STAMP)  ## write the reference pages in docs/ from the code
	$(BIN)/python tools/reference.py
	$(BIN)/python -m tools.dashboard

manifests: $(STAMP)  ## write the five manifests and the Helm chart from the kustomize bases
	$(BIN)/python -m tools.manifests

DOCS_VENV := .cache/docs-venv
DOCS_STAMP := $(DOCS_VENV)/.installed

$(DOCS_STAMP): requirements/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python $(PIP_INSTALL) --no-deps --require-hashes --requirement requirements/docs.txt
	@touch $@

docs-site: $(DOCS_STAMP)  ## the documentation as a site, with search, in build/site
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet
	@echo "build/site/index.html"

images:  ## build both images and load them into the cluster of the current kubectl context
	@scripts/images

dashboard-picture: $(STAMP)  ## draw docs/dashboard.png from the dashboard (needs prometheus, promtool, chromium)
	$(BIN)/python -m tools.dashboard_picture

LOCK_VENV := .cache/lock-venv
LOCK_STAMP := $(LOCK_VENV)/.installed

$(LOCK_STAMP): requirements/lock.txt
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python $(PIP_INSTALL) --require-hashes --requirement requirements/lock.txt
	@touch $@

lock: $(LOCK_STAMP)  ## pin with hashes what tests, image and tools install, in requirements/*.txt (UPGRADE=yes: the newest of all)
	$(LOCK_VENV)/bin/python -m tools.lock $(if $(UPGRADE),--upgrade)

AUDIT_VENV := .cache/audit-venv
AUDIT_STAMP := $(AUDIT_VENV)/.installed

$(AUDIT_STAMP): requirements/audit.txt
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python $(PIP_INSTALL) --require-hashes --requirement requirements/audit.txt
	@touch $@

audit: $(AUDIT_STAMP)  ## known vulnerabilities of what image and demo install (asks the package index; fails where it gives no answer)
	for list in build image image-analyze demo; do \
		$(AUDIT_VENV)/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement requirements/$$list.txt || exit; done

base-digests:  ## ask the registries for the digests of the base images, and write them into requirements/base-images.txt (needs skopeo)
	$(PYTHON) -m tools.base_images

release-images:  ## build on base images with digests, push to IMAGE_PUSH, and write the component that names what was pushed by digest
	@RELEASE=yes scripts/images

BENCH_OUT ?= build/bench
OBJECTS ?= 100000000
BENCH_VENV := .cache/bench-venv
BENCH_STAMP := $(BENCH_VENV)/.installed

$(BENCH_STAMP): requirements/bench.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) --no-deps --require-hashes --requirement requirements/bench.txt
	@touch $@

bench: $(STAMP) $(BENCH_STAMP)  ## measure what an upload costs, side by side with every other client, and mount mode (root, 30 minutes; Ctrl-C: what there is)
	$(BIN)/python -m bench --tools $(BENCH_VENV)/bin --out $(BENCH_OUT)

bench-docs: $(STAMP)  ## put the tables and plots of the last `make bench` into docs/performance.md
	$(BIN)/python -m bench.docs $(BENCH_OUT)

bench-quick: $(STAMP) $(BENCH_STAMP)  ## the main figures of it, in under 3 minutes
	$(BIN)/python -m bench --quick --tools $(BENCH_VENV)/bin --out $(BENCH_OUT)-quick

bench-mount: $(STAMP)  ## remount times, lost files, the probe's and the idle daemon's cost (root, 10 minutes)
	$(BIN)/python -m bench.mount_figures --json $(BENCH_OUT)/mount.json

bench-analyze: $(STAMP)  ## measure exact analysis and summaries: CPU, memory, a heap of 100 million objects in 2 GiB (root, an hour, 15 GB of disk; OBJECTS=0: without it)
	$(BIN)/python -m bench.analyze_figures --objects $(OBJECTS)

java-fixtures:  ## the Java programs that tests and the bench run, built anew (needs javac)
	$(PYTHON) tests/harness/java/build.py tests/harness/java/LeakyApp.java tests/harness/java/leaky-app.jar
	$(PYTHON) tests/harness/java/build.py tests/harness/java/Unpack.java tests/harness/java/unpack.jar
	$(PYTHON) tests/harness/java/build.py tests/harness/java/Leaks.java tests/harness/java/leaks.jar
	$(PYTHON) tests/harness/java/build.py tests/harness/java/PlantedLeaks.java tests/harness/java/planted-leaks.jar
	$(PYTHON) tests/harness/java/build.py tests/harness/java/BlindLeaks.java tests/harness/java/blind-leaks.jar
	$(PYTHON) tests/harness/java/build.py bench/java/Shop.java bench/java/shop.jar

torture: $(STAMP)  ## kill the agent and break the store again and again: make torture STORE=ceph CYCLES=1000 SEED=1
	$(BIN)/python -m tests.torture --store $(or $(STORE),swift) --cycles $(or $(CYCLES),1000) $(if $(SEED),--seed $(SEED)) $(if $(HOSTILE),--hostile)

soak-applications: $(STAMP)  ## 200 applications die within a minute, each leaves a dump, an error file, a GC log and a recording (root)
	$(BIN)/python -m tests.soak

soak-stores: $(STAMP)  ## pairs of the ways in which stores are unlike S3, played by the fake (SAMPLE=40: so many of them by chance)
	$(BIN)/python -m tests.soak_stores --sample $(or $(SAMPLE),0)

soak-leaks: $(STAMP)  ## 18 leaks that the rules did not have in mind, on four JDKs and four collectors: who names the holder (an hour)
	$(BIN)/python -m tests.blind_leaks

fuzz: $(STAMP)  ## 100,000 mutated heap dumps for everything that reads dumps
	$(BIN)/python -m tests.fuzz --dumps 100000

clean:  ## remove what the targets above made in this folder
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache build dist
