/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/metrics.h"

#include <stddef.h>
#include <string.h>

#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/reload.h"

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP kvmsbox_%s %s\n# TYPE kvmsbox_%s %s\n", name, help, name, type);
}

static void single(struct buf *out, const char *name, const char *type, const char *help, double v)
{
	head(out, name, type, help);
	buf_printf(out, "kvmsbox_%s %.17g\n", name, v);
}

static void write_requests(struct buf *out)
{
	struct function *f;

	head(out, "requests_total", "counter",
	     "Requests to functions that have ended, by outcome.");
	list_for_each_entry (f, &server.functions, node) {
		for (size_t k = 0; !f->gone && k < NR_OUTCOMES; k++)
			buf_printf(out,
				   "kvmsbox_requests_total{tenant=\"%s\",function=\"%s\",outcome="
				   "\"%s\"} %llu\n",
				   f->tenant->config->name, f->config->name, outcome_names[k],
				   (unsigned long long)f->stats.outcomes[k]);
	}
}

/* A counter of function_stats, or a gauge that @get makes; @scale divides. */
struct column {
	const char *name, *type, *help;
	size_t offset;
	double scale;
};

#define S(member) offsetof(struct function_stats, member)
static const struct column columns[] = {
	{"starts_cold_total", "counter", "Instances started from their image.", S(starts_cold), 1},
	{"starts_warm_total", "counter", "Instances started from a snapshot.", S(starts_warm), 1},
	{"starts_failed_total", "counter", "Starts that failed.", S(starts_failed), 1},
	{"resets_total", "counter", "Instances set back to their snapshot.", S(resets), 1},
	{"reset_pages_total", "counter", "Pages that resets set back.", S(dirtied_pages), 1},
	{"instances_shed_total", "counter", "Idle instances ended.", S(shed), 1},
	{"instances_killed_total", "counter", "Instances killed.", S(killed), 1},
	{"cpu_seconds_total", "counter", "Processor time of requests.", S(cpu_ns), 1e9},
	{"request_bytes_total", "counter", "Bytes of requests' bodies.", S(bytes_in), 1},
	{"response_bytes_total", "counter", "Bytes of responses' bodies.", S(bytes_out), 1},
	{"peak_memory_bytes", "gauge", "Most memory that a request took.", S(peak_rss), 1},
};

static void write_columns(struct buf *out)
{
	struct function *f;
	uint64_t v;

	for (size_t k = 0; k < ARRAY_SIZE(columns); k++) {
		head(out, columns[k].name, columns[k].type, columns[k].help);
		list_for_each_entry (f, &server.functions, node) {
			if (f->gone)
				continue;
			memcpy(&v, (const char *)&f->stats + columns[k].offset, sizeof(v));
			buf_printf(out, "kvmsbox_%s{function=\"%s\"} %.17g\n", columns[k].name,
				   f->config->name, (double)v / columns[k].scale);
		}
	}
}

static void write_histogram(struct buf *out, const char *name, const char *help, size_t offset)
{
	const struct histogram *h;
	struct function *f;
	uint64_t sum;

	head(out, name, "histogram", help);
	list_for_each_entry (f, &server.functions, node) {
		if (f->gone)
			continue;
		h = (const void *)((const char *)&f->stats + offset);
		sum = 0;
		for (size_t k = 0; k < NR_BUCKETS; k++) {
			sum += h->counts[k];
			buf_printf(out, "kvmsbox_%s_bucket{function=\"%s\",le=\"%g\"} %llu\n", name,
				   f->config->name, bucket_bounds[k], (unsigned long long)sum);
		}
		buf_printf(out, "kvmsbox_%s_bucket{function=\"%s\",le=\"+Inf\"} %llu\n", name,
			   f->config->name, (unsigned long long)h->n);
		buf_printf(out, "kvmsbox_%s_sum{function=\"%s\"} %.9f\n", name, f->config->name,
			   (double)h->sum_ns / 1e9);
		buf_printf(out, "kvmsbox_%s_count{function=\"%s\"} %llu\n", name, f->config->name,
			   (unsigned long long)h->n);
	}
}

static void write_instances(struct buf *out)
{
	unsigned int counts[INST_ENDING + 1];
	struct instance *i;
	struct function *f;

	head(out, "instances", "gauge", "Instances, by state.");
	list_for_each_entry (f, &server.functions, node) {
		if (f->gone)
			continue;
		memset(counts, 0, sizeof(counts));
		list_for_each_entry (i, &f->instances, node)
			counts[i->state]++;
		for (unsigned int s = INST_STARTING; s <= INST_ENDING; s++)
			buf_printf(out, "kvmsbox_instances{function=\"%s\",state=\"%s\"} %u\n",
				   f->config->name, instance_state_name((enum instance_state)s),
				   counts[s]);
	}
	head(out, "queue_length", "gauge", "Requests that wait for an instance.");
	list_for_each_entry (f, &server.functions, node) {
		if (!f->gone)
			buf_printf(out, "kvmsbox_queue_length{function=\"%s\"} %u\n",
				   f->config->name, f->queued);
	}
}

static void write_tenants(struct buf *out)
{
	struct tenant *t;

	head(out, "tenant_running", "gauge", "Requests of a tenant that run.");
	list_for_each_entry (t, &server.tenants, node)
		buf_printf(out, "kvmsbox_tenant_running{tenant=\"%s\"} %u\n", t->config->name,
			   t->running);
	head(out, "tenant_queued", "gauge", "Requests of a tenant that wait.");
	list_for_each_entry (t, &server.tenants, node)
		buf_printf(out, "kvmsbox_tenant_queued{tenant=\"%s\"} %u\n", t->config->name,
			   t->queued);
	head(out, "tenant_memory_bytes", "gauge", "Memory of a tenant's instances.");
	list_for_each_entry (t, &server.tenants, node)
		buf_printf(out, "kvmsbox_tenant_memory_bytes{tenant=\"%s\"} %llu\n",
			   t->config->name, (unsigned long long)t->memory);
}

static void write_server(struct buf *out)
{
	head(out, "http_errors_total", "counter", "Answers without a function, by class.");
	for (size_t k = 4; k < ARRAY_SIZE(server.http_errors); k++)
		buf_printf(out, "kvmsbox_http_errors_total{class=\"%zuxx\"} %llu\n", k,
			   (unsigned long long)server.http_errors[k]);
	single(out, "connections", "gauge", "Open connections.", server.connections);
	single(out, "connections_accepted_total", "counter", "Connections accepted.",
	       (double)server.accepted);
	single(out, "connections_refused_total", "counter", "Connections over the limit.",
	       (double)server.refused);
	single(out, "running", "gauge", "Requests that run.", server.running);
	single(out, "queued", "gauge", "Requests that wait.", server.queued);
	single(out, "processes", "gauge", "Sandboxes' processes.", server.processes);
	single(out, "blanks", "gauge", "Processes that wait for a snapshot.", server.nblanks);
	single(out, "blank_starts_total", "counter", "Starts that a blank process took.",
	       (double)server.blank_starts);
	single(out, "memory_bytes", "gauge", "Memory of all instances.", (double)server.memory);
	single(out, "memory_budget_bytes", "gauge", "What they may have.", (double)server.budget);
	single(out, "memory_available_bytes", "gauge", "The machine's MemAvailable.",
	       (double)server.memory_available);
	single(out, "manifest_problems", "gauge", "1 if a manifest can't be used.",
	       reload_problems()->len > 1);
	single(out, "uptime_seconds", "gauge", "Since the server's start.",
	       (double)(loop_now() - server.started) / 1e9);
}

void metrics_write(struct buf *out)
{
	write_requests(out);
	write_columns(out);
	write_histogram(out, "request_seconds", "From a request's head to its end.", S(latency));
	write_histogram(out, "queue_wait_seconds", "From a request's head to its instance.",
			S(queue_wait));
	write_histogram(out, "run_seconds", "From a request's instance to its end.", S(run));
	write_histogram(out, "start_cold_seconds", "Starts from an image.", S(start_cold));
	write_histogram(out, "start_warm_seconds", "Starts from a snapshot.", S(start_warm));
	write_histogram(out, "reset_seconds", "Resets.", S(reset));
	write_instances(out);
	write_tenants(out);
	write_server(out);
}
