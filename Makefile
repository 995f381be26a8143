# One word for each thing a person does. Every word makes its own environment in .venv first.
.PHONY: demo up test check format bench figures world drill schemas clean
VENV ?= .venv
WORLD ?= world
MINUTES ?= 65
BIN = $(VENV)/bin
export VENV

demo:  ## the whole workshop on drawn pictures, in about a minute (ARGS=--no-serve ends by itself)
	@tools/environment.sh all
	@$(BIN)/loratory demo $(ARGS)

up:  ## the workshop on your data (ARGS="--data DIR --port P")
	@tools/environment.sh all
	@$(BIN)/loratory up $(ARGS)

# Three files at a time (they wait more than they work), in the order of their folders: the long ones of tests/acceptance come first.
test:  ## the whole suite, on a real nats-server (ARGS="-k name" for a part)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check:  ## format, lint, types, imports, compose file
	@tools/environment.sh dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

format:  ## put the code in order
	@tools/environment.sh dev
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench:  ## what we claim about speed, measured
	@tools/environment.sh dev
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

figures:  ## what the models of the demo world can do, from the committed weights (ARGS=--few for a tenth)
	@tools/environment.sh dev
	@$(BIN)/python -m benchmarks.world $(ARGS)

world:  ## train the models of the demo world anew, into WORLD (75 minutes on two cores; can be stopped and started again)
	@tools/environment.sh dev
	@$(BIN)/python -m trainer.demo.make_base $(WORLD)/base --work $(WORLD)/work --minutes $(MINUTES)
	@$(BIN)/python -m trainer.demo.make_tagger $(WORLD)/tagger --work $(WORLD)/work

drill:  ## 200 faults in 40 minutes on the whole workshop at work, and what became of it (ARGS="--seed 8 --minutes 5")
	@tools/environment.sh dev
	@$(BIN)/python -m tests.drill --seed 7 $(ARGS)

schemas:  ## docs/facts.schema.json and docs/asyncapi.json, from the types; refused where a fact changed undeclared
	@tools/environment.sh dev
	@$(BIN)/python tools/schemas.py

clean:  ## forget the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
