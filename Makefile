# One word for each thing a person does. Every word makes its own environment in .venv first.
.PHONY: demo up test check format bench drill clean
VENV ?= .venv
BIN = $(VENV)/bin
export VENV

demo:  ## the whole workshop on drawn pictures, in about a minute (ARGS=--no-serve ends by itself)
	@tools/environment.sh all
	@$(BIN)/loratory demo $(ARGS)

up:  ## the workshop on your data (ARGS="--data DIR --port P")
	@tools/environment.sh all
	@$(BIN)/loratory up $(ARGS)

# Two files at a time, in the order of their folders: the long ones of tests/acceptance come first.
test:  ## the whole suite, on a real nats-server (ARGS="-k name" for a part)
	@tools/environment.sh dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

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
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

drill:  ## 200 faults in 40 minutes on the whole workshop at work, and what became of it (ARGS="--seed 8 --minutes 5")
	@tools/environment.sh dev
	@$(BIN)/python -m tests.drill --seed 7 $(ARGS)

clean:  ## forget the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
