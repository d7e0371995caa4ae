# make demo    set up, then go from images to a verified, measured model
# make test    set up, then run the tests except those marked `full`
# make test-full  set up, then run all tests
# make engine  build the native engine (needs a C++17 compiler)
# make fuzz    set up, then fuzz the engine's loader: FUZZ_EXAMPLES by hypothesis, FUZZ_SECONDS by libFuzzer (needs clang)
# make mutate  set up, then change the source at random and see which changes no test notices: ROOM=data,images COUNT=50 SEED=1
# make wheel   set up, then build and test the wheels for Linux on x86-64 and aarch64, with the engine inside, into dist/
# make check   set up, then lint, formatting (Python and C++), types, layers
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

# Compiled Python is kept whatever the environment says: the tests start some thousand interpreters, and each would compile
# gossamer anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-full check format clean engine fuzz mutate wheel

ENGINE := src/gossamer/runtime/libgossamer.so
CXX_SOURCES := $(wildcard $(foreach folder,engine/src engine/include engine/test engine/example engine/fuzz benchmarks,$(addprefix $(folder)/*.,c cpp h inc)))

# without a compiler everything else works; the engine's tests then skip and say so
engine: $(ENGINE)
$(ENGINE): $(wildcard engine/src/*) engine/include/gossamer.h engine/build.sh
	@if command -v $${CXX:-c++} >/dev/null; then engine/build.sh; else echo "no C++ compiler: the native engine is not built"; fi

# without the engine the demo goes on: its rows are then missing in the latency table
demo: $(READY)
	@$(MAKE) --no-print-directory engine || echo "the native engine could not be built: going on without it"
	$(PY) examples/demo.py

WORKERS ?= 2

# PYTEST: more options for pytest, as PYTEST=--durations=20
test: $(READY) engine
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -q -m "not full" $(PYTEST)

test-full: $(READY) engine
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -q $(PYTEST)

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/clang-format --style=file:engine/.clang-format --dry-run --Werror $(CXX_SOURCES)
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_layers.py

FUZZ_SECONDS ?= 60
FUZZ_EXAMPLES ?= 1000
fuzz: $(READY) engine
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PY) -m pytest -q tests/test_native_safety.py -k "corruptions or fuzzer or workers"
	$(PY) engine/fuzz/seeds.py build/fuzz/seeds
	engine/fuzz/run.sh build/fuzz/seeds tests/hostile/native $(FUZZ_SECONDS)

ROOM ?= all
COUNT ?= 50
SEED ?= 1
mutate: $(READY) engine
	$(PY) -m tests.mutation --rooms $(ROOM) --count $(COUNT) --seed $(SEED)

wheel: $(READY)
	@$(PY) -c "import auditwheel, build, ziglang" 2>/dev/null || \
	  $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[wheel]" || true
	@$(PY) engine/wheels.py

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format --style=file:engine/.clang-format -i $(CXX_SOURCES)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,counterparts]"
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .mutation
