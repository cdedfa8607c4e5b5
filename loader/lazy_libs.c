/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/lazy_libs.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum lib { ARCHIVE, CRYPTO, Z, NR_LIBS };

/* The names by which the build's own libraries want to be found at run time. */
static const char *const lib_names[NR_LIBS] = {
	[ARCHIVE] = SONAME_ARCHIVE,
	[CRYPTO] = SONAME_CRYPTO,
	[Z] = SONAME_Z,
};

static const struct function {
	enum lib lib;
	const char *name;
} functions[] = {
#define LAZY(lib, function) {lib, #function},
#include "loader/lazy_libs.def"
#undef LAZY
};

#define NR_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

/* Where the stubs jump to, in the order of lazy_libs.def (lazy_libs_stubs.S). */
extern void *lazy_libs_slots[NR_FUNCTIONS];
void lazy_libs_missing(void);

/* Every slot's first target. */
void lazy_libs_missing(void)
{
	fprintf(stderr, "kvmsbox: a library was called before it was loaded\n");
	abort();
}

const char *lazy_libs_load(void)
{
	static char message[256];
	static bool loaded;
	void *handles[NR_LIBS], *found[NR_FUNCTIONS];

	if (loaded)
		return NULL;
	for (int i = 0; i < NR_LIBS; i++) {
		handles[i] = dlopen(lib_names[i], RTLD_NOW | RTLD_LOCAL);
		if (!handles[i]) {
			snprintf(message, sizeof(message), "importing images needs a library: %s",
				 dlerror());
			return message;
		}
	}
	for (size_t i = 0; i < NR_FUNCTIONS; i++) {
		found[i] = dlsym(handles[functions[i].lib], functions[i].name);
		if (!found[i]) {
			snprintf(message, sizeof(message), "importing images needs %s of %s",
				 functions[i].name, lib_names[functions[i].lib]);
			return message;
		}
	}
	for (size_t i = 0; i < NR_FUNCTIONS; i++)
		lazy_libs_slots[i] = found[i];
	loaded = true;
	return NULL;
}
