/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See sites.h. Locks: the table is changed under mm->lock and pt_lock exclusively; either reads it.
 */
#include "sentry/mm/sites.h"

#include <string.h>
#include <sys/mman.h>

#include "sentry/mm/internal.h"

#define MAX_SITES    4096
#define MAX_AREAS    32
#define NR_BUCKETS   256
#define REACH	     (1900UL << 20) /* of a jump, with room for the area and the module */
#define AREA_SIZE    (CALLSTUB_PAGES * PAGE_SIZE)
#define AREA_UNITS   (AREA_SIZE / CALLSTUB_UNIT)
#define CHUNK_UNITS  (CALLSTUB_CHUNK / CALLSTUB_UNIT)
#define COMMON_UNITS (CALLSTUB_COMMON / CALLSTUB_UNIT)

enum site_state { SITE_SEEN, SITE_PATCHED, SITE_REFUSED };

struct site {
	uaddr_t after; /* behind SYSCALL, as the program was written */
	uaddr_t slot;  /* once patched */
	uint16_t next; /* in its bucket, index + 1 */
	uint8_t state, hits;
	uint8_t old[8]; /* what the jump overwrote */
	struct arch_site how;
};

struct area {
	uaddr_t va;
	gpa_t frames[CALLSTUB_PAGES];
	bool shared; /* with another process, which may fill it differently */
	uint16_t unit_site
		[AREA_UNITS]; /* index + 1 of the site whose slot begins or goes on there */
};

struct mm_sites {
	struct refcount refs;
	bool stopped;
	size_t nr_sites, cap_sites, nr_areas;
	struct site *sites;
	struct area *areas[MAX_AREAS];
	uint64_t pages[4]; /* a bit for every 256th page: clear where nothing was patched */
	uint16_t buckets[NR_BUCKETS];
};

#define MAX_BOX_PAGES 64

struct mm_boxes {
	size_t n;
	struct {
		uaddr_t va;
		gpa_t frame; /* of the boxes; the information page is mapped behind it */
		gpa_t info;
		uint32_t used;
	} page[MAX_BOX_PAGES];
};

OBJTYPE(sites_type, "mm_sites")

static uaddr_t site_va(const struct site *s)
{
	return s->after - s->how.start;
}

static uint64_t page_bit(uaddr_t va, unsigned int *word)
{
	unsigned int n = (va >> PAGE_SHIFT) % 256;

	*word = n / 64;
	return 1ULL << (n % 64);
}

static uint16_t *bucket_of(struct mm_sites *m, uaddr_t after)
{
	return &m->buckets[(after ^ after >> 8 ^ after >> 16) % NR_BUCKETS];
}

static struct site *find_site(struct mm_sites *m, uaddr_t after)
{
	uint16_t i = *bucket_of(m, after);

	while (i && m->sites[i - 1].after != after)
		i = m->sites[i - 1].next;
	return i ? &m->sites[i - 1] : NULL;
}

static void put_sites(struct mm_sites *m)
{
	if (!m || !refcount_put(&m->refs))
		return;
	for (size_t i = 0; i < m->nr_areas; i++) {
		for (int j = 0; j < CALLSTUB_PAGES; j++)
			frame_put(m->areas[i]->frames[j]);
		kfree(m->areas[i]);
	}
	kfree(m->sites);
	kfree(m);
	objtype_dec(&sites_type);
}

/* A copy for one side of a fork; the areas are shared from here on. */
static struct mm_sites *copy_sites(struct mm_sites *old)
{
	struct mm_sites *m = kmalloc(sizeof(*m));

	if (!m)
		return NULL;
	*m = *old;
	refcount_init(&m->refs, 1);
	objtype_inc(&sites_type);
	m->nr_areas = 0;
	m->sites = kmalloc(old->cap_sites * sizeof(*m->sites));
	if (!m->sites)
		goto err;
	memcpy(m->sites, old->sites, old->nr_sites * sizeof(*m->sites));
	for (; m->nr_areas < old->nr_areas; m->nr_areas++) {
		struct area *a = kmalloc(sizeof(*a));

		if (!a)
			goto err;
		old->areas[m->nr_areas]->shared = true;
		*a = *old->areas[m->nr_areas];
		m->areas[m->nr_areas] = a;
		for (int j = 0; j < CALLSTUB_PAGES; j++)
			frame_get(a->frames[j]);
	}
	return m;
err:
	put_sites(m);
	return NULL;
}

/* The table, the mm's own. Excl; takes pt_lock. NULL when out of memory. */
static struct mm_sites *own_sites(struct mm *mm)
{
	struct mm_sites *m = mm->sites, *own;

	if (m && refcount_read(&m->refs) == 1)
		return m;
	if (m) {
		own = copy_sites(m);
	} else {
		own = kzalloc(sizeof(*own));
		if (own) {
			refcount_init(&own->refs, 1);
			objtype_inc(&sites_type);
		}
	}
	if (!own)
		return NULL;
	write_lock(&mm->pt_lock);
	mm->sites = own;
	write_unlock(&mm->pt_lock);
	put_sites(m);
	return own;
}

static struct site *add_site(struct mm *mm, struct mm_sites *m, uaddr_t after)
{
	uint16_t *bucket = bucket_of(m, after);
	struct site *s;

	if (m->nr_sites == MAX_SITES)
		return NULL;
	if (m->nr_sites == m->cap_sites) {
		size_t cap = m->cap_sites ? m->cap_sites * 2 : 32;
		struct site *v = kmalloc(cap * sizeof(*v)), *old = m->sites;

		if (!v)
			return NULL;
		if (old)
			memcpy(v, old, m->nr_sites * sizeof(*v));
		write_lock(&mm->pt_lock);
		m->sites = v;
		m->cap_sites = cap;
		write_unlock(&mm->pt_lock);
		kfree(old);
	}
	s = &m->sites[m->nr_sites];
	memset(s, 0, sizeof(*s));
	s->after = after;
	s->next = *bucket;
	*bucket = (uint16_t)++m->nr_sites;
	return s;
}

/* ---- areas and slots ---- */

/* A gap of an area's size within reach of @va: below its module, or any below that. Excl. */
static uaddr_t find_gap_near(struct mm *mm, uaddr_t va)
{
	struct vma *v = vma_at(mm, va);

	while (v) {
		struct vma *below = vma_prev(v);
		uaddr_t floor = below ? below->end : USER_MIN;

		if (va - v->start > REACH)
			return 0;
		/* Not where a heap or a stack is going to grow. */
		if (v->start > floor && v->start - floor >= 2 * AREA_SIZE &&
		    !(v->flags & (VMA_GROWSDOWN | VMA_STACK)))
			return v->start - AREA_SIZE;
		v = below;
	}
	return 0;
}

static struct area *add_area(struct mm *mm, struct mm_sites *m, uaddr_t near)
{
	uaddr_t va = find_gap_near(mm, near);
	struct area *a;
	int i;

	if (!va || m->nr_areas == MAX_AREAS)
		return NULL;
	a = kzalloc(sizeof(*a));
	if (!a)
		return NULL;
	a->va = va;
	for (i = 0; i < CALLSTUB_PAGES; i++) {
		a->frames[i] = frame_alloc();
		if (a->frames[i] == GPA_NONE)
			goto out_frames;
		memset(phys_ptr(a->frames[i]), 0xcc, PAGE_SIZE);
	}
	memcpy(phys_ptr(a->frames[0]), callstub_start, CALLSTUB_COMMON);
	if (mm_map_frames_locked(mm, va, a->frames, CALLSTUB_PAGES, PROT_READ | PROT_EXEC,
				 "[kvmsbox]"))
		goto out_frames;
	vma_at(mm, va)->flags |= VMA_SEALED;
	for (i = 0; i < COMMON_UNITS; i++)
		a->unit_site[i] = UINT16_MAX;
	write_lock(&mm->pt_lock);
	m->areas[m->nr_areas++] = a;
	write_unlock(&mm->pt_lock);
	return a;

out_frames:
	while (i-- > 0)
		frame_put(a->frames[i]);
	kfree(a);
	return NULL;
}

/* Room for @s in @a: index of its first unit, or 0. */
static unsigned int find_units(const struct area *a, const struct site *s)
{
	unsigned int n = arch_site_units(&s->how);

	for (unsigned int u = COMMON_UNITS; u + n <= AREA_UNITS; u += n) {
		bool is_free = !a->unit_site[u] && !a->unit_site[u + n - 1];

		if (is_free && (u + n - 1) / CHUNK_UNITS == u / CHUNK_UNITS &&
		    arch_site_fits(&s->how, site_va(s), a->va + u * CALLSTUB_UNIT))
			return u;
	}
	return 0;
}

static bool in_reach(const struct area *a, uaddr_t va)
{
	return (a->va > va ? a->va - va : va - a->va) < REACH;
}

/* Finds @s a slot and writes it. Excl. */
static bool make_slot(struct mm *mm, struct mm_sites *m, struct site *s)
{
	size_t index = (size_t)(s - m->sites);
	unsigned int unit = 0, n = arch_site_units(&s->how);
	struct area *a = NULL;
	uint8_t *out;

	for (size_t i = 0; i < m->nr_areas && !unit; i++) {
		a = m->areas[i];
		if (!a->shared && in_reach(a, s->after))
			unit = find_units(a, s);
	}
	if (!unit) {
		a = add_area(mm, m, s->after);
		unit = a ? find_units(a, s) : 0;
	}
	if (!unit)
		return false;
	for (unsigned int i = 0; i < n; i++)
		a->unit_site[unit + i] = (uint16_t)(index + 1);
	s->slot = a->va + unit * CALLSTUB_UNIT;
	out = (uint8_t *)phys_ptr(a->frames[unit * CALLSTUB_UNIT / PAGE_SIZE]) +
	      unit * CALLSTUB_UNIT % PAGE_SIZE;
	arch_slot_write(&s->how, site_va(s), s->slot, a->va, out);
	return true;
}

/* ---- text ---- */

/* The page at @va, or NULL. pt_lock held. */
static uint8_t *text_page(struct mm *mm, uaddr_t va, uint64_t **entry)
{
	uint64_t *pte = pt_find(&mm->pt, va);
	uint64_t value = pte ? pte_read(pte) : 0;

	*entry = pte;
	return value & PTE_P ? phys_ptr(value & PTE_ADDR) : NULL;
}

/*
 * Writes @n bytes of text at @va into a new private copy of the page, which takes the old one's
 * place at once: a thread that executes there meets the one or the other. Excl.
 */
static bool text_write(struct mm *mm, uaddr_t va, const uint8_t *bytes, size_t n)
{
	uint8_t *page;
	uint64_t *pte, old;
	gpa_t own = frame_alloc_dirty();

	if (own == GPA_NONE)
		return false;
	write_lock(&mm->pt_lock);
	page = text_page(mm, va, &pte);
	if (!page) {
		write_unlock(&mm->pt_lock);
		frame_put(own);
		return false;
	}
	memcpy(phys_ptr(own), page, PAGE_SIZE);
	memcpy((uint8_t *)phys_ptr(own) + (va & ~PAGE_MASK), bytes, n);
	old = pte_read(pte);
	pte_write(pte, (old & ~(PTE_ADDR | PTE_FILE | PTE_STUB | PTE_RW | PTE_COW)) | own);
	if (old & PTE_FILE) {
		atomic_fetch_sub(&mm->nr_file_rss, 1);
		atomic_fetch_add(&mm->nr_anon_rss, 1);
	}
	mm->platform->type->as_invalidate(mm->as, va & PAGE_MASK, PAGE_SIZE);
	frame_put(old & PTE_ADDR);
	write_unlock(&mm->pt_lock);
	return true;
}

static bool text_is_constant(const struct vma *v)
{
	return v && (v->prot & PROT_EXEC) && !(v->prot & PROT_WRITE) &&
	       !(v->flags & (VMA_SHARED | VMA_PINNED));
}

/* Rewrites @s, whose SYSCALL has trapped often enough. Excl. */
static void patch(struct mm *mm, struct mm_sites *m, struct site *s,
		  enum site_wish (*wanted)(int nr))
{
	enum site_wish wish = SITE_NEVER;
	uaddr_t page_va = (s->after - 2) & PAGE_MASK;
	uint8_t jump[5], *page;
	uint64_t *pte, bit;
	unsigned int word;
	bool ok = false;

	if (!text_is_constant(vma_at(mm, s->after - 2))) {
		s->state = SITE_REFUSED;
		return;
	}
	read_lock(&mm->pt_lock);
	page = text_page(mm, page_va, &pte);
	if (page)
		ok = arch_site_decode(page, PAGE_SIZE, s->after - page_va, &s->how);
	if (ok)
		memcpy(s->old, page + (site_va(s) - page_va), sizeof(jump));
	read_unlock(&mm->pt_lock);
	if (!page)
		return; /* another time */
	if (ok)
		wish = wanted(s->how.nr);
	if (wish == SITE_LATER) {
		s->hits = 0;
		return;
	}
	s->state = SITE_REFUSED;
	if (wish == SITE_NEVER || !make_slot(mm, m, s))
		return;
	arch_jump_write(jump, site_va(s), s->slot);
	if (text_write(mm, site_va(s), jump, sizeof(jump))) {
		s->state = SITE_PATCHED;
		bit = page_bit(page_va, &word);
		m->pages[word] |= bit;
	}
}

void mm_site_trapped(struct mm *mm, uaddr_t after, enum site_wish (*wanted)(int nr))
{
	struct mm_sites *m;
	struct site *s;

	read_lock(&mm->lock);
	m = mm->sites;
	s = m ? find_site(m, after) : NULL;
	if ((m && m->stopped) || (s && s->state != SITE_SEEN)) {
		read_unlock(&mm->lock);
		return;
	}
	read_unlock(&mm->lock);
	write_lock(&mm->lock);
	m = own_sites(mm);
	if (m && !m->stopped) {
		s = find_site(m, after);
		if (!s)
			s = add_site(mm, m, after);
		if (s && s->state == SITE_SEEN && ++s->hits >= mm->platform->type->rewrite_after)
			patch(mm, m, s, wanted);
	}
	mm_write_unlock(mm);
}

/* ---- back ---- */

void sites_forget(struct mm *mm, uaddr_t start, uaddr_t end, bool restore)
{
	struct mm_sites *m = mm->sites;

	if (!m)
		return;
	for (size_t i = 0; i < m->nr_sites; i++) {
		struct site *s = &m->sites[i];

		if (s->state == SITE_SEEN || s->after - s->how.start >= end ||
		    s->after + s->how.moved_len <= start)
			continue;
		m = own_sites(mm);
		if (!m)
			return;
		s = &m->sites[i];
		if (s->state == SITE_PATCHED && restore)
			text_write(mm, site_va(s), s->old, 5);
		/* Something else may come here: to be looked at afresh. */
		s->state = SITE_SEEN;
		s->hits = 0;
	}
}

void mm_sites_stop(struct mm *mm)
{
	struct mm_sites *m;

	write_lock(&mm->lock);
	m = own_sites(mm);
	if (m && !m->stopped) {
		sites_forget(mm, 0, USER_TOP, true);
		m->stopped = true;
	}
	mm_write_unlock(mm);
}

void sites_overlay(struct mm *mm, uaddr_t addr, uint8_t *buf, size_t len)
{
	const struct mm_sites *m = mm->sites;
	unsigned int word;
	uint64_t bit = page_bit(addr, &word);

	if (!(m->pages[word] & bit))
		return;
	for (size_t i = 0; i < m->nr_sites; i++) {
		const struct site *s = &m->sites[i];
		uaddr_t va = site_va(s);

		if (s->state != SITE_PATCHED || va >= addr + len || va + 5 <= addr)
			continue;
		for (unsigned int j = 0; j < 5; j++) {
			if (va + j >= addr && va + j < addr + len)
				buf[va + j - addr] = s->old[j];
		}
	}
}

void sites_fork(struct mm *from, struct mm *to)
{
	if (!from->sites)
		return;
	refcount_get(&from->sites->refs);
	to->sites = from->sites;
}

static void boxes_free(struct mm *mm)
{
	for (size_t i = 0; mm->boxes && i < mm->boxes->n; i++) {
		frame_put(mm->boxes->page[i].frame);
		frame_put(mm->boxes->page[i].info);
	}
	kfree(mm->boxes);
	mm->boxes = NULL;
}

void sites_free(struct mm *mm)
{
	put_sites(mm->sites);
	mm->sites = NULL;
	boxes_free(mm);
}

/* ---- where a thread is ---- */

/* In a slot: what comes before the moved instructions has no effect yet. */
static enum site_place slot_place(const struct site *s, uaddr_t rip, struct site_spot *spot)
{
	/* The moved instructions are at home in the slot. */
	if (s->how.nr < 0 && rip >= s->slot + 12)
		return SITE_NONE;
	spot->at = site_va(s);
	spot->nr = s->how.nr;
	spot->syscall = s->after - 2;
	return SITE_START;
}

enum site_place mm_site_place(struct mm *mm, uaddr_t rip, struct site_spot *spot)
{
	enum site_place place = SITE_NONE;
	struct mm_sites *m;

	if (!mm->sites)
		return SITE_NONE;
	read_lock(&mm->lock);
	m = mm->sites;
	for (size_t i = 0; m && i < m->nr_areas; i++) {
		const struct area *a = m->areas[i];
		uint16_t index;

		if (rip < a->va || rip >= a->va + AREA_SIZE)
			continue;
		spot->at = rip - a->va;
		index = a->unit_site[spot->at / CALLSTUB_UNIT];
		if (spot->at < CALLSTUB_COMMON)
			place = SITE_COMMON;
		else if (index && index <= m->nr_sites)
			place = slot_place(&m->sites[index - 1], rip, spot);
		goto out_unlock;
	}
	/* The middle of a patch: only behind SYSCALL is there anything to go to. */
	for (size_t i = 0; m && i < m->nr_sites; i++) {
		const struct site *s = &m->sites[i];

		if (s->state != SITE_PATCHED || s->how.nr >= 0 || rip < s->after ||
		    rip >= s->after + s->how.moved_len)
			continue;
		spot->at = s->slot + 14 + (rip - s->after);
		place = SITE_INTERIOR;
		break;
	}
out_unlock:
	read_unlock(&mm->lock);
	return place;
}

bool mm_site_common(struct mm *mm, uaddr_t rip, size_t *off)
{
	bool found = false;

	read_lock(&mm->lock);
	for (size_t i = 0; mm->sites && i < mm->sites->nr_areas && !found; i++) {
		*off = rip - mm->sites->areas[i]->va;
		found = *off < CALLSTUB_COMMON;
	}
	read_unlock(&mm->lock);
	return found;
}

uaddr_t mm_site_stub(struct mm *mm)
{
	uaddr_t va;

	read_lock(&mm->lock);
	va = mm->sites && !mm->sites->stopped && mm->sites->nr_areas ? mm->sites->areas[0]->va : 0;
	read_unlock(&mm->lock);
	return va;
}

/* ---- call boxes ---- */

/* Another pair of pages; @b has room. Excl. */
static bool add_box_page(struct mm *mm, struct mm_boxes *b)
{
	gpa_t frames[2] = {frame_alloc(), frame_alloc()};
	uaddr_t va = mm_find_gap_locked(mm, 2 * PAGE_SIZE, 0);
	bool ok = frames[0] != GPA_NONE && frames[1] != GPA_NONE && va;

	if (ok)
		ok = !mm_map_frames_locked(mm, va, &frames[0], 1, PROT_READ | PROT_WRITE,
					   "[kvmsbox]") &&
		     !mm_map_frames_locked(mm, va + PAGE_SIZE, &frames[1], 1, PROT_READ,
					   "[kvmsbox]");
	if (ok) {
		/* A child gets its own. */
		vma_at(mm, va)->flags |= VMA_DONTFORK | VMA_SEALED;
		vma_at(mm, va + PAGE_SIZE)->flags |= VMA_DONTFORK | VMA_SEALED;
		b->page[b->n].va = va;
		b->page[b->n].frame = frames[0];
		b->page[b->n].info = frames[1];
		b->page[b->n++].used = 0;
	}
	/* The references stay with the table: the sentry writes to them as long as it lasts. */
	for (int i = 0; i < 2 && !ok; i++) {
		if (frames[i] != GPA_NONE)
			frame_put(frames[i]);
	}
	return ok;
}

struct callbox *mm_box_alloc(struct mm *mm, uaddr_t *va)
{
	struct callbox *box = NULL;
	struct mm_boxes *b;
	size_t i, slot;

	write_lock(&mm->lock);
	b = mm->boxes;
	if (!b) {
		b = kzalloc(sizeof(*b));
		mm->boxes = b;
		if (!b)
			goto out_unlock;
	}
	for (i = 0; i < b->n && b->page[i].used == (1U << CALLBOX_PER_PAGE) - 1;)
		i++;
	if (i == b->n && (b->n == MAX_BOX_PAGES || !add_box_page(mm, b)))
		goto out_unlock;
	slot = (size_t)__builtin_ctz(~b->page[i].used);
	b->page[i].used |= 1U << slot;
	*va = b->page[i].va + slot * CALLBOX_SIZE;
	box = (struct callbox *)phys_ptr(b->page[i].frame) + slot;
	memset(box, 0, sizeof(*box));
out_unlock:
	mm_write_unlock(mm);
	return box;
}

struct callinfo *mm_box_info(struct mm *mm, uaddr_t va)
{
	struct callinfo *info = NULL;

	read_lock(&mm->lock);
	for (size_t i = 0; mm->boxes && i < mm->boxes->n; i++) {
		if (va - mm->boxes->page[i].va < PAGE_SIZE)
			info = (struct callinfo *)phys_ptr(mm->boxes->page[i].info) +
			       (va - mm->boxes->page[i].va) / CALLBOX_SIZE;
	}
	read_unlock(&mm->lock);
	return info;
}

void mm_box_free(struct mm *mm, uaddr_t va)
{
	write_lock(&mm->lock);
	for (size_t i = 0; mm->boxes && i < mm->boxes->n; i++) {
		if (va - mm->boxes->page[i].va < PAGE_SIZE)
			mm->boxes->page[i].used &=
				~(1U << (va - mm->boxes->page[i].va) / CALLBOX_SIZE);
	}
	mm_write_unlock(mm);
}
