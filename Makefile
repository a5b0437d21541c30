# One target for each thing that a developer does. tests/ci/steps.py lists what CI runs.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
ZIG = $(BIN)/python -m ziglang
STUBTEST = $(BIN)/python -m mypy.stubtest hftws._core \
	--allowlist tests/package/stubtest-allowlist.txt --ignore-unused-allowlist

# Zig compiles its own build tool on first use. In debug mode that takes seconds, not minutes, and
# the code that the tool then produces is the same.
export ZIG_DEBUG_CMD = 1

.PHONY: help build demo test test-core test-python test-python-1 test-python-2 test-safe check lint types integration-test soak bench format map stubs clean fuzz fuzz-smoke autobahn test-valgrind test-kqueue wheels wheels-test ktls-test arm-test free-threading-test

help:
	@echo "make demo              the simulated exchange and a live latency table, for 10 seconds"
	@echo "make test              core, extension, lint, types, integration"
	@echo "make test-safe         the tests of the extension again, with every assertion of the core on"
	@echo "make test-valgrind     core and extension under valgrind's memcheck (minutes; not in make test)"
	@echo "make test-kqueue       the client on macOS's notifier and memory, without a Mac"
	@echo "make ktls-test         TLS in the kernel: Debian's kernels 6.1, 6.12 and sid's, two OpenSSLs"
	@echo "make arm-test          core and extension for Arm, under qemu-user (minutes; not in make test)"
	@echo "make free-threading-test  the tests of threads on a CPython without the GIL, built for it"
	@echo "make integration-test  the Binance test: simulated always, real where it can be reached"
	@echo "make autobahn          every case of the Autobahn TestSuite, and docs/conformance.md"
	@echo "make build             the extension, into this checkout"
	@echo "make soak              recorded data at 20 times its speed through faults, for 10 minutes"
	@echo "make fuzz              libFuzzer, 10 minutes a target: FUZZ_SECONDS, FUZZ_TARGETS"
	@echo "make fuzz-smoke        the same for a few seconds a target, with one seed"
	@echo "make bench             against other clients and C, side by side (see bench/README.md)"
	@echo "make wheels            every wheel of a release, checked and tried, in dist/"
	@echo "make wheels-test       the same for the Python of .venv alone (a part of CI)"
	@echo "make check             type check core and binding for Linux (glibc, musl) and macOS"
	@echo "make lint types        ruff and zig fmt; mypy, pyright and stubtest"
	@echo "make format            rewrite the sources in the house format"
	@echo "make map               rewrite the order and the map in ARCHITECTURE.md, from the sources"
	@echo "make stubs             copy the docstrings of the extension into its stub"
	@echo "make clean             remove what was built, except .venv"

# The environment of the developers, made again when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1,<27'
	$(BIN)/pip install --quiet --group dev
	touch $@

build: $(VENV)/.installed
	$(BIN)/python hatch_build.py

demo: build
	$(BIN)/python -m hftws demo

# Its parts run side by side where there are two CPUs; failures are listed last: tests/ci/. The
# integration test measures time, so it runs alone when the others are done.
test:
	@$(PYTHON) -m tests.ci --logs build/test --last integration-test \
		test-python-1 test-python-2 test-core check types lint

test-core: $(VENV)/.installed
	$(ZIG) build test --summary all

test-python: build
	PYTHONPATH=. $(BIN)/pytest --ignore=tests/integration

# Its two halves. The second one mostly waits for programs that it starts.
SECOND_HALF = $(addprefix tests/,autobahn exchange package \
	$(addprefix test_,$(addsuffix .py,bench errnos leaks libssl memory soak)))

test-python-1: build
	PYTHONPATH=. $(BIN)/pytest --ignore=tests/integration $(addprefix --ignore=,$(SECOND_HALF))

test-python-2: build
	PYTHONPATH=. $(BIN)/pytest $(SECOND_HALF)

# What is long, or not about the core: `make test` has just shown the same.
NOT_SAFE = $(addprefix --ignore=,integration exchange package autobahn \
	$(addprefix test_,$(addsuffix .py,architecture bench ci debian demo fuzz_corpus ktls_rig leaks libssl \
	selections soak tidy xstate_shim)))

# The same tests again with every assertion of the core switched on, and with the AEAD that every
# machine has. Freed memory is filled with noise, so that any use of it is noticed. From within
# tests/, so that the processes which tests start import this build, too.
test-safe: build
	rm -rf build/safe && mkdir -p build/safe
	cp -r hftws build/safe/ && rm -f build/safe/hftws/*.so
	$(BIN)/python hatch_build.py --optimize safe --prefix build/safe/hftws
	cd tests && MALLOC_PERTURB_=90 HFTWS_IPSEC_MB=off PYTHONPATH=../build/safe ../$(BIN)/pytest \
		-c ../pyproject.toml -p no:cacheprovider $(NOT_SAFE) --fault-seeds=250 .

# macOS's notifier, memory and tuning under the client, over stand-ins for its kernel. From within
# tests/, so that the processes which tests start import this build, too.
KQUEUE_TESTS = test_system.py $(addprefix test_,$(addsuffix .py,connect lookup messages close \
	send callbacks tls)) kqueue -k "not busy and not left_behind"

test-kqueue: $(VENV)/.installed
ifeq ($(shell uname -s),Linux)
	rm -rf build/kqueue && mkdir -p build/kqueue
	cp -r hftws build/kqueue/ && rm -f build/kqueue/hftws/*.so
	$(BIN)/python hatch_build.py --optimize safe --kqueue-shim --prefix build/kqueue/hftws
	cd tests && HFTWS_TEST_KQUEUE=1 PYTHONPATH=../build/kqueue ../$(BIN)/pytest \
		-c ../pyproject.toml -p no:cacheprovider $(KQUEUE_TESTS)
else
	@echo "test-kqueue is skipped: it is for Linux. Here every test runs on the real kqueue."
endif

# Fails for what memcheck finds in our code: tests/valgrind/run.py. Valgrind does not know AVX-512,
# which libipsec-mb would use, and is too slow for tests of much data or of time.
VALGRIND_TESTS = tests/test_pinning.py tests/test_compression.py -k "not random and not thousand \
	and not sliding and not thread and not websockets and (test_pinning or not wss)"
VALGRIND_RUN = HFTWS_IPSEC_MB=off HFTWS_TEST_PATIENCE=20 PYTHONPATH=build/valgrind \
	$(BIN)/python tests/valgrind/run.py

test-valgrind: $(VENV)/.installed
ifeq ($(shell command -v valgrind),)
	@echo "test-valgrind is skipped: there is no valgrind on this machine."
else
	rm -rf build/valgrind && mkdir -p build/valgrind
	cp -r hftws build/valgrind/ && rm -f build/valgrind/hftws/*.so
	$(ZIG) build install-test -Dvalgrind=true -Dcpu=baseline -Dfault-seeds=500 --prefix build/valgrind
	$(BIN)/python hatch_build.py --optimize safe --valgrind --prefix build/valgrind/hftws
	$(VALGRIND_RUN) --ours core-test build/valgrind/core.xml -- build/valgrind/core-test
	$(VALGRIND_RUN) --ours _core build/valgrind/python.xml -- $(BIN)/python $(BIN)/pytest -q \
		-p no:cacheprovider $(VALGRIND_TESTS)
endif

wheels: $(VENV)/.installed
	$(BIN)/nox -s wheels

# The wheels of one CPython, for each platform, in a separate folder.
wheels-test: build
	rm -rf build/wheels/dist
	$(BIN)/python -m release --dist build/wheels/dist --python \
		$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	HFTWS_TEST_PATIENCE=5 PYTHONPATH=. $(BIN)/pytest tests/package/test_dist.py --dist build/wheels/dist

# Boots kernels that have kTLS, as processes: tests/ktls/. Skipped if they cannot be had.
ktls-test: build
	$(BIN)/python -m tests.ktls test

# With Debian's own Python for arm64, unpacked into build/arm: tests/arm/__init__.py.
arm-test: $(VENV)/.installed
	$(BIN)/python -m tests.arm

# The interpreter is built once (build/free_threading), from Debian's sources: three minutes.
free-threading-test: $(VENV)/.installed
	$(BIN)/python -m tests.free_threading test

integration-test: build
	PYTHONPATH=. $(BIN)/pytest tests/integration -s

# Longer, or again: make soak SOAK_SECONDS=36000 SOAK_SEED=7
SOAK_SECONDS ?= 600
SOAK_SEED ?= 1

soak: build
	PYTHONPATH=. $(BIN)/python tests/soak --seconds $(SOAK_SECONDS) --seed $(SOAK_SEED)

# What it finds stays in build/fuzz/ for the next run.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
fuzz: $(VENV)/.installed
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

fuzz-smoke: $(VENV)/.installed
	$(BIN)/python tests/fuzz/run.py --seconds 20 --runs 100000 --seed 1

# Needs a CPython 2.7, and installs the suite beside it. A part of it is in test-python.
autobahn: build
	$(BIN)/python -m tests.autobahn --write docs/conformance.md

check: $(VENV)/.installed
	$(ZIG) build check -Dpython=$(abspath $(BIN))/python

lint: $(VENV)/.installed
	$(ZIG) fmt --check build.zig src
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: build
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(STUBTEST)

# The first of these that runs. With less than 3.12, websocket-rs is left out, and the report says so.
BENCH_PYTHON ?= $(shell for python in python3.13 python3.12 \
	$(HOME)/.pyenv/versions/3.13.*/bin/python3 $(HOME)/.pyenv/versions/3.12.*/bin/python3 $(PYTHON); \
	do $$python -c "" 2>/dev/null && echo $$python && break; done)
BENCH_VENV = .venv-bench

$(BENCH_VENV)/.installed: bench/requirements.txt
	$(BENCH_PYTHON) -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet -r bench/requirements.txt
	touch $@

# BENCH has options: make bench BENCH="--quick --clients hftws,picows"
bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	$(BENCH_VENV)/bin/python -m bench $(BENCH)

format: $(VENV)/.installed
	$(ZIG) fmt build.zig src
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rewrites the sections of ARCHITECTURE.md that are generated from the sources: tests/architecture/.
map:
	$(PYTHON) -m tests.architecture

# Rewrites the docstrings in hftws/_core.pyi, from the extension.
stubs: build
	PYTHONPATH=. $(BIN)/python -m tests.stubs

clean:
	rm -rf .zig-cache zig-out build dist .pytest_cache .mypy_cache .ruff_cache hftws/*.so
