/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything as JSON: {"facts": {…}, "columns": […], "rows": [{"name", "results": {COLUMN: {…}}}]}.
 * A result has the values of all rounds, so anyone can compute what isn't here.
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <string.h>

static json_t *number(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *spread_json(struct spread s)
{
	json_t *o = json_object();

	json_object_set_new(o, "median", number(s.median));
	json_object_set_new(o, "q1", number(s.q1));
	json_object_set_new(o, "q3", number(s.q3));
	json_object_set_new(o, "n", json_integer(s.n));
	return o;
}

static int named(const struct bench *b, const char *name)
{
	int k;

	for (k = 0; k < b->nr_columns; k++) {
		if (!strcmp(b->columns[k].name, name) && b->columns[k].usable)
			return k;
	}
	return -1;
}

static json_t *cell_json(const struct bench *b, int row, int col)
{
	static const char *const bases[] = {"native", "ptrace"};
	const struct cell *c = &b->cells[row][col];
	struct spread s = cell_spread(b, row, col), r;
	json_t *o, *values = json_array();
	size_t i;
	int k;

	if (!s.n) {
		json_decref(values);
		if (!c->why)
			return NULL;
		return json_pack("{ss}", c->failed ? "failed" : "skipped", c->why);
	}
	o = spread_json(s);
	json_object_set_new(o, "min", number(s.min));
	for (k = 0; k < b->rounds; k++) {
		if (!isnan(c->v[k]))
			json_array_append_new(values, number(c->v[k]));
	}
	json_object_set_new(o, "values", values);
	for (i = 0; i < 2; i++) {
		char key[32];

		k = named(b, bases[i]);
		if (k < 0 || k == col)
			continue;
		r = cell_ratio(b, row, col, k);
		snprintf(key, sizeof(key), "to_%s", bases[i]);
		if (r.n)
			json_object_set_new(o, key, spread_json(r));
	}
	if (c->why)
		json_object_set_new(o, "failed", json_string(c->why));
	return o;
}

/* The cost ratios (or values) that something is wanted of; "met" is null where it is only shown. */
static json_t *targets_json(const struct bench *b)
{
	json_t *all = json_array(), *o;
	const struct target *t;
	struct spread s;
	int i, k, met;

	for (i = 0; i < nr_targets; i++) {
		for (k = 0; k < b->nr_columns; k++) {
			t = &targets[i];
			s = target_spread(b, t, k);
			if (!s.n)
				continue;
			o = spread_json(s);
			json_object_set_new(o, "row", json_string(t->row));
			json_object_set_new(o, "column", json_string(b->columns[k].name));
			if (t->to_row) {
				json_object_set_new(o, "to_row", json_string(t->to_row));
				json_object_set_new(o, "to_column", json_string(t->to_column));
			}
			met = target_met(t, s);
			if (met >= 0)
				json_object_set_new(o, "most", number(target_most(t)));
			json_object_set_new(o, "met", met < 0 ? json_null() : json_boolean(met));
			json_array_append_new(all, o);
		}
	}
	return all;
}

json_t *report_json(const struct bench *b)
{
	json_t *doc = json_object(), *facts = json_object(), *columns = json_array();
	json_t *all = json_array(), *row, *results, *cell, *words;
	int i, k, w;

	for (k = 0; k < b->nr_facts; k++)
		json_object_set_new(facts, b->facts[k].name, json_string(b->facts[k].value));
	for (k = 0; k < b->nr_columns; k++) {
		const struct column *c = &b->columns[k];

		words = json_array();
		for (w = 0; c->env[w]; w++)
			json_array_append_new(words, json_string(c->env[w]));
		for (w = 0; c->words[w]; w++)
			json_array_append_new(words, json_string(c->words[w]));
		row = json_pack("{sssbssso}", "name", c->name, "usable", c->usable, "version",
				c->version, "words", words);
		if (!c->usable)
			json_object_set_new(row, "why", json_string(c->why));
		json_array_append_new(columns, row);
	}
	for (i = 0; i < nr_rows; i++) {
		if (!b->row_shown[i])
			continue;
		results = json_object();
		for (k = 0; k < b->nr_columns; k++) {
			cell = b->columns[k].usable ? cell_json(b, i, k) : NULL;
			if (cell)
				json_object_set_new(results, b->columns[k].name, cell);
		}
		json_array_append_new(all,
				      json_pack("{sssssssssbso}", "name", rows[i].name, "group",
						rows[i].group, "unit", unit_name(rows[i].unit),
						"help", rows[i].help, "more_is_better",
						unit_rises(rows[i].unit), "results", results));
	}
	json_object_set_new(doc, "format", json_integer(1));
	json_object_set_new(doc, "facts", facts);
	json_object_set_new(doc, "columns", columns);
	json_object_set_new(doc, "rows", all);
	json_object_set_new(doc, "targets", targets_json(b));
	return doc;
}
