# SPDX-License-Identifier: Apache-2.0
# kvmsbox: one Makefile, no recursion. `make help` prints the targets.

ARCH   ?= x86_64
CC     ?= gcc
BUILD  ?= build$(if $(SAN),/san)
# One spelling, whoever names it: dependency files hold it.
override BUILD := $(patsubst $(CURDIR)/%,%,$(abspath $(BUILD)))
PREFIX ?= /usr/local
AWK    ?= awk
Q      = $(if $(V),,@)

WARN   = -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wundef \
	 -Wwrite-strings -Wvla -Wno-unused-parameter
CPPFLAGS += -I. -Iarch/$(ARCH) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 $(WARN) -fno-strict-aliasing -pthread -fno-pie
LDFLAGS += -no-pie -pthread
LDLIBS = -lxxhash -lfdt -ljansson
# What only an import needs is a program of its own, and kvmsbox starts without a dynamic linker.
IMPORT_LIBS = $(LDLIBS) -larchive -lcrypto -lz
LOAD_LIBS = -lcurl -lhttp_parser -lssl -lcrypto -ljansson -lm
# The server, likewise.
SERVE_LIBS = -ljansson -lhttp_parser -lssl -lcrypto
STATIC = -static
# kvmsbox itself is linked with musl: glibc's start asks CPUID two dozen times, which takes longer in
# a virtual machine than all else that it does (docs/benchmarks.md). LIBC=glibc is for comparison.
LIBC ?= $(if $(SAN),glibc,musl)
MUSL_CC ?= musl-gcc
# gcc's array-bounds and nonnull checks see the sanitizers' own branches.
SAN_FLAGS = -fsanitize=address,undefined -fno-omit-frame-pointer -DLOCK_DEBUG -Wno-array-bounds -Wno-nonnull
ifdef SAN
CFLAGS += $(SAN_FLAGS)
LDFLAGS += -fsanitize=address,undefined
STATIC =
endif

SRC_DIRS = sentry/lib sentry sentry/mm sentry/syscalls arch/$(ARCH) platform platform/kvm \
	   platform/stub platform/ptrace platform/systrap vfs vfs/procfs loader
SRCS  = $(foreach d,$(SRC_DIRS),$(wildcard $(d)/*.c))
ASMS  = $(foreach d,$(SRC_DIRS),$(wildcard $(d)/*.S))
LIB_OBJS = $(SRCS:%.c=$(BUILD)/%.o) $(ASMS:%.S=$(BUILD)/%.o)
CLI_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/kvmsbox/*.c))
# Read archives, write entries: not in kvmsbox itself.
IMPORT_SRCS = $(addprefix loader/,image_import.c image_build.c image_archive.c image_layer.c \
	      image_input.c image_path.c) $(wildcard loader/erofs_write*.c)
IMPORTER_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/kvmsbox-import/*.c))
LOAD_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/kvmsbox-load/*.c))
SERVER_OBJS = $(patsubst %,$(BUILD)/%.o,$(basename $(wildcard tools/kvmsbox-serve/*.[cS])))

all: $(BUILD)/kvmsbox $(BUILD)/kvmsbox-import $(BUILD)/kvmsbox-load $(BUILD)/kvmsbox-serve ## build build/kvmsbox (the default)

KVMSBOX_OBJS = $(CLI_OBJS) $(filter-out $(IMPORT_SRCS:%.c=$(BUILD)/%.o),$(LIB_OBJS))
ifeq ($(LIBC),musl)
$(BUILD)/kvmsbox: $(KVMSBOX_OBJS:$(BUILD)/%=$(BUILD)/musl/%)
	@echo "  LD  $@"
	$(Q)$(MUSL_CC) $(LDFLAGS) $(STATIC) -Wl,-z,stack-size=1048576 -o $@ $^ \
	  $(foreach l,$(LDLIBS),$(shell $(CC) -print-file-name=$(l:-l%=lib%.a)))
else
$(BUILD)/kvmsbox: $(KVMSBOX_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(STATIC) -o $@ $^ $(LDLIBS)
endif
$(BUILD)/kvmsbox-import: $(IMPORTER_OBJS) $(BUILD)/libkvmsbox.a
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(IMPORT_LIBS)
$(BUILD)/kvmsbox-load: $(LOAD_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LOAD_LIBS)

$(BUILD)/kvmsbox-serve: $(SERVER_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(SERVE_LIBS)
$(patsubst %,%/tools/kvmsbox-serve/status.o,$(BUILD) $(BUILD)/clang $(BUILD)/san): tools/kvmsbox-serve/status.html
# Whoever needs kvmsbox needs what it runs.
$(BUILD)/kvmsbox: | $(BUILD)/kvmsbox-import $(BUILD)/kvmsbox-load $(BUILD)/kvmsbox-serve

# The kernel's static variables lie together, to be saved and set back (sentry/lib/world.h).
OBJCOPY ?= objcopy
KSTATE_SRCS = $(filter-out $(addprefix sentry/,boot.c console.c control.c forward.c freezer.c launch.c poller.c \
	      task_run.c), \
	      $(foreach d,sentry sentry/mm sentry/syscalls vfs vfs/procfs,$(wildcard $(d)/*.c))) \
	      sentry/lib/refcount.c loader/exec.c loader/vdso.c
kstate = $(if $(filter $(KSTATE_SRCS),$(1)),$(Q)$(OBJCOPY) --rename-section .data=kstate_data \
	 --rename-section .bss=kstate_bss $(2))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
	$(call kstate,$<,$@)

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	@echo "  AS  $<"
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

# The seccomp filters are assembled now, not at every start.
$(BUILD)/seccomp_gen: tools/seccomp_gen.c sentry/lockdown_calls.h
	@mkdir -p $(@D)
	@echo "  CC  $@"
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O1 $(WARN) -o $@ $< -lseccomp
$(BUILD)/gen/seccomp_filters.inc: $(BUILD)/seccomp_gen
	@mkdir -p $(@D)
	@echo "  GEN $@"
	$(Q)$(BUILD)/seccomp_gen >$@.tmp && mv $@.tmp $@
$(patsubst %,%/sentry/lockdown.o,$(BUILD) $(BUILD)/clang $(BUILD)/san $(BUILD)/musl): $(BUILD)/gen/seccomp_filters.inc
%/sentry/lockdown.o: CPPFLAGS += -I$(BUILD)/gen

# The vDSO is a shared object of its own, embedded by vdso_blob.S.
VDSO_SRCS = $(wildcard arch/$(ARCH)/vdso/*.c)
$(BUILD)/vdso.so: $(VDSO_SRCS) arch/$(ARCH)/vdso/vdso.lds $(wildcard arch/$(ARCH)/vdso/*.h)
	@mkdir -p $(@D)
	@echo "  VDSO $@"
	$(Q)$(CC) -I. -Iarch/$(ARCH) -D_GNU_SOURCE -std=gnu11 -O2 -g0 -fPIC -fno-stack-protector \
	  -fcf-protection=none -fno-asynchronous-unwind-tables -nostdlib -shared \
	  -Wl,-soname,linux-vdso.so.1 -Wl,--hash-style=both -Wl,--build-id=sha1 \
	  -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,-T,arch/$(ARCH)/vdso/vdso.lds \
	  -o $@ $(VDSO_SRCS)
$(BUILD)/arch/$(ARCH)/vdso_blob.o: CPPFLAGS += -DVDSO_PATH='"$(BUILD)/vdso.so"'
$(BUILD)/arch/$(ARCH)/vdso_blob.o: $(BUILD)/vdso.so

# Variants of the library: the same sources under another directory, compiler and flags.
# $(1) directory, $(2) compiler, $(3) more flags
define variant
$(1)/%.o: %.c
	@mkdir -p $$(@D)
	@echo "  CC  $$@"
	$$(Q)$(2) $$(CPPFLAGS) $$(CFLAGS) $(3) -MMD -MP -c -o $$@ $$<
	$$(call kstate,$$<,$$@)
$(1)/%.o: %.S
	@mkdir -p $$(@D)
	@echo "  AS  $$@"
	$$(Q)$(2) $$(CPPFLAGS) -MMD -MP -c -o $$@ $$<
$(1)/arch/$$(ARCH)/vdso_blob.o: CPPFLAGS += -DVDSO_PATH='"$$(BUILD)/vdso.so"'
$(1)/arch/$$(ARCH)/vdso_blob.o: $$(BUILD)/vdso.so
-include $$(wildcard $(1)/*/*.d $(1)/*/*/*.d $(1)/*/*/*/*.d)
endef

# With musl: beside its own headers only those of the kernel and of the libraries in LDLIBS.
MUSL_HEADERS = $(patsubst %,/usr/include/%,linux asm-generic fdt.h libfdt.h libfdt_env.h xxhash.h xxh3.h jansson.h \
		 jansson_config.h $(ARCH)-linux-gnu/asm)
$(eval $(call variant,$(BUILD)/musl,$(MUSL_CC) -isystem $(BUILD)/musl/include -include sentry/lib/musl.h,))
$(KVMSBOX_OBJS:$(BUILD)/%=$(BUILD)/musl/%): | $(BUILD)/musl/include/.made
$(BUILD)/musl/include/.made: Makefile
	@mkdir -p $(@D)
	@echo "  LN  $(@D)"
	$(Q)ln -sfnt $(@D) $(MUSL_HEADERS) && touch $@
$(BUILD)/musl/sentry/lib/musl.o: $(BUILD)/gen/errno_names.inc
%/musl.o: CPPFLAGS += -I$(BUILD)/gen
$(BUILD)/gen/errno_names.inc:
	@mkdir -p $(@D)
	@echo "  GEN $@"
	$(Q)echo '#include <errno.h>' | $(CC) -E -dM - | sed -n 's/^#define \(E[A-Z0-9]*\) [0-9][0-9]*$$/[\1] = "\1",/p' >$@

%.a:
	@echo "  AR  $@"
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libkvmsbox.a: $(LIB_OBJS)

CLANG ?= clang
ifneq ($(CC),$(CLANG))
$(eval $(call variant,$(BUILD)/clang,$(CLANG),))
clang: $(patsubst $(BUILD)/%,$(BUILD)/clang/%,$(LIB_OBJS) $(CLI_OBJS) $(IMPORTER_OBJS) $(LOAD_OBJS) $(SERVER_OBJS)) ## compile everything with clang too
endif

# Unit tests: with ASan and UBSan, but for those of the platforms, whose address spaces ASan's
# shadow doesn't fit into. With make SAN=1 everything already is.
ifdef SAN
SANBUILD = $(BUILD)
else
SANBUILD = $(BUILD)/san
$(eval $(call variant,$(SANBUILD),$(CC),$(SAN_FLAGS)))
$(SANBUILD)/libkvmsbox.a: $(LIB_OBJS:$(BUILD)/%=$(SANBUILD)/%)
# The programs, too: conformance with the sanitizers and the lock order watching.
$(SANBUILD)/kvmsbox: $(CLI_OBJS:$(BUILD)/%=$(SANBUILD)/%) $(SANBUILD)/libkvmsbox.a
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(SAN_FLAGS) -o $@ $(filter-out %.a,$^) $(UNIT_LINK) $(IMPORT_LIBS)
$(SANBUILD)/kvmsbox-import: $(IMPORTER_OBJS:$(BUILD)/%=$(SANBUILD)/%) $(SANBUILD)/libkvmsbox.a
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(SAN_FLAGS) -o $@ $^ $(IMPORT_LIBS)
$(SANBUILD)/kvmsbox-load: $(LOAD_OBJS:$(BUILD)/%=$(SANBUILD)/%)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(SAN_FLAGS) -o $@ $^ $(LOAD_LIBS)
$(SANBUILD)/kvmsbox-serve: $(SERVER_OBJS:$(BUILD)/%=$(SANBUILD)/%)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(SAN_FLAGS) -o $@ $^ $(SERVE_LIBS)
san: $(SANBUILD)/kvmsbox $(SANBUILD)/kvmsbox-import $(SANBUILD)/kvmsbox-load $(SANBUILD)/kvmsbox-serve ## build/san: the programs with ASan, UBSan and lock-order checks
endif
UNIT_PLAIN = kvm_platform ptrace_platform systrap_platform
UNIT_ALL   = $(patsubst test/unit/%.c,%,$(wildcard test/unit/*.c))
UNIT_SAN   = $(filter-out $(UNIT_PLAIN),$(UNIT_ALL))
UNIT_BINS  = $(UNIT_SAN:%=$(SANBUILD)/test/unit/%) \
	     $(patsubst %,$(BUILD)/plain/test/unit/%,$(filter $(UNIT_PLAIN),$(UNIT_ALL)))
UNIT_LIBS  = $(IMPORT_LIBS)
UNIT_LINK  = -Wl,--whole-archive $(filter %.a,$^) -Wl,--no-whole-archive
$(SANBUILD)/test/unit/%: $(SANBUILD)/test/unit/%.o $(SANBUILD)/libkvmsbox.a
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) $(SAN_FLAGS) -o $@ $(filter-out %.a,$^) $(UNIT_LINK) $(UNIT_LIBS)
$(BUILD)/plain/test/unit/%: test/unit/%.c $(BUILD)/libkvmsbox.a
	@mkdir -p $(@D)
	@echo "  LD  $@"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.a,$^) $(UNIT_LINK) $(UNIT_LIBS)
$(SANBUILD)/test/unit/histogram: $(SANBUILD)/tools/kvmsbox-load/histogram.o
$(SANBUILD)/test/unit/histogram: UNIT_LIBS += -lm
unit-build: $(UNIT_BINS)
unit-run:
	@BUILD=$(abspath $(BUILD)) test/unit/run.sh $(UNIT_BINS)
unit: unit-build ## build and run the unit tests (ASan, UBSan)
	@BUILD=$(abspath $(BUILD)) test/unit/run.sh $(UNIT_BINS)

CHECK_ENV = BUILD=$(abspath $(BUILD)) KVMSBOX=$(abspath $(BUILD))/kvmsbox MAKE="$(MAKE)"
conform: $(BUILD)/kvmsbox ## conformance programs natively, on every platform
	@$(CHECK_ENV) test/check.sh short conform-native conform-ptrace conform-systrap conform-kvm
apps: $(BUILD)/kvmsbox ## the application tests (Debian image), short selection
	@$(CHECK_ENV) test/check.sh short apps-ptrace apps-systrap apps-kvm
cli: $(BUILD)/kvmsbox ## command-line behaviours and bad input
	@$(CHECK_ENV) test/check.sh short cli-ptrace cli-systrap cli-kvm
layers: ## check every #include against tools/layers.tbl
	@tools/check-layers.sh
	@tools/check-layers.sh --self-test
lint: ## cppcheck and clang-format, as far as installed
	@tools/lint.sh
fuzz: ## fuzz ELF headers, the device tree, EROFS and the import (FUZZ_SECONDS=10 each)
	@BUILD=$(abspath $(BUILD)) test/fuzz/run.sh
check: ## install what the tests need, build, run all tests (short versions)
	@$(CHECK_ENV) test/check.sh short
check-long: ## all tests in full length
	@$(CHECK_ENV) test/check.sh long
check-svm: $(BUILD)/kvmsbox ## the same binary on QEMU's emulated AMD SVM
	@tools/install-deps.sh svm
	@$(CHECK_ENV) test/svm/check.sh
demo: ## install what is missing, build, run commands from a BusyBox image
	@tools/install-deps.sh build demo
	@$(MAKE) --no-print-directory all
	@tools/demo.sh $(BUILD)/kvmsbox
install: $(BUILD)/kvmsbox ## install the program and its manual under PREFIX (and DESTDIR)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/libexec/kvmsbox
	install -m 755 $(BUILD)/kvmsbox $(DESTDIR)$(PREFIX)/bin/kvmsbox
	install -m 755 $(BUILD)/kvmsbox-import $(DESTDIR)$(PREFIX)/libexec/kvmsbox/kvmsbox-import
	install -m 755 $(BUILD)/kvmsbox-load $(DESTDIR)$(PREFIX)/libexec/kvmsbox/kvmsbox-load
	install -m 755 $(BUILD)/kvmsbox-serve $(DESTDIR)$(PREFIX)/libexec/kvmsbox/kvmsbox-serve
	install -m 644 docs/kvmsbox.1 $(DESTDIR)$(PREFIX)/share/man/man1/kvmsbox.1

-include tools/bench/bench.mk

.PHONY: san fuzz clang unit unit-build unit-run conform apps cli layers lint check check-long check-svm demo \
	install
.SECONDARY:

help: ## print the targets
	@$(AWK) -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

clean: ## remove build/
	rm -rf build

-include $(LIB_OBJS:.o=.d) $(CLI_OBJS:.o=.d) $(IMPORTER_OBJS:.o=.d) $(LOAD_OBJS:.o=.d) $(SERVER_OBJS:.o=.d)

.PHONY: all help clean
