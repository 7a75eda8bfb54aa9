# The two commands: `make demo` runs the main job on real packages, `make test`
# runs all tests. Both install what they need and say so.

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
SOURCES := $(shell find cmd lock prefetch build verify attest -name '*.go' -o -name '*.gohtml' -o -path 'cmd/caisson/help/*.md' 2>/dev/null)

# The demo's manifest. Any other works as well: make demo DEMO=path/caisson.yaml
DEMO    ?= lockfiles/demo/caisson.yaml
OUT     ?= out/demo
REPO    := out/repo
ADDRESS := 127.0.0.1:8642
export COSIGN_PASSWORD ?= demo

.PHONY: all demo image release test unit e2e lint bench man clean

all: bin/caisson bin/debrepo

# Static: in a virtual machine that a build runs in, the program is all there is.
bin/caisson bin/debrepo: bin/%: $(SOURCES) go.mod go.sum
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

# Lock, prefetch, build, verify (with a boot) and attest the demo's image.
demo:
	@.ci/setup demo
	@$(MAKE) --no-print-directory bin/caisson bin/debrepo
	@mkdir -p $(OUT)
	@set -eu; manifest='$(DEMO)'; lock='$(OUT)/caisson.lock'; store='$(OUT)/store'; began=$$(date +%s); \
	say() { printf '\n== %s\n' "$$*"; }; \
	waits="--wait-for login:"; \
	if [ "$$manifest" = lockfiles/demo/caisson.yaml ]; then \
		say 'a distribution to work on: Debian packages made into signed RPMs ($(REPO))'; \
		bin/debrepo make --out $(REPO); \
		bin/debrepo serve --dir $(REPO) --listen $(ADDRESS) & server=$$!; trap 'kill $$server 2>/dev/null || true' EXIT INT TERM; \
		sleep 1; kill -0 $$server 2>/dev/null || { echo 'the repository cannot be served at $(ADDRESS): end what listens there, and run it again' >&2; exit 1; }; \
		waits="$$waits --wait-for caisson-agent:.ready --wait-for caisson-guest:"; \
	fi; \
	say 'lock: choose every input and pin it'; \
	bin/caisson lock -f "$$manifest" -o "$$lock" --store "$$store"; \
	say 'prefetch: fill the store, and prove what is in it'; \
	bin/caisson prefetch --lock "$$lock" --store "$$store" --project "$$(dirname "$$manifest")"; \
	if [ -n "$${server:-}" ]; then kill $$server; wait $$server 2>/dev/null || true; fi; \
	say 'build: no network, no privileges (the repository has been stopped)'; \
	bin/caisson build --lock "$$lock" --store "$$store" --out '$(OUT)'; \
	image=$$(ls -t '$(OUT)'/*.qcow2 | head -n 1); \
	say 'verify: rebuild under other conditions, compare, boot'; \
	bin/caisson verify "$$image" --lock "$$lock" --store "$$store" --out '$(OUT)' --boot $$waits; \
	[ -e '$(OUT)/cosign.key' ] || bin/caisson keygen --prefix '$(OUT)/cosign'; \
	say 'attest: sign what was found, with a key made for the demo'; \
	bin/caisson attest --lock "$$lock" --store "$$store" --out '$(OUT)' --key '$(OUT)/cosign.key'; \
	say 'what there is now'; \
	bin/caisson inspect '$(OUT)' --lock "$$lock" --key '$(OUT)/cosign.pub'; \
	echo "all of it   $$(( $$(date +%s) - began )) s"; \
	echo; \
	echo 'to try next:'; \
	echo "  open $(OUT)/report.html in a browser"; \
	echo "  bin/caisson explain libssl3 --lock $$lock"; \
	echo "  bin/caisson build --variant debug --lock $$lock --store $$store --out out/debug"; \
	echo "  bin/caisson boot $$image"; \
	echo '  README.md: your own rpms.in.yaml'

# Caisson's own container image and programs, made by itself as any other image
# is, with bill of materials, provenance and the verdict of a rebuild. They are
# signed by KEY; by a key that is made for the purpose where that is not given.
KEY ?= out/own/cosign.key
$(KEY):
	@mkdir -p $(@D)
	bin/caisson keygen --prefix $(basename $@)

# out/image/layout is an OCI layout, with the statements attached to the image.
IMAGE_PACKAGES := coreutils qemu-system-x86 rpm bash ca-certificates
image: bin/caisson bin/debrepo
	@mkdir -p out/image
	@.ci/setup image
	@$(MAKE) --no-print-directory $(KEY)
	bin/debrepo make --out out/image-repo $(IMAGE_PACKAGES)
	@set -eu; bin/debrepo serve --dir out/image-repo --listen 127.0.0.1:8643 & server=$$!; trap 'kill $$server 2>/dev/null || true' EXIT INT TERM; \
	sleep 1; kill -0 $$server 2>/dev/null || { echo 'the repository cannot be served at 127.0.0.1:8643: end what listens there, and run it again' >&2; exit 1; }; \
	bin/caisson run -f lockfiles/caisson/image.yaml --lock out/image/caisson.lock --store out/own/store --out out/image --key $(KEY)
	rm -rf out/image/layout
	bin/caisson push --layout out/image/layout --out out/image

# out/release has the programs for amd64 and arm64, each in a folder with its lock
# and statements, and SHA256SUMS of all.
ARCHES ?= amd64 arm64
release: bin/caisson
	@$(MAKE) --no-print-directory $(KEY)
	for arch in $(ARCHES); do \
		mkdir -p out/release/linux-$$arch; \
		bin/caisson run -f lockfiles/caisson/linux-$$arch.yaml --lock out/release/linux-$$arch/caisson.lock \
			--store out/own/store --out out/release/linux-$$arch --key $(KEY) || exit; \
	done
	cd out/release && sha256sum */*.tar */caisson.lock */sbom.spdx.json */statements/* > SHA256SUMS

# All tests: the quick ones, then those that build and boot images.
test:
	@.ci/setup test
	@$(MAKE) --no-print-directory unit e2e

unit:
	go vet ./...
	PATH="$$PWD/bin:$$PATH" go test ./...
	go test -tags pkcs11key -run TestToken ./attest/sign

# The whole line on a real repository: dnf's answers, builds as root and as an
# ordinary user, a boot, damaged files, cosign, an audit. Then images of SUITES, releases of
# Debian beside the machine's own, and every way to a kernel that there is, booted
# and compared with what is predicted: by one version of each program, or with
# CHAINS=all by every one.
SUITES ?= trixie
CHAINS ?= quick
# The image has the program for amd64.
RELEASES ?= arm64
BOOT   := $(CURDIR)/out/boot
e2e: bin/caisson bin/debrepo
	bin/debrepo make --out $(REPO)
	for s in $(sort trixie $(SUITES)); do bin/debrepo make --suite $$s --out $(REPO)-$$s || exit; done
	.ci/boot-packages $(BOOT)
	$(MAKE) --no-print-directory image release ARCHES="$(RELEASES)"
	PATH="$$PWD/bin:$$PATH" CAISSON_DEBREPO="$$PWD/$(REPO)" CAISSON_SUITES='$(SUITES)' CAISSON_E2E=yes \
		go test -count=1 -timeout 40m -v -run 'E2E|Repository|Debrepo' ./cmd/... ./build
	CAISSON_UKIFY='$(BOOT)/unpacked/ukify/usr/bin/ukify' CAISSON_STUB='$(BOOT)/unpacked/systemd-257/usr/lib/systemd/boot/efi/linuxx64.efi.stub' \
		CAISSON_ADDON_STUB='$(BOOT)/unpacked/systemd-257/usr/lib/systemd/boot/efi/addonx64.efi.stub' go test -count=1 -v -run Ukify ./build/image/uki
	CAISSON_BOOT_CHAINS='$(BOOT)' go test $(if $(filter all,$(CHAINS)),,-short) -count=1 -timeout 60m -v -run 'Chains|Sealed|SecureBootRefuses|BootSecret' ./verify/boot

lint:
	@.ci/setup lint
	bin/golangci-lint run

# The benchmarks beside their peers; that of the whole build beside mkosi wants
# CAISSON_MKOSI (cmd/caisson/mkosi_bench_test.go says how to have one).
bench:
	go test -timeout 3h -run '^$$' -bench . ./...

man: bin/caisson
	bin/caisson man out/man

clean:
	rm -rf bin out
