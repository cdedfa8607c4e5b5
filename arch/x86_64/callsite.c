/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call sites: which can be rewritten, and into what.
 *
 * Two shapes:
 *
 *   mov $nr,%eax; syscall	the jump replaces the five bytes of the mov. SYSCALL stays where it
 *				is: who jumps there, or is restarted there, executes it.
 *   syscall; insn…		where the number comes from elsewhere (syscall(3), Go, read(2) with
 *				its xor): the jump replaces SYSCALL and at least three bytes behind
 *				it, of instructions that can be moved into the slot. A jump to the
 *				first of them lands in the middle of our jump's displacement, so
 *				the slot is placed where that byte is an instruction that does not
 *				exist in 64-bit mode: it traps, and is led to the slot
 *				(arch_site_fits).
 *
 * Instructions are moved only if they are on the short list of movable(): no branches but a RET
 * with padding behind it, nothing relative to RIP.
 */
#include "arch/x86_64/callstub.h"

#include <string.h>

#define JUMP_LEN  5
#define MOVED_MAX ((size_t)16)

enum callstub_where arch_callstub_where(size_t off)
{
	if (off >= (size_t)(callstub_end - callstub_start))
		return CALLSTUB_OUTSIDE;
	if (off >= (size_t)(callstub_sigaction - callstub_start))
		return off == (size_t)(callstub_sigaction - callstub_start) ? CALLSTUB_FIRST
									    : CALLSTUB_ANSWERING;
	if (off >= (size_t)(callstub_taken - callstub_start))
		return CALLSTUB_POSTED;
	if (off >= (size_t)(callstub_returned - callstub_start) || arch_callstub_trapped(off))
		return CALLSTUB_RETURNED;
	if (off >= (size_t)(callstub_bell0 - callstub_start))
		return CALLSTUB_UNPOSTED;
	if (off >= (size_t)(callstub_refused - callstub_start))
		return CALLSTUB_REFUSED;
	if (off >= (size_t)(callstub_done - callstub_start))
		return CALLSTUB_ANSWERED;
	if (off >= (size_t)(callstub_wait - callstub_start))
		return CALLSTUB_POSTED;
	return off ? CALLSTUB_UNPOSTED : CALLSTUB_FIRST;
}

void arch_callstub_unwind(size_t off, struct arch_regs *regs)
{
	const uint64_t in_ah = 0xd5, overflow = 0x800;
	uint64_t saved = regs->rax >> 8 & in_ah;

	if (off >= (size_t)(callstub_sigaction_saved - callstub_start) &&
	    off < (size_t)(callstub_sigaction_back - callstub_start)) {
		/* SETO's byte, until ADD has made it the flag again. */
		if (off >= (size_t)(callstub_sigaction_half - callstub_start))
			saved |= regs->eflags & overflow;
		else if (regs->rax & 1)
			saved |= overflow;
		regs->eflags = (regs->eflags & ~(in_ah | overflow)) | saved;
	}
	regs->rax = CALLSTUB_SIGACTION;
}

bool arch_callstub_trapped(size_t off)
{
	return off == (size_t)(callstub_bell - callstub_start) + 2 ||
	       off == (size_t)(callstub_bell0 - callstub_start) + 2;
}

/* Bytes of the ModRM operand at @p, itself included; 0: relative to RIP, or more than @n. */
static size_t modrm_len(const uint8_t *p, size_t n)
{
	unsigned int mod, rm;
	size_t len = 1;

	if (!n)
		return 0;
	mod = p[0] >> 6;
	rm = p[0] & 7;
	if (mod == 3)
		return 1;
	if (mod == 0 && rm == 5)
		return 0;
	if (rm == 4) {
		if (n < 2)
			return 0;
		len++;
		if (mod == 0 && (p[1] & 7) == 5)
			len += 4;
	}
	len += mod == 1 ? 1 : mod == 2 ? 4 : 0;
	return len <= n ? len : 0;
}

/* Length of the instruction at @p if it does the same anywhere; 0 if not, or if unknown. */
static size_t movable(const uint8_t *p, size_t n)
{
	size_t i = 0, m, imm = 0;

	if (i < n && p[i] == 0x64) /* FS: */
		i++;
	if (i < n && (p[i] & 0xf0) == 0x40) /* REX */
		i++;
	if (i >= n)
		return 0;
	switch (p[i++]) {
	case 0x01:
	case 0x03:
	case 0x09:
	case 0x0b:
	case 0x21:
	case 0x23:
	case 0x29:
	case 0x2b:
	case 0x31:
	case 0x33:
	case 0x39:
	case 0x3b: /* add or and sub xor cmp */
	case 0x63:
	case 0x85:
	case 0x89:
	case 0x8b:
	case 0x8d: /* movsxd test mov lea */
		break;
	case 0x83: /* op r/m, imm8 */
		imm = 1;
		break;
	case 0x81:
	case 0xc7: /* op r/m, imm32; mov */
		imm = 4;
		break;
	case 0x3d: /* cmp eax, imm32 */
	case 0xa9: /* test eax, imm32 */
	case 0x05: /* add eax, imm32 */
		return i + 4 <= n ? i + 4 : 0;
	case 0x58:
	case 0x59:
	case 0x5a:
	case 0x5b:
	case 0x5d:
	case 0x5e:
	case 0x5f: /* pop */
	case 0x90:
		return i;
	default:
		return 0;
	}
	m = modrm_len(p + i, n - i);
	return m && i + m + imm <= n ? i + m + imm : 0;
}

/*
 * Are the @n bytes at @text + @at what an assembler fills up with behind a RET? Functions that are
 * padded begin at multiples of 16, so no such address may be among them.
 */
static bool is_padding(const uint8_t *text, size_t size, size_t at, size_t n)
{
	uint8_t second;

	if (!n)
		return true;
	if (at + n > size || at % 16 == 0 || (at + n - 1) % 16 < at % 16)
		return false;
	if (n == 1)
		return text[at] == 0xcc || text[at] == 0x90;
	second = text[at + 1];
	switch (text[at]) {
	case 0xcc:
		return second == 0xcc;
	case 0x90:
		return second == 0x90 || second == 0x66 || second == 0x0f;
	case 0x66:
		return second == 0x90 || second == 0x66 || second == 0x2e || second == 0x0f;
	case 0x0f:
		return second == 0x1f;
	}
	return false;
}

/* The instructions behind the SYSCALL that ends at @after: moves what a jump needs room for. */
static bool decode_behind(const uint8_t *text, size_t size, size_t after, struct arch_site *s)
{
	size_t at = after;

	while (at - after < JUMP_LEN - 2 && !s->returns) {
		size_t l;

		if (at < size && text[at] == 0xc3) {
			s->returns = true;
			l = 1;
		} else {
			l = movable(text + at, size - at);
		}
		if (!l || at + l - after > MOVED_MAX)
			return false;
		at += l;
	}
	s->moved_len = (uint8_t)(at - after);
	memcpy(s->moved, text + after, s->moved_len);
	s->len = (uint8_t)MAX(2U + s->moved_len, (unsigned int)JUMP_LEN);
	return is_padding(text, size, at, s->len - 2U - s->moved_len);
}

bool arch_site_decode(const uint8_t *text, size_t size, size_t after, struct arch_site *s)
{
	memset(s, 0, sizeof(*s));
	s->nr = -1;
	if (after < 2 || after > size || text[after - 2] != 0x0f || text[after - 1] != 0x05)
		return false;
	/* mov $nr,%eax */
	if (after >= 7 && text[after - 7] == 0xb8) {
		memcpy(&s->nr, text + after - 6, 4);
		if (s->nr >= 0 && s->nr < 1024) {
			s->start = 7;
			s->len = JUMP_LEN;
			return true;
		}
	}
	/* mov $nr,%rax */
	if (after >= 9 && text[after - 9] == 0x48 && text[after - 8] == 0xc7 &&
	    text[after - 7] == 0xc0) {
		memcpy(&s->nr, text + after - 6, 4);
		if (s->nr >= 0 && s->nr < 1024) {
			s->start = 9;
			s->len = 7;
			return true;
		}
	}
	s->nr = -1;
	s->start = 2;
	return decode_behind(text, size, after, s);
}

/* First bytes that are #UD in 64-bit mode whatever follows. */
static bool undefined_byte(uint8_t b)
{
	switch (b) {
	case 0x06:
	case 0x07:
	case 0x0e:
	case 0x16:
	case 0x17:
	case 0x1e:
	case 0x1f:
	case 0x27:
	case 0x2f:
	case 0x37:
	case 0x3f:
	case 0x60:
	case 0x61:
	case 0x82:
	case 0x9a:
	case 0xce:
	case 0xd4:
	case 0xd5:
	case 0xd6:
	case 0xea:
		return true;
	}
	return false;
}

bool arch_site_fits(const struct arch_site *s, uint64_t site_va, uint64_t slot_va)
{
	int64_t rel = (int64_t)(slot_va - (site_va + JUMP_LEN));

	if (rel != (int32_t)rel)
		return false;
	/* Nobody jumps into the middle of a mov that loads a number. */
	return s->nr >= 0 || undefined_byte((uint8_t)(rel >> 8));
}

void arch_jump_write(uint8_t out[5], uint64_t from, uint64_t to)
{
	int32_t rel = (int32_t)(int64_t)(to - (from + JUMP_LEN));

	out[0] = 0xe9;
	memcpy(out + 1, &rel, 4);
}

struct code {
	uint8_t *p;
	uint64_t va;
};

static void emit(struct code *c, const void *bytes, size_t n)
{
	memcpy(c->p, bytes, n);
	c->p += n;
	c->va += n;
}

static void emit_jump(struct code *c, uint64_t to)
{
	uint8_t jump[JUMP_LEN];

	arch_jump_write(jump, c->va, to);
	emit(c, jump, sizeof(jump));
}

/* op %gs:disp32 with register eax or r11 */
static void emit_gs(struct code *c, const char *op, size_t n, uint32_t disp)
{
	emit(c, op, n);
	emit(c, &disp, 4);
}

/* Where in the information page the answer to @nr is; -1: the sentry knows. */
static int answer_offset(int nr)
{
	switch (nr) {
	case 39: /* getpid */
		return CALLINFO_PID;
	case 186: /* gettid */
		return CALLINFO_TID;
	case 110: /* getppid */
		return CALLINFO_PPID;
	case 102: /* getuid */
		return CALLINFO_UID;
	case 107: /* geteuid */
		return CALLINFO_EUID;
	case 104: /* getgid */
		return CALLINFO_GID;
	case 108: /* getegid */
		return CALLINFO_EGID;
	}
	return -1;
}

unsigned int arch_site_units(const struct arch_site *s)
{
	return s->nr >= 0 && answer_offset(s->nr) < 0 ? 1 : 2;
}

uint64_t arch_slot_write(const struct arch_site *s, uint64_t site_va, uint64_t slot_va,
			 uint64_t stub_va, uint8_t *out)
{
	const uint8_t *way = s->nr == CALLSTUB_SIGACTION ? callstub_sigaction : callstub_enter;
	uint64_t enter = stub_va + (uint64_t)(way - callstub_start);
	uint64_t after = site_va + s->start;
	struct code c = {out, slot_va};
	int offset = answer_offset(s->nr);
	int32_t rel;

	if (offset >= 0) {
		emit_gs(&c, "\x65\x4c\x8b\x1c\x25", 5, CALLBOX_COUNT); /* mov %gs:count,%r11 */
		emit(&c, "\x4d\x8d\x5b\x01", 4);		       /* lea 1(%r11),%r11 */
		emit_gs(&c, "\x65\x4c\x89\x1c\x25", 5, CALLBOX_COUNT); /* mov %r11,%gs:count */
		emit_gs(&c, "\x65\x8b\x04\x25", 4, CALLINFO + (uint32_t)offset); /* mov …,%eax */
		emit_jump(&c, after);
		return after;
	}
	/* Behind the lea, the jump and a SYSCALL that only a restarted call executes. */
	if (s->nr < 0)
		after = slot_va + 7 + JUMP_LEN + 2;
	rel = (int32_t)(int64_t)(after - (slot_va + 7));
	emit(&c, "\x48\x8d\x0d", 3); /* lea after(%rip),%rcx */
	emit(&c, &rel, 4);
	if (s->nr >= 0) {
		emit(&c, "\xb8", 1); /* mov $nr,%eax */
		emit(&c, &s->nr, 4);
		emit_jump(&c, enter);
		return after;
	}
	emit_jump(&c, enter);
	emit(&c, "\x0f\x05", 2);
	emit(&c, s->moved, s->moved_len);
	if (!s->returns)
		emit_jump(&c, site_va + s->len);
	return after;
}
