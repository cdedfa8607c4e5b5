/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function of a library that is loaded when it is needed is a jump through its slot: arguments,
 * their number and the return address stay where they are. The slots are filled by lazy_libs_load.
 */
#if !defined(__x86_64__)
#error "lazy_libs_stubs.S is written for x86-64"
#endif

	.text
#define LAZY(lib, name)					\
	.globl	name;						\
	.type	name, @function;				\
	.balign	8;						\
name:								\
	jmp	*.Lslot_##name(%rip);				\
	.size	name, . - name;
#include "loader/lazy_libs.def"
#undef LAZY

	.section .data.rel.lazy_libs, "aw", @progbits
	.balign	8
	.globl	lazy_libs_slots
	.type	lazy_libs_slots, @object
lazy_libs_slots:
#define LAZY(lib, name)					\
.Lslot_##name:							\
	.quad	lazy_libs_missing;
#include "loader/lazy_libs.def"
	.size	lazy_libs_slots, . - lazy_libs_slots

	.section .note.GNU-stack, "", @progbits
