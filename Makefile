# `make help` lists what there is. What needs the virtual environment makes it first.

# Variables given to make reach the recipes through the environment, where spaces and quotes in
# them stay what they are; their defaults are in the recipes, or in the command itself.
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# The networks of docs/results.md.
RESULTS := convnext_tiny efficientnetv2_s fastvit_t8 mobilenext_100 mobileone_s0 parnet_s replknet_31b \
  repvgg_a0 repvgg_b1g4 repvit_m1_0 swnet_tiny unireplknet_t vanillanet_5

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help engine report results digits test test-slow test-gpu test-pretrained fuzz replay conformance lint sizes bench costs peers peer-times precision quantized pictures venv clean

help:  ## list the targets
	@echo 'flatfold: training-form convolutional networks into fast engines, provably the same'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

engine: $(STAMP)  ## build an engine: MODEL=repvgg_a0 [TARGET=auto] [WEIGHTS=file] [BATCH=1] [SIZE=224] [SHAPE=name:1x16000] [OPTION=name=value] [PRECISION=int8] [CALIBRATION=file.npz or folder of images] [MEAN=r,g,b STD=r,g,b] [MAX_DROP=0.005] [TUNE=seconds] [OUT=dir]
	@set --; \
	[ -z "$$TARGET" ] || set -- "$$@" --target "$$TARGET"; \
	[ -z "$$WEIGHTS" ] || set -- "$$@" --weights "$$WEIGHTS"; \
	[ -z "$$BATCH" ] || set -- "$$@" --batch "$$BATCH"; \
	[ -z "$$SIZE" ] || set -- "$$@" --size "$$SIZE"; \
	[ -z "$$SHAPE" ] || set -- "$$@" --shape "$$SHAPE"; \
	[ -z "$$OPTION" ] || set -- "$$@" --option "$$OPTION"; \
	[ -z "$$PRECISION" ] || set -- "$$@" --precision "$$PRECISION"; \
	[ -z "$$CALIBRATION" ] || set -- "$$@" --calibration "$$CALIBRATION"; \
	[ -z "$$MEAN" ] || set -- "$$@" --mean "$$MEAN"; \
	[ -z "$$STD" ] || set -- "$$@" --std "$$STD"; \
	[ -z "$$MAX_DROP" ] || set -- "$$@" --max-drop "$$MAX_DROP"; \
	[ -z "$$TUNE" ] || set -- "$$@" --tune "$$TUNE"; \
	[ -z "$$OUT" ] || set -- "$$@" --out "$$OUT"; \
	$(BIN)/python -m flatfold compile "$$@" -- "$${MODEL:-repvgg_a0}"

# The names in MODEL are words here, each a model; set -f lets none of them stand for files.
report: $(STAMP)  ## time models with flatfold and with other tools, as a page: MODEL="repvgg_a0 ..." [TARGET= BATCH= SIZE= OUT=report.html]
	@set -f; set -- $${MODEL:-repvgg_a0}; set -- -- "$$@"; \
	[ -z "$$SIZE" ] || set -- --size "$$SIZE" "$$@"; \
	[ -z "$$BATCH" ] || set -- --batch "$$BATCH" "$$@"; \
	[ -z "$$TARGET" ] || set -- --target "$$TARGET" "$$@"; \
	$(BIN)/python -m flatfold compare --save "$${OUT:-report.html}" "$$@"

results: $(STAMP)  ## measure docs/results.md again, on an idle machine, in some three hours: [MODEL="repvgg_a0 ..."]
	@mkdir -p build/results
	@set -f; for model in $${MODEL:-$(RESULTS)}; do \
	  (cd build/results && ../../$(BIN)/python -m flatfold compare "$$model" --no-explain --budget 480 --save "$$model.json") || exit; \
	done
	@$(BIN)/python -m docs.results build/results/*.json

digits: $(STAMP)  ## train five small networks on handwritten digits, compile and compare them: [STORED=1] without training
	@$(BIN)/python -m examples.digits $${STORED:+--stored}

test: lint  ## lint, and every test but the slow ones
	@$(BIN)/python -m pytest -q -n auto -m "not slow"

test-slow: $(STAMP)  ## the tests of the large models
	@$(BIN)/python -m pytest -q -m slow

test-gpu: $(STAMP)  ## the tests that need an NVIDIA GPU
	@$(BIN)/python -m pytest -q -m gpu

test-pretrained: $(STAMP)  ## pretrained files of public packages; writes docs/pretrained.md: [MATCH=part of a path]
	@$(BIN)/python -m tests.pretrained $${MATCH:+--match "$$MATCH"}

fuzz: $(STAMP)  ## rewrite random graphs of two generators: [SEED=number, default the time] [COUNT=2000] [VERIFY=off]
	@seed=$${SEED:-$$(date +%s)}; count=$${COUNT:-2000}; \
	echo "seed $$seed"; \
	FLATFOLD_FUZZ_COUNT="$$count" $(BIN)/python -m pytest -q tests/passes/test_random_graphs.py \
	  --hypothesis-profile=fuzz --hypothesis-seed="$$seed" && \
	$(BIN)/python -m tests.fuzz --seed "$$seed" --count "$$count" --verify "$${VERIFY:-off}" --save build/fuzz

replay: $(STAMP)  ## rewrite a fixed set of graphs and compare each result with a recorded hash: [MATCH=part of a name] [UPDATE=1]
	@$(BIN)/python -m tests.replay $${MATCH:+--match "$$MATCH"} $${UPDATE:+--update}

conformance: $(STAMP)  ## the backend test suite of ONNX, with and without flatfold: [MATCH=part of a name]
	@$(BIN)/python -m tests.conformance $${MATCH:+--match "$$MATCH"}

lint: $(STAMP)  ## ruff, mypy and the import contracts
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }

sizes:  ## lines of each file and package, and the change since a commit: [BASE=main]
	@"$${PYTHON:-python3}" -m tests.sizes "$${BASE:-main}"

bench: $(STAMP)  ## time and memory of optimize and of onnxsim, and how they grow: [ALL=1] with B3
	@$(BIN)/python bench/run.py $${ALL:+--all}

# SECONDS is a variable of some shells' own, so make puts it in.
costs: $(STAMP)  ## how often the cost model takes the slower of two forms, on each CPU target: [TARGET=ort-cpu] [MATCH=part of a kind] [SECONDS=600]
	@$(BIN)/python -m bench.costs $${TARGET:+--target "$$TARGET"} $${MATCH:+--match "$$MATCH"} $(if $(SECONDS),--seconds '$(SECONDS)')

peers: $(STAMP)  ## nodes beside those of other optimizers; writes docs/peers.md: [ALL=1] [MATCH=part of a name] [FORM=script or dynamo] [KEPT=1]
	@$(BIN)/python -m bench.peers $${ALL:+--all} $${MATCH:+--match "$$MATCH"} $${FORM:+--form "$$FORM"} $${KEPT:+--kept}

peer-times: $(STAMP)  ## CPU time beside that of other optimizers; writes docs/peer_times.md: [TIMM=1] [MATCH=part of a name] [SECONDS=6] [BUDGET=3600]
	@$(BIN)/python -m bench.peer_times $${TIMM:+--timm} $${MATCH:+--match "$$MATCH"} $(if $(SECONDS),--seconds '$(SECONDS)') $${BUDGET:+--budget "$$BUDGET"}

precision: $(STAMP)  ## OpenVINO in bfloat16 beside float32, on trained networks and pictures; writes docs/measured/precision.md: [MATCH= SECONDS=10]
	@$(BIN)/python -m bench.precision $${MATCH:+--match "$$MATCH"} $${SECONDS:+--seconds "$$SECONDS"}

quantized: $(STAMP)  ## networks in 8 bits by flatfold and by other quantizers beside float32; writes docs/measured/quantized.md: [MATCH= SECONDS=10]
	@$(BIN)/python -m bench.quantized $${MATCH:+--match "$$MATCH"} $(if $(SECONDS),--seconds '$(SECONDS)')

pictures: $(STAMP)  ## draw the blocks of docs/families again: [FAMILY=name]
	@$(BIN)/python -m docs.pictures $${FAMILY:+"$$FAMILY"}

venv: $(STAMP)  ## only make the virtual environment: [PYTHON=python3] [PIP_ARGS=options of pip]

clean:  ## remove what was built and the caches; the virtual environment stays
	rm -rf build dist *.egg-info .*_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, so an install that failed is done again.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@"$${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "error: expected Python 3.10 or newer, found $$("$${PYTHON:-python3}" --version 2>&1)" >&2; \
	  echo "  try: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "installing into $(VENV), once; this takes some minutes" >&2
	@"$${PYTHON:-python3}" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $$PIP_ARGS -c constraints.txt -e '.[dev]'
	@touch $@
