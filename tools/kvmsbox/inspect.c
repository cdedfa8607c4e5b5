/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox inspect: what is in a snapshot's file, for people and as JSON. */
#include <jansson.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sentry/snapshot_image.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/options.h"
#include "tools/kvmsbox/snapshot.h"

static const struct verb verb = {
	.id = VERB_INSPECT,
	.name = "inspect",
	.synopsis = "[OPTIONS] FILE",
	.about = "Shows what is in the snapshot FILE: where it comes from, its processes, its "
		 "memory; and\n"
		 "whether it is whole.\n",
};

/* ---- the tree ---- */

static const char *get_string(const void *fdt, const char *path, const char *name)
{
	int node = fdt_path_offset(fdt, path), len;
	const char *s = node < 0 ? NULL : fdt_getprop(fdt, node, name, &len);

	return s && len > 0 && strnlen(s, (size_t)len) == (size_t)len - 1 ? s : NULL;
}

/* Cell @i, or 0. */
static uint64_t get_u64(const void *fdt, int node, const char *name, int i)
{
	int len;
	const fdt64_t *p = node < 0 ? NULL : fdt_getprop(fdt, node, name, &len);

	return p && len >= (i + 1) * 8 ? fdt64_ld(&p[i]) : 0;
}

static uint64_t path_u64(const void *fdt, const char *path, const char *name, int i)
{
	return get_u64(fdt, fdt_path_offset(fdt, path), name, i);
}

const char *snapshot_platform(const struct snapshot_file *file)
{
	return get_string(file->fdt, "/", "platform") ?: "?";
}

const char *snapshot_command(const struct snapshot_file *file)
{
	int tasks = fdt_path_offset(file->fdt, "/tasks"), len;
	int node = tasks < 0 ? -1 : fdt_first_subnode(file->fdt, tasks);
	const char *s = node < 0 ? NULL : fdt_getprop(file->fdt, node, "command", &len);

	return s && len > 0 && !s[len - 1] ? s : "?";
}

static json_t *bytes_of(const void *fdt, const char *path, const char *name)
{
	int node = fdt_path_offset(fdt, path), len;
	const uint8_t *p = node < 0 ? NULL : fdt_getprop(fdt, node, name, &len);
	char text[129] = "";

	for (int i = 0; p && i < MIN(len, 64); i++)
		sprintf(text + 2 * i, "%02x", p[i]);
	return json_string(text);
}

static json_t *string_of(const void *fdt, const char *path, const char *name)
{
	/* What isn't UTF-8 can't be shown. */
	return json_string(get_string(fdt, path, name) ?: "?") ?: json_string("?");
}

static json_t *processes_of(const void *fdt)
{
	int tasks = fdt_path_offset(fdt, "/tasks"), node;
	json_t *list = json_array();

	if (tasks < 0)
		return list;
	fdt_for_each_subnode (node, fdt, tasks) {
		json_t *p = json_object();
		int len;
		const char *s = fdt_getprop(fdt, node, "command", &len);

		json_object_set_new(p, "pid",
				    json_integer((json_int_t)get_u64(fdt, node, "pid", 0)));
		json_object_set_new(p, "threads",
				    json_integer((json_int_t)get_u64(fdt, node, "threads", 0)));
		json_object_set_new(p, "command",
				    (s && len > 0 && !s[len - 1] ? json_string(s) : NULL)
					    ?: json_string("?"));
		json_array_append_new(list, p);
	}
	return list;
}

/* Bytes of the image that a file stands for, without holes. */
static uint64_t image_bytes(const struct snapshot_file *f, uint64_t start, uint64_t end)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < f->nr_segments; i++) {
		uint64_t at = (uint64_t)f->segments[i].image * PAGE_SIZE;

		if (at >= start && at < end)
			sum += (uint64_t)f->segments[i].n * PAGE_SIZE;
	}
	return sum;
}

static void set_number(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

static json_t *describe(const struct snapshot_file *f)
{
	const void *fdt = f->fdt;
	json_t *o = json_object();

	json_object_set_new(o, "version", json_integer(1));
	json_object_set_new(o, "name", json_string(f->name) ?: json_string("?"));
	set_number(o, "created", f->created);
	json_object_set_new(o, "build", bytes_of(fdt, "/", "build"));
	json_object_set_new(o, "platform", string_of(fdt, "/", "platform"));
	json_object_set_new(o, "boot_id", string_of(fdt, "/", "boot-id"));
	json_object_set_new(o, "image", string_of(fdt, "/image", "path"));
	set_number(o, "image_size", path_u64(fdt, "/image", "size", 0));
	set_number(o, "size", f->size);
	set_number(o, "guest_memory", image_bytes(f, IMAGE_RAM, IMAGE_SIZE));
	set_number(o, "page_tables", image_bytes(f, IMAGE_TABLES, IMAGE_TABLES + IMAGE_TABLES_MAX));
	set_number(o, "kernel_memory",
		   image_bytes(f, IMAGE_META_SIZE, IMAGE_TABLES) +
			   image_bytes(f, IMAGE_KERNEL, IMAGE_RAM));
	set_number(o, "pages_stored", f->stored);
	set_number(o, "pages_equal", f->shared);
	set_number(o, "segments", f->nr_segments);
	set_number(o, "nr_processes", path_u64(fdt, "/tasks", "processes", 0));
	set_number(o, "nr_threads", path_u64(fdt, "/tasks", "threads", 0));
	json_object_set_new(o, "processes", processes_of(fdt));
	return o;
}

/* ---- for people ---- */

static const char *text(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(o, name)) ?: "?";
}

static uint64_t number(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

/* One line, whatever @s holds. */
static void print_text(const char *s)
{
	for (; *s; s++)
		putchar((unsigned char)*s < ' ' || *s == 127 ? '?' : *s);
	putchar('\n');
}

static void print_line(const char *label, const char *s)
{
	printf("%-14s", label);
	print_text(s);
}

static void print_bytes(const char *label, uint64_t bytes)
{
	printf("%-14s%.1f MiB\n", label, (double)bytes / 1048576);
}

static void print_people(const json_t *o, const char *whole)
{
	time_t created = (time_t)number(o, "created");
	char when[64] = "?";
	struct tm tm;
	json_t *p;
	size_t i;

	if (localtime_r(&created, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
	print_line("sandbox", text(o, "name"));
	print_line("created", when);
	print_line("platform", text(o, "platform"));
	print_line("build", text(o, "build"));
	print_line("image", text(o, "image"));
	print_bytes("file", number(o, "size"));
	print_bytes("memory", number(o, "guest_memory"));
	print_bytes("kernel", number(o, "kernel_memory") + number(o, "page_tables"));
	printf("%-14s%lu stored, %lu equal to one of them, in %lu segments\n", "pages",
	       number(o, "pages_stored"), number(o, "pages_equal"), number(o, "segments"));
	print_line("hashes", whole);
	printf("%-14s%lu, threads %lu\n\n%7s %7s  %s\n", "processes", number(o, "nr_processes"),
	       number(o, "nr_threads"), "PID", "THREADS", "COMMAND");
	json_array_foreach (json_object_get(o, "processes"), i, p) {
		printf("%7lu %7lu  ", number(p, "pid"), number(p, "threads"));
		print_text(text(p, "command"));
	}
	if (number(o, "nr_processes") > json_array_size(json_object_get(o, "processes")))
		printf("        …\n");
}

int cmd_inspect(int argc, char **argv)
{
	struct snapshot_file f;
	struct options o;
	char why[512] = "";
	int at, status, damaged;
	json_t *d;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (argc - at != 1)
		return complain("inspect: %s: kvmsbox inspect FILE",
				at == argc ? "no snapshot given" : "too many arguments");
	if (snapshot_file_open(&f, argv[at], why, sizeof(why)))
		return complain("inspect: %s: %s", argv[at], why);
	damaged = o.no_verify ? 0 : snapshot_file_verify(&f, why, sizeof(why));
	d = describe(&f);
	json_object_set_new(d, "whole", o.no_verify ? json_null() : json_boolean(!damaged));
	if (o.json) {
		json_dumpf(d, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
		putchar('\n');
	} else {
		print_people(d, o.no_verify ? "not looked at" : damaged ? "wrong" : "right");
	}
	json_decref(d);
	fflush(stdout);
	if (damaged)
		status = complain("inspect: %s: %s", argv[at], why);
	snapshot_file_close(&f);
	return status;
}
