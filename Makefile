# The two commands of the README are `make demo` and `make test`; everything sets itself up.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CHAOS_KILLS ?= 200
CHAOS_EVENTS ?= 1000000
CAMPAIGN_SEED ?= 1

.PHONY: demo test check bench chaos campaign cluster clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo/demo.py

# The pure parts and the dispatcher's on all cores; then real parts, MPI, Slurm and kills: they wait more than they work, so
# two files at a time; tests/conftest.py has the long ones begin first. Last, one by one, what measures time.
test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist loadfile tests/unit tests/property tests/integration/dispatcher
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" tests/integration tests/chaos tests/campaign \
	  --ignore=tests/integration/dispatcher
	$(BIN)/pytest -m alone tests/integration tests/chaos tests/campaign --ignore=tests/integration/dispatcher

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	for bench in $$(find tests/benchmarks -name 'bench_*.py' | sort); do \
	  echo "== $$bench"; $(BIN)/python -m $$(echo $${bench%.py} | tr / .) || exit 1; \
	done

chaos: $(INSTALLED)
	HPCPANDA_CHAOS_KILLS=$(CHAOS_KILLS) HPCPANDA_CHAOS_EVENTS=$(CHAOS_EVENTS) \
	  $(BIN)/pytest tests/chaos -s --timeout=3600

campaign: $(INSTALLED)
	HPCPANDA_CAMPAIGN=full HPCPANDA_CAMPAIGN_SEED=$(CAMPAIGN_SEED) $(BIN)/pytest tests/campaign -s

cluster: $(INSTALLED)
	$(BIN)/python -m tests.support.slurm

clean:
	rm -rf .venv demo-output

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@
