SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo try test smoke faults lab lint docs pictures bench browser slurm

VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO := outputs/demo
RESULTS := $(DEMO)
TASK := tasks/mask.yml
PORT := 8866
# Steps of several runs at once, each on a core of its own: small networks make little of two.
SIDE_BY_SIDE := $(addsuffix =1,train_03_one_model train_04_three_model average infer)

# The torch of the environment, cuda13 or cuda12: the one that is installed, unless a make is told another.
TORCH := $(or $(patsubst .installed.%,%,$(firstword $(notdir $(wildcard $(VENV)/.installed.*)))),cuda13)
ifeq ($(filter cuda13 cuda12,$(TORCH)),)
$(error TORCH=$(TORCH): write cuda13, for GPUs since Turing with a driver of CUDA 13, or cuda12, for older ones)
endif
INSTALLED := $(VENV)/.installed.$(TORCH)

# Container images like to set it; every step's kernel would then compile torch and timm anew, which takes
# longer than to load them.
unexport PYTHONDONTWRITEBYTECODE

# What mask_lib.headless gives the notebooks, and why: for JupyterLab, the tests and the benchmarks.
export GOMP_SPINCOUNT ?= 2000
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(INSTALLED) ## make .venv and install what requirements.txt pins; TORCH=cuda12: for older GPUs and drivers

$(PYTHON):
	@for python in python3.11 python3.12 python3.13 python3; do \
		if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version)"; \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "Python 3.11 or newer with its venv module is needed. On Debian or Ubuntu: apt-get install python3 python3-venv" >&2; \
	exit 1

# uv installs the same pins in a tenth of the time, and compiles them as pip does, or the first notebooks would; where it
# cannot be had or cannot reach an index, pip does it.
# What may be left of the other torch goes first: both have libraries of the same name (cuDNN, NCCL) at the same place.
# The .pth file makes mask_lib importable from any folder without building a package.
$(INSTALLED): requirements.txt | $(PYTHON)
	@pins=$(VENV)/requirements.$(TORCH).txt; \
	sed -E '$(if $(filter cuda12,$(TORCH)),/^(torch|torchvision|triton|nvidia-[^=]+|cuda-[^=]+)==/d;) s/^#$(TORCH) //' requirements.txt > $$pins; \
	others=$$(sed -nE 's/^(#[^ ]+ )?((nvidia|cuda)-[^=]+)==.*/\2/p' requirements.txt | grep -vxFf <(sed 's/==.*//' $$pins)); \
	uv="$(PYTHON) -m uv pip"; pip="$(PYTHON) -m pip"; \
	if ! $(PYTHON) -m uv --version >/dev/null 2>&1 && ! $$pip install --quiet uv; then uv=false; fi; \
	if [ ! -e $@ ]; then \
		rm -f $(VENV)/.installed*; \
		$$uv uninstall --quiet --python $(PYTHON) $$others || $$pip uninstall -qq --yes $$others; \
	fi; \
	$$uv install --compile-bytecode --python $(PYTHON) -r $$pins || $$pip install -r $$pins
	@$(PYTHON) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "mask_workbench.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@touch $@

OPENER := import pathlib, sys, webbrowser; webbrowser.open(pathlib.Path(sys.argv[1]).absolute().as_uri())

demo: setup ## paint a sample set and run the whole chain on it, from photos to a scored submission
	$(PYTHON) -m mask_lib.sample data/sample
	$(PYTHON) -m snakemake --cores all --set-threads $(SIDE_BY_SIDE) --configfile notebooks/params/demo.yml
	@echo
	@echo "Open first: $(DEMO)/reports/07_ensemble.html, or run make demo OPEN=1; then make lab, and 01_label_cleaning"
	@echo "Submission: $(DEMO)/submissions/submission.csv"
	@echo "Scores:     $$(ls $(DEMO)/runs/*/scores.json | xargs)"
	@echo "Reports:    $$(ls $(DEMO)/reports/*.html | xargs)"
	@$(PYTHON) -m mask_lib.sample score data/sample $(DEMO)/submissions/submission.csv
	$(if $(OPEN),@$(PYTHON) -c "$(OPENER)" $(DEMO)/reports/07_ensemble.html)

# Up to 100 MB a photo; Voilà would serve pictures beside the notebook as well.
try: setup ## serve the page of 09_try_it at 127.0.0.1; RESULTS=: a folder or an archive, TASK=: its task, PORT=
	@mkdir -p outputs
	@$(PYTHON) -m papermill --prepare-only --log-level WARNING notebooks/09_try_it.ipynb outputs/try_it.$(PORT).ipynb \
		-r results "$(RESULTS)" -r task "$(TASK)"
	$(PYTHON) -m voila outputs/try_it.$(PORT).ipynb --no-browser --Voila.ip=127.0.0.1 --port=$(PORT) \
		--preheat_kernel=True --show_tracebacks=True --VoilaConfiguration.file_allowlist="[]" \
		--Voila.tornado_settings='{"websocket_max_message_size": 100000000}'

test: setup browser slurm ## run every test; the coverage of mask_lib must be 90% or more
	env -u MALLOC_MMAP_THRESHOLD_ -u MALLOC_TRIM_THRESHOLD_ GOMP_SPINCOUNT=0 $(PYTHON) -m pytest --cov=mask_lib --cov-report=term --cov-fail-under=90

smoke: setup ## a minute of tests: training, resuming to the same bits, inference; CI runs it with the other torch
	env -u MALLOC_MMAP_THRESHOLD_ -u MALLOC_TRIM_THRESHOLD_ GOMP_SPINCOUNT=0 $(PYTHON) -m pytest -n 0 -m smoke $$(grep -rl --include='test_*.py' mark.smoke tests)

faults: setup ## inject every fault of tests/faults/README.md, as often as it says there
	env -u MALLOC_MMAP_THRESHOLD_ -u MALLOC_TRIM_THRESHOLD_ GOMP_SPINCOUNT=0 FAULTS=all $(PYTHON) -m pytest --durations=10 tests/faults

# Programs for tests that are skipped without them: tests/$@.py tells whether they are here, PACKAGES bring them.
browser: PACKAGES := chromium
slurm: PACKAGES := slurm-wlm munge
browser slurm:
	@if $(PYTHON) tests/$@.py >/dev/null; then exit 0; fi; \
	install='apt-get update -qq && apt-get install -y -qq --no-install-recommends $(PACKAGES)'; \
	export DEBIAN_FRONTEND=noninteractive; \
	if ! command -v apt-get >/dev/null; then \
		echo "No apt-get here to install $(PACKAGES) with: the $@ tests cannot run."; \
	elif [ "$$(id -u)" = 0 ]; then \
		bash -c "$$install" || echo "$(PACKAGES) could not be installed: the $@ tests cannot run."; \
	elif sudo -n true 2>/dev/null; then \
		sudo -n --preserve-env=DEBIAN_FRONTEND bash -c "$$install" || echo "$(PACKAGES) could not be installed: the $@ tests cannot run."; \
	else \
		echo "No right to install $(PACKAGES): the $@ tests cannot run. By hand: sudo apt-get install $(PACKAGES)"; \
	fi

lab: setup ## open JupyterLab on the notebooks; LAB_OPTIONS adds options, such as --no-browser
	$(PYTHON) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_OPTIONS)

lint: setup ## check style, and the notebooks for outputs, stray parameters and code that belongs in mask_lib
	$(PYTHON) -m ruff check mask_lib tests benchmarks notebooks docs
	$(PYTHON) -m ruff format --check mask_lib tests benchmarks notebooks docs
	$(PYTHON) -m pytest -n 0 tests/notebooks/test_notebooks_hygiene.py tests/test_wings.py

docs: setup ## make the tables of docs/settings.md and docs/errors.md anew, from the code
	$(PYTHON) docs/make.py

pictures: setup browser ## make the pictures of the pages anew, from what make demo left
	$(PYTHON) docs/make_pictures.py

bench: setup ## run the benchmarks one after another, but for expected.py and first_hour.py, which take half an hour; gpu.py where there is one
	@for script in $(filter-out %/timing.py %/gpu_parts.py %/expected.py %/first_hour.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(PYTHON) "$$script"; done
