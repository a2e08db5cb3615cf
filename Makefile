# Two commands do everything on a fresh machine: `make demo` and `make test`.
.PHONY: help setup build demo demo-full test lint docs goldens clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## libtorch and protoc into .venv (idempotent)
	@ops/setup

build: setup ## the two binaries, into target/debug
	cargo build --bins

demo: build ## mini-SLAKE, warm start, Med-Evo on two workers, report (about 8 minutes after the build)
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

goldens: ## remake the golden numbers with transformers and TRL (needs network; see tests/golden/README.md)
	tests/golden/make

clean: ## what the build and the demo made; .venv stays
	rm -rf target runs
