# Filmroom: `make test` proves it, `make demo` shows it, `make bench NAME=federation` measures it.
# Everything is installed into .venv from pinned versions; nothing outside this folder is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install test suite test-slow fhir-server s3-double browser demo bench peers mutants lint clean
install: $(STAMP)

# Nothing is compiled ahead (--no-compile): most of what is installed is never imported, and what is, is compiled then,
# once, whatever the environment says: else each of the many processes of a test would compile all it imports.
# torch by itself: its version is ours, its build the machine's. Where only a CUDA build is found, a machine
# without a GPU is spared gigabytes by naming an index with the CPU build: make install TORCH_INDEX=URL
$(STAMP): requirements.lock torch.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -r torch.lock $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --no-compile --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --no-compile --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What reads the code goes beside what runs it.
test:
	$(MAKE) --jobs 2 lint suite

# In the order of the folders: files with few and long tests would else come last, and one process alone would have them.
suite: install fhir-server browser
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 20

# A FHIR server that is not ours, in an environment of its own: the tests start it and read consents from it.
fhir-server: .venv-fhir/.installed

.venv-fhir/.installed: tests/fhir-server.lock
	$(PYTHON) -m venv .venv-fhir
	.venv-fhir/bin/pip install --quiet --no-compile --require-hashes --no-deps -r $<
	touch $@

# An S3 double that keeps no lock, likewise: the slow tests show that the probe sees it.
s3-double: .venv-s3/.installed

.venv-s3/.installed: tests/s3-double.lock
	$(PYTHON) -m venv .venv-s3
	.venv-s3/bin/pip install --quiet --no-compile --require-hashes --no-deps -r $<
	touch $@

# What drives the machine's Chromium through the console, and axe, which looks at its pages.
browser: tests/browser/node_modules/.package-lock.json

tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/browser

test-slow: install fhir-server s3-double
	$(BIN)/pytest -m slow

# make demo DATA=folder uses a folder of your own labelled DICOM (see docs/demo.md).
demo: install
	$(BIN)/python -m demo $(if $(DATA),--data "$(DATA)")

bench: install
	$(BIN)/python -m benchmarks.$(NAME)

# Other tools, for `make bench NAME=deidentify` to measure beside ours, in an environment of their own.
peers: .venv-peers/.installed

.venv-peers/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --no-compile -r $<
	touch $@

# Which small changes of the consent decision no test would notice; each has to be explained in docs/consent.md.
mutants: install
	$(BIN)/python -m tools.mutation $(MODULES)

clean:
	rm -rf $(VENV) .venv-peers .venv-fhir .venv-s3 tests/browser/node_modules demo-out build *.egg-info
