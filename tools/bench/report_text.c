/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table on stdout, 100 columns wide: a row's median natively and, on every other column, its
 * median, how many times dearer that is, and half the distance of the ratio's quartiles in percent.
 * Then what was left out, and why.
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PER_TABLE 3

/* printf pads by bytes, not by characters. */
static void pad(const char *s, int width, bool right)
{
	int n = 0;
	const char *p;

	for (p = s; *p; p++)
		n += (*p & 0xc0) != 0x80;
	printf("%*s%s%*s", right && n < width ? width - n : 0, "", s,
	       !right && n < width ? width - n : 0, "");
}

static int native_column(const struct bench *b)
{
	int k;

	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].kind == COL_NATIVE && b->columns[k].usable)
			return k;
	}
	return -1;
}

static void print_cell(const struct bench *b, int row, int col, int native)
{
	struct spread v = cell_spread(b, row, col);
	struct spread r = native >= 0 ? cell_ratio(b, row, col, native) : (struct spread){.n = 0};
	char buf[48], ratio[24];
	double half;

	format_value(buf, sizeof(buf), v.median, rows[row].unit);
	pad(v.n ? buf : "-", 9, true);
	if (r.n) {
		format_ratio(ratio, sizeof(ratio), r.median);
		snprintf(buf, sizeof(buf), "×%s", ratio);
		pad(buf, 8, true);
	} else {
		pad("", 8, true);
	}
	half = spread_percent(r.n ? r : v);
	buf[0] = 0;
	if (!isnan(half))
		snprintf(buf, sizeof(buf), " ±%.0f%%", half);
	pad(buf, 7, false);
}

static void print_table(const struct bench *b, int native, const int *cols, int n)
{
	const char *group = "";
	char buf[48];
	int i, k;

	pad("", 18, false);
	if (native >= 0)
		pad("native", 9, true);
	for (k = 0; k < n; k++) {
		snprintf(buf, sizeof(buf), "%.20s%s", b->columns[cols[k]].name,
			 native >= 0 ? "/native" : "");
		pad(buf, 17, true);
		pad("", 7, false);
	}
	printf("\n");
	for (i = 0; i < nr_rows; i++) {
		bool any = false;

		for (k = 0; k < n; k++)
			any |= cell_spread(b, i, cols[k]).n > 0;
		if (!b->row_shown[i] || !any)
			continue;
		if (strcmp(group, rows[i].group))
			printf("%s\n", group = rows[i].group);
		printf("  ");
		pad(rows[i].name, 16, false);
		if (native >= 0) {
			/* A long name takes from the next column's room. */
			format_value(buf, sizeof(buf), cell_spread(b, i, native).median,
				     rows[i].unit);
			k = (int)strlen(rows[i].name);
			pad(buf, k > 16 ? 25 - k : 9, true);
		}
		for (k = 0; k < n; k++)
			print_cell(b, i, cols[k], native);
		printf("\n");
	}
}

/* Against ptrace, kvmsbox's own yardstick: how many times cheaper. */
static void print_gains(const struct bench *b, int ptrace)
{
	const char *comma;
	struct spread r;
	char buf[24];
	int i, k, n = 0;

	for (k = 0; k < b->nr_columns; k++) {
		if (k == ptrace || b->columns[k].kind != COL_KVMSBOX || !b->columns[k].usable)
			continue;
		if (!n)
			printf("\ncheaper than ptrace by (below 1: dearer)\n");
		printf("%s:", b->columns[k].name);
		n = (int)strlen(b->columns[k].name) + 1;
		comma = "";
		for (i = 0; i < nr_rows; i++) {
			char item[80];

			r = b->row_shown[i] ? cell_ratio(b, i, k, ptrace) : (struct spread){.n = 0};
			if (!r.n || rows[i].unit == UNIT_COUNT)
				continue;
			format_ratio(buf, sizeof(buf), 1 / r.median);
			snprintf(item, sizeof(item), "%s %s %s", comma, rows[i].name, buf);
			comma = ",";
			if (n + (int)strlen(item) > 98) {
				printf(",\n  %s", item + 1);
				n = 1;
			} else {
				printf("%s", item);
			}
			n += (int)strlen(item);
		}
		printf("\n");
	}
}

static void print_missing(const struct bench *b)
{
	const char *gap = "\n";
	int i, k, j, more;

	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].usable)
			continue;
		printf("%sskipped column %s: %s\n", gap, b->columns[k].name, b->columns[k].why);
		gap = "";
	}
	for (i = 0; i < nr_rows; i++) {
		for (k = 0; k < b->nr_columns && b->row_shown[i]; k++) {
			const struct cell *c = &b->cells[i][k];

			if (!c->why)
				continue;
			/* One line for all columns with the same reason. */
			for (j = 0; j < k; j++) {
				if (b->cells[i][j].why && !strcmp(b->cells[i][j].why, c->why))
					break;
			}
			if (j < k)
				continue;
			printf("%s%s %s on %s", gap, c->failed ? "failed" : "skipped", rows[i].name,
			       b->columns[k].name);
			gap = "";
			for (more = k + 1; more < b->nr_columns; more++) {
				if (b->cells[i][more].why && !strcmp(b->cells[i][more].why, c->why))
					printf(", %s", b->columns[more].name);
			}
			printf(": %s\n", c->why);
		}
	}
}

/* What is wanted of some rows, and whether it is so. */
static void print_targets(const struct bench *b)
{
	static const char *const verdicts[] = {"", "missed", "met"};
	const char *gap = "\n";
	struct spread s;
	char text[200];
	int i, k;

	for (i = 0; i < nr_targets; i++) {
		for (k = 0; k < b->nr_columns; k++) {
			s = target_spread(b, &targets[i], k);
			if (!s.n)
				continue;
			target_describe(&targets[i], s, text, sizeof(text));
			printf("%s  %-7s %s on %s: %s\n", gap,
			       verdicts[target_met(&targets[i], s) + 1], targets[i].row,
			       b->columns[k].name, text);
			gap = "";
		}
	}
}

void report_text(const struct bench *b)
{
	int native = native_column(b), cols[MAX_COLUMNS], n = 0, k, ptrace = -1;

	for (k = 0; k < b->nr_facts; k++)
		printf("%-14s %s\n", b->facts[k].name, b->facts[k].value);
	printf("\n");
	for (k = 0; k < b->nr_columns; k++) {
		if (!strcmp(b->columns[k].name, "ptrace") && b->columns[k].usable)
			ptrace = k;
		if (k != native && b->columns[k].usable)
			cols[n++] = k;
	}
	if (!n && native >= 0) {
		cols[n++] = native;
		native = -1;
	}
	for (k = 0; k < n; k += PER_TABLE) {
		if (k)
			printf("\n");
		print_table(b, native, cols + k, n - k < PER_TABLE ? n - k : PER_TABLE);
	}
	if (ptrace >= 0)
		print_gains(b, ptrace);
	print_targets(b);
	print_missing(b);
}
