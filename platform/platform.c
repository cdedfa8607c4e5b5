/* SPDX-License-Identifier: Apache-2.0 */
/* The list of platforms, and the choice among them. */
#include "platform/platform.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sentry/lib/err.h"

const struct platform_type *const platform_types[] = {
	&kvm_platform,
	&systrap_platform,
	&ptrace_platform,
	NULL,
};

static void on_kick(int sig)
{
}

int platform_kick_handler(void)
{
	struct sigaction sa = {.sa_handler = on_kick};

	sigemptyset(&sa.sa_mask);
	return sigaction(PLATFORM_KICK_SIGNAL, &sa, NULL) ? -errno : 0;
}

bool other_processors(cpu_set_t *all, cpu_set_t *others)
{
	int cpu = sched_getcpu();

	if (cpu < 0 || sched_getaffinity(0, sizeof(*all), all))
		return false;
	*others = *all;
	CPU_CLR(cpu, others);
	return CPU_COUNT(others);
}

/* Adds "NAME: reason" to the list in @why. */
static void passed_over(const struct platform_type *type, const char *reason, char *why,
			size_t size)
{
	size_t used = strlen(why);

	if (size)
		snprintf(why + used, size - used, "%s%s: %s", used ? "; " : "", type->name, reason);
}

static const struct platform_type *find_auto(char *why, size_t size)
{
	const struct platform_type *costly = NULL;
	char reason[160];

	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (type->probe(reason, sizeof(reason))) {
			passed_over(type, reason, why, size);
		} else if (type->is_costly && type->is_costly(reason, sizeof(reason))) {
			costly = costly ? costly : type;
			passed_over(type, reason, why, size);
		} else {
			return type;
		}
	}
	return costly;
}

const struct platform_type *platform_find(const char *name, char *why, size_t size)
{
	if (size)
		why[0] = '\0';
	if (!strcmp(name, "auto"))
		return find_auto(why, size);
	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (strcmp(type->name, name))
			continue;
		return type->probe(why, size) ? NULL : type;
	}
	snprintf(why, size, "there is no platform called %s", name);
	return NULL;
}

void platform_prepare(const char *name)
{
	bool any = !strcmp(name, "auto");

	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (any ? type->is_costly && type->is_costly(NULL, 0) : strcmp(name, type->name))
			continue;
		if (type->prepare)
			type->prepare();
		return;
	}
}

/* ---- who is there ---- */

static void join(struct platform *p, struct list_head *node, struct list_head *list)
{
	pthread_mutex_lock(&p->members_lock);
	if (!list->next)
		list_init(list);
	list_add(node, list);
	pthread_mutex_unlock(&p->members_lock);
}

static void leave(struct platform *p, struct list_head *node)
{
	pthread_mutex_lock(&p->members_lock);
	list_del(node);
	pthread_mutex_unlock(&p->members_lock);
}

struct address_space *platform_as_create(struct platform *p, struct pagetable *pt)
{
	struct address_space *as = p->type->as_create(p, pt);
	if (IS_ERR(as))
		return as;
	as->table = pt;
	as->frozen = false;
	join(p, &as->member, &p->spaces);
	return as;
}

void platform_as_destroy(struct address_space *as)
{
	leave(as->platform, &as->member);
	as->platform->type->as_destroy(as);
}

struct context *platform_ctx_create(struct platform *p)
{
	struct context *ctx = p->type->ctx_create(p);
	if (IS_ERR(ctx))
		return ctx;
	ctx->frozen = false;
	join(p, &ctx->member, &p->contexts);
	return ctx;
}

void platform_ctx_destroy(struct context *ctx)
{
	leave(ctx->platform, &ctx->member);
	ctx->platform->type->ctx_destroy(ctx);
}

void platform_freeze(struct platform *p)
{
	struct address_space *as;
	struct context *ctx;

	if (!p->contexts.next)
		return;
	list_for_each_entry (as, &p->spaces, member)
		as->frozen = true;
	list_for_each_entry (ctx, &p->contexts, member)
		ctx->frozen = true;
}

void platform_rewind(struct platform *p)
{
	struct address_space *as, *next_as;
	struct context *ctx, *next_ctx;

	if (!p->contexts.next)
		return;
	list_for_each_entry_safe (ctx, next_ctx, &p->contexts, member) {
		if (!ctx->frozen)
			platform_ctx_destroy(ctx);
	}
	list_for_each_entry_safe (as, next_as, &p->spaces, member) {
		struct pagetable *pt = as->table;

		if (as->frozen)
			continue;
		platform_as_destroy(as);
		pt_fini(pt);
	}
}
