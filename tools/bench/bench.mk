# SPDX-License-Identifier: Apache-2.0
# The benchmark: the harness and the static programs that it runs inside and outside.
#
#	make bench					everything, some minutes
#	make bench ROWS=calls,fork* ROUNDS=15		globs of row or group names
#	make bench BENCH_FLAGS='--columns all'		more of kvmsbox-bench --help
#	make bench-check				against tools/bench/baseline.json
#	make bench-baseline				keep today's ratios

BENCH_OBJS  = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/bench/*.c))
BENCH_GUEST = $(BUILD)/bench-guest
GUEST_SRC   = tools/bench/guest
GUEST_CC    = $(CC) -I. -D_GNU_SOURCE -std=gnu11 -O2 -g $(WARN) -static -pthread

$(BUILD)/kvmsbox-bench: $(BENCH_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -ljansson -lm

$(BENCH_GUEST)/micro: $(GUEST_SRC)/micro.c $(GUEST_SRC)/calls.c $(GUEST_SRC)/memory.c \
		$(GUEST_SRC)/process.c $(GUEST_SRC)/guest.h
	@mkdir -p $(@D)
	@echo "  GUEST $@"
	$(Q)$(GUEST_CC) -o $@ $(filter %.c,$^)
$(BENCH_GUEST)/%: $(GUEST_SRC)/%.c $(GUEST_SRC)/guest.h
	@mkdir -p $(@D)
	@echo "  GUEST $@"
	$(Q)$(GUEST_CC) -o $@ $<

BENCH_PROGRAMS = $(BUILD)/kvmsbox-bench $(addprefix $(BENCH_GUEST)/,micro true idle timed hello pages cgi)
BENCH = $(BUILD)/kvmsbox-bench --kvmsbox $(BUILD)/kvmsbox $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_FLAGS)
# Rows that say something in a few seconds each.
BENCH_CHECK_ROWS = calls,one-cpu,memory,processes,start-true,start-true-1cpu,exits,fn-hello,fn-reset*,fn-clone*
BENCH_CHECK = $(BENCH) --columns native,kvm,kvm-plain,systrap,ptrace --rows '$(or $(ROWS),$(BENCH_CHECK_ROWS))'

bench-programs: $(BENCH_PROGRAMS)
bench: $(BUILD)/kvmsbox $(BENCH_PROGRAMS) ## measure against native and other sandboxes [ROWS= ROUNDS=]
	@$(BENCH) $(if $(ROWS),--rows '$(ROWS)') --json $(BUILD)/bench.json --html $(BUILD)/bench.html
	@echo; echo "report: $(BUILD)/bench.html, values: $(BUILD)/bench.json"
bench-check: $(BUILD)/kvmsbox $(BENCH_PROGRAMS) ## fail if a ratio is over 20% worse than the baseline's
	@$(BENCH_CHECK) --baseline tools/bench/baseline.json
bench-baseline: $(BUILD)/kvmsbox $(BENCH_PROGRAMS) ## keep today's ratios as the baseline
	@$(BENCH_CHECK) --write-baseline tools/bench/baseline.json
bench-selftest: $(BUILD)/kvmsbox $(BENCH_PROGRAMS) ## does the benchmark see what it should?
	@BUILD=$(abspath $(BUILD)) KVMSBOX=$(abspath $(BUILD))/kvmsbox tools/bench/selftest.sh

-include $(BENCH_OBJS:.o=.d)
.PHONY: bench-programs bench bench-check bench-baseline bench-selftest
