# Every target is one `python -m ...` line, and works without make too (Windows: use those lines).

.DEFAULT_GOAL := help
.PHONY: help setup train stage0 stage1 stage2 stage3 stage4 control rank compare hacking show-mask shakespeare sample exams chat tools tools-proof audio audio-demo audio-chat test half other-half test-oracle bench lint clean

PYTHON ?= python3
PY     := .venv/bin/python
QUOTE   = '$(subst ','\'',$(1))'
FLAG    = $(if $($(1)),--$(2) $(call QUOTE,$($(1))))
COMMON  = $(call FLAG,RUN,run) $(call FLAG,SIZE,size) $(call FLAG,SEED,seed) $(call FLAG,WORKERS,workers) \
          $(if $(filter-out 0,$(RESUME)),--resume)
PREFER  = $(call FLAG,FROM,from) $(call FLAG,RANKINGS,rankings) $(call FLAG,ALGORITHM,algorithm)
TEXTS   = $(COMMON) $(call FLAG,TEXT,text)

help:  ## show this list
	@echo "make TARGET [RUN=demo] [SIZE=nano|small|base] [SEED=0] [WORKERS=2] [RESUME=1] [ARGS=\"--more options\"]"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "options of one target: $(PY) -m tinyllm COMMAND --help"

setup: .venv/ready  ## make .venv and install what is needed           (1 min, once)
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@

train: setup  ## all stages in a row, then the scoreboard         (20 min; SIZE=nano 2 min) [TEXT=path]
	$(PY) -m tinyllm train $(TEXTS) $(ARGS)

stage0: setup  ## 0: a vocabulary and a random model               (1 min) [TEXT=path]
	$(PY) -m tinyllm stage0 $(TEXTS) $(ARGS)

stage1: setup  ## 1: pre-training on the next token                (4 min) [TEXT=path] [FROM=folder] [OBJECTIVE=masked]
	$(PY) -m tinyllm stage1 $(TEXTS) $(call FLAG,FROM,from) $(call FLAG,OBJECTIVE,objective) $(ARGS)

stage2: setup  ## 2: instruction fine-tuning                       (5 min) [DATA=file.json] [FROM=folder]
	$(PY) -m tinyllm stage2 $(TEXTS) $(call FLAG,FROM,from) $(call FLAG,DATA,data) $(ARGS)

stage3: setup  ## 3: rankings, a reward model, reinforcement       (3 min) [RANKINGS=file.jsonl] [ALGORITHM=rloo|ppo|grpo|dpo]
	$(PY) -m tinyllm stage3 $(TEXTS) $(PREFER) $(ARGS)

stage4: setup  ## 4: reasoning fine-tuning, then reinforcement     (6 min) [DATA=gsm8k.jsonl] [FROM=folder]
	$(PY) -m tinyllm stage4 $(TEXTS) $(call FLAG,FROM,from) $(call FLAG,DATA,data) $(ARGS)

control: setup  ## stage 4 without the chains of thought            (6 min)
	$(PY) -m tinyllm control $(TEXTS) $(call FLAG,FROM,from) $(call FLAG,DATA,data) $(ARGS)

rank: setup  ## rank replies yourself, for stage 3              (at your leisure) [STAGE=2]
	$(PY) -m tinyllm rank $(COMMON) $(call FLAG,STAGE,stage) $(ARGS)

compare: setup  ## all algorithms of stage 3, three times each       (25 min)
	$(PY) -m tinyllm compare $(TEXTS) $(PREFER) $(ARGS)

hacking: setup  ## stage 3 without its leash: the proxy rises, the truth falls (5 min)
	$(PY) -m tinyllm hacking $(TEXTS) $(PREFER) $(ARGS)

show-mask: setup  ## a conversation, what is learned of it coloured   (1 s) [ARGS="--kind problem"]
	$(PY) -m tinyllm show-mask $(COMMON) $(call FLAG,STAGE,stage) $(ARGS)

shakespeare: setup  ## the real-text example, characters               (1 min) TEXT=input.txt
	$(PY) -m tinyllm shakespeare $(TEXTS) $(ARGS)

sample: setup  ## let a stage write                                (1 s) [STAGE=1] [PROMPT="Once"]
	$(PY) -m tinyllm sample $(COMMON) $(call FLAG,STAGE,stage) $(call FLAG,PROMPT,prompt) $(ARGS)

exams: setup  ## measure every stage of a run again               (3 min)
	$(PY) -m tinyllm exams $(COMMON) $(ARGS)

chat: setup  ## talk to a stage, tools included                (STAGE=0 works too) [STAGE=1]
	$(PY) -m tinyllm chat $(COMMON) $(call FLAG,STAGE,stage) $(ARGS)

tools-proof: setup  ## 10,000 calls by a random model: all valid       (1 min)
	$(PY) -m tinyllm tools-proof $(COMMON) $(call FLAG,STAGE,stage) $(ARGS)

tools: setup  ## tool calling: a guided tour without a model     (1 s)
	$(PY) -m tools

audio: setup  ## a recording -> text, minutes, subtitles        (with a key) FILE=talk.wav [ARGS="--preset meeting"]
	$(PY) -m audio transcribe $(call QUOTE,$(FILE)) $(ARGS)

audio-demo: setup  ## minutes of a meeting, no key, no network       (2 s)
	$(PY) -m audio demo

audio-chat: setup  ## a model asked about a recording calls a tool   (2 s, no key) [FILE=talk.wav]
	$(PY) -m tools.recording $(if $(FILE),$(call QUOTE,$(FILE))) $(ARGS)

# Two halves that take about as long, one for each of two cores; 5 is pytest's "nothing matched".
HALF   := tests/test_[a-i]* tests/test_sa* tests/test_v*
PYTEST  = $(PY) -m pytest -q -m "not oracle" -p no:cacheprovider

test: setup  ## all tests that need nothing but this project     (5 min)
	@$(MAKE) --no-print-directory -j2 half other-half
half:
	$(PYTEST) $(HALF) $(ARGS) || test $$? = 5
other-half:
	$(PYTEST) $(addprefix --ignore-glob=,$(HALF)) $(ARGS) || test $$? = 5

ORACLE := $(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test,oracle]"

test-oracle: setup  ## compare with torch, transformers, jsonschema ... (2 min, installs them)
	$(ORACLE)
	$(PY) -m pytest -q -m oracle $(ARGS)

bench: setup  ## speed beside torch and tokenizers, as ratios     (3 min, installs them)
	$(ORACLE)
	$(PY) tests/bench.py $(ARGS)

lint: setup  ## check the style                                  (1 s)
	$(PY) -m pip install --quiet --disable-pip-version-check ruff==0.17.6
	$(PY) -m ruff check .

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
