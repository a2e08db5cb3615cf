# Two commands do everything on a fresh machine: `make demo` and `make test`.
.PHONY: help setup build demo demo-full test lint docs goldens peers clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## libtorch and protoc into .venv (idempotent)
	@ops/setup

build: setup ## the two binaries, into target/debug
	cargo build --bins

demo: build ## mini-SLAKE, warm start, Med-Evo on two workers, report (about 4 minutes after the build, on 2 cores)
	@ops/demo/run 0

demo-full: build ## the demo with three seeds and the TTRL baseline
	@ops/demo/run 0 1 2 --ttrl

test: build ## every test, with real processes
	cargo test --workspace --no-fail-fast

lint: setup ## formatting, clippy with warnings denied, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@ops/deny

docs: build ## docs/config.md from the code
	target/debug/medevo-coord docs config > docs/config.md

.peers/bin/python: tests/peers/requirements.txt
	python3 -m venv .peers
	.peers/bin/pip install -q -r tests/peers/requirements.txt
	touch $@

goldens: .peers/bin/python ## remake the golden numbers with transformers and TRL (downloads them into .peers)
	.peers/bin/python tests/golden/make_model_goldens.py
	.peers/bin/python tests/golden/make_loss_goldens.py
	.peers/bin/python tests/golden/make_sampling_goldens.py

peers: build .peers/bin/python ## hold the worker and its checkpoints against transformers (downloads it into .peers)
	.peers/bin/python tests/peers/model_round_trip.py
	.peers/bin/python tests/peers/check.py

clean: ## what the build and the demo made; .venv stays
	rm -rf target runs
