/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report as one HTML file: charts are SVG in the page, nothing is loaded from anywhere.
 *
 * Per group of rows a chart of ratios to native, bars on a logarithmic scale with a whisker from
 * quartile to quartile; rows that native doesn't have (exits) are charted by value. Below each
 * chart its numbers as a table, so that nothing is only a picture.
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHART_LEFT  170
#define CHART_WIDTH 900
#define BAR	    11
#define BAR_STEP    13

static const char style[] =
	":root{color-scheme:light dark;--fg:#1d2330;--bg:#fff;--dim:#667085;--line:#d7dbe3}"
	"@media(prefers-color-scheme:dark){:root{--fg:#e4e7ee;--bg:#14171f;--dim:#98a2b3;--line:#"
	"333b4a}}"
	"body{font:15px/1.5 "
	"system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:980px;"
	"margin:2em auto;padding:0 1em}h1{font-size:1.6em;margin-bottom:.2em}h2{margin-top:2em}"
	"table{border-collapse:collapse;font-size:13px;width:100%}th,td{padding:3px "
	"8px;text-align:right;"
	"border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}th:first-child,"
	"td:first-child{text-align:left}td small{color:var(--dim)}.facts td{text-align:left}"
	".facts td:first-child{color:var(--dim);width:10em}svg{width:100%;height:auto}"
	"svg text{fill:var(--fg);font-size:11px}svg .dim{fill:var(--dim)}svg "
	"line{stroke:var(--line)}"
	"svg "
	".whisker{stroke:var(--fg);stroke-opacity:.7}.key{display:inline-block;margin-right:1.2em}"
	".key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}"
	".scroll{overflow-x:auto}";

/* Told apart also by those who see fewer colours. */
static const char *const colours[] = {"#8c8c8c", "#0072b2", "#6a51a3", "#9e9ac8",
				      "#56b4e9", "#009e73", "#e69f00", "#cc79a7",
				      "#d55e00", "#b8a400", "#7f4f24", "#444d5c"};

static void escape(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '>')
			fputs("&gt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '"')
			fputs("&quot;", f);
		else
			fputc(*s, f);
	}
}

static const char *colour(int col)
{
	return colours[col % (int)(sizeof(colours) / sizeof(colours[0]))];
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

/* What is drawn for a cell. */
static struct spread charted(const struct bench *b, int row, int col)
{
	int native = native_column(b);

	if (rows[row].flags & ROW_KVMSBOX)
		return cell_spread(b, row, col);
	if (native < 0 || col == native)
		return (struct spread){.n = 0};
	return cell_ratio(b, row, col, native);
}

static bool in_group(const struct bench *b, int row, const char *group)
{
	return b->row_shown[row] && !strcmp(rows[row].group, group);
}

/* The decades that hold all bars. */
static void chart_range(const struct bench *b, const char *group, double *lo, double *hi)
{
	struct spread s;
	int i, k;

	*lo = 0;
	*hi = 1;
	for (i = 0; i < nr_rows; i++) {
		for (k = 0; k < b->nr_columns && in_group(b, i, group); k++) {
			s = charted(b, i, k);
			if (!s.n || !(s.q3 > 0))
				continue;
			*hi = fmax(*hi, ceil(log10(s.q3)));
			if (s.q1 > 0)
				*lo = fmax(-2, fmin(*lo, floor(log10(s.q1))));
		}
	}
}

struct scale {
	double lo, hi;
};

static double x_of(const struct scale *s, double v)
{
	double l = v > 0 ? log10(v) : s->lo;

	l = fmin(fmax(l, s->lo), s->hi);
	return CHART_LEFT + (l - s->lo) / (s->hi - s->lo) * (CHART_WIDTH - CHART_LEFT - 70);
}

static void draw_bar(FILE *f, const struct bench *b, int row, int col, struct spread s,
		     const struct scale *sc, int y)
{
	bool value = rows[row].flags & ROW_KVMSBOX;
	/* Ratios start at 1: what is left of it is cheaper than native. */
	double from = value ? CHART_LEFT : x_of(sc, 1), to = x_of(sc, s.median);
	char buf[32], text[32];

	format_ratio(buf, sizeof(buf), s.median);
	format_value(text, sizeof(text), cell_spread(b, row, col).median, rows[row].unit);
	fprintf(f,
		"<rect x='%.1f' y='%d' width='%.1f' height='%d' rx='1' fill='%s'><title>%s, %s: "
		"%s%s%s%s"
		"</title></rect>\n",
		fmin(from, to), y, fmax(1, fabs(to - from)), BAR, colour(col), rows[row].name,
		b->columns[col].name, text, value ? "" : " (", value ? "" : buf,
		value ? "" : " times native)");
	if (s.n > 1)
		fprintf(f, "<line class='whisker' x1='%.1f' x2='%.1f' y1='%d' y2='%d'/>\n",
			x_of(sc, s.q1), x_of(sc, s.q3), y + BAR / 2, y + BAR / 2);
	fprintf(f, "<text x='%.1f' y='%d'>%s%s</text>\n", fmax(fmax(from, to), x_of(sc, s.q3)) + 4,
		y + BAR - 1, value ? "" : "×", value ? text : buf);
}

static void draw_chart(FILE *f, const struct bench *b, const char *group)
{
	int i, k, y = 20, height = 20, bars;
	struct scale sc;
	double d;

	chart_range(b, group, &sc.lo, &sc.hi);
	for (i = 0; i < nr_rows; i++) {
		for (k = bars = 0; k < b->nr_columns && in_group(b, i, group); k++)
			bars += charted(b, i, k).n > 0;
		height += bars ? bars * BAR_STEP + 8 : 0;
	}
	if (height == 20)
		return;
	fprintf(f, "<svg viewBox='0 0 %d %d' role='img' aria-label='%s'>\n", CHART_WIDTH, height,
		group);
	for (d = sc.lo; d <= sc.hi; d++) {
		fprintf(f,
			"<line x1='%.1f' x2='%.1f' y1='14' y2='%d'/>"
			"<text class='dim' x='%.1f' y='10' text-anchor='middle'>%g</text>\n",
			x_of(&sc, pow(10, d)), x_of(&sc, pow(10, d)), height, x_of(&sc, pow(10, d)),
			pow(10, d));
	}
	for (i = 0; i < nr_rows; i++) {
		int top = y;

		for (k = 0; k < b->nr_columns && in_group(b, i, group); k++) {
			struct spread s = charted(b, i, k);

			if (!s.n)
				continue;
			draw_bar(f, b, i, k, s, &sc, y);
			y += BAR_STEP;
		}
		if (y == top)
			continue;
		fprintf(f, "<text x='%d' y='%d' text-anchor='end'>%s</text>\n", CHART_LEFT - 8,
			(top + y) / 2 + 3, rows[i].name);
		y += 8;
	}
	fprintf(f, "</svg>\n");
}

static void table_cell(FILE *f, const struct bench *b, int row, int col, int native)
{
	struct spread v = cell_spread(b, row, col), r = {.n = 0};
	const struct cell *c = &b->cells[row][col];
	double half;
	char buf[48];

	if (!v.n) {
		fprintf(f, "<td title=\"");
		escape(f, c->why ? c->why : "");
		fprintf(f, "\">%s</td>", !c->why ? "" : c->failed ? "failed" : "skipped");
		return;
	}
	if (native >= 0 && col != native)
		r = cell_ratio(b, row, col, native);
	format_value(buf, sizeof(buf), v.median, rows[row].unit);
	fprintf(f, "<td>%s", buf);
	if (r.n) {
		format_ratio(buf, sizeof(buf), r.median);
		fprintf(f, " ×%s", buf);
	}
	half = spread_percent(r.n ? r : v);
	if (!isnan(half))
		fprintf(f, " <small>±%.0f%%</small>", half);
	fprintf(f, "</td>");
}

static void draw_table(FILE *f, const struct bench *b, const char *group)
{
	int native = native_column(b), i, k;

	fprintf(f, "<div class='scroll'><table><tr><th>row</th>");
	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].usable)
			fprintf(f, "<th>%s</th>", b->columns[k].name);
	}
	fprintf(f, "</tr>\n");
	for (i = 0; i < nr_rows; i++) {
		if (!in_group(b, i, group))
			continue;
		fprintf(f, "<tr><td title=\"");
		escape(f, rows[i].help);
		fprintf(f, "\">%s</td>", rows[i].name);
		for (k = 0; k < b->nr_columns; k++) {
			if (b->columns[k].usable)
				table_cell(f, b, i, k, native);
		}
		fprintf(f, "</tr>\n");
	}
	fprintf(f, "</table></div>\n");
}

static void draw_key(FILE *f, const struct bench *b)
{
	int k;

	fprintf(f, "<p>");
	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].usable && b->columns[k].kind != COL_NATIVE)
			fprintf(f, "<span class='key'><i style='background:%s'></i>%s</span>",
				colour(k), b->columns[k].name);
	}
	fprintf(f, "</p>\n");
}

static void draw_targets(FILE *f, const struct bench *b)
{
	static const char *const verdicts[] = {"", "missed", "met"};
	bool any = false;
	struct spread s;
	char text[200];
	int i, k;

	for (i = 0; i < nr_targets; i++) {
		for (k = 0; k < b->nr_columns; k++) {
			s = target_spread(b, &targets[i], k);
			if (!s.n)
				continue;
			if (!any)
				fprintf(f, "<h2>Targets</h2>\n<table class='facts'>\n");
			any = true;
			target_describe(&targets[i], s, text, sizeof(text));
			fprintf(f, "<tr><td>%s, %s</td><td>", targets[i].row, b->columns[k].name);
			escape(f, text);
			fprintf(f, "</td><td>%s</td></tr>\n",
				verdicts[target_met(&targets[i], s) + 1]);
		}
	}
	if (any)
		fprintf(f, "</table>\n");
}

static void missing(FILE *f, const struct bench *b)
{
	int i, k;

	fprintf(f, "<h2>Left out</h2><ul>\n");
	for (k = 0; k < b->nr_columns; k++) {
		if (b->columns[k].usable)
			continue;
		fprintf(f, "<li>column %s: ", b->columns[k].name);
		escape(f, b->columns[k].why);
		fprintf(f, "</li>\n");
	}
	for (i = 0; i < nr_rows; i++) {
		for (k = 0; k < b->nr_columns && b->row_shown[i]; k++) {
			if (!b->cells[i][k].why)
				continue;
			fprintf(f,
				"<li>%s %s on %s: ", b->cells[i][k].failed ? "failed" : "skipped",
				rows[i].name, b->columns[k].name);
			escape(f, b->cells[i][k].why);
			fprintf(f, "</li>\n");
		}
	}
	fprintf(f, "</ul>\n");
}

int report_html(const struct bench *b, const char *path)
{
	const char *group = "";
	FILE *f = fopen(path, "we");
	int i, k;

	if (!f)
		return -1;
	fprintf(f,
		"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
		"content='width=device-width'><title>kvmsbox benchmarks</title><style>%s</style>\n"
		"<h1>kvmsbox benchmarks</h1>\n<table class='facts'>\n",
		style);
	for (k = 0; k < b->nr_facts; k++) {
		fprintf(f, "<tr><td>%s</td><td>", b->facts[k].name);
		escape(f, b->facts[k].value);
		fprintf(f, "</td></tr>\n");
	}
	fprintf(f,
		"</table>\n<p>Medians of interleaved rounds. ×N: dearer than native by that "
		"factor, "
		"the median of the rounds' ratios; ±: half the distance between that ratio's "
		"quartiles. Bars begin at native's cost (×1), on a logarithmic scale, and have a "
		"line from quartile to quartile.</p>\n");
	for (i = 0; i < nr_rows; i++) {
		if (!b->row_shown[i] || !strcmp(group, rows[i].group))
			continue;
		group = rows[i].group;
		fprintf(f, "<h2>%s</h2>\n", group);
		draw_key(f, b);
		draw_chart(f, b, group);
		draw_table(f, b, group);
	}
	draw_targets(f, b);
	missing(f, b);
	fprintf(f, "</html>\n");
	i = ferror(f);
	return fclose(f) || i ? -1 : 0;
}
