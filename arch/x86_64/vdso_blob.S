/* SPDX-License-Identifier: Apache-2.0 */
/* The vDSO image, page-aligned and padded to a page. */
	.section .rodata
	.balign	4096
	.globl	vdso_image_start, vdso_image_end
vdso_image_start:
	.incbin	VDSO_PATH
	.balign	4096
vdso_image_end:
	.section .note.GNU-stack, "", @progbits
