# FastChat's tasks by name; `make` alone lists them.
#
# Each task sets up what it needs by itself: a virtual environment in .venv and in it the packages that pyproject.toml asks for, in
# the versions of requirements.lock. That is done again only when one of these two files changed, when the checkout was moved, or
# when .venv is gone or broken.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Whether the server runs with the core compiled to machine code (1), as it is (0), or compiled if it can be (empty).
COMPILED =
# Where `make manual` and `make load` find the server, and how large the load is. Not from the environment, where such common names
# may mean anything.
URL = ws://localhost:8000/ws
USERS = 50
DURATION = 20
# How the number of users goes over the time (a file of bench/shapes; empty: even), how many processes make the load (empty: one), where
# its report goes, and the port of locust's page.
SHAPE =
PROCESSES =
RESULTS = bench/results/load
UI_PORT = 8089
# How long `make fuzz` takes for all targets together, and which of them it tries out (see docs/fuzzing.md).
MINUTES = 10
TARGET = all
# What installs the tools for JavaScript and CSS; they are left out where there is none.
npm := $(shell command -v npm 2>/dev/null)
# Whom `make who` and `make kick` are about.
USER_ID =
# How many workers `make resize` leaves.
WORKERS =
ARGS =

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup run status who kick drain reload resize test test-all check check-web audit manual load load-ui bench bench-compare bench-guard fuzz test-compiled docs clean FORCE

# The tests call `make run` themselves: what was meant for this make must not reach that one.
unexport MAKEFLAGS MFLAGS MAKELEVEL
# Without bytecode on the disk each process compiles all it imports again: half of the time in which a server starts.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the tasks
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed-dev ## install everything for development into .venv

run: $(VENV)/.installed-run ## run the server: WORKERS=8 PORT=8000 DATA=./data or any other setting (ARGS=--help lists them); COMPILED=0 compiles nothing
	@$(in_the_foreground) $(BIN)/python -E -m scripts.serve '$(COMPILED)' $(ARGS)

status: $(VENV)/.installed-run ## show the state of a running server: ADMIN_PORT=8001 ARGS=--json
	@exec $(BIN)/fastchat status $(ARGS)

who: $(VENV)/.installed-run ## show a user's devices and chats: USER_ID=...
	@exec $(BIN)/fastchat who $(ARGS) -- '$(USER_ID)'

reload: $(VENV)/.installed-run ## replace all processes by what is on disk now, while clients stay connected
	@exec $(BIN)/fastchat reload $(ARGS)

kick: $(VENV)/.installed-run ## close all connections of a user: USER_ID=...
	@exec $(BIN)/fastchat kick $(ARGS) -- '$(USER_ID)'

resize: $(VENV)/.installed-run ## change the number of workers while clients stay connected: WORKERS=5
	@exec $(BIN)/fastchat resize $(ARGS) '$(or $(WORKERS),$(error give the new number of workers: make resize WORKERS=5))'

drain: $(VENV)/.installed-run ## close all connections of a running server, one after the other, and accept no more: ARGS="--seconds 30"
	@exec $(BIN)/fastchat drain $(ARGS)

test: $(VENV)/.installed-dev ## run the tests: ARGS="-k words -n 0" are arguments of pytest
	@exec $(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder --hypothesis-profile few -m "not slow" $(ARGS)

test-all: $(VENV)/.installed-dev ## run all tests, also those that take long: ARGS="-k words -n 0" are arguments of pytest
	@exec $(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

# What comes first in a recipe whose Python is to have the compiled core.
with_compiled_core = core=$$($(BIN)/python -m scripts.compiled_core) && export PYTHONPATH="$$core:$(CURDIR)" PYTHONSAFEPATH=1

test-compiled: $(VENV)/.installed-dev ## run all tests on the core compiled to machine code, in pytest and in the servers that it starts
	@$(with_compiled_core) && \
		exec $(BIN)/python -m pytest -n 4 --dist worksteal -o pythonpath="$$core . clients/python/src" -m "not replaces" $(ARGS)

check: $(VENV)/.installed-dev check-web ## check style, formatting, types, and which module may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check-web: $(if $(npm),node_modules/.package-lock.json) ## check style, formatting and types of JavaScript and CSS; a part of `make check`
ifneq ($(npm),)
	@node_modules/.bin/biome check --error-on-warnings --log-level=warn
	@node_modules/.bin/tsc --project tsconfig.json
else
	@echo "skipped: the checks of JavaScript and CSS need Node and npm, and there is no npm" >&2
endif

audit: $(VENV)/.made-for ## ask PyPI for known vulnerabilities of the packages in requirements.lock
	@exec $(BIN)/python scripts/audit.py $(ARGS)

manual: $(VENV)/.installed-run ## walk two users through all flows of a running server: URL=ws://localhost:8000/ws
	@exec $(BIN)/python scripts/manual_test.py $(URL)

load: $(VENV)/.installed-dev ## put load on a running server: USERS=50 (pairs) DURATION=20 SHAPE=ramp|storm PROCESSES=2 URL=ws://localhost:8000/ws
	@exec $(locust) --headless --only-summary --html $(RESULTS)/report.html --csv $(RESULTS)/load $(ARGS)

load-ui: $(VENV)/.installed-dev ## put load on a running server from locust's web page: UI_PORT=8089 (0 takes a free port)
	@exec $(locust) --web-host 127.0.0.1 --web-port $(UI_PORT) $(ARGS)

bench: $(VENV)/.installed-dev ## measure what a message costs, with servers of its own: ARGS="--rounds 1" is quick
	@exec $(BIN)/python -m bench.compare --name ours --subjects ours --yardstick memory --rounds 3 \
		--loads "window 1,window 8,window 32,rate 5000" $(ARGS)

bench-compare: $(VENV)/.installed-dev ## measure what a message costs beside a C relay, uWebSockets.js, picows, ws and FastAPI; takes 15 minutes
	@$(BIN)/python -m scripts.compiled_core >/dev/null && exec $(BIN)/python -m bench.compare $(ARGS)

bench-guard: $(VENV)/.installed-dev ## compare the instructions that a message costs with the budget, under valgrind: ARGS=--update sets the budget
	@exec $(BIN)/python -m bench.guard $(ARGS)

fuzz: $(VENV)/.installed-fuzz ## fuzz the code that reads bytes of clients: MINUTES=60 TARGET=message COMPILED=1
	@if [ "$(COMPILED)" = 1 ]; then $(with_compiled_core); fi && exec $(BIN)/python -m fuzz --minutes $(MINUTES) --target $(TARGET)

docs: $(VENV)/.installed-run ## write docs/protocol.md, docs/protocol.schema.json and docs/settings.md from the code
	@$(BIN)/python scripts/protocol_reference.py
	@$(BIN)/python scripts/settings_reference.py

clean: ## remove .venv and all caches; keeps the server's data
	@rm -rf $(VENV) node_modules build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- Load --
# Locust itself advises against more than 100 new users a second.

comma := ,
locust = $(BIN)/locust --locustfile bench/locustfile.py$(if $(SHAPE),$(comma)bench/shapes/$(SHAPE).py) --host $(URL) --users $(USERS) \
	--spawn-rate $$(($(USERS) < 400 ? $(USERS) / 4 + 1 : 100)) --run-time $(DURATION) --stop-timeout 10 \
	$(if $(PROCESSES),--processes $(PROCESSES) --master-bind-host 127.0.0.1)

# -- Parameters --
# What stands on the command line as NAME=value. Each task takes its own, listed here, and refuses others, so that a slip does not go unnoticed.
# The tasks that start or ask a server take its settings besides, which then win over the environment; what is no setting the server refuses.

everywhere := PYTHON SHELL
parameters_of_run := COMPILED ARGS
parameters_of_status := ARGS
parameters_of_who := USER_ID ARGS
parameters_of_kick := USER_ID ARGS
parameters_of_reload := ARGS
parameters_of_drain := ARGS
parameters_of_resize := WORKERS ARGS
parameters_of_test := ARGS
parameters_of_test-all := ARGS
parameters_of_test-compiled := ARGS
parameters_of_audit := ARGS
parameters_of_manual := URL
parameters_of_load := USERS DURATION SHAPE PROCESSES RESULTS URL ARGS
parameters_of_load-ui := $(parameters_of_load) UI_PORT
parameters_of_bench := ARGS
parameters_of_bench-compare := ARGS
parameters_of_bench-guard := ARGS
parameters_of_fuzz := MINUTES TARGET COMPILED

tasks := $(or $(MAKECMDGOALS),help)
server_tasks := $(filter run status who kick drain reload resize,$(tasks))
taken := $(sort $(foreach task,$(tasks),$(parameters_of_$(task))))
given := $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name)))
settings := $(filter-out $(everywhere) $(taken),$(given))
ifneq ($(settings),)
ifeq ($(server_tasks),)
$(error make $(tasks) does not know $(settings): it takes $(or $(taken),no parameters))
endif
endif
# The value as it stands, also where it has a dollar sign. DATA is short for DATA_DIR.
$(foreach name,$(settings),$(foreach task,$(server_tasks),$(eval \
	$(task): export FASTCHAT_$(patsubst DATA,DATA_DIR,$(patsubst FASTCHAT_%,%,$(name))) := $$(value $(name)))))

# -- The foreground --
# When the terminal is closed everything in it gets SIGHUP, which to the server means: read the keys again. Whoever runs it here knows the
# difference, since he gets it too, and asks the server to stop; so he does with make's SIGTERM. Ctrl-C reaches the server by itself.

define in_the_foreground
run() { trap 'kill -TERM $$server 2>/dev/null' HUP TERM; trap : INT; "$$@" & server=$$!; \
	while wait $$server; code=$$?; kill -0 $$server 2>/dev/null; do :; done; exit $$code; }; run
endef

# -- Set-up --
# A virtual environment works only where it was made and with the Python it was made from, so it carries a note of both.

venv_note := import sys; print(sys.prefix, *sys.version_info[:2])
is_good = note=$$($(BIN)/python -c '$(venv_note)' 2>/dev/null) && [ "$$note" = "$$(cat $(VENV)/.made-for 2>/dev/null)" ]
# Two makes may find at the same time that something is to be done; the second waits, looks again, and finds it done.
lock = exec 9<Makefile && flock 9

$(VENV)/.made-for: $(if $(shell $(is_good) && echo yes),,FORCE)
	@command -v $(PYTHON) >/dev/null || \
		{ echo "FastChat needs Python 3.11 or newer, and there is no $(PYTHON): install it, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "FastChat needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): name another with PYTHON=..." >&2; exit 1; }
	@$(lock); if $(is_good); then exit; fi; rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && $(BIN)/python -c '$(venv_note)' >$@

# The stamp gets the time at which the installation began, and its name when it succeeded: a change meanwhile is not missed, and an
# interrupted installation is done again.
is_new = [ $@ -nt pyproject.toml ] && [ $@ -nt requirements.lock ] && [ $@ -nt $(VENV)/.made-for ]
install = $(lock); if $(is_new); then exit; fi; \
	echo "installing into $(VENV), as requirements.lock says ..." >&2; touch $(VENV)/.began && \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint requirements.lock --editable

$(VENV)/.installed-run: pyproject.toml requirements.lock $(VENV)/.made-for
	@$(install) '.[charts]' && mv $(VENV)/.began $@

$(VENV)/.installed-fuzz: pyproject.toml requirements.lock $(VENV)/.made-for
	@$(install) '.[dev,fuzz]' && cp -p $(VENV)/.began $(VENV)/.installed-run && cp -p $(VENV)/.began $(VENV)/.installed-dev && mv $(VENV)/.began $@

$(VENV)/.installed-dev: pyproject.toml requirements.lock $(VENV)/.made-for
	@$(install) '.[dev]' && cp -p $(VENV)/.began $(VENV)/.installed-run && mv $(VENV)/.began $@

# npm writes this file last.
node_modules/.package-lock.json: package.json package-lock.json
	@echo "installing the tools for JavaScript and CSS into node_modules ..." >&2
	@$(lock); npm ci --silent --ignore-scripts --no-audit --no-fund && touch $@
