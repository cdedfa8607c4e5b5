/* SPDX-License-Identifier: Apache-2.0 */
/* The ground floor: arena, radix, rbtree, iov, physmem, wait queues, lock order. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/iov.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/physmem.h"
#include "sentry/lib/physmem_internal.h"
#include "sentry/lib/radix.h"
#include "sentry/lib/rbtree.h"
#include "sentry/lib/refcount.h"
#include "sentry/lib/waitq.h"
#include "sentry/lib/world.h"
#include "test/unit/unit.h"

#define N 4000

TEST(arena_sizes_and_reuse)
{
	static uint8_t *p[N];
	static size_t size[N];
	size_t before = arena_in_use();

	srand(1);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < N; i++) {
			size[i] = (size_t)(rand() % (i % 50 ? 3000 : 300000)) + 1;
			p[i] = kmalloc(size[i]);
			CHECK(p[i] && !((uintptr_t)p[i] & 15));
			CHECK(size[i] < PAGE_SIZE || !((uintptr_t)p[i] & ~PAGE_MASK));
			memset(p[i], i & 255, size[i]);
		}
		for (int i = 0; i < N; i++) {
			for (size_t k = 0; k < size[i]; k += 97)
				CHECK(p[i][k] == (i & 255));
			CHECK(p[i][size[i] - 1] == (i & 255));
		}
		for (int i = 0; i < N; i++)
			kfree(p[(i * 7 + 3) % N]), p[(i * 7 + 3) % N] = NULL;
	}
	CHECK(arena_in_use() == before);
}

TEST(arena_zeroes_and_grows)
{
	volatile size_t huge = SIZE_MAX / 2;
	char *s = kmalloc(100000);

	memset(s, 'x', 100000);
	kfree(s);
	s = kzalloc(100000);
	for (size_t i = 0; i < 100000; i++)
		CHECK(!s[i]);
	strcpy(s, "kept");
	s = krealloc(s, 500000);
	CHECK(s && !strcmp(s, "kept"));
	kfree(s);
	CHECK(!kcalloc(huge, 4));
	kfree(NULL);
}

TEST(radix_against_array)
{
	static uint64_t ref[1 << 14];
	size_t before = arena_in_use();
	struct radix r = {0};
	uint64_t index, value;

	srand(2);
	memset(ref, 0, sizeof(ref));
	for (int i = 0; i < 40000; i++) {
		index = (uint64_t)(rand() % (1 << 14));
		value = rand() % 3 ? (uint64_t)rand() + 1 : 0;
		CHECK(!radix_set(&r, index, value));
		ref[index] = value;
	}
	for (index = 0; index < 1 << 14; index++)
		CHECK(radix_get(&r, index) == ref[index]);
	index = 0;
	for (uint64_t i = 0; i < 1 << 14; i++) {
		if (!ref[i])
			continue;
		CHECK(radix_next(&r, &index, &value) && index == i && value == ref[i]);
		index++;
	}
	CHECK(!radix_next(&r, &index, &value));
	for (index = 0; index < 1 << 14; index++)
		CHECK(!radix_set(&r, index, 0));
	CHECK(arena_in_use() == before);
	CHECK(!radix_set(&r, UINT64_MAX, 7) && radix_get(&r, UINT64_MAX) == 7);
	CHECK(!radix_get(&r, 0));
	index = 5;
	CHECK(radix_next(&r, &index, &value) && index == UINT64_MAX);
	radix_fini(&r);
	CHECK(arena_in_use() == before);
}

/* An insertion that fails leaves no node behind, however far it got. */
TEST(radix_out_of_memory)
{
	static const uint64_t there[] = {0, 1, 70, 5000};
	static const uint64_t added[] = {3, 64, 100, 1 << 20, UINT64_MAX};
	size_t before;
	uint64_t got;

	for (size_t n = 0; n <= ARRAY_SIZE(there); n++) {
		struct radix r = {0};
		int failed = 0;

		for (size_t i = 0; i < n; i++)
			CHECK(!radix_set(&r, there[i], i + 1));
		before = arena_in_use();
		for (size_t i = 0; i < ARRAY_SIZE(added); i++) {
			long left;
			int err, nth = 0;

			do {
				arena_fail_at(++nth);
				err = radix_set(&r, added[i], 7);
				left = arena_fail_at(0);
				failed += err != 0;
				got = radix_get(&r, added[i]);
				CHECK(err == (left <= 0 ? -ENOMEM : 0) && got == (err ? 0 : 7));
				CHECK(!err || arena_in_use() == before);
			} while (err);
			CHECK(!radix_set(&r, added[i], 0));
			CHECK(arena_in_use() == before);
		}
		CHECK(failed > 10);
		for (size_t i = 0; i < n; i++)
			CHECK(radix_get(&r, there[i]) == i + 1);
		radix_fini(&r);
	}
}

struct item {
	struct rb_node node;
	unsigned int key;
	bool in;
};

static int black_height(const struct rb_node *n)
{
	int l, r;

	if (!n)
		return 1;
	if (n->red && ((n->left && n->left->red) || (n->right && n->right->red)))
		return -1;
	l = black_height(n->left);
	r = black_height(n->right);
	return l < 0 || l != r ? -1 : l + !n->red;
}

TEST(rbtree_random)
{
	static struct item items[512];
	struct rb_root root = {0};
	unsigned int count = 0;

	srand(3);
	for (unsigned int i = 0; i < 512; i++)
		items[i].key = i;
	for (int step = 0; step < 20000; step++) {
		struct item *it = &items[rand() % 512];

		if (it->in) {
			rb_erase(&root, &it->node);
			count--;
		} else {
			struct rb_node **link = &root.node, *parent = NULL;

			while (*link) {
				parent = *link;
				link = it->key < rb_entry(parent, struct item, node)->key
					       ? &parent->left
					       : &parent->right;
			}
			rb_link_node(&it->node, parent, link);
			rb_insert_color(&root, &it->node);
			count++;
		}
		it->in = !it->in;
		if (step % 100 == 0) {
			struct rb_node *n;
			unsigned int seen = 0, last = 0;

			CHECK(black_height(root.node) > 0);
			rb_for_each(n, &root) {
				struct item *x = rb_entry(n, struct item, node);

				CHECK(x->in && (!seen || x->key > last));
				last = x->key;
				seen++;
			}
			CHECK(seen == count);
		}
	}
}

TEST(iov_moves_and_reverts)
{
	char a[10] = "", b[10] = "";
	struct iov_iter it;

	iov_init_kernel(&it, a, 10);
	it.nsegs = 2;
	it.inl[0].len = 4;
	it.inl[1].base = (uint64_t)(uintptr_t)b;
	it.inl[1].len = 6;
	CHECK(iov_copy_to(&it, "abcdefgh", 8) == 8 && it.count == 2);
	CHECK(!memcmp(a, "abcd", 4) && !memcmp(b, "efgh", 4));
	iov_revert(&it, 6);
	CHECK(it.count == 8 && iov_copy_to(&it, "XY12", 4) == 4);
	CHECK(!memcmp(a, "abXY", 4) && !memcmp(b, "12gh", 4));
	CHECK(iov_copy_to(&it, "zzzzzzzz", 8) == 4 && !it.count);
	iov_fini(&it);
}

TEST(physmem_extents_and_references)
{
	struct physmem_stats a, b;
	gpa_t e, f;

	physmem_stats(&a);
	e = frame_alloc_extent(300);
	CHECK(e != GPA_NONE && e && !(e & ~PAGE_MASK));
	for (size_t i = 0; i < 300; i++)
		CHECK(frame_refs(e + i * PAGE_SIZE) == 1);
	memset(phys_ptr(e), 0xaa, 300 * PAGE_SIZE);
	frame_get(e + 100 * PAGE_SIZE);
	frame_put_range(e, 300);
	CHECK(frame_refs(e + 100 * PAGE_SIZE) == 1 && !frame_refs(e));
	CHECK(*(uint8_t *)phys_ptr(e + 100 * PAGE_SIZE) == 0xaa);
	frame_put(e + 100 * PAGE_SIZE);
	for (int i = 0; i < 2000; i++) {
		f = frame_alloc();
		CHECK(f != GPA_NONE);
		for (size_t k = 0; k < PAGE_SIZE; k += 512)
			CHECK(!((uint8_t *)phys_ptr(f))[k]);
		memset(phys_ptr(f), 0x55, PAGE_SIZE);
		frame_put(f);
	}
	f = frame_alloc_extent(512);
	CHECK(!(f & (512 * PAGE_SIZE - 1)));
	for (size_t i = 0; i < 512; i++)
		CHECK(!*(uint8_t *)phys_ptr(f + i * PAGE_SIZE));
	frame_put_range(f, 512);
	physmem_stats(&b);
	CHECK(a.frames == b.frames);
}

/* Four extents of 2 MiB each, which must read as zero, written to all over and freed. */
static void come_and_go(void)
{
	enum { EXTENTS = 4, FRAMES = 512 };
	gpa_t gpa[EXTENTS];

	for (int i = 0; i < EXTENTS; i++) {
		gpa[i] = frame_alloc_extent(FRAMES);
		CHECK(gpa[i] != GPA_NONE);
		for (int k = 0; k < FRAMES; k++) {
			uint64_t *p = phys_ptr(gpa[i] + (gpa_t)k * PAGE_SIZE);

			CHECK(!p[0] && !p[PAGE_SIZE / sizeof(*p) - 1]);
			p[0] = p[PAGE_SIZE / sizeof(*p) - 1] = 1;
		}
	}
	for (int i = 0; i < EXTENTS; i++)
		frame_put_range(gpa[i], FRAMES);
}

static int told;

static void count_tell(void)
{
	told++;
}

TEST(physmem_hoard)
{
	struct physmem_stats st;
	gpa_t gpa;
	int i;

	/* Nobody would give it back: little is kept, however often. */
	for (i = 0; i < 4; i++)
		come_and_go();
	CHECK(physmem->nr_kept <= KEPT_MIN);

	physmem_on_hoard(count_tell);
	for (i = 0; i < 4; i++)
		come_and_go();
	CHECK(physmem->nr_kept >= 2048 && physmem->nr_kept <= physmem->keep);
	CHECK(told == 1);
	gpa = frame_alloc_extent(512);
	CHECK(frames_are_warm(gpa, 512) && !*(uint64_t *)phys_ptr(gpa));
	frame_put_range(gpa, 512);

	/* Somebody still does; then nobody does. */
	CHECK(physmem_settle());
	come_and_go();
	CHECK(physmem_settle());
	CHECK(!physmem_settle());
	CHECK(!physmem->nr_kept && !physmem->nr_warm);
	physmem_stats(&st);
	CHECK(st.resident <= st.frames * PAGE_SIZE);
	CHECK(!physmem_settle());
	gpa = frame_alloc_extent(512);
	CHECK(!frames_are_warm(gpa, 512));
	frame_put_range(gpa, 512);

	/* It begins anew. */
	for (i = 0; i < 4; i++)
		come_and_go();
	CHECK(told == 2);

	/* A limit on memory limits this, too. */
	CHECK(physmem_settle() && !physmem_settle());
	physmem->limit = 8192 * PAGE_SIZE;
	for (i = 0; i < 6; i++)
		come_and_go();
	CHECK(physmem->nr_kept > KEPT_MIN && physmem->nr_kept <= 8192 / KEPT_OF_LIMIT);
	physmem->limit = 0;
	(void)!physmem_settle();
	CHECK(!physmem_settle());
	physmem_on_hoard(NULL);
}

static int woken;

static bool count_wake(struct waiter *w, uint32_t events)
{
	woken++;
	return true;
}

TEST(physmem_what_is_there)
{
	enum { FRAMES = 300 };
	gpa_t gpa = frame_alloc_extent(FRAMES);
	unsigned char core[FRAMES], swapped[FRAMES];

	CHECK(gpa != GPA_NONE);
	for (int i = 0; i < FRAMES; i++) {
		if (i % 7 == 3 || (i > 100 && i < 150))
			*(uint8_t *)phys_ptr(gpa + i * PAGE_SIZE) = 1;
	}
	physmem_incore(gpa, FRAMES, core);
	physmem_incore_or_swapped(gpa, FRAMES, swapped);
	for (int i = 0; i < FRAMES; i++) {
		CHECK((core[i] & 1) == (i % 7 == 3 || (i > 100 && i < 150)));
		CHECK(swapped[i] == (core[i] & 1));
	}
	physmem_punch(gpa + 100 * PAGE_SIZE, 50);
	physmem_incore_or_swapped(gpa + 90 * PAGE_SIZE, 70, swapped);
	for (int i = 0; i < 70; i++)
		CHECK(swapped[i] == ((i < 10 || i >= 60) && (i + 90) % 7 == 3));
	frame_put_range(gpa, FRAMES);
}

TEST(waitq_masks_and_exclusive)
{
	struct waiter w[3] = {{.mask = EPOLLIN, .fn = count_wake},
			      {.mask = EPOLLIN, .exclusive = true, .fn = count_wake},
			      {.mask = EPOLLIN, .exclusive = true, .fn = count_wake}};
	struct waitq wq;

	waitq_init(&wq);
	for (int i = 0; i < 3; i++)
		waitq_add(&wq, &w[i]);
	waitq_wake(&wq, EPOLLOUT);
	CHECK(woken == 0);
	waitq_wake(&wq, EPOLLIN);
	CHECK(woken == 2);
	waitq_wake(&wq, EPOLLHUP);
	CHECK(woken == 4);
	for (int i = 0; i < 3; i++)
		waitq_remove(&w[i]);
	waitq_remove(&w[0]);
	CHECK(!waitq_active(&wq));
	waitq_fini(&wq);
}

/* The exit status of @fn in a child. */
static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		(void)!freopen("/dev/null", "w", stderr);
		fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void wrong_order(void)
{
	struct mutex inner, outer;

	mutex_init(&inner, LOCK_WAITQ);
	mutex_init(&outer, LOCK_MM);
	mutex_lock(&inner);
	mutex_lock(&outer);
}

static void drop_too_much(void)
{
	struct refcount r;

	refcount_init(&r, 1);
	refcount_put(&r);
	refcount_put(&r);
}

static void free_nonsense(void)
{
	int on_stack;

	kfree(&on_stack);
}

TEST(bugs_end_the_process_with_125)
{
#ifdef LOCK_DEBUG
	CHECK(in_child(wrong_order) == 125);
#else
	(void)wrong_order;
#endif
	CHECK(in_child(drop_too_much) == 125);
	CHECK(in_child(free_nonsense) == 125);
}

/* ---- the world ---- */

static struct {
	_Atomic int inside, held;
	_Atomic bool wrong, over;
	_Atomic long entered;
} world;

static void *goes_in_and_out(void *unused)
{
	while (!atomic_load(&world.over)) {
		world_enter();
		atomic_fetch_add(&world.inside, 1);
		if (atomic_load(&world.held))
			atomic_store(&world.wrong, true);
		atomic_fetch_sub(&world.inside, 1);
		world_leave();
		atomic_fetch_add(&world.entered, 1);
	}
	return unused;
}

/* Two of them: one holds it at a time. */
static void *holds(void *unused)
{
	for (int i = 0; i < 2000; i++) {
		world_hold();
		if (atomic_fetch_add(&world.held, 1) || atomic_load(&world.inside))
			atomic_store(&world.wrong, true);
		sched_yield();
		if (atomic_load(&world.inside))
			atomic_store(&world.wrong, true);
		atomic_fetch_sub(&world.held, 1);
		world_release();
	}
	return unused;
}

TEST(world_is_held_alone)
{
	pthread_t visitors[3], holders[2];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(visitors); i++)
		CHECK(!pthread_create(&visitors[i], NULL, goes_in_and_out, NULL));
	for (i = 0; i < ARRAY_SIZE(holders); i++)
		CHECK(!pthread_create(&holders[i], NULL, holds, NULL));
	for (i = 0; i < ARRAY_SIZE(holders); i++)
		pthread_join(holders[i], NULL);
	atomic_store(&world.over, true);
	for (i = 0; i < ARRAY_SIZE(visitors); i++)
		pthread_join(visitors[i], NULL);
	CHECK(!atomic_load(&world.wrong));
	CHECK(atomic_load(&world.entered) > 100);
}

int main(void)
{
	if (arena_init() || physmem_init(0)) {
		printf("not ok setup\n0 passed, 1 failed, 0 skipped\n");
		return 1;
	}
	return unit_run();
}
