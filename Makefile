# One target per task. Every target first creates the environment it needs in .venv.
.PHONY: demo up test check format bench figures world drill drill-cancel drill-cures drill-long schemas clean
VENV ?= .venv
WORLD ?= world
MINUTES ?= 65
WORKERS ?= 3
BIN = $(VENV)/bin
export VENV

demo:  ## run everything on generated pictures, in one to three minutes (with ARGS=--no-serve it exits when done)
	@tools/environment.sh all
	@$(BIN)/loratory demo $(ARGS)

up:  ## start all services on your data (ARGS="--data DIR --port P")
	@tools/environment.sh all
	@$(BIN)/loratory up $(ARGS)

# Three files in parallel, for they wait often, in the order of tests/conftest.py: the long ones first.
# They start many processes that import the same modules: each is compiled once.
test: export PYTHONDONTWRITEBYTECODE =
test:  ## the tests, with a real nats-server (ARGS=--all: also the slow ones, ARGS="-k name": a part, WORKERS=0: one by one)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check:  ## format, lint, types, imports, compose file
	@tools/environment.sh dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

format:  ## fix and format the code
	@tools/environment.sh dev
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench:  ## run all benchmarks
	@tools/environment.sh dev
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done
	@echo "== benchmarks/bigset"; $(BIN)/python -m benchmarks.bigset

figures:  ## quality figures of the demo world's models, from the committed weights (ARGS=--few for a tenth)
	@tools/environment.sh dev
	@$(BIN)/python -m benchmarks.world $(ARGS)

world:  ## retrain the demo world's models into the folder WORLD (75 minutes on two cores; can be stopped and resumed)
	@tools/environment.sh dev
	@$(BIN)/python -m demo_world.models.make_base $(WORLD)/base --work $(WORLD)/work --minutes $(MINUTES)
	@$(BIN)/python -m demo_world.models.make_tagger $(WORLD)/tagger --work $(WORLD)/work

drill:  ## crash drill: 200 faults in 40 minutes under load, and a check of the outcome (ARGS="--seed 8 --minutes 5")
	@tools/environment.sh dev
	@$(BIN)/python -m tests.drill --seed 7 $(ARGS)

drill-cancel:  ## every phase of a job, cancelled (minutes)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest tests/trainer/test_cancel.py $(ARGS)

drill-cures:  ## every file of a data folder, damaged in every way, and the command that cures it (half an hour)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest -n 2 tests/acceptance/test_cures.py $(ARGS)

drill-long:  ## tests that take a minute each: concepts learnt, keys replaced during a training, forged jobs, more damage (a quarter of an hour)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest -n 2 -m drill --ignore tests/acceptance/test_cures.py --ignore tests/trainer/test_cancel.py $(ARGS)

schemas:  ## generate what follows from the code: documents in docs/, deploy/nats.conf, golden lines, the version of the read model
	@tools/environment.sh dev
	@$(BIN)/python -m tools.schemas

clean:  ## delete the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
