# Requires Python 3.11 or later, make and a package index. Everything else is installed into .venv/ and .build/.

# $(value …) reads them without expansion: they may come from a variable that others can write.
override PARAMETERS := $(value PARAMETERS)
override STACK := $(or $(value STACK),vpcep-rename)
export STACK

# Lambda's version first: only that one can precompile the package. Each is run, because a pyenv shim may exist and fail.
ifndef PYTHON
PYTHON := $(shell for python in python3.13 $$HOME/.pyenv/versions/3.13.*/bin/python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
	&& command -v "$$python" && break; done)
endif
export PYTHON

# `sam build` builds for Lambda's runtime on ARCHITECTURE, or for this machine if PACKAGE_PLATFORM is empty.
export PACKAGE_PYTHON ?= 3.13
export ARCHITECTURE ?= $(or $(patsubst Architecture=%,%,$(filter Architecture=%,$(PARAMETERS))),x86_64)
MACHINE_x86_64 := x86_64
MACHINE_arm64 := aarch64
PACKAGE_PLATFORM ?= manylinux_2_28_$(or $(MACHINE_$(ARCHITECTURE)),$(error Architecture is x86_64 or arm64))

DEV := .venv/dev/.installed
SAM := .venv/sam/.installed
MINISTACK := .venv/ministack/.installed
LINT := .venv/lint/.installed
AUDIT := .venv/audit/.installed
AWSCLI := .venv/awscli/.installed

export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# pip warns about each configured index that lacks a package. -qq silences that and still prints errors.
PIP_INSTALL := -m pip install -qq --no-compile --no-input --no-deps --only-binary=:all: --require-hashes

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run cli up test coverage mutants lint lint-python format build deploy deploy-built prune redrive bench dashboard \
	fuzz audit sbom licences clean lock environments contract viewers page-test build-RenameFromQueue build-RenameFromHttp \
	build-SettleDeadLetters

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r target text; do \
		printf '  %-14s %s\n' "$$target" "$$text"; done

run: environments ## deploy to local emulators of both clouds, and rename through the queue and the HTTP API
	@.venv/dev/bin/python -m tests.localcloud

up: environments ## the same, and keep the emulators running for your own events until Ctrl-C
	@.venv/dev/bin/python -m tests.localcloud.up

test: environments $(AUDIT) $(AWSCLI) ## run all tests
	@.venv/dev/bin/python -m pytest -n 2

# Locked dependencies, and an editable install of this checkout.
cli: .venv/cli/.installed ## install the operator's command, vpcep-rename, into .venv/cli
	@.venv/cli/bin/python -m pip install -qq --no-input --no-deps --no-build-isolation --editable .
	@echo "Installed: .venv/cli/bin/vpcep-rename. Try: .venv/cli/bin/vpcep-rename --help"

coverage: $(DEV) ## measure branch coverage of the unit and contract tests; fails below the limit
	@.venv/dev/bin/python -m pytest -q -n 2 tests/unit tests/contract --cov --cov-report=term-missing:skip-covered

# MUTANTS=60 SEED=0: size and seed of the sample.
mutants: $(DEV) ## run mutation testing on a sample of lines; half an hour
	@.venv/dev/bin/python -m tests.mutants $(if $(MUTANTS),--mutants $(MUTANTS)) $(if $(SEED),--seed $(SEED))

lint: ## run all linters
	@$(MAKE) -s -j3 $(DEV) $(SAM) $(LINT)
	@$(MAKE) lint-python
	.venv/sam/bin/sam validate --lint --region us-east-1
	.venv/lint/bin/cfn-lint --append-rules cfn_lint_serverless.rules --regions us-east-1 -- template.yml
	.venv/lint/bin/checkov
	.venv/lint/bin/lint-imports --no-cache --no-logo
	.venv/lint/bin/bandit -q -r function
	.venv/lint/bin/zizmor --offline -q --persona=auditor .github

lint-python: $(DEV) ## run the Python linters only
	.venv/dev/bin/ruff check
	.venv/dev/bin/ruff format --check
	.venv/dev/bin/mypy

format: $(DEV) ## format the Python code, and apply the linter's fixes
	.venv/dev/bin/ruff check --fix
	.venv/dev/bin/ruff format

build: $(SAM) ## build the deployment package
	.venv/sam/bin/sam build
	@$(HAS_RUNTIME) || echo "Built without bytecode, because this is not Python $(PACKAGE_PYTHON): cold starts will take longer."

# PARAMETERS="HuaweiCloudRegion=… HuaweiCloudProjectId=… HuaweiCloudCredentialsSecretArn=…"; NAME= sets an empty value. Later
# deployments keep the parameters that are not given. STACK=… names another stack than vpcep-rename.
deploy: $(SAM) ## build and deploy the stack to AWS
	.venv/sam/bin/python scripts/before_deploy.py --build $(OVERRIDES)
	$(DEPLOY)

# The same without the build, so that no build runs with credentials.
deploy-built: $(SAM) ## deploy the package that `make build` has built
	.venv/sam/bin/python scripts/before_deploy.py $(OVERRIDES)
	$(DEPLOY)

# Each word is quoted for the shell. The SAM CLI rejects X=, and accepts X="" with the quotes.
OVERRIDES = $(foreach word,$(subst ','\'',$(PARAMETERS)),'$(word)$(if $(call is_emptied,$(word)),"")')
is_emptied = $(and $(filter %=,$(1)),$(filter 1,$(words $(subst =, ,$(1)))))
define DEPLOY
.venv/sam/bin/sam deploy --stack-name "$$STACK" --parameter-overrides Revision=$$(date +%s) $(OVERRIDES)
.venv/sam/bin/python scripts/after_deploy.py
endef

# YES=1 deletes without confirmation.
prune: $(SAM) ## list old versions of the functions, and delete them after confirmation
	@.venv/sam/bin/python scripts/prune.py $(if $(YES),--yes)

redrive: $(SAM) ## move the dead letters of a deployed stack back to the rename queue
	.venv/sam/bin/sam remote invoke SettleDeadLetters --stack-name "$$STACK" --event '{"redrive": true}' \
		--parameter Qualifier=live

fuzz: $(DEV) ## send random Lambda events to the handlers; minutes
	@.venv/dev/bin/python -m tests.fuzz --inputs $(or $(INPUTS),200000)

# RUNS=3 prints the figures of three runs and does not store them.
bench: environments .venv/bench/.installed ## run the benchmarks, and draw the plots; minutes
	@.venv/dev/bin/python -m tests.bench $(RUNS)
	@.venv/bench/bin/python -m tests.bench.plots

dashboard: environments .venv/bench/.installed ## run with a simulated outage, and draw docs/dashboard.svg; six minutes
	@.venv/dev/bin/python -m tests.dashboard
	@.venv/bench/bin/python -m tests.dashboard.draw

contract: $(DEV) ## generate docs/openapi.json from the contract's sources and the samples
	.venv/dev/bin/python -m tests.contract.bundle

# Needs Chromium on the system (Debian: apt install chromium).
page-test: environments .venv/page/.installed ## test the page of make up in headless Chromium, and take its screenshot
	@.venv/page/bin/python -m tests.localcloud.page.browser docs/page.png

# npm packages and two client generators. Needs Node.js 20 or later; downloads 700 MB into .build/viewers.
viewers: export CI := true# turns asyncapi's telemetry off
viewers: export REDOCLY_TELEMETRY := off
viewers: VIEWERS := $(CURDIR)/.build/viewers
viewers: .venv/viewers/.installed ## open the OpenAPI and AsyncAPI documents with viewers, linters and generators
	@mkdir -p $(VIEWERS) && cp tests/contract/viewers/* $(VIEWERS)
	@npm install --prefix $(VIEWERS) --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error
	node $(VIEWERS)/open.mjs docs/openapi.json
	$(VIEWERS)/node_modules/.bin/redocly lint docs/openapi.json
	$(VIEWERS)/node_modules/.bin/asyncapi validate function/contract/asyncapi.yaml
	PATH="$(CURDIR)/.venv/viewers/bin:$$PATH" openapi-python-client generate --path docs/openapi.json --meta none \
		--fail-on-warning --overwrite --output-path $(VIEWERS)/client
	.venv/viewers/bin/datamodel-codegen --input docs/openapi.json --input-file-type openapi --formatters builtin \
		--output-model-type pydantic_v2.BaseModel --output $(VIEWERS)/models.py
	cd $(VIEWERS) && $(CURDIR)/.venv/viewers/bin/python -c 'import client.api.default.post_rename_event, models'

clean: ## delete all files that make has created
	rm -rf .venv .build .aws-sam .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find function tests -name __pycache__ -prune -exec rm -rf {} +

# ---- Environments

# In parallel: most of the time is spent unpacking.
environments:
	@$(MAKE) -s -j3 $(DEV) $(SAM) $(MINISTACK)

$(DEV): tests/requirements.txt
$(SAM): tests/localcloud/requirements-sam.txt
$(MINISTACK): tests/localcloud/requirements-ministack.txt
.venv/bench/.installed: tests/bench/requirements.txt
.venv/cli/.installed: cli/requirements.txt
$(LINT): tests/requirements-lint.txt
$(AUDIT): tests/requirements-audit.txt
$(AWSCLI): tests/integration/requirements-awscli.txt
.venv/viewers/.installed: tests/contract/viewers/requirements.txt
.venv/page/.installed: tests/localcloud/page/requirements.txt
# In MB: download, disk.
SIZE_dev := 70 210
SIZE_sam := 60 220
SIZE_ministack := 25 70
SIZE_lint := 80 310
SIZE_audit := 15 50
SIZE_awscli := 25 170
SIZE_bench := 40 150
SIZE_cli := 20 75
SIZE_uv := 20 60
SIZE_viewers := 30 110
SIZE_page := 50 180
.venv/%/.installed:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later with venv is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up .venv/$* with $$($(PYTHON) --version): $(word 1,$(SIZE_$*)) MB to download, $(word 2,$(SIZE_$*)) MB on disk …" >&2
	@rm -rf .venv/$*
	@$(PYTHON) -m venv .venv/$*
	@.venv/$*/bin/python $(PIP_INSTALL) -r $^
	@touch $@

# ---- The package: `sam build` runs build-… in this directory for each function of the template

DEPENDENCIES := .build/$(or $(PACKAGE_PLATFORM),native)-$(PACKAGE_PYTHON)
METADATA := $(DEPENDENCIES)-metadata

# Files that the function never imports. Of PyMongo the SDK uses only bson, and PyYAML only for a file of a few lines, which
# needs no C extension.
POWERTOOLS := aws_lambda_powertools
UNUSED := pymongo gridfs dns dnspython-*.dist-info _yaml yaml/_yaml*.so jsonschema/benchmarks $(addprefix charset_normalizer/,cli __main__.py) \
	$(POWERTOOLS)/event_handler $(addprefix $(POWERTOOLS)/utilities/,auth_alpha batch data_classes data_masking \
	feature_flags idempotency kafka parameters parser streaming validation)
# Models of the API calls in use. Only the two __init__.py files below import the other hundred; without them the directories
# are namespace packages.
SDK := huaweicloudsdkvpcep/v1
SDK_MODELS := $(addprefix list_service_details_,request response) error port_list tag_list \
	$(addprefix update_endpoint_service_name_,request request_body response)
UNUSED += $(addprefix $(SDK)/,__init__.py model/__init__.py vpcep_async_client.py)

$(DEPENDENCIES)/.complete: requirements.txt Makefile | $(SAM)
	@rm -rf $(@D)
	@.venv/sam/bin/python $(PIP_INSTALL) -r requirements.txt --target $(@D) $(if $(PACKAGE_PLATFORM),\
		--python-version $(PACKAGE_PYTHON) --implementation cp --platform $(PACKAGE_PLATFORM) \
		--platform $(subst manylinux_2_28,manylinux2014,$(PACKAGE_PLATFORM)))
	@cd $(@D) && rm -rf bin */tests $(UNUSED)
	@cd $(@D)/$(SDK)/model && find . -name '*.py' $(SDK_MODELS:%=! -name '%.py') -delete
	@rm -rf $(METADATA) && mkdir $(METADATA) && mv $(@D)/*.dist-info $(METADATA)
	@find $(@D) -name '*.[ch]' -delete
	@$(call precompile,$(@D),$(@D))
	@touch $@

build-RenameFromQueue build-RenameFromHttp build-SettleDeadLetters: $(DEPENDENCIES)/.complete
	@cp -R $(DEPENDENCIES)/. "$(ARTIFACTS_DIR)"
	@rm "$(ARTIFACTS_DIR)/.complete"
	@cp -R function "$(ARTIFACTS_DIR)"
	@find "$(ARTIFACTS_DIR)/function" \( -name __pycache__ -o -name '*.md' \) -prune -exec rm -rf {} +
	@$(call precompile,$(ARTIFACTS_DIR),$(ARTIFACTS_DIR)/function)
	@chmod -R u=rwX,go=rX "$(ARTIFACTS_DIR)" # independent of the umask, for reproducible builds

# Files in a package are dated 1980, and /var/task is read-only: Python uses only unchecked bytecode there.
precompile = ! $(HAS_RUNTIME) \
	|| $(PYTHON) -m compileall -qq -j 0 --invalidation-mode unchecked-hash -s "$(1)" -p /var/task "$(2)"
HAS_RUNTIME = $(PYTHON) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PACKAGE_PYTHON)")'

# ---- Supply chain

audit: $(AUDIT) ## check the package's and the SAM CLI's dependencies for known vulnerabilities
	.venv/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		-r requirements.txt -r tests/localcloud/requirements-sam.txt

# -S and PYTHONPATH: the interpreter sees only METADATA, so the tool's own packages are not listed. The tool reads the
# dependencies in [project], which are the command's; those of the function are a dependency group.
sbom: $(DEPENDENCIES)/.complete $(AUDIT) ## write the software bill of materials (SBOM, CycloneDX)
	@.venv/audit/bin/python -c 'import json, tomllib; read = tomllib.load(open("pyproject.toml", "rb")); project = read["project"]; \
		print("[project]"); [print(key, "=", json.dumps(project[key])) for key in ("name", "version", "description")]; \
		print("dependencies =", json.dumps(read["dependency-groups"]["function"]))' > $(DEPENDENCIES).project.toml
	PYTHONPATH=$(METADATA) .venv/audit/bin/cyclonedx-py environment -S --pyproject $(DEPENDENCIES).project.toml --output-reproducible \
		--output-file $(DEPENDENCIES).cdx.json .venv/audit/bin/python
	@.venv/audit/bin/python scripts/note_left_out.py $(DEPENDENCIES).cdx.json $(DEPENDENCIES) $(METADATA)

licences: $(DEPENDENCIES)/.complete $(DEV) ## write THIRD_PARTY.md, the licences of the package
	.venv/dev/bin/python -m tests.third_party $(METADATA) > THIRD_PARTY.md

# ---- Locked requirements

UV := .venv/uv/.installed
$(UV): tests/requirements-uv.txt
LOCK := .venv/uv/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header

lock: $(UV) ## lock the requirements with hashes, from pyproject.toml
	$(LOCK) --group function -o requirements.txt
	@sed -i.bak 's/ (pyproject.toml:function)/ (pyproject.toml)/' requirements.txt && rm requirements.txt.bak
	$(LOCK) pyproject.toml --group function --group dev -c requirements.txt -o tests/requirements.txt
	$(LOCK) pyproject.toml --group cli -c tests/requirements.txt -o cli/requirements.txt
	$(LOCK) --group sam -o tests/localcloud/requirements-sam.txt
	$(LOCK) --group ministack -o tests/localcloud/requirements-ministack.txt
	$(LOCK) --group bench -o tests/bench/requirements.txt
	$(LOCK) --group page -o tests/localcloud/page/requirements.txt
	$(LOCK) --group viewers -o tests/contract/viewers/requirements.txt
	$(LOCK) --group awscli -o tests/integration/requirements-awscli.txt
	$(LOCK) --group lint -o tests/requirements-lint.txt
	$(LOCK) --group audit -o tests/requirements-audit.txt
	$(LOCK) --group uv -o tests/requirements-uv.txt
