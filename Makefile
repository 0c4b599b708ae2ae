# Short names for what this repository can do. `make` lists them.

# Where install.sh keeps what does not come from Debian's archive: the test rig and cargo-deny are looked for there.
cache = $(shell tests/support/install.sh where)

.PHONY: help run switchover test test-integrity test-memory test-random test-manifests test-drivers pictures docs image-test bench-failover bench-forward check advisories sbom build clean
.DEFAULT_GOAL := help

help:
	@echo 'make run          a Patroni cluster on this machine with pgnorth in front; Ctrl-C removes it (PORT=, ADMIN_PORT=)'
	@echo 'make switchover   in another terminal: moves the leader of that cluster, and pgnorth follows (PORT=)'
	@echo 'make test         all tests, with a real PostgreSQL, Patroni and Kubernetes API'
	@echo 'make test-integrity  ten thousand random sessions, every byte compared, and as many as that with faults put in; some minutes (SESSIONS=, SEED=)'
	@echo 'make test-memory  a thousand clients that do not read, and a pgnorth with 512 MiB; a minute. Root (READERS=, BUFFERS=)'
	@echo 'make test-random  random faults in a row on one cluster; 50 take about half an hour (FAULTS=, SEED= to repeat a run)'
	@echo 'make docs         writes the generated parts of docs/reference from the tables in the code; a test fails if they differ'
	@echo 'make pictures     the pictures of docs/operating/monitoring.md, from a real run of some minutes (FOLDER=target/pictures)'
	@echo 'make test-manifests  checks what deploy/ renders to against the published schemas of Kubernetes, Istio and the Prometheus operator'
	@echo 'make test-drivers  what real drivers make of a refusal, by sslmode: psql, psycopg, asyncpg, JDBC, Go, node-postgres (WAYS=ways, WAYS=silence)'
	@echo 'make image-test   builds the image without any container registry, starts it as Kubernetes would, and shows what it is'
	@echo 'make bench-failover  what faults cost clients of pgnorth and of HAProxy; about 8 minutes (ARGS=--quick, or --help for more)'
	@echo 'make bench-forward   what it costs to go through pgnorth and through others; about 11 minutes (ARGS=--quick for 3, or --help for more)'
	@echo 'make check        format, lints, docs, dependency audit; advisories too, where the RustSec database can be fetched'
	@echo 'make advisories   the advisories alone; fails where the database cannot be fetched'
	@echo 'make sbom         target/pgnorth.cdx.json: what the binary is made of, as CycloneDX'
	@echo 'make build        the release binary'
	@echo 'make clean        removes what cargo built'

run:
	@tests/support/install.sh demo
	@PORT='$(PORT)' ADMIN_PORT='$(ADMIN_PORT)' exec deploy/demo/run.sh

switchover:
	@PORT='$(PORT)' exec deploy/demo/switchover.sh

# The rig needs namespaces of its own, where no registry can be reached: its build comes first, outside. Most of its time is waiting
# (for Patroni's ttl, above all), so that three clusters at a time suit even two cores.
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

# In a memory cgroup, so it needs root.
test-memory:
	$(if $(READERS),PGNORTH_READERS='$(READERS)') $(if $(BUFFERS),PGNORTH_BUFFERS='$(BUFFERS)') \
		cargo test --locked --test local -- --ignored --exact --nocapture \
		stalled_readers::a_thousand_stalled_readers_fit_into_the_memory_of_a_pod

test-random:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_RANDOM_FAULTS='$(or $(FAULTS),50)' $(if $(SEED),PGNORTH_SEED='$(SEED)') \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture repeated::random_faults

docs:
	PGNORTH_WRITE_DOCS=yes cargo test --locked --test local -- --exact documents::reference::generated_parts_are_what_the_code_says

# What docs/operating/monitoring.md shows, from one real run of about eight minutes: pictures, and the texts beside them.
pictures:
	tests/support/install.sh test
	cargo test --locked --no-run --test rig
	PGNORTH_CACHE='$(cache)' PGNORTH_PICTURES='$(or $(FOLDER),target/pictures)' \
		tests/support/inside.sh cargo test --locked --offline --test rig -- --ignored --exact --nocapture pictures::pictures

# npm brings the schemas: kubectl 1.21 or newer, node and npm have to be there.
test-manifests:
	PGNORTH_CACHE='$(cache)' tests/schemas/run.sh

# pip and npm bring drivers, with hashes; the others are Debian's. node and npm have to be there.
test-drivers:
	tests/support/install.sh drivers
	cargo build --locked
	PGNORTH_CACHE='$(cache)' PGNORTH='$(CURDIR)/target/debug/pgnorth' tests/drivers/run.sh '$(or $(WAYS),pgnorth)'

# Some minutes of compiling the first time; then only what changed.
image-test:
	tests/support/install.sh image
	PGNORTH_CACHE='$(cache)' tests/image/run.sh

# A table for people on standard output, and target/failover.json. For figures to keep, nothing else should run on the machine.
bench-failover:
	tests/support/install.sh test
	cargo bench --locked --no-run --bench failover
	PGNORTH_CACHE='$(cache)' tests/support/inside.sh cargo bench --locked --offline --bench failover -- --json target/failover.json $(ARGS)

# The same for bytes, round trips, connections and memory; and target/forward.json.
bench-forward:
	tests/support/install.sh bench
	cargo bench --locked --no-run --bench forward
	tests/support/inside.sh cargo bench --locked --offline --bench forward -- --json target/forward.json $(ARGS)

check:
	tests/support/install.sh check
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items --locked
	PATH='$(cache)/bin':"$$PATH" cargo deny check bans licenses sources
	PATH='$(cache)/bin':"$$PATH" tests/support/advisories.sh

advisories:
	tests/support/install.sh check
	PATH='$(cache)/bin':"$$PATH" tests/support/advisories.sh required

# CycloneDX 1.5: the crates that the binary is linked from, with versions, licences and hashes.
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
