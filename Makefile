# Targets are thin wrappers around Python commands; without make (on Windows, say), run these commands.

.DEFAULT_GOAL := help
.PHONY: help setup train mine stage0 stage1 stage2 stage3 stage4 control real quiz rank algorithms hacking \
        show-mask shakespeare sample exams report compare walk readme chat tools tools-proof audio \
        audio-demo audio-chat test test-tinyllm test-others test-oracle mutants size bench lint clean

PYTHON ?= python3
PY     := .venv/bin/python
# $(value NAME) is the text as typed: $(NAME) would expand a $5 in it.
QUOTE   = '$(subst ','\'',$(1))'
FLAG    = $(if $(value $(1)),--$(2) $(call QUOTE,$(value $(1))))
MORE    = $(value ARGS)
# Every variable that is set becomes an option, so a command refuses a variable that it cannot use.
# Only PROMPT must be set on the command line: some people export the PROMPT of their shell.
GIVEN   = $(call FLAG,RUN,run) $(call FLAG,SIZE,size) $(call FLAG,SEED,seed) $(call FLAG,WORKERS,workers) \
          $(if $(filter-out 0,$(RESUME)),--resume) $(call FLAG,TEXT,text) $(call FLAG,FROM,from) \
          $(call FLAG,DATA,data) $(call FLAG,OBJECTIVE,objective) $(call FLAG,RANKINGS,rankings) \
          $(call FLAG,ALGORITHM,algorithm) $(call FLAG,STAGE,stage) $(call FLAG,FILE,file) \
          $(call FLAG,AGAINST,against) $(call FLAG,MODEL,model) \
          $(if $(filter command,$(origin PROMPT)),$(call FLAG,PROMPT,prompt))

KNOWN   = RUN SIZE SEED WORKERS RESUME ARGS TEXT FROM DATA OBJECTIVE RANKINGS ALGORITHM STAGE PROMPT FILE \
          AGAINST MODEL PYTHON PY
$(foreach name,$(filter-out $(KNOWN),$(.VARIABLES)),$(if $(filter command,$(origin $(name))),\
          $(error unknown variable $(name). Known: $(KNOWN))))

help:  ## show this list
	@echo "make TARGET [RUN=demo] [SIZE=nano|small|base] [SEED=0] [WORKERS=2] [RESUME=1] [ARGS=\"--more options\"]"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "all options of a command: $(PY) -m tinyllm COMMAND --help"

setup: .venv/ready  ## create .venv and install the dependencies    (1 min)  once
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@

train: setup  ## all stages in order, then the scoreboard     (20 min) [TEXT=path: as make mine] SIZE=nano: 1 min
	$(PY) -m tinyllm $(if $(value TEXT),mine,train) $(GIVEN) $(MORE)

mine: setup  ## your own assistant from your own files       (6 min)  TEXT=dir DATA=qa.jsonl [RANKINGS=file]
	$(PY) -m tinyllm mine $(GIVEN) $(MORE)

stage0: setup  ## 0: a vocabulary and a random model           (1 min)  [TEXT=path]
	$(PY) -m tinyllm stage0 $(GIVEN) $(MORE)

stage1: setup  ## 1: pre-training                              (4 min)  [TEXT=path] [FROM=dir] [OBJECTIVE=masked]
	$(PY) -m tinyllm stage1 $(GIVEN) $(MORE)

stage2: setup  ## 2: instruction fine-tuning                   (5 min)  [DATA=file.json] [FROM=dir]
	$(PY) -m tinyllm stage2 $(GIVEN) $(MORE)

stage3: setup  ## 3: preference fine-tuning                    (3 min)  [RANKINGS=file.jsonl] [ALGORITHM=name]
	$(PY) -m tinyllm stage3 $(GIVEN) $(MORE)

stage4: setup  ## 4: reasoning fine-tuning                     (6 min)  [DATA=gsm8k.jsonl] [FROM=dir]
	$(PY) -m tinyllm stage4 $(GIVEN) $(MORE)

control: setup  ## stage 4 without chains of thought            (6 min)
	$(PY) -m tinyllm control $(GIVEN) $(MORE)

real: setup  ## fetch a real chat model, ask it 3 questions  (1 min)  [MODEL=file.gguf]
	$(PY) -m tinyllm real $(GIVEN) $(MORE)

quiz: setup  ## 50 questions: how many replies are right     (1 min)  [FROM=dir] [DATA=file.jsonl]
	$(PY) -m tinyllm quiz $(GIVEN) $(MORE)

rank: setup  ## rank replies yourself, for stage 3                    [STAGE=2]
	$(PY) -m tinyllm rank $(GIVEN) $(MORE)

algorithms: setup  ## all algorithms of stage 3, three runs each   (30 min)
	$(PY) -m tinyllm algorithms $(GIVEN) $(MORE)

hacking: setup  ## reward hacking: no KL penalty, 4 x the rate  (5 min)
	$(PY) -m tinyllm hacking $(GIVEN) $(MORE)

show-mask: setup  ## which tokens of a chat the loss covers       (1 s)
	$(PY) -m tinyllm show-mask $(GIVEN) $(MORE)

shakespeare: setup  ## train on real text with nanoGPT's CPU budget (1 min)  TEXT=input.txt
	$(if $(value TEXT),,$(error name the text: make shakespeare TEXT=input.txt))
	$(PY) -m tinyllm stage0 $(GIVEN) --run shakespeare --vocab 256 --layers 4 --width 128 --heads 4 --context 64
	$(PY) -m tinyllm stage1 $(GIVEN) --run shakespeare --rows 12 --steps 2000 \
	    --muon-rate 0.008 --adamw-rate 3e-3 $(MORE)

sample: setup  ## sample text from a stage                     (1 s)    [STAGE=1] [PROMPT="Once"]
	$(PY) -m tinyllm sample $(GIVEN) $(MORE)

exams: setup  ## run the exams of every stage again           (3 min)
	$(PY) -m tinyllm exams $(GIVEN) $(MORE)

report: setup  ## write the report page of a run               (5 s)    [AGAINST=other-run]
	$(PY) -m tinyllm report $(GIVEN) $(MORE)

compare: setup  ## ask every stage the same question            (5 s)    [PROMPT="What is 12*7?"]
	$(PY) -m tinyllm compare $(GIVEN) $(MORE)

walk: setup  ## follow one batch forward and backward        (1 s)    [OBJECTIVE=dpo]
	$(PY) -m tinyllm walk $(GIVEN) $(MORE)

readme: setup  ## update the figures and samples in README.md  (10 s)   RUN=a-finished-run
	$(PY) tests/readme_blocks.py $(call QUOTE,$(or $(value RUN),demo))

chat: setup  ## chat with a stage, which may call tools               [STAGE=1] [FROM=dir]
	$(PY) -m tinyllm chat $(GIVEN) $(MORE)

tools-proof: setup  ## a random model writes 10,000 valid calls     (1 min)
	$(PY) tests/bench/tools_proof.py $(MORE)

tools: setup  ## tool calling: a guided tour without a model  (1 s)
	$(PY) -m tools

audio: setup  ## turn speech into text, minutes or subtitles           FILE=talk.wav  needs a key
	$(PY) -m audio transcribe $(call QUOTE,$(value FILE)) $(MORE)

audio-demo: setup  ## write the minutes of a recorded meeting      (2 s)    no key, no network
	$(PY) -m audio demo

audio-chat: setup  ## a model answers questions about a recording  (2 s)    [FILE=talk.wav]  no key
	$(PY) -m tools recording $(if $(value FILE),$(call QUOTE,$(value FILE))) $(MORE)

PYTEST  = $(PY) -m pytest -q -m "not oracle" -p no:cacheprovider
# With OTHERS, both halves of `make test` take equally long.
OTHERS  = $(addprefix tests/tinyllm/,evaluation preferences report world)

test: setup  ## all tests that need no extra library         (3 min)
	@$(MAKE) --no-print-directory -j2 test-tinyllm test-others
test-tinyllm:
	$(PYTEST) tests/tinyllm $(addprefix --ignore=,$(OTHERS)) $(MORE)
test-others:
	$(PYTEST) $(OTHERS) tests/tools tests/audio tests/test_layout.py tests/test_makefile.py \
	    tests/test_readme.py $(MORE)

ORACLE := $(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test,oracle]"

test-oracle: setup  ## compare results with torch and others        (2 min)  installs them
	$(ORACLE)
	$(PY) -m pytest -q -m oracle $(MORE)

mutants: setup  ## inject faults that the tests must notice
	$(PY) tests/mutants.py $(MORE)

size: setup  ## lines of code, per file and package          (1 s)
	$(PY) tests/size.py

bench: setup  ## speed compared with torch and tokenizers     (3 min)  installs them
	$(ORACLE)
	$(PY) tests/bench/bench_tinyllm.py $(MORE)

lint: setup  ## check style and formatting                   (1 s)
	$(PY) -m pip install --quiet --disable-pip-version-check ruff==0.17.6
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:  ## remove .venv and caches, but keep runs/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
