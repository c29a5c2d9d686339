# Knobs: V=1 (show commands) | CC=clang | SAN=address,undefined | SAN=thread | DEBUG=1 | COV=1 | HARDEN=1 | FUZZ=1 | JOBS=n | O=folder
# Each variant builds in a folder of its own; changed flags rebuild everything. `make help` lists the targets.
.DEFAULT_GOAL := all
CC ?= cc
AR ?= ar
OBJCOPY ?= objcopy
NM ?= nm
prefix ?= $(or $(PREFIX),/usr/local)
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
bashdir ?= $(prefix)/share/bash-completion/completions
zshdir ?= $(prefix)/share/zsh/site-functions
unitdir ?= $(libdir)/systemd/system
DESTDIR ?=
PKG_CONFIG ?= pkg-config
PYTHON ?= /usr/bin/python3
PKGS := libcurl libcjson libxxhash msgpack libcyaml yaml-0.1 sqlite3 openssl zlib libzstd
TEST_PKGS := cmocka

CPPFLAGS += -D_GNU_SOURCE -I.
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wpointer-arith -Wwrite-strings -Wvla -Wformat=2 -Wundef -Werror
VARIANT :=
ifeq ($(HARDEN),1)
VARIANT := hard
EXTRA := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
LDEXTRA := -pie -Wl,-z,relro,-z,now
endif
comma := ,
ifeq ($(DEBUG),1)
VARIANT := debug
CFLAGS = -O0 -g3
endif
ifneq ($(SAN),)
VARIANT := san-$(subst $(comma),-,$(SAN))
EXTRA := -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS = -O1 -g
else
WARN += -Wframe-larger-than=16384
endif
ifeq ($(COV),1)
VARIANT := cov
EXTRA := --coverage -O0
endif
ifeq ($(FUZZ),1)
VARIANT := fuzz
EXTRA := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS = -O2 -g
FUZZ_LINK := -fsanitize=fuzzer
endif
# The assertions of lib/base/check.h.
ifneq ($(filter 1,$(DEBUG) $(FUZZ))$(SAN),)
CPPFLAGS += -DPD_CHECKS
endif
O ?= build$(if $(VARIANT),/$(VARIANT))
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) $(TEST_PKGS) 2>/dev/null)
PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS))
TEST_LIBS := $(shell $(PKG_CONFIG) --libs $(TEST_PKGS) 2>/dev/null)
# Where the tree lies is not in what is built: scripts/reproducible.
PLACE := $(if $(filter 1,$(COV)),,-ffile-prefix-map=$(CURDIR)=.)
ALL_CFLAGS = -std=gnu17 $(WARN) $(CFLAGS) $(EXTRA) $(PLACE) -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(PKG_CFLAGS)
ALL_LDLIBS = $(LDLIBS) $(PKG_LIBS) -lm -pthread
LINK = $(CC) $(CFLAGS) $(EXTRA) $(LDEXTRA) $(LDFLAGS) -pthread

ifneq ($(V),1)
Q := @
endif
ifeq ($(V)$(findstring s,$(filter-out --%,$(firstword -$(MAKEFLAGS)))),)
say = @printf '  %-5s %s\n' $(1) $(2);
endif

# The folders that are compiled, and who may include whom: scripts/rooms.
ROOMS := $(shell sed -n 's/^\([a-z][a-z/]*\):.*/\1/p' scripts/rooms)
LIB_SRC := $(sort $(wildcard $(addsuffix /*.c,$(ROOMS))))
CMD_SRC := $(sort $(wildcard cmd/*.c))
TST_SRC := $(sort $(wildcard tests/unit/test_*.c))
# What libpdroute is made of: the decision path and the P/D transformations, no I/O, no threads.
ROUTE_SRC := $(sort $(wildcard lib/pdroute/*.c lib/route/*.c lib/route/*/*.c lib/pd/*.c lib/json/scan*.c lib/json/edit*.c) lib/base/buf.c lib/base/check.c lib/base/err.c lib/base/nearest.c lib/base/rng.c lib/base/yamlnode.c)
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
HEADERS := $(sort $(wildcard $(addsuffix /*.h,$(ROOMS) cmd)))
SOURCES := $(LIB_SRC) $(CMD_SRC) $(sort $(wildcard tests/*/*.c scripts/*/*.c)) $(HEADERS)
obj = $(patsubst %.c,$(O)/%.o,$(1))

all: $(O)/pdctl $(O)/libpdroute.a $(O)/libpdroute.so.1 $(O)/pdroute.pc ## build/pdctl and build/libpdroute.*

$(O)/libpdctl.a: $(call obj,$(LIB_SRC)) $(O)/.sources
	$(call say,AR,$@)rm -f $@ && $(AR) rcsD $@ $(filter %.o,$^) && \
		twice=$$($(NM) --defined-only -g $@ | sed -n 's/.* [A-Z] //p' | sort | uniq -d) && \
		[ -z "$$twice" ] || { echo "defined by two files of the library:" $$twice >&2; rm -f $@; exit 1; }
# One object in which all names but the exported ones are local, so that the archive too can meet any other library.
$(O)/libpdroute.a: $(call obj,$(ROUTE_SRC)) $(O)/.sources
	$(call say,AR,$@)rm -f $@ && $(CC) -r -nostdlib -o $(O)/libpdroute.o $(filter %.o,$^) && \
		$(OBJCOPY) --localize-hidden $(O)/libpdroute.o && $(AR) rcsD $@ $(O)/libpdroute.o
$(O)/libpdroute.so.1: $(call obj,$(ROUTE_SRC)) lib/pdroute/pdroute.map $(O)/.ldflags $(O)/.sources
	$(call say,LINK,$@)$(LINK) -shared -Wl,-soname,libpdroute.so.1 -Wl,--version-script,lib/pdroute/pdroute.map \
		-o $@ $(filter %.o,$^) -lm
# What serves requests stands together in the program: so the least of it is resident while it does.
SERVE_SRC := $(filter $(addsuffix /%,lib/base lib/net lib/http lib/json lib/route lib/pd lib/router) cmd/serve%,$(LIB_SRC) $(CMD_SRC))
$(O)/pdctl: $(call obj,$(SERVE_SRC) $(filter-out $(SERVE_SRC),$(CMD_SRC) $(LIB_SRC))) $(O)/libpdctl.a $(O)/.ldflags
	$(call say,LINK,$@)$(LINK) -o $@ $(filter %.o,$^) $(ALL_LDLIBS)
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(O)/libpdctl.a $(O)/.ldflags
	$(call say,LINK,$@)$(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(ALL_LDLIBS) $(TEST_LIBS)
# The comparison with llhttp; see tests/fuzz/oracle.h.
ORACLE := $(O)/tests/fuzz/oracle.o $(O)/tests/fuzz/automaton.o
$(O)/tests/fuzz/fuzz_request $(O)/tests/fuzz/fuzz_response $(O)/tests/unit/test_strictness: $(O)/tests/fuzz/message.o $(ORACLE)
$(O)/tests/fuzz/fuzz_chunk: $(ORACLE)
$(ORACLE): CPPFLAGS += -I/usr/share/include/llhttp
# The assembler reads what browsers get; the chart library is Debian's.
D3_JS ?= /usr/share/javascript/d3/d3.min.js
$(O)/lib/page/assets.o: CPPFLAGS += -DPAGE_D3='"$(D3_JS)"'
$(O)/lib/page/assets.o: $(D3_JS) $(wildcard lib/page/*.js lib/page/*.css lib/page/*.html)
$(D3_JS):
	@echo "$@ is missing: install libjs-d3 (scripts/install-deps build)" >&2; exit 1
# Values compared there (hashes, loads) are no guidance for a fuzzer, only half of its time.
$(O)/lib/route/%.o $(O)/lib/http/sse.o $(O)/tests/fuzz/fuzz_sse.o $(O)/tests/fuzz/fuzz_decide.o: EXTRA += $(if $(FUZZ_LINK),-fno-sanitize-coverage=trace-cmp)
# A fuzz target: libFuzzer's main with FUZZ=1, else the main of replay.c, which runs the corpus.
$(O)/tests/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(if $(FUZZ_LINK),,$(O)/tests/fuzz/replay.o) $(O)/libpdctl.a $(O)/.ldflags
	$(call say,LINK,$@)$(LINK) $(FUZZ_LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(ALL_LDLIBS)
# Small programs that tests and measurements drive: make build/tests/tools/json_probe, make build/scripts/perf/json_scan.
$(O)/tests/tools/%: $(O)/tests/tools/%.o $(O)/libpdctl.a $(O)/.ldflags
	$(call say,LINK,$@)$(LINK) -o $@ $(filter %.o %.a,$^) $(ALL_LDLIBS)
$(O)/scripts/perf/%: $(O)/scripts/perf/%.o $(O)/libpdctl.a $(O)/.ldflags
	$(call say,LINK,$@)$(LINK) -o $@ $(filter %.o %.a,$^) $(ALL_LDLIBS)
$(O)/tests/%.o: WARN := $(filter-out -Wframe-larger-than=%,$(WARN)) # a test runs on a thread's stack, no fiber's
$(O)/%.o: %.c $(O)/.cflags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
# Rebuild everything when the flags change. A flag must not contain a single quote.
define track
@mkdir -p $(@D); printf '%s\n' '$(1)' >$@.new; \
if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi
endef
$(O)/.cflags: FORCE
	$(call track,$(CC) $(CPPFLAGS) $(ALL_CFLAGS))
$(O)/.ldflags: FORCE
	$(call track,$(CC) $(LDEXTRA) $(LDFLAGS) $(ALL_LDLIBS))
$(O)/.sources: FORCE
	$(call track,$(LIB_SRC) $(ROUTE_SRC))

PDROUTE_VERSION := $(shell sed -n 's/^#define PDROUTE_VERSION[[:space:]]*"\(.*\)"/\1/p' lib/pdroute/pdroute.h)
# Follows PREFIX, which may be given to `make install` only.
define pdroute_pc
prefix=$(prefix)
libdir=$(libdir)
includedir=$(includedir)

Name: pdroute
Description: worker selection for LLM routers
Version: $(PDROUTE_VERSION)
Libs: -L$${libdir} -lpdroute
Libs.private: -lm
Cflags: -I$${includedir}
endef
$(O)/pdroute.pc: FORCE
	@mkdir -p $(@D)
	$(file >$@.new,$(pdroute_pc))@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Manual pages and completion, which the program prints from its option tables.
COMMANDS := $(shell sed -n '/^const struct command commands/,/^};/s/^\t{"\([a-z]*\)", cmd_.*/\1/p' cmd/main.c)
MAN_PAGES := $(O)/man/pdctl.1 $(COMMANDS:%=$(O)/man/pdctl-%.1)
pages: $(MAN_PAGES) $(O)/completion/pdctl $(O)/completion/_pdctl ## manual pages and completion of bash and zsh
define page
@mkdir -p $(@D)
$(call say,PAGE,$@)$< $(1) >$@
endef
$(O)/man/pdctl.1: $(O)/pdctl
	$(call page,man)
$(O)/man/pdctl-%.1: $(O)/pdctl
	$(call page,man $*)
$(O)/completion/pdctl: $(O)/pdctl
	$(call page,completion bash)
$(O)/completion/_pdctl: $(O)/pdctl
	$(call page,completion zsh)

TESTS := $(patsubst %.c,$(O)/%,$(TST_SRC))
FUZZERS := $(patsubst %.c,$(O)/%,$(FUZZ_SRC))
check: unit blackbox ## unit and blackbox
unit: $(TESTS) $(if $(FUZZ_LINK),,$(FUZZERS)) ## unit tests, and every fuzz corpus once
	$(Q)CMOCKA_MESSAGE_OUTPUT=TAP prove $(PROVE_FLAGS) -j $(or $(JOBS),2) -e scripts/tap-exec $^
TOOLS := $(patsubst %.c,$(O)/%,$(sort $(wildcard tests/tools/*.c)))
tools: $(TOOLS) ## programs that black-box tests drive beside pdctl
PERF_TOOLS := $(patsubst %.c,$(O)/%,$(sort $(wildcard scripts/perf/*.c)))
perf-tools: $(PERF_TOOLS) ## programs that load and measure a router
blackbox: all $(TOOLS) $(PERF_TOOLS) ## tests that drive the program over sockets
	$(Q)PDCTL=$(abspath $(O)/pdctl) $(PYTHON) -m pytest -q tests/blackbox
fuzz: ## every fuzz target for FUZZ_SECONDS (default 10) or FUZZ_RUNS executions, with clang
	$(Q)$(MAKE) --no-print-directory CC=clang FUZZ=1 fuzz-run
fuzz-build: $(FUZZERS)
fuzz-run: fuzz-build
	$(Q)scripts/fuzz $(if $(FUZZ_RUNS),--runs $(FUZZ_RUNS),--seconds $(or $(FUZZ_SECONDS),10)) $(FUZZERS)
perf: $(O)/pdctl $(PERF_TOOLS) ## compares with nginx and haproxy (BASE=old/pdctl: and with that build; PEERS=1: with vllm-router; PERF=args of the script)
	$(Q)PDCTL=$(abspath $(O)/pdctl) BASE=$(BASE) PEERS=$(PEERS) scripts/perf/run $(PERF)
coverage: ## line coverage of unit and blackbox, per file
	$(Q)$(MAKE) --no-print-directory COV=1 check
	$(Q)scripts/coverage build/cov

lint: check-format check-tree check-headers check-tidy check-cpp check-shell ## all of these (make -k: to the end)
check-format: ## clang-format finds nothing to change
	$(Q)clang-format --dry-run -Werror $(SOURCES)
check-tidy: ## clang-tidy
	$(Q)printf '%s\n' $(filter %.c,$(SOURCES)) | xargs -P $(or $(JOBS),2) -n 4 sh -c \
		'clang-tidy --quiet "$$@" -- -std=gnu17 $(CPPFLAGS) $(PKG_CFLAGS) -I/usr/share/include/llhttp 2>/dev/null' tidy
check-cpp: ## cppcheck
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
		--suppressions-list=.cppcheck --std=c11 -j $(or $(JOBS),2) -D_GNU_SOURCE -I. lib cmd sim
check-shell: ## shellcheck
	$(Q)shellcheck -x $$(grep -lE '^#!.*(bash|sh)$$' -r scripts .ci)
check-tree: ## sizes, one-way doors between the rooms, banned functions
	$(Q)scripts/check-tree
format: ## applies .clang-format
	clang-format -i $(SOURCES)
check-headers: ## each header compiles alone
	$(Q)for h in $(HEADERS); do printf '#include "%s"\n' $$h | \
		$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -xc -fsyntax-only - || exit 1; done

install: all pages ## program, library, manual pages, completion and systemd units, below DESTDIR and PREFIX
	install -Dm755 $(O)/pdctl $(DESTDIR)$(bindir)/pdctl
	install -Dm644 -t $(DESTDIR)$(mandir)/man1 $(MAN_PAGES)
	install -Dm644 $(O)/completion/pdctl $(DESTDIR)$(bashdir)/pdctl
	install -Dm644 $(O)/completion/_pdctl $(DESTDIR)$(zshdir)/_pdctl
	install -Dm644 $(O)/libpdroute.a $(DESTDIR)$(libdir)/libpdroute.a
	install -Dm755 $(O)/libpdroute.so.1 $(DESTDIR)$(libdir)/libpdroute.so.1
	ln -sf libpdroute.so.1 $(DESTDIR)$(libdir)/libpdroute.so
	install -Dm644 $(O)/pdroute.pc $(DESTDIR)$(libdir)/pkgconfig/pdroute.pc
	install -Dm644 lib/pdroute/pdroute.h $(DESTDIR)$(includedir)/pdroute.h
	install -d $(DESTDIR)$(unitdir)
	sed 's|/usr/local/bin/|$(bindir)/|' scripts/pdctl.service >$(DESTDIR)$(unitdir)/pdctl.service
	install -m644 scripts/pdctl.socket $(DESTDIR)$(unitdir)/pdctl.socket
uninstall: ## removes what install put there
	rm -rf $(DESTDIR)$(bindir)/pdctl $(DESTDIR)$(libdir)/libpdroute.a $(DESTDIR)$(libdir)/libpdroute.so* \
		$(addprefix $(DESTDIR)$(mandir)/man1/,$(notdir $(MAN_PAGES))) $(DESTDIR)$(bashdir)/pdctl $(DESTDIR)$(zshdir)/_pdctl \
		$(DESTDIR)$(libdir)/pkgconfig/pdroute.pc $(DESTDIR)$(includedir)/pdroute.h \
		$(DESTDIR)$(unitdir)/pdctl.service $(DESTDIR)$(unitdir)/pdctl.socket
deb: ## Debian packages into build/deb
	$(Q)scripts/deb
image: ## a container image: with docker, podman or buildah, else its stages in a chroot
	$(Q)scripts/image
reproducible: ## two builds in different folders have the same bytes
	$(Q)scripts/reproducible
clean: ## removes build/
	rm -rf build
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
FORCE:
.PHONY: all pages deb image reproducible check unit tools perf-tools blackbox fuzz fuzz-build fuzz-run perf coverage lint check-format check-tidy check-cpp \
	check-shell check-tree format check-headers install \
	uninstall clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:
-include $(patsubst %.o,%.d,$(call obj,$(LIB_SRC) $(CMD_SRC) $(TST_SRC) $(FUZZ_SRC) tests/fuzz/replay.c tests/fuzz/message.c tests/fuzz/oracle.c tests/fuzz/automaton.c $(wildcard tests/tools/*.c scripts/perf/*.c)))
