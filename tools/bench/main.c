/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox-bench: options, the order of the rounds, and the exit status: 0; 1 when a row of
 * kvmsbox's failed or --baseline found something worse; 2 for a wrong command line or a machine
 * that can't measure.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

volatile int interrupted;
static struct bench bench;

int bench_fail(struct bench *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b->error, sizeof(b->error), fmt, ap);
	va_end(ap);
	return -1;
}

void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "kvmsbox-bench: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	teardown(&bench);
	exit(2);
}

char *format(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		die("out of memory");
	return s;
}

void bench_also(struct bench *b, const char *row, const struct column *col, double v)
{
	b->cells[row_find(row)][col - b->columns].v[b->round] = v;
}

static void on_interrupt(int sig)
{
	interrupted = sig;
}

static void usage(void)
{
	printf("usage: kvmsbox-bench [OPTIONS]\n\n"
	       "Measures what things cost natively, in kvmsbox on each platform and in other "
	       "sandboxes\n"
	       "that are installed, in interleaved rounds; prints medians and ratios to native.\n\n"
	       "What\n"
	       "      --list               print rows and columns, measure nothing\n"
	       "      --rows PATTERNS      globs of row or group names, comma-separated; default: "
	       "all\n"
	       "      --columns NAMES      comma-separated, or all; default: those that work here "
	       "but for\n"
	       "                           the ones that --list calls extra\n"
	       "      --column NAME=WORDS  one more column: [VAR=VALUE…] [@PROGRAM] [OPTION…] of\n"
	       "                           kvmsbox exec, as in --column 'old=@old/kvmsbox "
	       "--platform kvm'\n"
	       "      --rounds N           values per row and column (default 9; heavy rows at "
	       "most 3)\n"
	       "      --ms N               milliseconds per micro row (default 70)\n"
	       "      --density N          sandboxes at once in density rows (default 200)\n"
	       "      --copies N           copies of a function at once in fn-memory (default "
	       "500)\n"
	       "Results\n"
	       "      --json FILE          everything, all values included; - for stdout\n"
	       "      --html FILE          a report with charts, one file\n"
	       "      --write-baseline FILE  keep the ratios\n"
	       "      --baseline FILE      compare: status 1 if one is over 20%% worse, beyond its "
	       "spread\n"
	       "      --any-machine        compare although the baseline is of another machine\n"
	       "Where things are\n"
	       "      --kvmsbox FILE       default: next to this program, else in PATH\n"
	       "      --guest DIR          the programs that run inside; default: bench-guest next "
	       "to it\n"
	       "  -h, --help\n");
}

static void list(struct bench *b)
{
	const char *group = "";
	int i, w;

	for (i = 0; i < nr_rows; i++) {
		if (strcmp(group, rows[i].group))
			printf("%s%s\n", i ? "\n" : "", group = rows[i].group);
		printf("  %-20s %s\n", rows[i].name, rows[i].help);
	}
	printf("\ncolumns\n");
	for (i = 0; i < b->nr_columns; i++) {
		const struct column *c = &b->columns[i];

		printf("  %-20s ", c->name);
		if (!c->usable)
			printf("- %s", c->why);
		else if (c->path)
			printf("%s", c->path);
		for (w = 0; c->usable && c->words[w]; w++)
			printf(" %s", c->words[w]);
		printf("%s\n", c->extra ? " (extra)" : "");
	}
}

static void shuffle(int *v, int n)
{
	int i, k, t;

	for (i = n - 1; i > 0; i--) {
		k = (int)(random() % (i + 1));
		t = v[i];
		v[i] = v[k];
		v[k] = t;
	}
}

static bool cell_due(const struct bench *b, int row, int col)
{
	const struct row *r = &rows[row];
	const struct column *c = &b->columns[col];
	int round = b->round - b->first_round;

	if (!b->row_wanted[row] || !r->measure || !c->usable)
		return false;
	if ((r->flags & ROW_KVMSBOX) && c->kind != COL_KVMSBOX)
		return false;
	if ((r->flags & ROW_FUNCTION) && c->kind != COL_KVMSBOX && c->kind != COL_NATIVE)
		return false;
	if (((r->flags & ROW_ONCE) && round) || ((r->flags & ROW_HEAVY) && round >= 3))
		return false;
	return b->cells[row][col].strikes < 2;
}

static void measure_cell(struct bench *b, int row, int col)
{
	struct cell *cell = &b->cells[row][col];
	const struct row *r = &rows[row];
	int err;

	if (r->flags & ROW_APPS && b->apps_why) {
		err = SKIP;
		bench_fail(b, "%s", b->apps_why);
	} else {
		err = r->measure(b, r, &b->columns[col], &cell->v[b->round]);
		host_reap();
	}
	if (!err || interrupted)
		return;
	cell->v[b->round] = NAN;
	free(cell->why);
	cell->why = strdup(b->error);
	cell->failed = err < 0;
	cell->strikes += err == SKIP ? 2 : 1;
}

static void progress(struct bench *b, int done, int all, uint64_t start, const char *name)
{
	uint64_t s = (clock_ns() - start) / 1000000000u;
	double part =
		(b->round - b->first_round + (double)done / all) / (b->rounds - b->first_round);

	if (b->progress)
		fprintf(stderr, "\rround %d of %d  %3.0f%%  %llu:%02llu  %-24.24s\033[K",
			b->round + 1, b->rounds, 100 * part, (unsigned long long)s / 60,
			(unsigned long long)s % 60, name);
}

static void run_rounds(struct bench *b)
{
	int order[MAX_ROWS], turn[MAX_COLUMNS], i, k;
	uint64_t start = clock_ns();

	for (b->round = b->first_round; b->round < b->rounds && !interrupted; b->round++) {
		for (i = 0; i < nr_rows; i++)
			order[i] = i;
		shuffle(order, nr_rows);
		for (i = 0; i < nr_rows && !interrupted; i++) {
			for (k = 0; k < b->nr_columns; k++)
				turn[k] = k;
			shuffle(turn, b->nr_columns);
			for (k = 0; k < b->nr_columns && !interrupted; k++) {
				if (!cell_due(b, order[i], turn[k]))
					continue;
				progress(b, i, nr_rows, start, rows[order[i]].name);
				measure_cell(b, order[i], turn[k]);
			}
		}
	}
	if (b->progress)
		fprintf(stderr, "\r\033[K");
	fact_add(b, "duration", "%llu s, %d rounds",
		 (unsigned long long)((clock_ns() - start) / 1000000000u),
		 b->rounds - b->first_round);
}

static void make_cells(struct bench *b)
{
	int i, k, r;

	for (i = 0; i < nr_rows; i++) {
		for (k = 0; k < b->nr_columns; k++) {
			b->cells[i][k].v = malloc(sizeof(double) * MAX_ROUNDS);
			if (!b->cells[i][k].v)
				die("out of memory");
			for (r = 0; r < MAX_ROUNDS; r++)
				b->cells[i][k].v[r] = NAN;
		}
	}
}

/*
 * What looks worse than the baseline is measured anew, twice as often, and only the new values
 * count: being unlucky twice is rare.
 */
static void measure_suspects(struct bench *b, const char *baseline, bool any_machine)
{
	bool suspect[MAX_ROWS];
	int i, k, r, n, of;

	n = baseline_suspects(b, baseline, any_machine, suspect);
	if (!n || interrupted)
		return;
	for (i = 0; i < nr_rows; i++)
		b->row_wanted[i] = false;
	for (i = 0; i < nr_rows; i++) {
		if (!suspect[i])
			continue;
		of = rows[i].measure ? i : row_find(rows[i].arg);
		b->row_wanted[of] = true;
		for (k = 0; k < b->nr_columns; k++) {
			for (r = 0; r < b->rounds; r++)
				b->cells[i][k].v[r] = b->cells[of][k].v[r] = NAN;
		}
	}
	fact_add(b, "measured again", "%d rows that looked worse than the baseline", n);
	b->first_round = b->rounds;
	b->rounds *= 3;
	run_rounds(b);
}

/* A row that takes its value from another shares that one's reason, and failure. */
static int count_failures(struct bench *b)
{
	int i, k, of, n = 0;

	for (i = 0; i < nr_rows; i++) {
		for (k = 0; k < b->nr_columns; k++) {
			if (!rows[i].measure) {
				of = row_find(rows[i].arg);
				if (b->cells[of][k].why)
					b->cells[i][k].why = strdup(b->cells[of][k].why);
			}
			n += b->cells[i][k].failed && b->columns[k].kind == COL_KVMSBOX;
		}
	}
	return n;
}

static unsigned int number(const char *option, const char *s, unsigned int most)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);

	if (*s < '0' || *s > '9' || *end || !v || v > most)
		die("%s wants a number from 1 to %u, not '%s'", option, most, s);
	return (unsigned int)v;
}

static void find_programs(struct bench *b)
{
	char self[4096], *dir;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		die("can't read /proc/self/exe: %s", strerror(errno));
	self[n] = 0;
	dir = dirname(self);
	if (!b->kvmsbox) {
		b->kvmsbox = format("%s/kvmsbox", dir);
		if (access(b->kvmsbox, X_OK))
			b->kvmsbox = "kvmsbox";
	}
	if (!b->guest)
		b->guest = format("%s/bench-guest", dir);
}

static void pick_cpu(struct bench *b)
{
	cpu_set_t set;
	int i;

	/* The last one: interrupts tend to go to the first. */
	if (sched_getaffinity(0, sizeof(set), &set))
		return;
	for (i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set))
			b->one_cpu = i;
	}
}

int main(int argc, char **argv)
{
	enum {
		OPT_LIST = 256,
		OPT_ROWS,
		OPT_COLUMNS,
		OPT_COLUMN,
		OPT_ROUNDS,
		OPT_MS,
		OPT_DENSITY,
		OPT_COPIES,
		OPT_JSON,
		OPT_HTML,
		OPT_WRITE,
		OPT_BASELINE,
		OPT_ANY,
		OPT_KVMSBOX,
		OPT_GUEST
	};
	static const struct option options[] = {
		{"list", no_argument, NULL, OPT_LIST},
		{"rows", required_argument, NULL, OPT_ROWS},
		{"columns", required_argument, NULL, OPT_COLUMNS},
		{"column", required_argument, NULL, OPT_COLUMN},
		{"rounds", required_argument, NULL, OPT_ROUNDS},
		{"ms", required_argument, NULL, OPT_MS},
		{"density", required_argument, NULL, OPT_DENSITY},
		{"copies", required_argument, NULL, OPT_COPIES},
		{"json", required_argument, NULL, OPT_JSON},
		{"html", required_argument, NULL, OPT_HTML},
		{"write-baseline", required_argument, NULL, OPT_WRITE},
		{"baseline", required_argument, NULL, OPT_BASELINE},
		{"any-machine", no_argument, NULL, OPT_ANY},
		{"kvmsbox", required_argument, NULL, OPT_KVMSBOX},
		{"guest", required_argument, NULL, OPT_GUEST},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *row_patterns = "*", *column_names = NULL, *json = NULL, *html = NULL;
	const char *write_to = NULL, *baseline = NULL, *extra[MAX_COLUMNS];
	struct sigaction sa = {.sa_handler = on_interrupt};
	bool any_machine = false, only_list = false;
	int c, nr_extra = 0, i, failures, status = 0;
	struct bench *b = &bench;
	json_t *doc;

	b->rounds = 9;
	b->ms = 70;
	b->density = 200;
	b->copies = 500;
	b->progress = isatty(STDERR_FILENO);
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (c) {
		case OPT_LIST:
			only_list = true;
			break;
		case OPT_ROWS:
			row_patterns = optarg;
			break;
		case OPT_COLUMNS:
			column_names = optarg;
			break;
		case OPT_COLUMN:
			if (nr_extra == MAX_COLUMNS)
				die("too many columns: at most %d", MAX_COLUMNS);
			extra[nr_extra++] = optarg;
			break;
		case OPT_ROUNDS:
			b->rounds = (int)number("--rounds", optarg, MAX_ROUNDS / 3);
			break;
		case OPT_MS:
			b->ms = number("--ms", optarg, 10000);
			break;
		case OPT_DENSITY:
			b->density = number("--density", optarg, 2000);
			break;
		case OPT_COPIES:
			b->copies = number("--copies", optarg, 5000);
			break;
		case OPT_JSON:
			json = optarg;
			break;
		case OPT_HTML:
			html = optarg;
			break;
		case OPT_WRITE:
			write_to = optarg;
			break;
		case OPT_BASELINE:
			baseline = optarg;
			break;
		case OPT_ANY:
			any_machine = true;
			break;
		case OPT_KVMSBOX:
			b->kvmsbox = optarg;
			break;
		case OPT_GUEST:
			b->guest = optarg;
			break;
		case 'h':
			usage();
			return 0;
		case ':':
			die("option %s wants a value (--help)", argv[optind - 1]);
		default:
			die("unknown option %s (--help)", argv[optind - 1]);
		}
	}
	if (optind < argc)
		die("unexpected argument %s (--help)", argv[optind]);
	if (baseline && access(baseline, R_OK))
		die("can't read the baseline %s: %s", baseline, strerror(errno));
	find_programs(b);
	columns_init(b);
	for (i = 0; i < nr_extra; i++)
		column_add(b, extra[i]);
	if (only_list) {
		list(b);
		return 0;
	}
	rows_select(b, row_patterns);
	columns_select(b, column_names);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	srandom((unsigned int)clock_ns());
	pick_cpu(b);
	setup(b);
	columns_probe(b);
	for (i = 0; i < b->nr_columns && !b->columns[i].usable; i++)
		;
	if (i == b->nr_columns)
		die("no column can be used: %s: %s", b->columns[0].name, b->columns[0].why);
	machine_facts(b);
	if (b->row_wanted[row_find("fn-memory")])
		fact_add(b, "fn-memory", "%u copies", b->copies);
	make_cells(b);
	run_rounds(b);
	if (baseline)
		measure_suspects(b, baseline, any_machine);
	teardown(b);
	if (interrupted)
		die("interrupted");
	failures = count_failures(b);
	if (json) {
		doc = report_json(b);
		if (!strcmp(json, "-")
			    ? json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9))
			    : json_dump_file(doc, json, JSON_INDENT(1) | JSON_REAL_PRECISION(9)))
			die("can't write %s: %s", json, strerror(errno));
		if (!strcmp(json, "-"))
			printf("\n");
		json_decref(doc);
	}
	if (!json || strcmp(json, "-"))
		report_text(b);
	if (html && report_html(b, html))
		die("can't write %s: %s", html, strerror(errno));
	if (write_to && baseline_write(b, write_to))
		die("can't write %s: %s", write_to, strerror(errno));
	if (baseline)
		status = baseline_check(b, baseline, any_machine);
	if (fflush(stdout))
		die("can't write: %s", strerror(errno));
	return failures ? 1 : status;
}
