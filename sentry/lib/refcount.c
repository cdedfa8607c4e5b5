/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of counted object types. Filled by constructors, before main. */
#include "sentry/lib/refcount.h"

static struct objtype *objtypes;

void objtype_register(struct objtype *type)
{
	type->next = objtypes;
	objtypes = type;
}

void objtype_for_each(void (*fn)(const struct objtype *, void *), void *arg)
{
	for (struct objtype *t = objtypes; t; t = t->next)
		fn(t, arg);
}
