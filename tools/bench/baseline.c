/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baseline: kvmsbox's ratios to native (or the plain value, where native has none, as with
 * exits), kept in a file, and the comparison of a new run with them.
 *
 * Ratios because the machine's speed of the day divides out. Something is worse if its median is
 * more than 20% above the baseline's and its lower quartile above the baseline's upper one: both,
 * so that a row with much noise needs a clear case. Ratios depend on the processor and the kind of
 * KVM, so a baseline of another machine is not compared with unless asked to.
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORSE 1.20
/* Counts near nothing: a stray exit per fifty operations is not a change. */
#define COUNT_SLACK 0.02

static const char *const identity[] = {"CPU", "KVM"};

static int native_column(const struct bench *b)
{
	int k;

	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].kind == COL_NATIVE)
			return k;
	}
	return -1;
}

/* What a cell is compared by. @by: "ratio" or "value". */
static struct spread comparable(const struct bench *b, int row, int col, const char **by)
{
	int native = native_column(b);
	struct spread s = {.n = 0};

	*by = rows[row].flags & ROW_KVMSBOX ? "value" : "ratio";
	if (rows[row].flags & ROW_KVMSBOX)
		return cell_spread(b, row, col);
	return native >= 0 ? cell_ratio(b, row, col, native) : s;
}

static const char *fact(const struct bench *b, const char *name)
{
	int i;

	for (i = 0; i < b->nr_facts; i++) {
		if (!strcmp(b->facts[i].name, name))
			return b->facts[i].value;
	}
	return "";
}

int baseline_write(const struct bench *b, const char *path)
{
	json_t *doc = json_object(), *all = json_object(), *facts = json_object(), *row;
	struct spread s;
	const char *by;
	int i, k, err;

	for (k = 0; k < b->nr_facts; k++)
		json_object_set_new(facts, b->facts[k].name, json_string(b->facts[k].value));
	for (i = 0; i < nr_rows; i++) {
		row = json_object();
		for (k = 0; k < b->nr_columns; k++) {
			if (!b->row_shown[i] || b->columns[k].kind != COL_KVMSBOX)
				continue;
			s = comparable(b, i, k, &by);
			if (s.n)
				json_object_set_new(row, b->columns[k].name,
						    json_pack("{sssfsfsfsi}", "by", by, "median",
							      s.median, "q1", s.q1, "q3", s.q3, "n",
							      s.n));
		}
		if (json_object_size(row))
			json_object_set_new(all, rows[i].name, row);
		else
			json_decref(row);
	}
	json_object_set_new(doc, "facts", facts);
	json_object_set_new(doc, "rows", all);
	err = json_dump_file(doc, path, JSON_INDENT(1) | JSON_REAL_PRECISION(4));
	json_decref(doc);
	return err;
}

static bool same_machine(const struct bench *b, json_t *facts, char *what, size_t size)
{
	const char *old;
	size_t i;

	for (i = 0; i < sizeof(identity) / sizeof(identity[0]); i++) {
		old = json_string_value(json_object_get(facts, identity[i]));
		if (!old || strcmp(old, fact(b, identity[i]))) {
			snprintf(what, size, "%s was '%s', is '%s'", identity[i], old ? old : "",
				 fact(b, identity[i]));
			return false;
		}
	}
	return true;
}

struct tally {
	int passed, failed, skipped;
};

static struct spread spread_read(json_t *old)
{
	struct spread s = {.n = 1};

	s.median = json_number_value(json_object_get(old, "median"));
	s.q1 = json_number_value(json_object_get(old, "q1"));
	s.q3 = json_number_value(json_object_get(old, "q3"));
	return s;
}

static bool is_worse(int row, struct spread now, struct spread was)
{
	double slack = rows[row].unit == UNIT_COUNT ? COUNT_SLACK : 0;

	return now.n && now.median > WORSE * was.median + slack && now.q1 > was.q3;
}

static void compare_cell(const struct bench *b, int row, int col, json_t *old, struct tally *t)
{
	struct spread now, was = spread_read(old);
	const char *by, *old_by = json_string_value(json_object_get(old, "by"));
	char x[24], y[24];

	now = comparable(b, row, col, &by);
	if (!old_by || strcmp(by, old_by)) {
		printf("not ok %s %s: the baseline is of another kind\n", rows[row].name,
		       b->columns[col].name);
		t->failed++;
		return;
	}
	if (!now.n) {
		bool failed = b->cells[row][col].failed;

		printf("%s %s %s: %s\n", failed ? "not ok" : "skip", rows[row].name,
		       b->columns[col].name,
		       b->cells[row][col].why ? b->cells[row][col].why : "no value");
		*(failed ? &t->failed : &t->skipped) += 1;
		return;
	}
	format_ratio(x, sizeof(x), was.median);
	format_ratio(y, sizeof(y), now.median);
	if (is_worse(row, now, was)) {
		printf("not ok %s %s: %s was %s, is %s (%+.0f%%)\n", rows[row].name,
		       b->columns[col].name, by, x, y, 100 * (now.median / was.median - 1));
		t->failed++;
		return;
	}
	if (now.median * WORSE < was.median && now.q3 < was.q1)
		printf("better %s %s: %s was %s, is %s (%+.0f%%)\n", rows[row].name,
		       b->columns[col].name, by, x, y, 100 * (now.median / was.median - 1));
	t->passed++;
}

/* The file, whose "rows" are left in @all. */
static json_t *baseline_load(const char *path, json_t **all)
{
	json_error_t je;
	json_t *doc = json_load_file(path, 0, &je);

	if (!doc)
		die("can't read the baseline %s: %s", path, je.text);
	*all = json_object_get(doc, "rows");
	if (!json_is_object(*all))
		die("the baseline %s has no rows", path);
	return doc;
}

int baseline_suspects(const struct bench *b, const char *path, bool any_machine, bool *suspect)
{
	json_t *doc, *all, *row, *old;
	const char *name, *by;
	char what[400];
	int i, k, n = 0;

	memset(suspect, 0, MAX_ROWS * sizeof(*suspect));
	doc = baseline_load(path, &all);
	if (!any_machine && !same_machine(b, json_object_get(doc, "facts"), what, sizeof(what)))
		all = NULL;
	for (i = 0; i < nr_rows && all; i++) {
		row = json_object_get(all, rows[i].name);
		for (k = 0; k < b->nr_columns && row && b->row_shown[i]; k++) {
			name = b->columns[k].name;
			old = json_object_get(row, name);
			if (old && is_worse(i, comparable(b, i, k, &by), spread_read(old)))
				suspect[i] = true;
		}
		n += suspect[i];
	}
	json_decref(doc);
	return n;
}

int baseline_check(const struct bench *b, const char *path, bool any_machine)
{
	json_t *doc, *all, *row, *old;
	struct tally t = {0, 0, 0};
	char what[400];
	const char *name, *column;
	bool same;
	int i, k;

	doc = baseline_load(path, &all);
	printf("\nagainst %s\n", path);
	same = same_machine(b, json_object_get(doc, "facts"), what, sizeof(what));
	if (!same && !any_machine)
		printf("skip all: the baseline is of another machine: %s (--any-machine "
		       "compares)\n",
		       what);
	json_object_foreach (all, name, row) {
		i = row_find(name);
		if (i >= 0 && !b->row_shown[i])
			continue;
		json_object_foreach (row, column, old) {
			for (k = 0; k < b->nr_columns && strcmp(b->columns[k].name, column); k++)
				;
			if (!same && !any_machine) {
				t.skipped++;
			} else if (i < 0 || k == b->nr_columns || !b->columns[k].usable) {
				printf("skip %s %s: %s\n", name, column,
				       i < 0		    ? "there is no such row"
				       : k == b->nr_columns ? "the column was not asked for"
							    : b->columns[k].why);
				t.skipped++;
			} else {
				compare_cell(b, i, k, old, &t);
			}
		}
	}
	printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped);
	json_decref(doc);
	return t.failed ? 1 : 0;
}
