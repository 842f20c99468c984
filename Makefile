# SPDX-License-Identifier: MIT
#
# make help       names the targets
# make V=1        shows the commands
# make SAN=x      builds and checks under a sanitizer: address, thread, undefined
# make check T=x  runs the tests whose paths match the pattern x
# make fuzz T=x   drives the fuzz targets that match x, for FUZZ_SECONDS each

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBEXECDIR ?= $(PREFIX)/libexec
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
SYSTEMDDIR ?= $(PREFIX)/lib/systemd
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/vendor-completions
PYTHONDIR  ?= $(LIBDIR)/python3/dist-packages
CFLAGS     ?= -O2 -g
TEST_JOBS  ?= 4
ROUNDS     ?= 20
FUZZ_SECONDS ?= 60

VERSION := $(shell sed -n 's/^.define SHMQ_VERSION_[A-Z]* //p' include/shmq.h | paste -sd.)
SONAME  := libshmq.so.0
B       := build$(SAN:%=/%)

# pkg-config is asked once, and only when something is compiled: `make deps`
# may have to install it first.
ask = $(eval $(1) := $(shell pkg-config $(2)))$(if $(filter-out 0,$(.SHELLSTATUS)),$(error \
	pkg-config $(2) failed: `make deps` installs what is missing))$($(1))
SHMQ_CFLAGS    = $(call ask,SHMQ_CFLAGS,--cflags liburcu-bp libxxhash libzstd)
SHMQ_LIBS      = $(call ask,SHMQ_LIBS,--libs liburcu-bp libxxhash libzstd)
HWLOC_CFLAGS   = $(call ask,HWLOC_CFLAGS,--cflags hwloc)
HWLOC_LIBS     = $(call ask,HWLOC_LIBS,--libs hwloc)
URING_CFLAGS   = $(call ask,URING_CFLAGS,--cflags liburing)
URING_LIBS     = $(call ask,URING_LIBS,--libs liburing)
JANSSON_CFLAGS = $(call ask,JANSSON_CFLAGS,--cflags jansson)
JANSSON_LIBS   = $(call ask,JANSSON_LIBS,--libs jansson)
CURSES_CFLAGS  = $(call ask,CURSES_CFLAGS,--cflags ncursesw)
CURSES_LIBS    = $(call ask,CURSES_LIBS,--libs ncursesw)
CONFUSE_CFLAGS = $(call ask,CONFUSE_CFLAGS,--cflags libconfuse)
CONFUSE_LIBS   = $(call ask,CONFUSE_LIBS,--libs libconfuse)
HTTP_CFLAGS    = $(call ask,HTTP_CFLAGS,--cflags libmicrohttpd)
HTTP_LIBS      = $(call ask,HTTP_LIBS,--libs libmicrohttpd)
CLI_LIBS       = $(HTTP_LIBS) $(JANSSON_LIBS) $(CURSES_LIBS) -lm

WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wpointer-arith -Wwrite-strings -Wformat=2 \
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wno-unused-parameter \
	-Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion \
	-Werror=return-type $(if $(WERROR),-Werror)

SAN_address   := -fsanitize=address -fno-omit-frame-pointer
SAN_thread    := -fsanitize=thread
SAN_undefined := -fsanitize=undefined -fno-sanitize-recover=all
SAN_fuzzer    := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
# tests/lib/tap.c needs it; clang does it without being asked.
SAN_LINK_address := $(if $(findstring clang,$(CC)),,-static-libasan)
SANFLAGS      := $(if $(SAN),$(or $(SAN_$(SAN)),$(error SAN is address, thread or undefined)) \
		 -DSHMQ_SANITIZE)

MODE    = -std=gnu11 -D_GNU_SOURCE= -fPIC -fvisibility=hidden -pthread
COMPILE = $(CC) $(MODE) $(WARN) \
	$(SANFLAGS) $(INCLUDES) $(CPPFLAGS) $(CFLAGS) -MMD -MP
LINK    = $(CC) -pthread $(SANFLAGS) $(CFLAGS) -Wl,--as-needed $(LDFLAGS)

# $(call say,WHAT,target) starts a command quietly, unless V=1.
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $(2);)

MAKEFLAGS += --no-builtin-rules --no-print-directory
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

# ---- what there is --------------------------------------------------------

objects  = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)))
# What has a header beside it is shared by programs and none itself.
shared   = $(patsubst %.h,%.c,$(wildcard $(1)/*.h))
programs = $(patsubst $(1)/%.c,$(B)/$(2)/%,$(filter-out $(shared),$(wildcard $(1)/*.c)))

LIB_O    := $(call objects,libshmq/*.c)
# What configuration shares with the command line (daemon/cli/value.h).
VALUE_O  := $(patsubst %,$(B)/daemon/cli/%.o,value units shape_options)
DAEMON_O := $(call objects,daemon/*.c) $(VALUE_O)
# What limits metrics knows nothing of a bus (daemon/sandbox.h).
CLI_O    := $(call objects,daemon/cli/*.c) $(B)/daemon/sandbox.o
TAP_O    := $(call objects,tests/lib/*.c)
COMMON_O := $(call objects,$(call shared,bench) $(call shared,examples/demo))

A  := $(B)/libshmq.a
SO := $(B)/libshmq.so.$(VERSION)

EXAMPLES := $(call programs,examples,examples)
DEMO     := $(call programs,examples/demo,demo)
BENCH    := $(call programs,bench,bench)
UNIT     := $(call programs,tests/unit,tests/unit)
PROC     := $(call programs,tests/proc,tests/proc)
DAEMON_T := $(call programs,tests/daemon,tests/daemon)
# What tests of the command line work with.
TOOLS    := $(call programs,tests/cli,tests/cli)
# In an emulated machine of two nodes (tests/guest/boot), where what a sanitizer
# could see is seen elsewhere; that of placement once more.
GUEST    := $(call programs,tests/guest,tests/guest)
GUEST_T  := $(GUEST) $(B)/tests/guest/place
# Fuzz targets; replay.c makes tests of them.
FUZZ     := $(filter-out %/replay,$(call programs,tests/fuzz,tests/fuzz))
# What waits longest begins first.
STEP     := $(B)/tests/step/stall $(filter-out %/stall,$(call programs,tests/step,tests/step))
HISTORY  := $(call programs,tests/history,tests/history)
WEAVE    := $(B)/tests/weave/weave
# The benchmarks once more, for tests of them: on a ring that is at fault.
MUTANTS  := $(BENCH:$(B)/bench/%=$(B)/tests/bench/%)
SCRIPTS  := $(wildcard examples/*.t tests/cli/*.bats)
HOUSE    := $(wildcard tests/*/*.t tests/model/run)

# ThreadSanitizer sees one process, so only what stays in one is run with it.
# What runs no code of the build has nothing to show to any sanitizer.
# Those that take longest begin first.
LONGEST       := tests/bench/mutants.t tests/model/run
TEST_PROGRAMS := $(if $(SAN),,$(WEAVE)) $(UNIT) $(if $(filter thread,$(SAN)),,$(PROC) $(DAEMON_T) $(FUZZ) $(STEP) $(HISTORY))
TESTS         := $(if $(SAN),,$(LONGEST) $(GUEST_T)) $(TEST_PROGRAMS) $(if $(filter thread,$(SAN)),,$(SCRIPTS)) \
	$(if $(SAN),,$(filter-out $(LONGEST),$(HOUSE)))
PROGRAMS      := $(EXAMPLES) $(DEMO) $(BENCH) $(UNIT) $(PROC) $(DAEMON_T) $(GUEST) $(FUZZ) \
	$(STEP) $(HISTORY) $(TOOLS)

# ---- build ----------------------------------------------------------------

all: $(A) $(B)/libshmq.so $(B)/shmqd $(B)/shmq ## libraries, supervisor, command line (default)

$(B)/libshmq/%:       INCLUDES = -Iinclude -Ilibshmq $(SHMQ_CFLAGS)
$(B)/daemon/%:        INCLUDES = -Iinclude -Ilibshmq -Idaemon $(SHMQ_CFLAGS) $(HWLOC_CFLAGS) $(URING_CFLAGS) $(CONFUSE_CFLAGS)
$(B)/daemon/cli/%:    INCLUDES = -Iinclude -Idaemon/cli $(JANSSON_CFLAGS) $(CURSES_CFLAGS) $(HTTP_CFLAGS)
$(B)/examples/%:      INCLUDES = -Iinclude
$(B)/examples/demo/%: INCLUDES = -Iinclude -Iexamples/demo
# Loops of a few instructions, of limits too, take up to a sixth longer where they
# do not begin a line, which would otherwise be chance.
$(B)/bench/%:         INCLUDES = -Iinclude -Ibench $(if $(filter %/checksum.o,$@),$(SHMQ_CFLAGS)) -falign-functions=64 -falign-loops=64
$(B)/tests/%:         INCLUDES = -Iinclude -Ilibshmq -Idaemon -Itests/lib $(SHMQ_CFLAGS) $(HWLOC_CFLAGS) \
	$(if $(filter %/words.o,$@),$(JANSSON_CFLAGS))

# Under the scheduler of tests/weave the library's lock-free files see none of
# their own atomics, and a compiler that tells of every other access.
WOVEN       := pub sub ring credit topic bell park arena pub_arena recover publish pub_send pub_batch pub_wait \
	confirm receive sub_poll sub_look sub_decode sub_batch sub_latency latency wait layout error
WEAVE_FLAGS := -include tests/weave/weave.h -fsanitize=thread -U__SANITIZE_THREAD__ -DATTEND_TURNS=1u -DRING_PREFETCH=0u
WEAVE_O     := $(call objects,tests/weave/*.c)
WOVEN_O     := $(WOVEN:%=$(B)/tests/weave/libshmq/%.o)
$(WOVEN_O) $(filter-out %/weave.o,$(WEAVE_O)): override CFLAGS += $(WEAVE_FLAGS)
$(B)/tests/weave/libshmq/%.o: libshmq/%.c Makefile
	$(call say,CC,$@)mkdir -p $(@D) && $(COMPILE) -c -o $@ $<

$(B)/%.o: %.c Makefile
	$(call say,CC,$@)mkdir -p $(@D) && $(COMPILE) -c -o $@ $<

$(A): $(LIB_O)
$(B)/tests/lib.a: $(TAP_O)
$(A) $(B)/tests/lib.a:
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

$(SO): $(LIB_O) libshmq/libshmq.map
	$(call say,LD,$@)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,-z,defs \
		-Wl,--version-script,libshmq/libshmq.map -o $@ $(LIB_O) $(SHMQ_LIBS)
$(B)/libshmq.so: $(SO)
	$(call say,LN,$@)ln -sf $(<F) $(B)/$(SONAME) && ln -sf $(SONAME) $@

link = $(call say,LD,$@)mkdir -p $(@D) && $(LINK) $(SAN_LINK_$(SAN)) -o $@ $(filter %.o,$^) $(filter %.a,$^)

$(B)/shmqd: $(DAEMON_O) $(A)
	$(link) $(HWLOC_LIBS) $(URING_LIBS) $(CONFUSE_LIBS) $(SHMQ_LIBS)
$(B)/shmq: $(CLI_O) $(A)
	$(link) $(CLI_LIBS) $(SHMQ_LIBS)
$(EXAMPLES): $(B)/examples/%: $(B)/examples/%.o $(A)
	$(link) $(SHMQ_LIBS) -lm
$(DEMO): $(B)/demo/%: $(B)/examples/demo/%.o $(filter $(B)/examples/%,$(COMMON_O)) $(A)
	$(link) $(SHMQ_LIBS) -lm
$(BENCH): $(B)/bench/%: $(B)/bench/%.o $(filter $(B)/bench/%,$(COMMON_O)) $(A)
	$(link) $(SHMQ_LIBS) -lm
# What reports say of the build, made anew when it is no longer so.  A release
# knows its commit from its archive, whatever repository it lies in.
$(B)/bench/built.txt: FORCE
	@mkdir -p $(@D) && { echo 'version $(VERSION)'; \
	echo "commit $$(sed -n '/^[0-9a-f]/p' bench/commit | grep . || \
		git describe --always --abbrev=40 --exclude='*' --dirty=' with changes' 2>/dev/null || echo unknown)"; \
	echo "compiler $$($(CC) --version | head -n 1)"; \
	echo 'flags $(strip $(filter-out -ffile-prefix-map=% -fdebug-prefix-map=%,$(MODE) $(SANFLAGS) $(CPPFLAGS) $(CFLAGS)))'; } >$@.new && \
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
MUTATED := publish publish_msg publish_batch claim commit
$(MUTANTS): $(B)/tests/bench/%: $(B)/bench/%.o $(B)/tests/bench/mutant.o $(filter $(B)/bench/%,$(COMMON_O)) $(A)
	$(link) $(foreach f,$(MUTATED),-Wl,--wrap=shmq_$(f)) $(SHMQ_LIBS) -lm
# Tests allocate and map by tests/lib/memory.c, and kill by tests/lib/tap.c.
TEST_WRAP = -Wl,-u,__wrap_malloc $(foreach f,malloc calloc realloc posix_memalign mmap munmap kill,-Wl,--wrap=$(f))
$(UNIT) $(PROC) $(GUEST) $(HISTORY): %: %.o $(B)/tests/lib.a $(A)
	$(link) $(TEST_WRAP) $(SHMQ_LIBS) -lm
$(WEAVE): $(WEAVE_O) $(WOVEN_O) $(B)/tests/lib/tap.o
	$(link) $(foreach f,main malloc calloc realloc free,-Wl,--wrap=$(f)) $(SHMQ_LIBS)
$(TOOLS): %: %.o $(A)
	$(link) $(SHMQ_LIBS)
$(DAEMON_T) $(STEP): %: %.o $(filter-out %/main.o,$(DAEMON_O)) $(B)/tests/lib.a $(A)
	$(link) $(TEST_WRAP) $(HWLOC_LIBS) $(URING_LIBS) $(CONFUSE_LIBS) $(SHMQ_LIBS) -lm
$(B)/tests/guest/place: $(B)/tests/daemon/place
	$(call say,LN,$@)mkdir -p $(@D) && ln -sf ../daemon/place $@

# ---- newer builds, for tests of what meets them --------------------------------

# By one layout version and by two; only what goes by the version differs.
SKEWED  := $(patsubst %.c,$(B)/%.o,$(shell grep -l 'LAY_VERSION\|LAY_OLDEST' libshmq/*.c daemon/*.c))
skewed   = $(foreach o,$(2),$(if $(filter $o,$(SKEWED)),$(o:$(B)/%=$(B)/skew$(1)/%),$o))
SKEWS   := 1 2
SKEW_O  := $(foreach n,$(SKEWS),$(SKEWED:$(B)/%=$(B)/skew$(n)/%))
SKEW    := $(foreach n,$(SKEWS),$(B)/skew$(n)/shmqd $(B)/skew$(n)/shmq)

define skew
$(B)/skew$(1)/%: INCLUDES = -Iinclude -Ilibshmq -Idaemon $$(SHMQ_CFLAGS) $$(HWLOC_CFLAGS) $$(URING_CFLAGS) $$(CONFUSE_CFLAGS)
$(B)/skew$(1)/%.o: %.c Makefile
	$$(call say,CC,$$@)mkdir -p $$(@D) && $$(COMPILE) -DLAY_SKEW=$(1)u -c -o $$@ $$<
$(B)/skew$(1)/shmqd: $(call skewed,$(1),$(DAEMON_O) $(LIB_O))
	$$(link) $$(HWLOC_LIBS) $$(URING_LIBS) $$(CONFUSE_LIBS) $$(SHMQ_LIBS)
$(B)/skew$(1)/shmq: $(call skewed,$(1),$(CLI_O) $(LIB_O))
	$$(link) $$(CLI_LIBS) $$(SHMQ_LIBS)
endef
$(foreach n,$(SKEWS),$(eval $(call skew,$(n))))

# ---- fuzz targets -----------------------------------------------------------

# What they test is built so that it counts its steps (tests/fuzz/fuzz.h).

STEPPED := $(LIB_O:$(B)/%=$(B)/stepped/%) $(filter-out %/main.o,$(DAEMON_O:$(B)/%=$(B)/stepped/%))
STEPPED_CLI := $(CLI_O:$(B)/%=$(B)/stepped/%)

$(B)/stepped/libshmq/%:    INCLUDES = -Iinclude -Ilibshmq $(SHMQ_CFLAGS) -DRING_CONTENDED_STEPS=65536
$(B)/stepped/daemon/%:     INCLUDES = -Iinclude -Ilibshmq -Idaemon $(SHMQ_CFLAGS) $(HWLOC_CFLAGS) $(URING_CFLAGS) $(CONFUSE_CFLAGS)
$(B)/stepped/daemon/cli/%: INCLUDES = -Iinclude -Idaemon/cli $(JANSSON_CFLAGS) $(CURSES_CFLAGS) $(HTTP_CFLAGS)
$(B)/stepped/daemon/cli/main.o: override CPPFLAGS += -Dmain=cli_main -Wno-missing-prototypes
$(B)/stepped/%.o: %.c Makefile
	$(call say,CC,$@)mkdir -p $(@D) && $(COMPILE) -fsanitize-coverage=trace-pc -c -o $@ $<

$(B)/stepped/lib.a: $(filter $(B)/stepped/libshmq/%,$(STEPPED))
$(B)/stepped/daemon.a: $(filter $(B)/stepped/daemon/%,$(STEPPED))
$(B)/stepped/cli.a: $(STEPPED_CLI)
$(B)/stepped/lib.a $(B)/stepped/daemon.a $(B)/stepped/cli.a:
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

FUZZ_LIBS := $(B)/stepped/daemon.a $(B)/stepped/cli.a $(B)/tests/lib.a $(B)/stepped/lib.a
FUZZ_O    := $(B)/tests/fuzz/fuzz.o $(B)/tests/fuzz/replay.o
SCENE_O   := $(B)/tests/fuzz/scene.o
ON_SCENE  := $(patsubst %,$(B)/tests/fuzz/%,subscriber publisher recover registry tail)
FUZZ_WRAP  = $(TEST_WRAP) $(foreach f,__sanitizer_cov_trace_pc clock_gettime poll ppoll \
	shmq__futex_wait shmq__futex_waitv tap_fail $(WRAPPED),-Wl,--wrap=$(f))
$(ON_SCENE): $(SCENE_O)
$(ON_SCENE): WRAPPED = shmq__bus_request shmq__bus_notify shmq__bus_ready $(KEEPER)
$(B)/tests/fuzz/tail: KEEPER = log_line $(addprefix tail_keep_,add remove began rolled has_room)
$(B)/tests/fuzz/client: WRAPPED = connect
$(B)/tests/fuzz/words:  WRAPPED = exit mkdir
$(B)/tests/fuzz/gather: WRAPPED = files_listen
$(FUZZ): SAN_LINK_fuzzer = -fsanitize=fuzzer
$(FUZZ): %: %.o $(FUZZ_O) $(FUZZ_LIBS)
	$(link) $(FUZZ_WRAP) $(HWLOC_LIBS) $(URING_LIBS) $(CONFUSE_LIBS) $(CLI_LIBS) $(SHMQ_LIBS) -lm

# ---- peers of the benchmarks: a shared object each --------------------------

PEER_DIR := $(B)/bench/peers
# They are loaded as they are there, so none of another version may be.
PEERS_BUILT := $(wildcard $(PEER_DIR)/*.so)
PEERS    := $(filter-out common,$(basename $(notdir $(wildcard bench/peers/*.c bench/peers/*.cc))))

NEEDS_boost   := boost/interprocess/ipc/message_queue.hpp
NEEDS_ck      := ck_ring.h
NEEDS_iceoryx := iceoryx_posh/popo/untyped_publisher.hpp
NEEDS_nng     := nng/nng.h
NEEDS_lmdb    := lmdb.h
NEEDS_redis   := hiredis/hiredis.h
NEEDS_redis_log := hiredis/hiredis.h
NEEDS_rocksdb := rocksdb/c.h
NEEDS_sqlite  := sqlite3.h
NEEDS_zeromq  := zmq.h

LIBS_iceoryx := -liceoryx_posh -liceoryx_hoofs -liceoryx_platform
LIBS_lmdb    := -llmdb
LIBS_nng     := -lnng
LIBS_redis   := -lhiredis
LIBS_redis_log := -lhiredis
LIBS_rocksdb := -lrocksdb
LIBS_sqlite  := -lsqlite3
LIBS_zeromq  := -lzmq

# It installs its headers under its version.
INCLUDES_iceoryx = $(addprefix -I,$(lastword $(wildcard /usr/include/iceoryx/v* /usr/local/include/iceoryx/v*)))

there = $(or $(if $(NEEDS_$(1)),,needs nothing),$(shell printf '\043include <$(NEEDS_$(1))>\n' | \
	$(CXX) $(INCLUDES_$(1)) -E -x c++ - >/dev/null 2>&1 && echo yes))

PEER_CXX  = $(CXX) -std=gnu++20 -fPIC -fvisibility=hidden -pthread -Wall -Wextra $(SANFLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP
PEER_LINK = $(call say,LD,$@)$(LINK) -shared -Wl,-z,defs -o $@ $(filter %.o,$^) $(LIBS_$(basename $(@F)))

$(PEER_DIR)/%.o: INCLUDES = -Ibench
$(PEER_DIR)/rocksdb.o: INCLUDES = -Ibench -DROCKSDB_VERSION='"$(shell pkg-config --modversion rocksdb || echo unknown)"'
$(PEER_DIR)/%.o: bench/peers/%.cc Makefile
	$(call say,CXX,$@)mkdir -p $(@D) && $(PEER_CXX) -Ibench $(addprefix -isystem,$(INCLUDES_$*:-I%=%)) -c -o $@ $<
# Those that keep records need nothing of what is common to transports.
STORES := lmdb redis_log rocksdb sqlite
$(STORES:%=$(PEER_DIR)/%.so): $(PEER_DIR)/%.so: $(PEER_DIR)/%.o
	$(PEER_LINK)
$(PEER_DIR)/%.so: $(PEER_DIR)/%.o $(PEER_DIR)/common.o
	$(PEER_LINK)$(if $(wildcard bench/peers/$*.cc), -lstdc++)

# ---- run ------------------------------------------------------------------

export SHMQ_BUILD := $(abspath $(B))
RUN_ENV = SHMQ_DAEMON=$(SHMQ_BUILD)/shmqd SHMQ=$(SHMQ_BUILD)/shmq PATH=$(SHMQ_BUILD):$$PATH \
	CC="$(CC)" SHMQ_SANITIZED=$(SAN) \
	ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=print_stacktrace=1 \
	TSAN_OPTIONS=halt_on_error=1$(patsubst %,:suppressions=$(CURDIR)/%,$(wildcard tests/tsan.supp))
# With --directives what is skipped is named, and why.
PROVE = HARNESS_RULESFILE=tests/rules.yml $(RUN_ENV) prove --directives -j$(TEST_JOBS) --exec tests/run
CHOSEN = $(if $(T),$(shell printf '%s\n' $(TESTS) | grep -E -e '$(T)'),$(TESTS))

deps: build/.deps-required ## install the Debian packages that are missing (.ci/packages)
	
build/.deps-%: .ci/packages .ci/deps
	@.ci/deps $* && mkdir -p build && touch $@

deps-guest: build/.deps-guest ## install what boots the emulated machine of tests/guest
	
check: deps ## build and run all tests, or those that match T=pattern
	@$(MAKE) $(JOBS) test-programs
	@$(if $(CHOSEN),$(PROVE) $(CHOSEN),echo 'check: no test matches "$(T)"' >&2; exit 1)

test-programs: $(if $(filter thread,$(SAN)),,all $(SKEW) $(EXAMPLES) $(TOOLS)) $(if $(SAN),,$(BENCH) $(B)/bench/built.txt $(PEERS_BUILT) $(MUTANTS) $(GUEST_T)) $(TEST_PROGRAMS)

examples: all $(EXAMPLES) ## the programs of examples/, in build/examples

demo: deps ## run the demonstration: live telemetry and an order book, with kills
	@$(MAKE) $(JOBS) all demo-programs
	@$(RUN_ENV) examples/demo/run

demo-programs: $(DEMO)

torture: deps ## larger models, more schedules, every step, then processes and fuzzing ROUNDS=20 times, until one fails
	@$(MAKE) $(JOBS) test-programs
	@MODEL_SIZE=large SHMQ_TEST_LIMIT=7200 $(PROVE) tests/model/run
	@SHMQ_TORTURE=1 SHMQ_TEST_LIMIT=3600 $(PROVE) -v $(WEAVE) $(STEP)
	@for round in $$(seq $(ROUNDS)); do \
		echo "round $$round of $(ROUNDS)"; \
		SHMQ_TORTURE=$$round $(PROVE) $(PROC) $(DAEMON_T) $(FUZZ) $(HISTORY) || exit 1; \
	done

fuzz: build/.deps-fuzz ## drive the fuzz targets by coverage (libFuzzer), or those that match T=pattern
	@$(MAKE) $(JOBS) CC=clang SAN=fuzzer fuzz-programs
	@for target in $(notdir $(FUZZ)); do case $$target in *$(T)*) \
		tests/fuzz/run $$target $(FUZZ_SECONDS) || exit 1 ;; esac; done

fuzz-programs: $(FUZZ)

bench: deps ## run the benchmarks and report on them, about 6 minutes
bench-quick: deps ## only what the promised ratios need, under 45 seconds
bench bench-quick:
	@$(MAKE) $(JOBS) all bench-programs
	@$(RUN_ENV) bench/run $(if $(filter %-quick,$@),--quick)

bench-log: deps ## run the benchmarks of topics with a log, about 4 minutes: 20 GiB of disk, 26 free
	@$(MAKE) $(JOBS) all bench-programs
	@$(RUN_ENV) bench/run --only '^log_' --out $(B)/bench/report-log

bench-programs: $(BENCH) $(B)/bench/built.txt $(PEERS_BUILT)

# Nobody needs a peer: where its package can't be had, it is left out.
bench-peers: deps ## install the transports to compare with, and build what is there
	@.ci/deps bench || echo 'bench-peers: building those that are there' >&2
	@$(MAKE) $(JOBS) peers-found
# By a make of its own: what is there is found out when its recipe is expanded.
peers-found:
	@$(foreach p,$(PEERS),$(if $(call there,$(p)),,echo 'absent $(p) <$(NEEDS_$(p))> is missing';)) :
	@$(MAKE) $(JOBS) bench-programs $(foreach p,$(PEERS),$(if $(call there,$(p)),$(PEER_DIR)/$(p).so))

C_FILES = $(wildcard $(foreach d,include libshmq daemon daemon/cli bench bench/peers examples \
	examples/demo tests/*,$(d)/*.[ch] $(d)/*.cc))
LINT_INCLUDES = $(addprefix -I,include libshmq daemon daemon/cli examples/demo tests/lib)

# Without it cppcheck does not know the list macros.
QUEUE_H = $(shell printf '\043include <sys/queue.h>\n' | $(CC) -E -x c - | \
	sed -n 's/.*"\(.*sys\/queue.h\)".*/\1/p' | head -n 1)
# The analyser of GCC 12 does not see that LIST_REMOVE unlinks.
ANALYZER_LISTS = -Wno-analyzer-double-free -Wno-analyzer-use-after-free -Wno-analyzer-malloc-leak

lint: build/.deps-optional ## formatter, static analyser, man pages, layers, tests, exports
	$(call say,LINT,layers)tests/lint/layers
	$(call say,LINT,tested)tests/lint/tested
	$(call say,LINT,fences)! grep -n 'atomic_thread_fence(' $(filter-out libshmq/atomics.h,$(wildcard libshmq/*.[ch] daemon/*.[ch]))
	$(call say,LINT,format)clang-format --dry-run -Werror $(C_FILES)
	$(call say,LINT,cppcheck)cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
		--suppressions-list=tests/lint/cppcheck --error-exitcode=1 -j$(shell nproc) \
		'-D_Noreturn=__attribute__((noreturn))' -D__x86_64__ -D__linux__ --include=$(QUEUE_H) \
		$(LINT_INCLUDES) $(filter %.c,$(C_FILES))
	$(call say,LINT,analyzer)for file in $(wildcard libshmq/*.c daemon/*.c daemon/cli/*.c); do \
		$(filter-out -MMD -MP,$(COMPILE)) $(LINT_INCLUDES) -fanalyzer $(ANALYZER_LISTS) -Werror -S \
		-o /dev/null $$file || exit 1; done
	$(call say,LINT,man)mandoc -T lint -W warning $(MAN)
	@$(MAKE) $(JOBS) SAN= all
	$(call say,LINT,exports)tests/lint/exports build/libshmq.so

# ---- install --------------------------------------------------------------

MAN = $(wildcard man/*.[13578])
# A page is also found by the other names it has: "page section alias" each.
ALIASES = awk '/^\.Sh/ { in_name = $$2 == "NAME" } \
	in_name && /^\.Nm/ { page = FILENAME; sub(/.*\//, "", page); s = page; sub(/.*\./, "", s); \
		page = substr(page, 1, length(page) - length(s) - 1); \
		if ($$2 != page) print page, s, $$2 }' $(MAN) /dev/null
# Those of the system, and those of a user.
UNITS := $(wildcard daemon/systemd/*.in daemon/systemd/user/*.in)
unit_place = $(if $(findstring /user/,$(u)),user,system)/$(basename $(notdir $(u)))
D = $(DESTDIR)
# What is empty without shmq is its own, but below the prefixes of the system.
DIRS = $(if $(filter /usr /usr/local,$(PREFIX)),,$(patsubst $(PREFIX)/%,%,$(filter $(PREFIX)/%,$(BINDIR) $(LIBEXECDIR) \
	$(LIBDIR)/pkgconfig $(INCLUDEDIR) $(SYSTEMDDIR)/system $(SYSTEMDDIR)/user $(SYSUSERSDIR) $(TMPFILESDIR) $(BASHCOMPDIR) \
	$(ZSHCOMPDIR) $(PYTHONDIR) $(MANDIR)/man1 $(MANDIR)/man3 $(MANDIR)/man5 $(MANDIR)/man7 $(MANDIR)/man8)))
BENCHDIR = $(LIBEXECDIR)/shmq-bench

# One line for each, of a hundred files, but for who asks.
$(if $(filter 1,$(V)),,.SILENT: install uninstall)

install: all bench-programs ## install under DESTDIR and PREFIX (/usr/local)
	$(call say,INST,$(D)$(PREFIX)):
	install -d $(D)$(BINDIR) $(D)$(LIBDIR)/pkgconfig $(D)$(INCLUDEDIR)
	install -m 755 $(B)/shmqd $(B)/shmq $(D)$(BINDIR)
	install -m 644 include/shmq.h $(D)$(INCLUDEDIR)
	install -m 644 $(A) $(D)$(LIBDIR)
	install -m 755 $(SO) $(D)$(LIBDIR)
	ln -sf $(notdir $(SO)) $(D)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(D)$(LIBDIR)/libshmq.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' \
		libshmq/shmq.pc.in >$(D)$(LIBDIR)/pkgconfig/shmq.pc
	chmod 644 $(D)$(LIBDIR)/pkgconfig/shmq.pc
	$(foreach u,$(UNITS),install -D -m 644 $(u) $(D)$(SYSTEMDDIR)/$(unit_place) && \
		sed -i 's|@BINDIR@|$(BINDIR)|' $(D)$(SYSTEMDDIR)/$(unit_place) &&) :
	install -D -m 644 daemon/systemd/sysusers.conf $(D)$(SYSUSERSDIR)/shmq.conf
	install -D -m 644 daemon/systemd/tmpfiles.conf $(D)$(TMPFILESDIR)/shmq.conf
	install -D -m 644 daemon/completion/shmq.bash $(D)$(BASHCOMPDIR)/shmq
	ln -sf shmq $(D)$(BASHCOMPDIR)/shmqd
	install -D -m 644 daemon/completion/_shmq $(D)$(ZSHCOMPDIR)/_shmq
	install -D -m 644 libshmq/python/shmq.py $(D)$(PYTHONDIR)/shmq.py
	install -d $(D)$(BENCHDIR)/lib
	install -m 755 $(BENCH) $(D)$(BENCHDIR)
	$(foreach p,$(wildcard $(B)/bench/peers/*.so),install -D -m 755 $(p) $(D)$(BENCHDIR)/peers/$(notdir $(p)) &&) :
	install -m 644 bench/targets $(B)/bench/built.txt $(D)$(BENCHDIR)
	install -m 644 bench/lib/*.pm $(D)$(BENCHDIR)/lib
	sed "s|@LIBEXECDIR@|$$(realpath -m --relative-to=$(BINDIR) $(BENCHDIR))|" bench/run >$(D)$(BINDIR)/shmq-bench
	chmod 755 $(D)$(BINDIR)/shmq-bench
	$(foreach m,$(MAN),install -D -m 644 $(m) $(D)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)) &&) :
	@$(ALIASES) | while read -r page s alias; do \
		ln -sf $$page.$$s $(D)$(MANDIR)/man$$s/$$alias.$$s || exit 1; done
	@[ -n "$(D)" ] || /sbin/ldconfig 2>/dev/null || :

uninstall: ## remove what install put there
	$(call say,UNINST,$(D)$(PREFIX)):
	rm -rf $(D)$(BENCHDIR) $(D)$(BINDIR)/shmq-bench
	rm -f $(D)$(PYTHONDIR)/shmq.py
	rm -f $(foreach u,$(UNITS),$(D)$(SYSTEMDDIR)/$(unit_place)) $(D)$(SYSUSERSDIR)/shmq.conf $(D)$(TMPFILESDIR)/shmq.conf
	rm -f $(D)$(BASHCOMPDIR)/shmq $(D)$(BASHCOMPDIR)/shmqd $(D)$(ZSHCOMPDIR)/_shmq
	rm -f $(D)$(BINDIR)/shmqd $(D)$(BINDIR)/shmq $(D)$(INCLUDEDIR)/shmq.h
	rm -f $(addprefix $(D)$(LIBDIR)/,libshmq.a libshmq.so $(SONAME) $(notdir $(SO)) pkgconfig/shmq.pc)
	rm -f $(foreach m,$(MAN),$(D)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)))
	@$(ALIASES) | while read -r page s alias; do rm -f $(D)$(MANDIR)/man$$s/$$alias.$$s; done
	$(if $(DIRS),cd $(D)$(PREFIX) 2>/dev/null && { rmdir -p $(DIRS); rmdir "$$PWD"; } 2>/dev/null || :)
	@[ -n "$(D)" ] || /sbin/ldconfig 2>/dev/null || :

# ---- release --------------------------------------------------------------

DIST = shmq-$(VERSION)

abi: all ## put on record what programs and other builds rest on (libshmq/*.abi)
	@libshmq/abi --renew $(SO)
	@libshmq/abi --renew --shared

doc: build/.deps-doc ## the man pages as HTML and as one PDF, in build/doc
	$(call say,DOC,build/doc)man/render build/doc

# The same commit gives the same bytes: times are its own, and gzip adds none.
dist: ## the source of the commit that is checked out, as build/shmq-VERSION.tar.gz
	@git diff --quiet HEAD -- || echo 'dist: what is not committed is left out' >&2
	$(call say,DIST,build/$(DIST).tar.gz)mkdir -p build && git archive --format=tar --prefix=$(DIST)/ HEAD | gzip -9n >build/$(DIST).tar.gz

deb: build/.deps-doc build/.deps-deb dist ## Debian packages of that source, checked by lintian, in build/deb
	@version=$$(dpkg-parsechangelog -l .ci/debian/changelog -S Version); [ "$$version" = $(VERSION) ] || \
		{ echo "deb: .ci/debian/changelog is of $$version, include/shmq.h of $(VERSION): begin a new entry" >&2; exit 1; }
	@rm -rf build/deb && mkdir -p build/deb && tar -C build/deb -xzf build/$(DIST).tar.gz
	@cp -r build/deb/$(DIST)/.ci/debian build/deb/$(DIST)/debian
	$(call say,DEB,build/deb)cd build/deb/$(DIST) && MAKEFLAGS= dpkg-buildpackage -us -uc -b $(JOBS) >../build.log 2>&1 || \
		{ tail -n 40 ../build.log >&2; exit 1; }
	@lintian --fail-on error,warning --tag-display-limit 0 build/deb/*.changes
	@cd build/deb && ls *.deb

check-deb: deb ## install those packages in a new root of Debian 12, run the demonstration and the units there (root)
	@tests/packages/run build/deb

clean: ## remove build/
	rm -rf build

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: all deps deps-guest check test-programs examples demo demo-programs torture fuzz fuzz-programs bench bench-quick bench-log bench-programs bench-peers peers-found lint install \
	uninstall abi doc dist deb check-deb clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

-include $(patsubst %.o,%.d,$(LIB_O) $(DAEMON_O) $(CLI_O) $(TAP_O) $(COMMON_O) $(WEAVE_O) $(WOVEN_O) $(STEPPED) $(STEPPED_CLI) \
	$(FUZZ_O) $(SCENE_O)) \
	$(wildcard $(PEER_DIR)/*.d) \
	$(B)/tests/bench/mutant.d $(SKEW_O:.o=.d) $(PROGRAMS:%=%.d) $(DEMO:$(B)/demo/%=$(B)/examples/demo/%.d)
