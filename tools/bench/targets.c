/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wanted of rows: how cheap against which other cell of the same rounds, or a most. The
 * reports say for each whether this run met it; nothing fails by it (that is the baseline's part).
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_COPIES 500

const struct target targets[] = {
	{.row = "fn-hello",
	 .to_row = "fn-hello",
	 .to_column = "native",
	 .times = 4,
	 .text = "the rate of CGI"},
	{.row = "fn-hello",
	 .to_row = "fn-cgi",
	 .to_column = "ptrace",
	 .times = 100,
	 .text = "the rate of a new ptrace sandbox each"},
	{.row = "fn-hello",
	 .to_row = "fn-cgi",
	 .to_column = "runsc",
	 .times = 100,
	 .text = "the rate of a new runsc sandbox each"},
	{.row = "fn-p99", .most = 5, .text = "p99 / p50 at 70% of the most"},
	{.row = "fn-python",
	 .to_row = "fn-python",
	 .to_column = "native",
	 .times = 30,
	 .text = "faster than starting it"},
	{.row = "fn-python-stdio",
	 .to_row = "fn-python-stdio",
	 .to_column = "native",
	 .times = 30,
	 .text = "faster than starting it"},
	{.row = "fn-reset",
	 .to_row = "fn-reset",
	 .to_column = "native",
	 .most = 0.10,
	 .text = "of fork, exec, wait"},
	{.row = "fn-reset-run",
	 .to_row = "fn-reset-run",
	 .to_column = "native",
	 .most = 0.25,
	 .text = "of fork, exec, wait"},
	{.row = "fn-clone",
	 .to_row = "fn-clone",
	 .to_column = "native",
	 .most = 1,
	 .text = "of fork, exec, wait"},
	{.row = "fn-clone-blank",
	 .to_row = "fn-clone-blank",
	 .to_column = "native",
	 .most = 1,
	 .text = "of fork, exec, wait"},
	{.row = "fn-memory", .most = 2 << 20, .text = "in all"},
	/* What processes don't map is not in their proportional set size, but it is gone. */
	{.row = "fn-memory-host", .most = 2 << 20, .text = "that the host has less"},
};
const int nr_targets = sizeof(targets) / sizeof(targets[0]);

static int column_index(const struct bench *b, const char *name)
{
	int k;

	for (k = 0; k < b->nr_columns; k++) {
		if (!strcmp(b->columns[k].name, name))
			return k;
	}
	return -1;
}

struct spread target_spread(const struct bench *b, const struct target *t, int col)
{
	int row = row_find(t->row), to = t->to_column ? column_index(b, t->to_column) : 0;

	if (b->columns[col].kind != COL_KVMSBOX || !b->row_shown[row] || to < 0)
		return (struct spread){.n = 0};
	/* Of fewer copies it would say nothing. */
	if (!strncmp(t->row, "fn-memory", 9) && b->copies < MEMORY_COPIES)
		return (struct spread){.n = 0};
	if (!t->to_row)
		return cell_spread(b, row, col);
	return cell_ratio_to(b, row, col, row_find(t->to_row), to);
}

double target_most(const struct target *t)
{
	return t->times > 0 ? 1 / t->times : t->most > 0 ? t->most : NAN;
}

int target_met(const struct target *t, struct spread s)
{
	double most = target_most(t);

	return isnan(most) ? -1 : s.median <= most;
}

void target_describe(const struct target *t, struct spread s, char *buf, size_t size)
{
	char value[32], want[32];
	enum unit u = rows[row_find(t->row)].unit;

	if (!t->to_row) {
		format_value(value, sizeof(value), s.median, u);
		format_value(want, sizeof(want), t->most, u);
		snprintf(buf, size, "%s %s, want %s at most", value, t->text, want);
	} else if (t->most > 0) {
		snprintf(buf, size, "%.1f%% %s, want %.0f%% at most", 100 * s.median, t->text,
			 100 * t->most);
	} else {
		format_ratio(value, sizeof(value), 1 / s.median);
		format_ratio(want, sizeof(want), t->times);
		snprintf(buf, size, "%s times %s%s%s", value, t->text,
			 t->times > 0 ? ", want " : "", t->times > 0 ? want : "");
	}
}
