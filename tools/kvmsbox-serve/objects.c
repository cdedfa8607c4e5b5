/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants and functions: what the configuration makes of them, now and after a reload. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/admission.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/serve.h"

const char *kind_name(enum fn_kind kind)
{
	static const char *const names[] = {
		[FN_STDIO] = "stdio", [FN_HTTP] = "http", [FN_LAMBDA] = "lambda"};

	return names[kind];
}

struct tenant *tenant_find(const char *name)
{
	struct tenant *t;

	list_for_each_entry (t, &server.tenants, node) {
		if (!t->gone && !strcmp(t->config->name, name))
			return t;
	}
	return NULL;
}

struct tenant *tenant_by_token(const char *token, size_t n)
{
	unsigned char hash[TOKEN_HASH_LEN];
	struct tenant *t, *found = NULL;

	token_hash(token, n, hash);
	list_for_each_entry (t, &server.tenants, node) {
		for (size_t k = 0; k < t->config->ntokens; k++) {
			if (!CRYPTO_memcmp(hash, t->config->tokens[k], sizeof(hash)) && !t->gone)
				found = t;
		}
	}
	return found;
}

static void tenant_config_free(struct tenant_config *tc)
{
	if (!tc)
		return;
	free(tc->name);
	free(tc->tokens);
	free(tc);
}

static struct tenant_config *tenant_config_copy(const struct tenant_config *from)
{
	struct tenant_config *tc = malloc(sizeof(*tc));

	if (!tc)
		return NULL;
	*tc = *from;
	tc->name = strdup(from->name);
	tc->tokens = malloc(from->ntokens * sizeof(*tc->tokens));
	if (!tc->name || !tc->tokens) {
		tenant_config_free(tc);
		return NULL;
	}
	memcpy(tc->tokens, from->tokens, from->ntokens * sizeof(*tc->tokens));
	return tc;
}

static int tenant_apply(const struct tenant_config *from)
{
	struct tenant_config *tc = tenant_config_copy(from);
	struct tenant *t = tenant_find(from->name);

	if (!tc)
		return -ENOMEM;
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t) {
			tenant_config_free(tc);
			return -ENOMEM;
		}
		list_init(&t->functions);
		list_add_tail(&t->node, &server.tenants);
	}
	tenant_config_free(t->config);
	t->config = tc;
	return 0;
}

/* A tenant that is gone goes with its last function. */
static void tenant_put_if_unused(struct tenant *t)
{
	if (!t->gone || !list_empty(&t->functions))
		return;
	list_del(&t->node);
	tenant_config_free(t->config);
	free(t);
}

int tenants_apply(const struct config *c)
{
	struct tenant *t, *tmp;
	struct function *f, *ftmp;
	int err;

	for (size_t i = 0; i < c->ntenants; i++) {
		err = tenant_apply(&c->tenants[i]);
		if (err)
			return err;
	}
	list_for_each_entry_safe (t, tmp, &server.tenants, node) {
		if (config_tenant(c, t->config->name))
			continue;
		t->gone = true;
		list_for_each_entry_safe (f, ftmp, &server.functions, node) {
			if (f->tenant == t)
				function_remove(f);
		}
		tenant_put_if_unused(t);
	}
	return 0;
}

struct function *function_find(const char *name)
{
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		if (!f->gone && !strcmp(f->config->name, name))
			return f;
	}
	return NULL;
}

static struct function *function_new(struct function_config *fc, struct tenant *t)
{
	struct function *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->config = fc;
	f->tenant = t;
	f->image[0] = f->image[1] = -1;
	f->log_lines = 1000;
	list_init(&f->queue);
	list_init(&f->ready);
	list_init(&f->instances);
	list_add_tail(&f->of_tenant, &t->functions);
	list_add_tail(&f->node, &server.functions);
	return f;
}

const char *function_platform(const struct function *f)
{
	return f->config->platform ?: "auto";
}

void function_drop_image(struct function *f)
{
	for (int k = 0; k < FN_IMAGE_FDS; k++) {
		if (f->image[k] >= 0)
			close(f->image[k]);
		f->image[k] = -1;
	}
}

/* Instances of the version so far are no longer counted, nor given requests. */
static void disown_instances(struct function *f)
{
	struct instance *i;

	list_for_each_entry (i, &f->instances, node) {
		if (i->current && !list_empty(&i->in_ready))
			list_del(&i->in_ready);
		i->current = false;
	}
	f->live = f->starting = f->nready = 0;
	function_drop_image(f);
	f->snapshot_failed = f->proven = false;
	f->failures = f->snapshot_failures = 0;
	f->retry_at = f->no_room_until = 0;
	free(f->failure);
	f->failure = NULL;
	f->version++;
	/* Figures of another program. */
	f->average_run = f->average_start = f->typical_memory = 0;
}

static void log_function(enum log_level level, const char *event, const struct function *f)
{
	struct log_line l;

	if (!log_begin(&l, level, event))
		return;
	log_str(&l, "tenant", f->tenant->config->name);
	log_str(&l, "function", f->config->name);
	log_str(&l, "kind", kind_name(f->config->kind));
	log_str(&l, "source", f->config->source);
	log_uint(&l, "version", f->version);
	log_end(&l);
}

int function_apply(struct function_config *fc)
{
	struct tenant *t = tenant_find(fc->tenant);
	struct function *f = function_find(fc->name);

	if (!t) {
		function_config_put(fc);
		return -ENOENT;
	}
	/* Of another tenant now: another function, of which the old one's callers see nothing. */
	if (f && f->tenant != t) {
		function_remove(f);
		f = NULL;
	}
	if (!f) {
		f = function_new(fc, t);
		if (!f) {
			function_config_put(fc);
			return -ENOMEM;
		}
		log_function(LOG_INFO, "function_added", f);
		pool_kick();
		return 0;
	}
	if (!strcmp(f->config->text, fc->text) && !f->draining) {
		function_config_put(f->config);
		f->config = fc;
		return 0;
	}
	disown_instances(f);
	function_config_put(f->config);
	f->config = fc;
	f->draining = false;
	log_function(LOG_INFO, "function_changed", f);
	pool_retire(f);
	return 0;
}

void function_remove(struct function *f)
{
	if (f->gone)
		return;
	log_function(LOG_INFO, "function_removed", f);
	f->draining = true;
	/* Its references keep it until the last of these has been answered. */
	f->reading++;
	admission_refuse_all(f, 503, OUT_OVERLOADED, "removed", "this function has been removed");
	f->reading--;
	f->gone = true;
	disown_instances(f);
	pool_retire(f);
	function_put_if_unused(f);
}

void function_put_if_unused(struct function *f)
{
	struct tenant *t = f->tenant;

	if (!f->gone || !list_empty(&f->instances) || f->reading || f->queued || f->running)
		return;
	list_del(&f->node);
	list_del(&f->of_tenant);
	function_drop_image(f);
	free(f->failure);
	function_config_put(f->config);
	free(f);
	tenant_put_if_unused(t);
}
