/* SPDX-License-Identifier: Apache-2.0 */
/* The admin listener: the status page, metrics, and the API. docs/serve.md describes it. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/metrics.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/reload.h"

/* status.S */
extern const char status_page[], status_page_end[];

bool admin_allowed(struct client *c)
{
	const char *token = bearer_token(&c->reader.head);
	unsigned char hash[TOKEN_HASH_LEN];

	/* A Unix socket without a token: its file's mode says who may. */
	if (!server.config->has_admin_token)
		return true;
	if (!token) {
		reply_error(c, 401, "unauthorized", 0, "want Authorization: Bearer TOKEN");
		return false;
	}
	token_hash(token, strlen(token), hash);
	if (!CRYPTO_memcmp(hash, server.config->admin_token, sizeof(hash)))
		return true;
	reply_error(c, 403, "forbidden", 0, "this isn't the admin token");
	return false;
}

static void reply_json(struct client *c, unsigned int status, json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT);

	if (text)
		client_reply(c, status, "application/json", text, strlen(text));
	else
		reply_error(c, 500, "memory", 0, "out of memory");
	free(text);
	json_decref(o);
}

static void set_uint(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void set_ms(json_t *o, const char *key, uint64_t ns)
{
	json_object_set_new(o, key, json_real((double)ns / 1e6));
}

static uint64_t outcomes_sum(const uint64_t *v)
{
	uint64_t n = 0;

	for (size_t k = 0; k < NR_OUTCOMES; k++)
		n += v[k];
	return n;
}

static json_t *outcomes_json(const uint64_t *v)
{
	json_t *o = json_object();

	for (size_t k = 0; k < NR_OUTCOMES; k++) {
		if (v[k])
			set_uint(o, outcome_names[k], v[k]);
	}
	return o;
}

static json_t *states_json(const struct function *f)
{
	unsigned int counts[INST_ENDING + 1] = {0};
	json_t *o = json_object();
	struct instance *i;

	list_for_each_entry (i, &f->instances, node)
		counts[i->state]++;
	for (unsigned int s = INST_STARTING; s <= INST_ENDING; s++)
		set_uint(o, instance_state_name((enum instance_state)s), counts[s]);
	return o;
}

static const char *function_state(const struct function *f)
{
	if (f->draining)
		return "draining";
	if (pool_is_failing(f))
		return "failing";
	return f->live ? "active" : "cold";
}

static json_t *function_json(struct function *f)
{
	static const double q[] = {0.5, 0.9, 0.99};
	const struct function_config *fc = f->config;
	struct function_stats *st = &f->stats;
	json_t *o = json_object();
	uint64_t ns[3], memory = 0, n;
	struct instance *i;

	n = recent_quantiles(&st->recent, loop_now(), q, 3, ns);
	list_for_each_entry (i, &f->instances, node)
		memory += i->counted;
	json_object_set_new(o, "name", json_string(fc->name));
	json_object_set_new(o, "tenant", json_string(f->tenant->config->name));
	json_object_set_new(o, "kind", json_string(kind_name(fc->kind)));
	json_object_set_new(o, "image", json_string(fc->image));
	json_object_set_new(o, "source", json_string(fc->source));
	json_object_set_new(o, "state", json_string(function_state(f)));
	if (f->failure)
		json_object_set_new(o, "failure", json_string(f->failure));
	set_uint(o, "version", f->version);
	json_object_set_new(o, "snapshot", json_boolean(f->image[0] >= 0));
	set_uint(o, "min", fc->instances.min);
	set_uint(o, "max", fc->instances.max);
	json_object_set_new(o, "instances", states_json(f));
	set_uint(o, "queued", f->queued);
	set_uint(o, "running", f->running);
	set_uint(o, "memory", memory);
	set_uint(o, "requests", outcomes_sum(st->outcomes));
	json_object_set_new(o, "outcomes", outcomes_json(st->outcomes));
	set_uint(o, "recent", n);
	set_ms(o, "p50_ms", ns[0]);
	set_ms(o, "p90_ms", ns[1]);
	set_ms(o, "p99_ms", ns[2]);
	set_uint(o, "starts_cold", st->starts_cold);
	set_uint(o, "starts_warm", st->starts_warm);
	set_uint(o, "starts_failed", st->starts_failed);
	set_uint(o, "resets", st->resets);
	set_ms(o, "start_ms", f->average_start);
	set_ms(o, "run_ms", f->average_run);
	set_ms(o, "reset_ms", st->reset.n ? st->reset.sum_ns / st->reset.n : 0);
	return o;
}

static json_t *functions_json(void)
{
	json_t *list = json_array();
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		if (!f->gone)
			json_array_append_new(list, function_json(f));
	}
	return list;
}

static json_t *tenants_json(void)
{
	json_t *list = json_array(), *o;
	struct tenant *t;

	list_for_each_entry (t, &server.tenants, node) {
		o = json_object();
		json_object_set_new(o, "name", json_string(t->config->name));
		set_uint(o, "weight", t->config->weight);
		set_uint(o, "running", t->running);
		set_uint(o, "concurrency", t->config->concurrency);
		set_uint(o, "queued", t->queued);
		set_uint(o, "queue", t->config->queue);
		set_uint(o, "instances", t->instances);
		set_uint(o, "memory", t->memory);
		set_uint(o, "requests", outcomes_sum(t->outcomes));
		json_object_set_new(o, "outcomes", outcomes_json(t->outcomes));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *instances_json(void)
{
	json_t *list = json_array(), *o;
	struct function *f;
	struct instance *i;

	list_for_each_entry (f, &server.functions, node) {
		list_for_each_entry (i, &f->instances, node) {
			o = json_object();
			set_uint(o, "number", i->number);
			set_uint(o, "pid", (uint64_t)i->pid);
			json_object_set_new(o, "function", json_string(f->config->name));
			json_object_set_new(o, "tenant", json_string(f->tenant->config->name));
			json_object_set_new(o, "state", json_string(instance_state_name(i->state)));
			set_ms(o, "state_ms", loop_now() - i->since);
			json_object_set_new(o, "start", json_string(i->cold ? "cold" : "restored"));
			json_object_set_new(o, "current", json_boolean(i->current));
			set_uint(o, "version", i->version);
			set_uint(o, "requests", i->requests);
			set_uint(o, "memory", i->counted);
			if (i->req)
				json_object_set_new(o, "request_id", json_string(i->req->id));
			json_array_append_new(list, o);
		}
	}
	return list;
}

static json_t *status_json(void)
{
	json_t *o = json_object();

	set_ms(o, "uptime_ms", loop_now() - server.started);
	set_uint(o, "connections", server.connections);
	set_uint(o, "running", server.running);
	set_uint(o, "concurrency", server.config->limits.concurrency);
	set_uint(o, "queued", server.queued);
	set_uint(o, "instances", server.instances);
	set_uint(o, "max_instances", server.config->limits.instances);
	set_uint(o, "blanks", server.nblanks);
	set_uint(o, "memory", server.memory);
	set_uint(o, "budget", server.budget);
	set_uint(o, "memory_available", server.memory_available);
	set_uint(o, "memory_total", server.memory_total);
	json_object_set_new(o, "stopping", json_boolean(server.stopping));
	if (reload_problems()->len > 1)
		json_object_set_new(o, "problems", json_string(buf_data(reload_problems())));
	json_object_set_new(o, "functions", functions_json());
	json_object_set_new(o, "tenants", tenants_json());
	return o;
}

static void get_metrics(struct client *c)
{
	struct buf out = {0};

	metrics_write(&out);
	if (out.failed)
		reply_error(c, 500, "memory", 0, "out of memory");
	else
		client_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_data(&out),
			     out.len);
	buf_fini(&out);
}

static void get_page(struct client *c)
{
	size_t n = (size_t)(status_page_end - status_page);

	client_begin(c, 200);
	client_field(c, "Content-Type", "text/html; charset=utf-8");
	client_field(c, "Content-Security-Policy",
		     "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
		     "connect-src 'self'; base-uri 'none'; form-action 'none'; "
		     "frame-ancestors 'none'");
	client_field(c, "X-Content-Type-Options", "nosniff");
	client_field(c, "Referrer-Policy", "no-referrer");
	client_field(c, "Cache-Control", "no-store");
	client_head_end(c, (int64_t)n);
	client_data(c, status_page, n);
	if (c->head_only)
		c->left = 0;
	client_end(c);
}

static void reply_problems(struct client *c, struct buf *errors)
{
	buf_append(errors, "", 1);
	reply_error(c, 400, "manifest", 0, "%s",
		    errors->failed ? "out of memory" : buf_data(errors));
}

static void post_function(struct client *c)
{
	struct buf errors = {0};
	struct function_config *fc = function_config_parse(
		server.config, "admin", NULL, buf_data(&c->body), c->body.len, &errors);
	struct function *old = fc ? function_find(fc->name) : NULL;
	char *name = fc ? strdup(fc->name) : NULL;
	bool existed = old != NULL;

	if (!fc) {
		reply_problems(c, &errors);
	} else if (function_apply(fc)) {
		reply_error(c, 500, "memory", 0, "out of memory");
	} else {
		old = function_find(name ?: "");
		reply_json(c, existed ? 200 : 201, old ? function_json(old) : json_object());
	}
	free(name);
	buf_fini(&errors);
}

static void post_reload(struct client *c)
{
	struct buf errors = {0};

	if (reload_config(&errors))
		reply_problems(c, &errors);
	else
		reply_json(c, 200, json_pack("{s:s}", "status", "reloaded"));
	buf_fini(&errors);
}

/* /admin/functions/NAME and /admin/functions/NAME/drain */
static void one_function(struct client *c, const char *path)
{
	enum http_method method = (enum http_method)c->reader.parser.method;
	char name[MAX_NAME + 1];
	size_t n = strcspn(path, "/");
	struct function *f = NULL;

	if (n <= MAX_NAME) {
		memcpy(name, path, n);
		name[n] = 0;
		f = function_find(name);
	}
	if (!f) {
		reply_error(c, 404, "not-found", 0, "no such function");
	} else if (!path[n] && (method == HTTP_GET || method == HTTP_HEAD)) {
		reply_json(c, 200, function_json(f));
	} else if (!path[n] && method == HTTP_DELETE) {
		function_remove(f);
		client_reply(c, 204, NULL, NULL, 0);
	} else if (!strcmp(path + n, "/drain") && method == HTTP_POST) {
		f->draining = true;
		pool_retire(f);
		reply_json(c, 202, function_json(f));
	} else if (!strcmp(path + n, "/resume") && method == HTTP_POST) {
		f->draining = false;
		pool_kick();
		reply_json(c, 200, function_json(f));
	} else {
		reply_error(c, 404, "not-found", 0, "want GET, DELETE, POST …/drain or …/resume");
	}
}

static const struct {
	const char *path;
	json_t *(*make)(void);
} documents[] = {
	{"/admin/status", status_json},
	{"/admin/functions", functions_json},
	{"/admin/instances", instances_json},
	{"/admin/tenants", tenants_json},
};

static void answer(struct client *c, const char *path, enum http_method method)
{
	if (method == HTTP_POST && !strcmp(path, "/admin/functions")) {
		post_function(c);
		return;
	}
	if (method == HTTP_POST && !strcmp(path, "/admin/reload")) {
		post_reload(c);
		return;
	}
	if (!strncmp(path, "/admin/functions/", 17)) {
		one_function(c, path + 17);
		return;
	}
	if (method != HTTP_GET && method != HTTP_HEAD) {
		reply_error(c, 405, "method", 0, "this path knows GET and HEAD");
		return;
	}
	if (!strcmp(path, "/metrics")) {
		get_metrics(c);
		return;
	}
	for (size_t k = 0; k < ARRAY_SIZE(documents); k++) {
		if (!strcmp(path, documents[k].path)) {
			reply_json(c, 200, documents[k].make());
			return;
		}
	}
	reply_error(c, 404, "not-found", 0, "no such page: / and docs/serve.md tell more");
}

void admin_request(struct client *c)
{
	enum http_method method = (enum http_method)c->reader.parser.method;
	const struct http_head *h = &c->reader.head;
	char path[256];
	size_t n = strcspn(buf_data(&h->text), "?#");

	if (n >= sizeof(path)) {
		reply_error(c, 404, "not-found", 0, "no such page");
		return;
	}
	memcpy(path, buf_data(&h->text), n);
	path[n] = 0;
	/* The page itself says nothing; its script asks for the token. */
	if (!strcmp(path, "/") && (method == HTTP_GET || method == HTTP_HEAD)) {
		get_page(c);
		return;
	}
	if (admin_allowed(c))
		answer(c, path, method);
}
