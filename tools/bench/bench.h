/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox-bench: what things cost natively, in kvmsbox and in other sandboxes, on this machine, in
 * one interleaved run.
 *
 * A *row* is something that is measured (rows.c), a *column* is somewhere it runs (columns.c). One
 * value of every selected row is taken on every usable column per round; columns take turns within
 * a row, in an order shuffled anew each time, so that what disturbs the machine disturbs all of
 * them. A *cell* keeps the values of its rounds; what is reported is their median and quartiles,
 * and the median and quartiles of the ratios round by round.
 *
 * This is a program of its own: it uses nothing of the sentry, only runs kvmsbox like its users do.
 */
#ifndef BENCH_H
#define BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sentry/fnchan.h"

#define MAX_COLUMNS 16
#define MAX_ROWS    96
#define MAX_ROUNDS  200
#define MAX_ARGS    32
#define MAX_WORDS   16

enum column_kind { COL_NATIVE, COL_KVMSBOX, COL_BWRAP, COL_CRUN, COL_RUNSC, COL_PROOT };

/* @words: options of `kvmsbox exec` or of the tool; @env: NAME=VALUE; both end with NULL. */
struct column {
	const char *name;
	enum column_kind kind;
	const char *words[MAX_WORDS];
	const char *env[MAX_WORDS];
	/* In --stats, the lines that count how often user code was left begin like this. */
	const char *exits;
	bool extra; /* only when asked for */
	/* The program; found in PATH if there is no slash. NULL for native. */
	const char *binary;
	char *path;
	bool usable;
	/* Why not, or where its version is kept when it is. */
	char why[200];
	char version[100];
};

enum image { IMAGE_SMALL, IMAGE_APPS, NR_IMAGES };

enum unit { UNIT_NS, UNIT_KIB, UNIT_PER_S, UNIT_COUNT };

struct bench;
struct row;

/*
 * Takes one value of @row on @col. Returns 0 and the value; -1 with a line in b->error; or SKIP
 * with a line in b->error that says what is missing. Values of further rows are left with
 * bench_also().
 */
#define SKIP 1
typedef int measure_fn(struct bench *b, const struct row *row, const struct column *col, double *v);

enum row_flags {
	ROW_ONE_CPU = 1,   /* everything on one processor */
	ROW_KVMSBOX = 2,   /* on kvmsbox's columns only */
	ROW_APPS = 4,	   /* needs the Debian image */
	ROW_HEAVY = 8,	   /* takes seconds: at most three rounds */
	ROW_ONCE = 16,	   /* exact, or takes a minute: one round */
	ROW_FUNCTION = 32, /* on native and kvmsbox's columns only */
};

struct row {
	const char *name;
	const char *group;
	enum unit unit;
	unsigned int flags;
	measure_fn *measure; /* NULL: the value comes from the row named by @arg */
	const char *arg;
	const char *help;
};

struct cell {
	double *v;   /* one per round; NAN where there is none */
	char *why;   /* why there is none, or fewer */
	bool failed; /* that was a failure, not something this machine lacks */
	int strikes;
};

/* Quartiles; all NAN if there are no values. */
struct spread {
	double q1, median, q3, min;
	int n;
};

struct fact {
	const char *name;
	char value[160];
};

struct bench {
	struct column columns[MAX_COLUMNS];
	int nr_columns;
	bool row_wanted[MAX_ROWS]; /* to be measured, perhaps only for another row's sake */
	bool row_shown[MAX_ROWS];
	struct cell cells[MAX_ROWS][MAX_COLUMNS];
	int rounds;
	int round;
	int first_round; /* of this measurement: suspects are measured a second time */
	unsigned int ms;
	unsigned int density;
	unsigned int copies;
	const char *kvmsbox;
	const char *guest;
	char *scratch;		/* removed at the end */
	char *shm;		/* in memory; native's /tmp; removed as well */
	char *tree[NR_IMAGES];	/* a directory that is the image's root */
	char *image[NR_IMAGES]; /* the tar; NULL if there is none */
	char *cache[NR_IMAGES];
	char *work;	/* shared with application rows at /mnt */
	char *apps_why; /* why there is no IMAGE_APPS */
	/* Where native programs are chrooted to; NULL: not at all (small), can't be (apps). */
	const char *native_root[NR_IMAGES];
	int one_cpu;
	bool progress;
	bool private_mounts;
	char error[400];
	struct fact facts[16];
	int nr_facts;
};

/* What to start. @argv as the program in the sandbox sees it. */
struct launch {
	const struct column *col;
	enum image image;
	const char *argv[MAX_ARGS];
	bool one_cpu;
	bool stats; /* ask kvmsbox for --stats on standard error */
};

struct outcome {
	int status; /* as wait(2) has it */
	uint64_t wall_ns;
	long maxrss_kib; /* of the largest process */
	char out[4096];
	char err[16384];
};

/* A started program that waits for its input to end. */
struct idler {
	pid_t pid;
	int in, out;
};

/* A sandbox that serves a function, and this end of its channel (sentry/fnchan.h). */
struct sandbox {
	pid_t pid;
	int channel;
	uint64_t start_ns; /* when it was started */
};

struct fn_msg;

/*
 * What is wanted of a row on kvmsbox's columns: @times cheaper than another cell, or at most @most
 * of its cost; without @to_row, a value of at most @most. Neither: it is only shown.
 */
struct target {
	const char *row;
	const char *to_row;
	const char *to_column;
	double times, most;
	const char *text;
};

/* main.c */
extern volatile int interrupted;
__attribute__((format(printf, 2, 3))) int bench_fail(struct bench *b, const char *fmt, ...);
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *fmt, ...);
__attribute__((format(printf, 1, 2))) char *format(const char *fmt, ...);
void bench_also(struct bench *b, const char *row, const struct column *col, double v);
void fact_add(struct bench *b, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* run.c: starting programs. 0 or -1 with b->error. */
int launch_run(struct bench *b, const struct launch *l, struct outcome *o);
/* The same, and anything but exit status 0 is a failure that quotes the program's last words. */
int launch_check(struct bench *b, const struct launch *l, struct outcome *o);
int idler_start(struct bench *b, const struct launch *l, struct idler *i);
void idler_stop(struct idler *i);
/* Proportional set size, in KiB, of everything that descends from this process. */
long descendants_pss(int *processes);
long meminfo_kib(const char *key);
/*
 * Starts a program of the host that @fds become the descriptors 0, 1, … of, as a process group.
 * Returns its id, or -1.
 */
#define MAX_START_FDS 8
pid_t host_start(struct bench *b, const char *const *argv, char *const *envp, const int *fds,
		 int nr);
/* Waits ten seconds for its end, then kills it and its group. */
void host_end(pid_t pid);
/* Takes the orphans that have been left to this program and have ended. */
void host_reap(void);
/* Runs a command of the host, output to @out (may be NULL). Its exit status, 128+signal, or -1. */
int host_run(const char *const *argv, char *out, size_t size);
uint64_t clock_ns(void);

/* columns.c */
void columns_init(struct bench *b);
void column_add(struct bench *b, const char *spec);
/* Keeps the columns of the comma-separated @list, or "all", or with NULL those not extra. */
void columns_select(struct bench *b, const char *list);
/* Finds out which columns work here by running `true` in each. */
void columns_probe(struct bench *b);
struct column *column_find(struct bench *b, const char *name);
/* The command line for @l. Strings live until the next call. */
int column_argv(struct bench *b, const struct launch *l, const char **argv, char *const **envp);
/* Valid until the next call. */
char *const *column_env(const struct column *c);

/* rows.c */
extern const struct row rows[];
extern const int nr_rows;
int row_find(const char *name);
/* Globs, comma-separated, against names and groups. Returns how many rows they select. */
int rows_select(struct bench *b, const char *patterns);
const char *unit_name(enum unit u);
/* More is better? */
bool unit_rises(enum unit u);

/* functions.c: rows of functions behind a server. */
measure_fn measure_cgi, measure_hello, measure_python;
extern const char python_stdio[];
/* 0, or SKIP if @col is not just a platform: functions take no other options. */
int function_column(struct bench *b, const struct column *col);

/* copies.c: rows of single sandboxes that serve a function. */
measure_fn measure_reset, measure_clone, measure_copies;

/*
 * channel.c: what kvmsbox serve does with a sandbox. Functions return 0, or -1 with b->error;
 * nothing takes longer than 30 s.
 */
/* One line of what the functions' processes last said on standard error, and where they do. */
int function_log(struct bench *b);
const char *function_last_words(struct bench *b);
/* A new sandbox of @argv as a stdio function. */
int sandbox_start(struct bench *b, const struct column *col, enum image image,
		  const char *const *argv, struct sandbox *s);
/* A copy of what @image holds; image < 0: a blank that becomes one by sandbox_become(). */
int sandbox_restore(struct bench *b, const struct column *col, int image, struct sandbox *s);
int sandbox_become(struct bench *b, struct sandbox *s, const int image[FN_IMAGE_FDS]);
/* Waits for FN_READY. */
int sandbox_ready(struct bench *b, struct sandbox *s, struct fn_msg *ready);
/* A request, and its end, up to FN_READY; what is answered has to be @want. */
int sandbox_invoke(struct bench *b, struct sandbox *s, const char *body);
int sandbox_answer(struct bench *b, struct sandbox *s, const char *want, struct fn_msg *ready);
/* Its snapshot. */
int sandbox_image(struct bench *b, struct sandbox *s, int image[FN_IMAGE_FDS]);
/* Closes the channel; sandbox_end() then waits for the process. */
void sandbox_close(struct sandbox *s);
void sandbox_end(struct sandbox *s);

/* targets.c */
extern const struct target targets[];
extern const int nr_targets;
/* The ratio (of costs, as everywhere) or the value. n is 0 if there is none. */
struct spread target_spread(const struct bench *b, const struct target *t, int col);
/* NAN if it is only shown. */
double target_most(const struct target *t);
/* 1 met, 0 missed, -1 there is nothing to meet. */
int target_met(const struct target *t, struct spread s);
void target_describe(const struct target *t, struct spread s, char *buf, size_t size);

/* setup.c */
void setup(struct bench *b);
void teardown(struct bench *b);
void machine_facts(struct bench *b);

/* numbers.c */
struct spread spread_of(const double *v, int n);
struct spread cell_spread(const struct bench *b, int row, int col);
/* How many times dearer than on column @base; n is 0 if either has no value. */
struct spread cell_ratio(const struct bench *b, int row, int col, int base);
/* The same to another row, of the same unit. */
struct spread cell_ratio_to(const struct bench *b, int row, int col, int base_row, int base);
/* Half the distance of the quartiles in percent of the median; NAN if that says nothing. */
double spread_percent(struct spread s);
void format_value(char *buf, size_t size, double v, enum unit u);
void format_ratio(char *buf, size_t size, double r);

/* report_*.c, baseline.c */
void report_text(const struct bench *b);
json_t *report_json(const struct bench *b);
int report_html(const struct bench *b, const char *path);
int baseline_write(const struct bench *b, const char *path);
/* Marks in @suspect the rows that look worse than the baseline. Returns how many. */
int baseline_suspects(const struct bench *b, const char *path, bool any_machine, bool *suspect);
/* Prints the comparison. Returns an exit status. */
int baseline_check(const struct bench *b, const char *path, bool any_machine);

#endif
