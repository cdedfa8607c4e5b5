/* SPDX-License-Identifier: Apache-2.0 */
/* A function's manifest, as kvmsbox-serve reads it: a function, or lines that say why not. */
#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-serve/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char name[] = "acme";
	struct tenant_config tenant = {.name = name};
	struct config c = {.tenants = &tenant, .ntenants = 1};
	struct buf errors = {0};
	struct function_config *f =
		function_config_parse(&c, "fuzz", NULL, (const char *)data, size, &errors);

	if (!f == !errors.len)
		__builtin_trap();
	if (f && (!name_is_valid(f->name) || !f->image || !f->text ||
		  f->instances.min > f->instances.max || (f->kind == FN_STDIO && f->keep != 1)))
		__builtin_trap();
	if (!f && (buf_data(&errors)[errors.len - 1] != '\n' ||
		   memcmp(buf_data(&errors), "fuzz:", 5)))
		__builtin_trap();
	function_config_put(f);
	buf_fini(&errors);
	return 0;
}
