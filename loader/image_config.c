/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image's configuration: out of the document that came with it, and in and out of the
 * description that is stored in a cache entry.
 */
#include "loader/image_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

static void strings_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

void config_fini(struct image_config *config)
{
	strings_free(config->env);
	strings_free(config->entrypoint);
	strings_free(config->cmd);
	free(config->workdir);
	free(config->user);
	memset(config, 0, sizeof(*config));
}

void info_fini(struct image_info *info)
{
	free(info->format);
	free(info->source);
	memset(info, 0, sizeof(*info));
}

/* A string member: *@out is NULL if it is missing, empty or null. 0, -EINVAL, -ENOMEM. */
static int get_string(const json_t *object, const char *key, char **out)
{
	const json_t *v = json_object_get(object, key);

	*out = NULL;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_string(v))
		return -EINVAL;
	if (!json_string_length(v))
		return 0;
	*out = strdup(json_string_value(v));
	return *out ? 0 : -ENOMEM;
}

/* A list of strings, or one string that stands for a list of one. */
static int get_strings(const json_t *object, const char *key, char ***out)
{
	const json_t *v = json_object_get(object, key), *item;
	size_t n, i;
	char **list;

	*out = NULL;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_array(v) && !json_is_string(v))
		return -EINVAL;
	n = json_is_string(v) ? 1 : json_array_size(v);
	if (!n)
		return 0;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		item = json_is_string(v) ? v : json_array_get(v, i);
		if (!json_is_string(item)) {
			strings_free(list);
			return -EINVAL;
		}
		list[i] = strdup(json_string_value(item));
		if (!list[i]) {
			strings_free(list);
			return -ENOMEM;
		}
	}
	*out = list;
	return 0;
}

/* The members that docker and OCI call "config"; @object may be NULL or null. */
static int get_config(const json_t *object, struct image_config *config)
{
	int err;

	if (!object || json_is_null(object))
		return 0;
	if (!json_is_object(object))
		return -EINVAL;
	err = get_strings(object, "Env", &config->env);
	if (!err)
		err = get_strings(object, "Entrypoint", &config->entrypoint);
	if (!err)
		err = get_strings(object, "Cmd", &config->cmd);
	if (!err)
		err = get_string(object, "WorkingDir", &config->workdir);
	if (!err)
		err = get_string(object, "User", &config->user);
	return err;
}

int config_parse(struct build *b, const char *text, size_t len)
{
	json_t *root = json_loadb(text, len, 0, NULL);
	const char *arch = json_string_value(json_object_get(root, "architecture"));
	const char *os = json_string_value(json_object_get(root, "os"));
	int err;

	if (!json_is_object(root))
		err = image_fail(
			b->err, -EINVAL,
			"image %s: its configuration is no JSON object: the archive is damaged",
			b->name);
	else if ((os && *os && strcmp(os, "linux")) || (arch && *arch && strcmp(arch, "amd64")))
		err = image_fail(b->err, -EINVAL,
				 "image %s: it is for %.40s/%.40s: one for linux/amd64 is needed",
				 b->name, os ? os : "linux", arch ? arch : "?");
	else {
		err = get_config(json_object_get(root, "config"), &b->config);
		if (err == -EINVAL)
			image_fail(b->err, err,
				   "image %s: its configuration holds something else than strings "
				   "where the command, environment, directory or user should be",
				   b->name);
		else if (err)
			image_fail(b->err, err, "image %s: out of memory during the import",
				   b->name);
	}
	json_decref(root);
	return err;
}

/* ---- the description in an entry ---- */

/* Bytes that are no UTF-8 can't be in JSON: names of files may hold some. */
static json_t *any_string(const char *s)
{
	json_t *v = json_string(s);

	return v ? v : json_string("?");
}

static json_t *strings_to_json(char **v)
{
	json_t *list = json_array();

	for (; list && v && *v; v++)
		json_array_append_new(list, any_string(*v));
	return list;
}

static json_t *integer(uint64_t n)
{
	return json_integer((json_int_t)n);
}

char *config_describe(const struct build *b, const struct erofs_stats *st)
{
	const char *slash = strrchr(b->name, '/');
	json_t *config = json_object(), *root = json_object();
	char *text = NULL;

	if (!config || !root) {
		json_decref(config);
		goto out;
	}
	json_object_set_new(config, "Env", strings_to_json(b->config.env));
	json_object_set_new(config, "Entrypoint", strings_to_json(b->config.entrypoint));
	json_object_set_new(config, "Cmd", strings_to_json(b->config.cmd));
	if (b->config.workdir)
		json_object_set_new(config, "WorkingDir", any_string(b->config.workdir));
	if (b->config.user)
		json_object_set_new(config, "User", any_string(b->config.user));
	json_object_set_new(root, "format", json_string(b->format));
	json_object_set_new(root, "source", any_string(slash ? slash + 1 : b->name));
	json_object_set_new(root, "layers", integer(b->layers));
	json_object_set_new(root, "entries", integer(st->names + 1));
	json_object_set_new(root, "file_bytes", integer(st->file_bytes));
	json_object_set_new(root, "stored_bytes", integer(st->stored_bytes));
	json_object_set_new(root, "config", config);
	text = json_dumps(root, JSON_COMPACT);
out:
	json_decref(root);
	return text;
}

static uint64_t get_count(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

int config_restore(const char *text, size_t len, struct image_config *config,
		   struct image_info *info)
{
	size_t seed;
	json_t *root;
	int err;

	/* Every start comes by: jansson would open /dev/urandom for its hash tables' seed. */
	memcpy(&seed, (const void *)getauxval(AT_RANDOM), sizeof(seed));
	json_object_seed(seed);
	root = json_loadb(text, len, 0, NULL);
	memset(config, 0, sizeof(*config));
	memset(info, 0, sizeof(*info));
	if (!json_is_object(root)) {
		json_decref(root);
		return -EUCLEAN;
	}
	err = get_config(json_object_get(root, "config"), config);
	if (!err)
		err = get_string(root, "format", &info->format);
	if (!err)
		err = get_string(root, "source", &info->source);
	info->layers = get_count(root, "layers");
	info->entries = get_count(root, "entries");
	info->file_bytes = get_count(root, "file_bytes");
	info->stored_bytes = get_count(root, "stored_bytes");
	json_decref(root);
	if (err) {
		config_fini(config);
		info_fini(info);
	}
	return err == -EINVAL ? -EUCLEAN : err;
}
