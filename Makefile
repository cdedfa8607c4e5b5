# SPDX-License-Identifier: Apache-2.0
# kvmsbox: one Makefile, no recursion. `make help` prints the targets.

ARCH   ?= x86_64
CC     ?= gcc
BUILD  ?= build$(if $(SAN),/san)
PREFIX ?= /usr/local
AWK    ?= awk
Q      = $(if $(V),,@)

WARN   = -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wundef \
	 -Wwrite-strings -Wvla -Wno-unused-parameter
CPPFLAGS += -I. -Iarch/$(ARCH) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 $(WARN) -fno-strict-aliasing -pthread -fno-pie
LDFLAGS += -no-pie -pthread
LDLIBS = -Wl,--as-needed -larchive -lxxhash -lfdt -lseccomp -ljansson -lcrypto
ifdef SAN
CFLAGS += -fsanitize=address,undefined -fno-omit-frame-pointer -DLOCK_DEBUG
LDFLAGS += -fsanitize=address,undefined
endif

SRC_DIRS = sentry/lib sentry sentry/mm sentry/syscalls arch/$(ARCH) platform platform/kvm \
	   platform/ptrace vfs vfs/procfs loader
SRCS  = $(foreach d,$(SRC_DIRS),$(wildcard $(d)/*.c))
ASMS  = $(foreach d,$(SRC_DIRS),$(wildcard $(d)/*.S))
LIB_OBJS = $(SRCS:%.c=$(BUILD)/%.o) $(ASMS:%.S=$(BUILD)/%.o)
CLI_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/kvmsbox/*.c))

all: $(BUILD)/kvmsbox ## build build/kvmsbox (the default)

$(BUILD)/kvmsbox: $(CLI_OBJS) $(LIB_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	@echo "  AS  $<"
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

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

help: ## print the targets
	@$(AWK) -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

clean: ## remove build/
	rm -rf build

-include $(LIB_OBJS:.o=.d) $(CLI_OBJS:.o=.d)
.PHONY: all help clean
