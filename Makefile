# The two commands: `make quickstart` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV ?= .venv
export ANSIBLE_FORCE_COLOR ?= $(if $(CI),false,true)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: quickstart
quickstart: ## serve a tiny model on this machine, ask it something, print the connection card
	@scripts/bootstrap --announce quickstart run
	@$(VENV)/bin/ansible-playbook site.yml -i inventories/quickstart/hosts.yml

.PHONY: quickstart-remove
quickstart-remove: ## take the quickstart down and leave nothing behind
	@scripts/bootstrap run
	@$(VENV)/bin/ansible-playbook playbooks/remove.yml -i inventories/quickstart/hosts.yml -e remove_everything=true

.PHONY: test
test: ## everything: lint, docs, sanity, unit tests, molecule
	@scripts/bootstrap --announce test dev
	@tests/bin/run-tests all

.PHONY: test-fast
test-fast: ## everything but molecule and the slow tests; under two minutes
	@scripts/bootstrap dev
	@tests/bin/run-tests fast

.PHONY: docs
docs: ## write the pages that are made from the code: README.md of each role, the examples of docs/planning.md
	@scripts/bootstrap dev
	@$(VENV)/bin/python tests/tools/role_pages.py --write
	@$(VENV)/bin/python tests/tools/planning_examples.py --write

.PHONY: accuracy
accuracy: ## predicted against measured memory (RUNS=FILE JSON=OUT)
	@scripts/bootstrap run
	@$(VENV)/bin/python tests/accuracy/accuracy.py $(if $(RUNS),--runs "$(RUNS)") $(if $(JSON),--json "$(JSON)")

.PHONY: benchmark
benchmark: ## how long planning takes
	@scripts/bootstrap dev
	@$(VENV)/bin/python tests/benchmark/plan_speed.py

.PHONY: benchmark-weights
benchmark-weights: ## downloading, verifying and passing on a model, as ratios (writes about 10 GiB to /var/tmp)
	@scripts/bootstrap dev
	@$(VENV)/bin/python tests/benchmark/weights.py

.PHONY: oracle
oracle: ## ask vLLM itself again (PYTHON_WITH_VLLM=a Python that has vLLM); half an hour
	@$(or $(PYTHON_WITH_VLLM),$(error PYTHON_WITH_VLLM names no Python)) tests/oracle/record.py

.PHONY: build
build: ## the collection as a tarball
	@scripts/bootstrap run
	@$(VENV)/bin/ansible-galaxy collection build --force

.PHONY: clean
clean: ## remove what builds and tests left in the checkout
	rm -rf $(VENV) .cache .ansible .pytest_cache .ruff_cache .hypothesis inferops-gpu_host-*.tar.gz
