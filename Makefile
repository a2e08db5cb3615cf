# Two commands do everything on a fresh machine: `make demo` and `make test`.
# A command whose output is kept fails as it would without.
SHELL := /bin/bash -o pipefail
.PHONY: help setup setup-peers setup-services build demo demo-full test lint deny docs goldens peers bench bench-table bench-cost bench-profile soak fuzz gpu machinery chaos chaos-table resume-table setup-s3 setup-k8s container-check sim sim-scale driver-scale scale-table interrupts clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## libtorch and protoc into .venv (idempotent)
	@ops/setup

setup-peers: setup ## transformers, peft and trl into .peers, with .venv's torch (idempotent)
	@ops/setup-peers

setup-services: ## etcd, Slurm and munge from Debian, for the tests that run it (idempotent)
	@ops/setup-services

setup-s3: ## an S3 server for the tests into .s3 (idempotent)
	@ops/setup-s3

setup-k8s: ## kubectl and a validator of manifests into .k8s (idempotent)
	@ops/setup-k8s

container-check: build ## the images' runtime stages in a debootstrap root (as root; a few minutes)
	@ops/container-check

build: setup ## the two binaries, into target/debug
	cargo build --bins

demo: build ## mini-SLAKE, warm start, Med-Evo on two workers, report (about 10 minutes after the build, on 2 cores)
	@ops/demo/run 0

demo-full: build ## the demo with three seeds and the TTRL baseline
	@ops/demo/run 0 1 2 --ttrl

test: build setup-peers setup-services setup-s3 setup-k8s ## every test, with real processes, and transformers, PEFT and TRL beside them
	@ops/test

lint: setup ## formatting, clippy with warnings denied, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@ops/licences

deny: ## cargo-deny on the same list of licences (installs it under .tools once: some minutes)
	@ops/deny

docs: build ## docs/config.md from the code
	target/debug/medevo-coord docs config > docs/config.md

goldens: setup-peers ## remake the golden numbers with transformers and TRL (downloads them into .peers)
	.peers/bin/python tests/golden/make_model_goldens.py
	.peers/bin/python tests/golden/make_published_goldens.py
	.peers/bin/python tests/golden/make_lora_goldens.py
	.peers/bin/python tests/golden/make_loss_goldens.py
	.peers/bin/python tests/golden/make_sampling_goldens.py

peers: build setup-peers ## hold the worker's answers against transformers
	.peers/bin/python tests/peers/check.py

BENCH = .peers/bin/python ops/bench/run
ifdef SMOKE
BENCH += --smoke
endif

bench: build setup-peers ## medevo beside TRL and transformers: time, tokens, memory (an hour on 2 cores; SMOKE=1: a minute, tiny)
	cargo build --workspace --example bench
	$(BENCH) $(ARGS)

bench-table: ## the last bench's results into docs/measurements.md
	ops/bench/table.py runs/bench/results.json --into docs/measurements.md

bench-cost: build setup-peers ## the cost of a step over questions and N, into docs/cost.svg
	cargo build --workspace --example bench
	.peers/bin/python ops/bench/cost.py measure --out ops/bench/cost.json
	.peers/bin/python ops/bench/cost.py draw ops/bench/cost.json docs/cost.svg

bench-profile: build setup-peers ## where the engine's time goes, by perf
	cargo build --workspace --example bench
	.peers/bin/python ops/bench/phases.py $(ARGS)

soak: build ## 500 steps with real processes; memory, file handles and threads must not grow
	STEPS=500 cargo test --workspace --test soak -- --nocapture

chaos: build ## the kill matrix, into target/chaos/kill-matrix.json (RUNS=n a cell; VICTIM, PHASE: only these); with SEED=k MINUTES=m a random schedule instead
ifdef SEED
	SEED=$(SEED) MINUTES=$(or $(MINUTES),5) cargo test --workspace --test schedule -- --ignored --nocapture
else
	@mkdir -p target/chaos
	RUNS=$(or $(RUNS),3) VICTIM="$(VICTIM)" PHASE="$(PHASE)" cargo test --workspace --test kill_matrix -- --ignored --nocapture | tee target/chaos/kill-matrix.txt
endif

chaos-table: ## the last kill matrix into docs/measurements.md
	ops/bench/paste.py chaos target/chaos/kill-matrix.txt

resume-table: build ## interrupted and resumed against never interrupted, into docs/measurements.md
	@mkdir -p target/chaos
	ALL=1 cargo test --workspace --test resume -- --nocapture --test-threads 1 | tee target/chaos/resume.txt
	ops/bench/paste.py resume target/chaos/resume.txt

interrupts: build ## 50 launches, each interrupted at a random moment (LAUNCHES=n, SEED=k): no process, no lock, no half-written file
	LAUNCHES=$(or $(LAUNCHES),50) SEED=$(or $(SEED),7) cargo test --workspace --test interrupted -- --nocapture

machinery: build ## what leases, ballots, digests and checkpoints cost a step (after `make demo`)
	ops/bench/machinery.py

SIM = cargo test --workspace --test schedules -- --nocapture

sim: ## a simulated cluster on random schedules (SEEDS=20000: more of them; SEED=4711: one, with its trace)
	$(if $(SEED),MEDEVO_SIM_SEED=$(SEED) )$(if $(SEEDS),MEDEVO_SIM_SEEDS=$(SEEDS) )$(SIM)

sim-scale: ## what the core costs at 1,000 workers and 10,000 groups a step
	@mkdir -p target/chaos
	cargo run --release -p medevo-sim --example scale | tee target/chaos/scale.txt

driver-scale: setup ## the same with the whole driver and its scorer: milliseconds of a step's phases
	cargo test --release --workspace --test thousand -- --ignored --nocapture

scale-table: ## the last of these into docs/measurements.md
	ops/bench/paste.py scale target/chaos/scale.txt

fuzz: setup ## the decoder of the control plane, with libFuzzer, for a minute (SECONDS=600: longer)
	@ops/fuzz $(SECONDS)

gpu: ## what only a GPU can show: NCCL, its order with torch, the engine on CUDA; says so where there is none
	@ops/setup $(shell command -v nvidia-smi >/dev/null && echo --gpu)
	cargo test --workspace --test gpu -- --nocapture --test-threads=1

clean: ## what the build and the demo made; .venv stays
	rm -rf target runs
