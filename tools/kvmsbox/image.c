/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox image: what is in the image cache, and how it gets there and leaves. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/image.h"
#include "tools/kvmsbox/kvmsbox.h"

enum {
	OPT_CACHE = 256,
	OPT_MAX_BYTES,
	OPT_MAX_ENTRIES,
	OPT_JSON,
	OPT_VERIFY,
	OPT_ALL,
};

struct args {
	const char *name; /* of the subcommand */
	struct image_options options;
	bool json, verify, all;
	char **rest;
	int nrest;
};

#define COMMON_OPTIONS                                                                             \
	{"cache", required_argument, NULL, OPT_CACHE},                                             \
	{                                                                                          \
		"help", no_argument, NULL, 'h'                                                     \
	}

static const struct option import_options[] = {
	COMMON_OPTIONS,
	{"image-max-bytes", required_argument, NULL, OPT_MAX_BYTES},
	{"image-max-entries", required_argument, NULL, OPT_MAX_ENTRIES},
	{"quiet", no_argument, NULL, 'q'},
	{0},
};
static const struct option ls_options[] = {
	COMMON_OPTIONS,
	{"json", no_argument, NULL, OPT_JSON},
	{0},
};
static const struct option inspect_options[] = {
	COMMON_OPTIONS,
	{"json", no_argument, NULL, OPT_JSON},
	{"verify", no_argument, NULL, OPT_VERIFY},
	{0},
};
static const struct option rm_options[] = {
	COMMON_OPTIONS,
	{"all", no_argument, NULL, OPT_ALL},
	{0},
};

static const char import_help[] =
	"usage: kvmsbox image import [OPTIONS] ARCHIVE…\n\n"
	"Imports archives into the cache, unless they are there and haven't changed: a tar of a\n"
	"root file system, a docker save or an OCI-layout archive; plain, gzip, bzip2, xz or "
	"zstd.\n"
	"Prints each image's hash. kvmsbox exec does the same when needed.\n\n"
	"      --image-max-bytes SIZE   refuse what unpacks to more (default 64G)\n"
	"      --image-max-entries N    refuse more files, directories and links (default "
	"4194304)\n"
	"  -q, --quiet                  no progress bar\n"
	"      --cache DIR              default $XDG_CACHE_HOME/kvmsbox, else ~/.cache/kvmsbox\n"
	"  -h, --help\n";
static const char ls_help[] =
	"usage: kvmsbox image ls [OPTIONS]\n\n"
	"Lists the images of the cache, oldest first.\n\n"
	"      --json        an array of objects\n"
	"      --cache DIR   default $XDG_CACHE_HOME/kvmsbox, else ~/.cache/kvmsbox\n"
	"  -h, --help\n";
static const char inspect_help[] =
	"usage: kvmsbox image inspect [OPTIONS] HASH|ARCHIVE\n\n"
	"Shows an image of the cache: sizes, counts and its configuration. HASH may be shortened\n"
	"to 4 digits; ARCHIVE is the path of an archive that was imported.\n\n"
	"      --verify      check every block of the image\n"
	"      --json        an object\n"
	"      --cache DIR   default $XDG_CACHE_HOME/kvmsbox, else ~/.cache/kvmsbox\n"
	"  -h, --help\n";
static const char rm_help[] =
	"usage: kvmsbox image rm [OPTIONS] HASH|ARCHIVE…\n"
	"       kvmsbox image rm [OPTIONS] --all\n\n"
	"Removes images from the cache. Sandboxes that run from them go on.\n\n"
	"      --all         remove all of them\n"
	"      --cache DIR   default $XDG_CACHE_HOME/kvmsbox, else ~/.cache/kvmsbox\n"
	"  -h, --help\n";

static int parse_limit(struct args *a, int opt, const char *arg)
{
	char *end;

	if (opt == OPT_MAX_BYTES) {
		if (parse_size(arg, &a->options.max_bytes) && a->options.max_bytes)
			return 0;
		return complain("image %s: --image-max-bytes %s: want a size like 512M or 2G",
				a->name, arg);
	}
	errno = 0;
	a->options.max_entries = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || !a->options.max_entries ||
	    a->options.max_entries > UINT32_MAX)
		return complain("image %s: --image-max-entries %s: want a number from 1 to %u",
				a->name, arg, UINT32_MAX);
	return 0;
}

/* Returns -1 to go on, else the exit status. */
static int parse_args(struct args *a, int argc, char **argv, const char *short_options,
		      const struct option *options, const char *help)
{
	int opt, err;

	a->name = argv[0];
	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, short_options, options, NULL)) != -1) {
		switch (opt) {
		case 'h':
			fputs(help, stdout);
			return 0;
		case 'q':
			a->options.quiet = true;
			break;
		case OPT_CACHE:
			a->options.cache_dir = optarg;
			break;
		case OPT_MAX_BYTES:
		case OPT_MAX_ENTRIES:
			err = parse_limit(a, opt, optarg);
			if (err)
				return err;
			break;
		case OPT_JSON:
			a->json = true;
			break;
		case OPT_VERIFY:
			a->verify = true;
			break;
		case OPT_ALL:
			a->all = true;
			break;
		case ':':
			return complain(
				"image %s: option %s needs a value: see kvmsbox image %s --help",
				a->name, argv[optind - 1], a->name);
		default:
			return complain("image %s: unknown option %s: see kvmsbox image %s --help",
					a->name, argv[optind - 1], a->name);
		}
	}
	a->rest = argv + optind;
	a->nrest = argc - optind;
	return -1;
}

/* "1.4G": as ls -h. */
static const char *human_size(uint64_t n, char buf[16])
{
	static const char units[] = "BKMGTP";
	unsigned int u = 0;
	double v = (double)n;

	while (v >= 1024 && u + 2 < sizeof(units)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 16, u && v < 10 ? "%.1f%c" : "%.0f%c", v, units[u]);
	return buf;
}

static const char *human_age(time_t then, char buf[24])
{
	time_t s = time(NULL) - then;

	if (s < 60)
		snprintf(buf, 24, "%lds", (long)(s < 0 ? 0 : s));
	else if (s < 3600)
		snprintf(buf, 24, "%ldm", (long)(s / 60));
	else if (s < 48 * 3600)
		snprintf(buf, 24, "%ldh", (long)(s / 3600));
	else
		snprintf(buf, 24, "%ldd", (long)(s / 86400));
	return buf;
}

/* Names in archives may hold anything: nothing of it reaches the terminal as a control. */
static void print_safe(const char *s)
{
	for (; *s; s++) {
		/* U+0080 to U+009F are controls, too. */
		if ((unsigned char)*s == 0xc2 && (unsigned char)s[1] >= 0x80 &&
		    (unsigned char)s[1] < 0xa0) {
			fputs("??", stdout);
			s++;
			continue;
		}
		putchar((unsigned char)*s < ' ' || *s == 0x7f ? '?' : *s);
	}
}

/* What was printed must have arrived. */
static int finish_output(const char *name)
{
	if (fflush(stdout) || ferror(stdout))
		return complain("image %s: writing the output failed: %s", name, strerror(errno));
	return 0;
}

static int print_json(const char *name, json_t *v)
{
	if (!v)
		return complain("out of memory");
	json_dumpf(v, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(v);
	return finish_output(name);
}

/* ---- import ---- */

static int do_import(int argc, char **argv)
{
	struct image_error error = {0};
	struct args a = {0};
	struct image image;
	int status = parse_args(&a, argc, argv, ":hq", import_options, import_help);

	if (status >= 0)
		return status;
	if (!a.nrest)
		return complain("image import: no archive given: see kvmsbox image import --help");
	for (int i = 0; i < a.nrest; i++) {
		if (image_open(a.rest[i], &a.options, &image, &error))
			return complain("%s", error.message);
		if (!image.hash[0]) {
			image_close(&image);
			return complain("image %s: is an EROFS file already: use it as it is",
					a.rest[i]);
		}
		printf("%s\n", image.hash);
		image_close(&image);
	}
	return finish_output(a.name);
}

/* ---- ls ---- */

static json_t *info_to_json(const struct image_info *info)
{
	return json_pack(
		"{s:s, s:s, s:I, s:I, s:I, s:I}", "format", info->format ? info->format : "",
		"source", info->source ? info->source : "", "layers", (json_int_t)info->layers,
		"entries", (json_int_t)info->entries, "file_bytes", (json_int_t)info->file_bytes,
		"stored_bytes", (json_int_t)info->stored_bytes);
}

static json_t *entry_to_json(const struct image_entry *e)
{
	json_t *v = info_to_json(&e->info);

	json_object_set_new(v, "hash", json_string(e->hash));
	json_object_set_new(v, "bytes", json_integer((json_int_t)e->bytes));
	json_object_set_new(v, "imported", json_integer((json_int_t)e->imported.tv_sec));
	json_object_set_new(v, "damaged", json_boolean(e->damaged));
	return v;
}

static void print_entry(const struct image_entry *e)
{
	char size[16], age[24];

	printf("%-32s  %6s  %5s  ", e->hash, human_size(e->bytes, size),
	       human_age(e->imported.tv_sec, age));
	if (e->damaged)
		printf("(damaged)");
	else
		print_safe(e->info.source ? e->info.source : "?");
	putchar('\n');
}

static int image_ls(int argc, char **argv)
{
	struct image_error error = {0};
	struct image_entry *entries;
	struct args a = {0};
	json_t *list;
	size_t n;
	int status = parse_args(&a, argc, argv, ":h", ls_options, ls_help);

	if (status >= 0)
		return status;
	if (a.nrest)
		return complain("image ls: unexpected %s: see kvmsbox image ls --help", a.rest[0]);
	if (image_list(&a.options, &entries, &n, &error))
		return complain("%s", error.message);
	if (a.json) {
		list = json_array();
		for (size_t i = 0; i < n; i++)
			json_array_append_new(list, entry_to_json(&entries[i]));
		status = print_json(a.name, list);
	} else {
		if (n)
			printf("%-32s  %6s  %5s  %s\n", "HASH", "SIZE", "AGE", "SOURCE");
		for (size_t i = 0; i < n; i++)
			print_entry(&entries[i]);
		status = finish_output(a.name);
	}
	image_list_free(entries, n);
	return status;
}

/* ---- inspect ---- */

static json_t *strings_to_json(char **v)
{
	json_t *list = json_array();

	for (; v && *v; v++)
		json_array_append_new(list, json_string(*v));
	return list;
}

static json_t *image_to_json(const struct image *image)
{
	const struct image_config *c = &image->config;
	json_t *v = info_to_json(&image->info);

	json_object_set_new(v, "hash", json_string(image->hash));
	json_object_set_new(v, "image_bytes", json_integer((json_int_t)image->size));
	json_object_set_new(v, "config",
			    json_pack("{s:o, s:o, s:o, s:s, s:s}", "Env", strings_to_json(c->env),
				      "Entrypoint", strings_to_json(c->entrypoint), "Cmd",
				      strings_to_json(c->cmd), "WorkingDir",
				      c->workdir ? c->workdir : "", "User",
				      c->user ? c->user : ""));
	return v;
}

static void print_strings(const char *label, char **v)
{
	for (; v && *v; v++) {
		printf("%-12s ", label);
		print_safe(*v);
		putchar('\n');
		label = "";
	}
}

static void print_string(const char *label, const char *s)
{
	if (!s)
		return;
	printf("%-12s ", label);
	print_safe(s);
	putchar('\n');
}

static void print_image(const struct image *image)
{
	const struct image_config *c = &image->config;
	const struct image_info *info = &image->info;
	char a[16], b[16];

	print_string("hash", image->hash);
	print_string("source", info->source);
	print_string("format", info->format);
	if (info->layers)
		printf("%-12s %lu\n", "layers", (unsigned long)info->layers);
	printf("%-12s %lu\n", "entries", (unsigned long)info->entries);
	printf("%-12s %s in files, %s stored\n", "contents", human_size(info->file_bytes, a),
	       human_size(info->stored_bytes, b));
	printf("%-12s %lu bytes\n", "image", (unsigned long)image->size);
	print_strings("environment", c->env);
	print_strings("entrypoint", c->entrypoint);
	print_strings("command", c->cmd);
	print_string("directory", c->workdir);
	print_string("user", c->user);
}

static int image_inspect(int argc, char **argv)
{
	char hash[IMAGE_HASH_LEN + 1];
	struct image_error error = {0};
	struct args a = {0};
	struct image image;
	int status = parse_args(&a, argc, argv, ":h", inspect_options, inspect_help);

	if (status >= 0)
		return status;
	if (a.nrest != 1)
		return complain(
			"image inspect: want one hash or archive: see kvmsbox image inspect "
			"--help");
	if (image_find(a.rest[0], &a.options, hash, &error) ||
	    image_open_entry(hash, &a.options, a.verify, &image, &error))
		return complain("%s", error.message);
	if (a.json) {
		status = print_json(a.name, image_to_json(&image));
	} else {
		print_image(&image);
		if (a.verify)
			printf("%-12s every block is as it was written\n", "verified");
		status = finish_output(a.name);
	}
	image_close(&image);
	return status;
}

/* ---- rm ---- */

static int image_rm(int argc, char **argv)
{
	char hash[IMAGE_HASH_LEN + 1];
	struct image_error error = {0};
	struct args a = {0};
	size_t n;
	int status = parse_args(&a, argc, argv, ":h", rm_options, rm_help);

	if (status >= 0)
		return status;
	if (a.all == (a.nrest > 0))
		return complain("image rm: want hashes or archives, or --all: see kvmsbox image rm "
				"--help");
	if (a.all) {
		if (image_remove_all(&a.options, &n, &error))
			return complain("%s", error.message);
		return 0;
	}
	for (int i = 0; i < a.nrest; i++) {
		if (image_find(a.rest[i], &a.options, hash, &error) ||
		    image_remove(hash, &a.options, &error))
			return complain("%s", error.message);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} subcommands[] = {
	{"import", do_import, "import an archive into the cache"},
	{"ls", image_ls, "list the images of the cache"},
	{"inspect", image_inspect, "show one image's sizes and configuration"},
	{"rm", image_rm, "remove images from the cache"},
};

static void usage(FILE *out)
{
	fprintf(out, "usage: kvmsbox image COMMAND [OPTIONS] …\n\n");
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
		fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
	fprintf(out, "\nkvmsbox image COMMAND --help tells more.\n");
}

int cmd_image(int argc, char **argv)
{
	if (argc < 2)
		return complain("image: no command given: see kvmsbox image --help");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++) {
		if (!strcmp(argv[1], subcommands[i].name))
			return subcommands[i].run(argc - 1, argv + 1);
	}
	return complain("image: unknown command \"%s\": see kvmsbox image --help", argv[1]);
}
