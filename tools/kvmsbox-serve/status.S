/* SPDX-License-Identifier: Apache-2.0 */
/* The status page, as it lies in the source. */
	.section .rodata
	.globl	status_page, status_page_end
status_page:
	.incbin	"tools/kvmsbox-serve/status.html"
status_page_end:
	.byte	0
	.section .note.GNU-stack, "", @progbits
