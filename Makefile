# The commands of this repository. `make` lists them.

# The cache folder of install.sh: programs that do not come from Debian's archive.
cache = $(shell tests/support/install.sh where)

.PHONY: help run switchover test test-integrity test-memory test-reload test-reload-rig test-haproxy test-random test-consistency test-soak test-routes test-manifests test-drivers test-clients test-versions fuzz pictures docs man packages test-packages test-pods image image-test bench-failover bench-forward bench-reload check advisories sbom build clean
.DEFAULT_GOAL := help

help:
	@echo 'make run             starts a Patroni cluster on this machine with pgnorth in front of it; Ctrl-C removes it (PORT=, ADMIN_PORT=)'
	@echo 'make switchover      moves the leader of that cluster, from another terminal (PORT=)'
	@echo 'make test            runs all tests, with real PostgreSQL, Patroni and Kubernetes API. Root'
	@echo 'make test-integrity  compares every byte of ten thousand random sessions, then of as many with faults injected; a few minutes (SESSIONS=, SEED=)'
	@echo 'make test-memory     runs a thousand clients that do not read against a pgnorth with 512 MiB; a minute. Root (READERS=, BUFFERS=)'
	@echo 'make test-reload     keeps thousands of sessions alive over reloads, and prints the longest pause of any session; a few minutes (SESSIONS=, RELOADS=)'
	@echo 'make test-reload-rig copies 1 GiB each way, notifies and logs in over 30 reloads and a switchover of a real cluster; two minutes. Root'
	@echo 'make test-haproxy    compares pgnorth watch with a real HAProxy through a switchover, a crash and a REST API that hangs; two minutes. Root'
	@echo 'make test-random     injects random faults into one cluster; half an hour for 50 (FAULTS=, SEED= repeats a run)'
	@echo 'make test-consistency looks for lost writes through two pgnorths while hosts fail and are cut off and clocks are stepped; half an hour for 100 faults. Root (FAULTS=, PARTS=, SEED=, DCS=kubernetes)'
	@echo 'make test-soak       runs 200 sessions with a fault every minute, and fails if the resources that pgnorth uses grow. Root (HOURS=1, SEED=)'
	@echo 'make test-routes     prints what each fault costs readers on each route, beside HAProxy; half an hour. Root (ONLY=every_fault_by_etcd)'
	@echo 'make test-manifests  checks the rendered deploy/ against the schemas of Kubernetes, Istio and the Prometheus operator'
	@echo 'make test-drivers    tests how real drivers present a refusal, by sslmode (WAYS=ways, WAYS=silence)'
	@echo 'make test-clients    runs drivers, pools, the tools of PostgreSQL and a subscription through switchovers and crashes, and prints what each sees; fifteen minutes. Root (SWITCHOVERS=20, CRASHES=5)'
	@echo 'make test-versions   tests pgnorth with Patroni 3.0 to 4.1 and PostgreSQL 13 to 18, and prints a table; half an hour. Root (PAIRS="4.1/18", PATRONI=checkout)'
	@echo 'make fuzz            feeds random input to each parser, 60 s each; coverage-guided (TIME=, TARGETS=)'
	@echo 'make pictures        makes the pictures of docs/operating/monitoring.md from a real run of a few minutes. Root (FOLDER=target/pictures, AGAIN=yes draws the panels again from its data)'
	@echo 'make docs            writes the generated parts of docs/reference from the tables in the code; a test fails if they differ'
	@echo 'make man             writes man pages and shell completions into target/man and target/completions'
	@echo 'make packages        builds the Debian and the RPM package into target/packages (PROFILE=, RELEASE=, PACKAGER=)'
	@echo 'make test-packages   installs, starts, upgrades and removes both packages on a Debian that is booted for it; a few minutes. Root (PROFILE=)'
	@echo 'make test-pods       changes and breaks Patroni and pgnorth as pods, under load, on the cluster of KUBECONFIG or on its own cluster. Root (CLUSTER=, LOAD=, PROXYMODE=, PROFILE=)'
	@echo 'make image           builds the image into target/pgnorth-image.tar, for docker load, podman load or ctr images import; needs no registry. Root'
	@echo 'make image-test      builds the image without a registry, starts it as Kubernetes would, and lists its contents. Root'
	@echo 'make bench-failover  measures what faults cost clients of pgnorth, of HAProxy and of libpq alone; about 15 minutes. Root (ARGS=--quick, ARGS=--patroni-defaults, ARGS=--help)'
	@echo 'make bench-forward   measures the cost of a connection through pgnorth and others; about 13 minutes. Root (ARGS=--quick, ARGS=--help)'
	@echo 'make bench-reload    compares what reloads of pgnorth, HAProxy and PgBouncer cost their clients; three minutes. Root (ARGS=--help)'
	@echo 'make check           checks conflict markers, format, lints, docs, dependencies and the commits of this branch; advisories, too, if the RustSec database can be fetched'
	@echo 'make advisories      checks only the advisories; fails if the database cannot be fetched'
	@echo 'make sbom            writes target/pgnorth.cdx.json, a CycloneDX list of the crates in the binary'
	@echo 'make build           builds the release binary'
	@echo 'make clean           removes what cargo built'

run:
	@tests/support/install.sh demo
	@PORT='$(PORT)' ADMIN_PORT='$(ADMIN_PORT)' exec deploy/demo/run.sh

switchover:
	@PORT='$(PORT)' exec deploy/demo/switchover.sh

# The rig runs in namespaces without a network, so it is built first, outside of them. It mostly waits for Patroni's ttl: three clusters at a time suit
# even two cores.
test:
	tests/support/install.sh test
	cargo test --locked --lib --bins
	cargo test --locked --test wake_flag
	cargo test --locked --test local
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo test --locked --offline --test rig -- --test-threads=3

test-integrity:
	PGNORTH_SESSIONS='$(or $(SESSIONS),10000)' $(if $(SEED),PGNORTH_SEED='$(SEED)') \
		cargo test --locked --release --lib -- --nocapture --test-threads=1 proxy::forward::tests::integrity

# Root, for a memory cgroup.
test-memory:
	$(if $(READERS),PGNORTH_READERS='$(READERS)') $(if $(BUFFERS),PGNORTH_BUFFERS='$(BUFFERS)') \
		cargo test --locked --test local -- --ignored --exact --nocapture \
		stalled_readers::a_thousand_stalled_readers_fit_into_the_memory_of_a_pod

test-reload:
	$(if $(SESSIONS),PGNORTH_SESSIONS='$(SESSIONS)') $(if $(RELOADS),PGNORTH_RELOADS='$(RELOADS)') \
		cargo test --locked --test local -- --ignored --exact --nocapture \
		reload::soak::many_sessions_live_on_over_many_reloads

test-reload-rig:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo test --locked --offline --test rig -- \
		--ignored --exact --nocapture reload::a_gibibyte_each_way_over_many_reloads

test-haproxy:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo test --locked --offline --test rig -- \
		--ignored --exact --nocapture beside_haproxy::a_switchover_a_crash_and_a_hang_are_reported

test-random:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_RANDOM_FAULTS='$(or $(FAULTS),50)' $(if $(SEED),PGNORTH_SEED='$(SEED)') \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture repeated::random_faults

test-consistency:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_FAULTS='$(or $(FAULTS),100)' PGNORTH_PARTS='$(or $(PARTS),1)' PGNORTH_DCS='$(or $(DCS),etcd)' $(if $(SEED),PGNORTH_SEED='$(SEED)') \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture consistency::campaign

test-soak:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_HOURS='$(or $(HOURS),1)' $(if $(SEED),PGNORTH_SEED='$(SEED)') \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture consistency::soak::soak

# Prints tables, and draws charts into target/routes. Keep figures only from an otherwise idle machine.
test-routes:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo test --locked --offline --test rig -- \
		--ignored --nocapture --test-threads=1 'routes::report::$(ONLY)'

docs:
	PGNORTH_WRITE_DOCS=yes cargo test --locked --test local -- --exact documents::reference::generated_parts_are_what_the_code_says

man:
	PGNORTH_WRITE_MAN='$(CURDIR)/target' cargo test --locked --test local -- documents::man
	@echo target/man target/completions

packages: man
	tests/support/install.sh packages
	PROFILE='$(PROFILE)' RELEASE='$(RELEASE)' PACKAGER='$(PACKAGER)' packaging/build.sh

# PROFILE=dev tests the packages without an optimised build.
test-packages: man
	tests/support/install.sh test-packages
	PGNORTH_CACHE='$(cache)' PROFILE='$(PROFILE)' tests/packages/run.sh

# One real run of about eight minutes.
pictures:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_PICTURES='$(or $(FOLDER),target/pictures)' \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture pictures::$(if $(AGAIN),panels,pictures)

# Requires kubectl 1.21 or newer, node and npm, which downloads the schemas.
test-manifests:
	PGNORTH_CACHE='$(cache)' tests/schemas/run.sh

# pip and npm download drivers, checked by hash; the others are Debian's. Requires node and npm.
test-drivers:
	tests/support/install.sh drivers
	cargo build --locked
	PGNORTH_CACHE='$(cache)' PGNORTH='$(CURDIR)/target/debug/pgnorth' tests/drivers/run.sh '$(or $(WAYS),pgnorth)'

# The same drivers, on the rig.
test-clients:
	tests/support/install.sh test
	tests/support/install.sh drivers
	tests/support/install.sh versions
	PGNORTH_CACHE='$(cache)' tests/drivers/run.sh install
	PGNORTH_CACHE='$(cache)' tests/versions/run.sh install
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture \
		tools::tools_fail_in_a_switchover_and_work_again_at_once
	PGNORTH_CACHE='$(cache)' PGNORTH_POSTGRESQL='$(cache)/versions/17/bin' \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture \
		subscription::a_subscription_with_a_failover_slot_follows_the_primary
	PGNORTH_CACHE='$(cache)' PGNORTH_SWITCHOVERS='$(SWITCHOVERS)' PGNORTH_CRASHES='$(CRASHES)' \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture drivers::drivers_live_through_failovers

# npm and PyPI have builds of PostgreSQL and releases of Patroni, checked by hash. About 65 s for each pair.
test-versions:
	tests/support/install.sh versions
	PGNORTH_CACHE='$(cache)' PATRONI='$(PATRONI)' tests/versions/run.sh $(PAIRS)

# libFuzzer, with the toolchain of the repository. No sanitizer: the crate forbids unsafe code. Its findings are in fuzz/artifacts.
fuzz:
	tests/support/install.sh fuzz
	set -e; for target in $(or $(TARGETS),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))); do \
		mkdir -p "fuzz/target/corpus/$$target"; \
		PATH='$(cache)/bin':"$$PATH" cargo fuzz run --sanitizer none "$$target" "fuzz/target/corpus/$$target" "fuzz/corpus/$$target" \
			-- -max_total_time='$(or $(TIME),60)' -timeout=10 -print_final_stats=1; \
	done

# The first build takes a few minutes; later ones compile what changed.
image:
	tests/support/install.sh image
	PGNORTH_CACHE='$(cache)' tests/image/run.sh '$(CURDIR)/target/pgnorth-image.tar'

image-test:
	tests/support/install.sh image
	PGNORTH_CACHE='$(cache)' tests/image/run.sh

# Prints which cluster it uses, and how long each step takes.
test-pods:
	tests/support/install.sh test-pods
	cargo build --locked --profile '$(or $(PROFILE),dev)'
	PGNORTH_CACHE='$(cache)' PROGRAM='target/$(if $(filter-out dev,$(PROFILE)),$(PROFILE),debug)/pgnorth' \
		CLUSTER='$(CLUSTER)' LOAD='$(LOAD)' tests/pods/run.sh

# Prints a table and writes target/failover.json. Keep figures only from an otherwise idle machine. Without HAProxy 3, it skips that contender.
bench-failover:
	tests/support/install.sh test
	-tests/support/install.sh haproxy-3
	cargo bench --locked --no-run --bench failover
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo bench --locked --offline --bench failover -- --json target/failover.json $(ARGS)

# Prints a table and writes target/forward.json.
bench-forward:
	tests/support/install.sh bench
	cargo bench --locked --no-run --bench forward
	tests/support/inside.sh cargo bench --locked --offline --bench forward -- --json target/forward.json $(ARGS)

# Prints a table.
bench-reload:
	tests/support/install.sh bench
	cargo bench --locked --no-run --bench reload
	tests/support/inside.sh cargo bench --locked --offline --bench reload -- $(ARGS)

check:
	@! git grep -nE '^(<<<<<<<|>>>>>>>)( |$$)' || { echo 'check: these lines are conflict markers; resolve them'; exit 1; }
	tests/support/install.sh check
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items --locked
	PATH='$(cache)/bin':"$$PATH" cargo deny check bans licenses sources
	PATH='$(cache)/bin':"$$PATH" tests/support/advisories.sh
	tests/support/commits.sh

advisories:
	tests/support/install.sh check
	PATH='$(cache)/bin':"$$PATH" tests/support/advisories.sh required

# CycloneDX 1.5: the crates in the binary, with versions, licences and hashes.
sbom:
	tests/support/install.sh sbom
	PATH='$(cache)/bin':"$$PATH" cargo cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps \
		--target "$$(rustc -vV | sed -n 's/^host: //p')"
	mkdir -p target
	mv pgnorth_bin.cdx.json target/pgnorth.cdx.json
	@echo target/pgnorth.cdx.json

build:
	cargo build --release --locked

clean:
	cargo clean
