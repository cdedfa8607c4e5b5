/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual machine: /dev/kvm, memory slots, and the kernel half that every address space shares.
 *
 * Slots grow by announcement (physmem_listener): RAM in chunks that double, read-only files by
 * windows. The kernel area is a slot of its own.
 *
 * Making the VM takes as long as everything else that a sandbox does to start (CPUID above all,
 * which a virtualized host gets from the next one below, function by function). So a thread makes
 * it:
 *
 *   kvm_vm_prepare -> maker thread runs, add_range takes notes -> made -> joined by kvm_vm_wait
 */
#include "platform/kvm/internal.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sentry/lib/log.h"
#include "sentry/lib/world.h"

#define PDE_SPAN	(2UL << 20)
#define CPUID_ENTRIES	256
#define MIN_PHYS_BITS	39 /* PHYS_FILE_END */
#define GDT_KERNEL_CODE 0x00af9b000000ffffULL
#define GDT_KERNEL_DATA 0x00cf93000000ffffULL
#define GDT_USER_CODE32 0x00cffb000000ffffULL
#define GDT_USER_DATA	0x00cff3000000ffffULL
#define GDT_USER_CODE	0x00affb000000ffffULL

__host_large struct kvm_vm kvm_vm = {.fd = -1};
/* For threads that race at kvm_vm_wait. */
static pthread_mutex_t join_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
	long cap;
	const char *name;
} needed_caps[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
	{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
	{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
	{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

int kvm_open(char *why, size_t size)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), version, err;

	if (fd < 0) {
		err = -errno;
		if (err == -ENOENT)
			snprintf(why, size,
				 "/dev/kvm does not exist (is virtualization enabled, and "
				 "the kvm module loaded?)");
		else if (err == -EACCES || err == -EPERM)
			snprintf(why, size,
				 "no permission to open /dev/kvm (is the user in its "
				 "group?)");
		else
			snprintf(why, size, "can't open /dev/kvm: %s", strerror(-err));
		return err;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		snprintf(why, size, "/dev/kvm has API version %d, not %d", version,
			 KVM_API_VERSION);
		goto unsupported;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed_caps); i++) {
		if (ioctl(fd, KVM_CHECK_EXTENSION, needed_caps[i].cap) > 0)
			continue;
		snprintf(why, size, "this KVM lacks %s", needed_caps[i].name);
		goto unsupported;
	}
	if (!(ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS)) {
		snprintf(why, size, "this KVM lacks KVM_CAP_SYNC_REGS");
		goto unsupported;
	}
	return fd;

unsupported:
	close(fd);
	return -EOPNOTSUPP;
}

static struct kvm_cpuid_entry2 *cpuid_find(uint32_t function, uint32_t index)
{
	struct kvm_cpuid2 *c = kvm_vm.cpuid;

	for (uint32_t i = 0; i < c->nent; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	}
	return NULL;
}

/* Modules that make KVM work; where there are several, the first does. */
static const struct kvm_module {
	const char *dir, *kind;
	bool is_pvm;
} modules[] = {
	{"/sys/module/kvm_intel", "hardware (Intel VT-x)", false},
	{"/sys/module/kvm_amd", "hardware (AMD SVM)", false},
	{"/sys/module/kvm_pvm", "shadow paging without hardware support (pvm)", true},
};

static const struct kvm_module *find_module(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		if (!access(modules[i].dir, F_OK))
			return &modules[i];
	}
	return NULL;
}

const char *kvm_kind(void)
{
	const struct kvm_module *m = find_module();

	return m ? m->kind : "unknown";
}

bool kvm_is_pvm(void)
{
	const struct kvm_module *m = find_module();

	return m && m->is_pvm;
}

/*
 * Under kvm-pvm the guest's CPUID is the processor's own, whatever the table says; what KVM itself
 * looks up in it are these few leaves. To ask for all that it supports costs half a millisecond
 * there: tens of CPUIDs, each an exit of the virtual machine around.
 */
static void few_leaves(struct kvm_cpuid2 *c)
{
	static const uint32_t leaves[] = {0, 1, 7, 0xd, 0x80000000, 0x80000001, 0x80000008};

	c->nent = 0;
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];

		*e = (struct kvm_cpuid_entry2){.function = leaves[i]};
		if (leaves[i] == 7 || leaves[i] == 0xd)
			e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		__cpuid_count(leaves[i], 0, e->eax, e->ebx, e->ecx, e->edx);
	}
}

/* CPUID as the host supports it, without what needs a kernel in the guest to switch it on. */
static int setup_cpuid(int kvm)
{
	static __host_large union {
		struct kvm_cpuid2 c;
		uint8_t space[sizeof(struct kvm_cpuid2) +
			      CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
	} buf;
	struct kvm_cpuid2 *c = &buf.c;
	struct kvm_cpuid_entry2 *e;

	kvm_vm.cpuid = c;
	c->nent = CPUID_ENTRIES;
	if (kvm_is_pvm())
		few_leaves(c);
	else if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c))
		return -errno;

	e = cpuid_find(1, 0);
	if (e)
		e->ecx &= ~(1U << 21 | 1U << 24); /* x2APIC, TSC deadline: there is no APIC */
	/*
	 * Only what XCR0 will have. With AMX's tile data among them KVM refuses the table (EPERM)
	 * until the process has asked for a guest's permission; applications can't ask for tiles.
	 */
	e = cpuid_find(0xd, 0);
	if (e) {
		e->eax &= (uint32_t)arch_xcr0();
		e->edx &= (uint32_t)(arch_xcr0() >> 32);
	}
	/*
	 * By what applications run with on the host, not by the list: kvm-pvm leaves XSAVE and
	 * FSGSBASE out of it, supports them, and shows them to user code.
	 */
	kvm_vm.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	if (arch_xcr0() & ~3UL)
		kvm_vm.cr4 |= CR4_OSXSAVE;
	if (arch_hwcap2() & 2)
		kvm_vm.cr4 |= CR4_FSGSBASE;
	e = cpuid_find(0x80000008, 0);
	if (e && (e->eax & 0xff) < MIN_PHYS_BITS)
		return -EOPNOTSUPP;
	return 0;
}

static int add_slot(gpa_t gpa, size_t len, void *host, uint32_t flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = kvm_vm.nr_slots,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = len,
		.userspace_addr = (uintptr_t)host,
	};

	if (kvm_vm.nr_slots >= kvm_vm.max_slots)
		return -ENOSPC;
	if (ioctl(kvm_vm.fd, KVM_SET_USER_MEMORY_REGION, &r))
		return -errno;
	kvm_vm.nr_slots++;
	return 0;
}

/* Entries of the direct map are missing until here, so storing them needs no more than that. */
static void map_direct(gpa_t gpa, size_t len)
{
	gpa_t end = ALIGN_UP(gpa + len, PDE_SPAN);

	for (gpa = ALIGN_DOWN(gpa, PDE_SPAN); gpa < end; gpa += PDE_SPAN) {
		uint64_t *pd = karea_ptr(KAREA_DIRECT_PD);

		pte_write(&pd[gpa / PDE_SPAN],
			  gpa | PTE_P | PTE_RW | PTE_PS | PTE_A | PTE_D | PTE_NX);
	}
}

/*
 * Semantics of the announcement: it comes before the first page-table entry that points into the
 * range, possibly with the frame allocator's lock held, so nothing here may allocate frames. Ranges
 * do not overlap. While the VM is being made they are noted down.
 */
static int add_range_locked(gpa_t gpa, size_t len, void *host)
{
	int err;

	if (!phys_is_ram(gpa))
		return add_slot(gpa, len, host, KVM_MEM_READONLY);
	err = add_slot(gpa, len, host, 0);
	if (!err)
		map_direct(gpa, len);
	return err;
}

int kvm_vm_add_range(struct physmem_listener *l, gpa_t gpa, size_t len)
{
	void *host = phys_ptr(gpa);
	int err = 0;

	mutex_lock_nested(&kvm_vm.slots_lock);
	if (atomic_load(&kvm_vm.made))
		err = kvm_vm.error ? kvm_vm.error : add_range_locked(gpa, len, host);
	else if (kvm_vm.nr_requests == MAX_SLOT_REQUESTS)
		err = -ENOSPC;
	else
		kvm_vm.requests[kvm_vm.nr_requests++] = (struct slot_request){gpa, len, host};
	mutex_unlock(&kvm_vm.slots_lock);
	/* Why the VM could not be made has been said. */
	if (err && !kvm_vm.error)
		log_error("KVM takes no memory slot for %#lx+%#lx: %s", gpa, len, strerror(-err));
	return err;
}

static void setup_kernel_half(void)
{
	uint64_t *root = karea_ptr(KAREA_ROOT), *pdpt = karea_ptr(KAREA_PDPT);
	uint64_t *pd = karea_ptr(KAREA_VCPU_PD), *gdt = karea_ptr(KAREA_GDT);
	const uint64_t table = PTE_P | PTE_RW | PTE_A;
	size_t direct = PHYS_RAM_SIZE >> 30;

	root[TRAMP_ROOT_SLOT] = KERNEL_ROOT_ENTRY;
	for (size_t i = 0; i < direct; i++)
		pdpt[i] = karea_gpa(KAREA_DIRECT_PD + i) | table;
	pdpt[TRAMP_VCPU_BASE >> 30 & 511] = karea_gpa(KAREA_VCPU_PD) | table;
	for (size_t i = 0; i < KAREA_CODE - KAREA_VCPU_PT; i++)
		pd[i] = karea_gpa(KAREA_VCPU_PT + i) | table;
	memcpy(karea_ptr(KAREA_CODE), tramp_start, PAGE_SIZE);
	/* Linux's selectors, accessed bits set: the CPU never writes here. */
	gdt[2] = GDT_KERNEL_CODE;
	gdt[3] = GDT_KERNEL_DATA;
	gdt[4] = GDT_USER_CODE32;
	gdt[5] = GDT_USER_DATA;
	gdt[6] = GDT_USER_CODE;
}

static int read_limits(int kvm)
{
	int n;

	n = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (n <= 0)
		n = 4; /* the documented value of old kernels */
	kvm_vm.max_vcpus = MIN(n, KVM_MAX_VCPU);
	if (kvm_vcpu_limit)
		kvm_vm.max_vcpus = MIN(kvm_vm.max_vcpus, kvm_vcpu_limit);
	n = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	kvm_vm.max_slots = n > 0 ? (unsigned int)n : 32;
	n = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (n < (int)sizeof(struct kvm_run))
		return n < 0 ? -errno : -EOPNOTSUPP;
	kvm_vm.run_size = (size_t)n;
	kvm_vm.xsave_size = sizeof(struct kvm_xsave);
	n = ioctl(kvm_vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	kvm_vm.has_xsave2 = n > (int)sizeof(struct kvm_xsave);
	if (kvm_vm.has_xsave2)
		kvm_vm.xsave_size = (size_t)n;
	return 0;
}

static bool module_says_nested(void)
{
	static const char *const files[] = {
		"/sys/module/kvm_amd/parameters/npt",
		"/sys/module/kvm_intel/parameters/ept",
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char c = 'N';
		int fd = open(files[i], O_RDONLY | O_CLOEXEC);
		ssize_t n;

		if (fd < 0)
			continue;
		n = read(fd, &c, 1);
		close(fd);
		if (n == 1 && (c == 'Y' || c == '1'))
			return true;
	}
	return false;
}

static int make_vm(void)
{
	char why[160];
	int kvm = kvm_open(why, sizeof(why)), err;

	if (kvm < 0)
		return kvm;
	do {
		kvm_vm.fd = ioctl(kvm, KVM_CREATE_VM, 0);
	} while (kvm_vm.fd < 0 && errno == EINTR);
	if (kvm_vm.fd < 0) {
		err = -errno;
		log_error("KVM makes no virtual machine: %s", strerror(-err));
		goto out_kvm;
	}
	err = read_limits(kvm);
	if (!err)
		err = setup_cpuid(kvm);
	if (err) {
		log_error("KVM on this CPU lacks what is needed: %s", strerror(-err));
		goto out_vm;
	}
	kvm_vm.nested = module_says_nested();
	kvm_vm.karea = mmap(NULL, KAREA_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (kvm_vm.karea == MAP_FAILED) {
		err = -errno;
		goto out_vm;
	}
	setup_kernel_half();
	err = add_slot(KAREA_GPA, KAREA_SIZE, kvm_vm.karea, 0);
	if (err) {
		log_error("KVM takes no memory slot: %s", strerror(-err));
		goto out_karea;
	}
	err = vcpu_new(&kvm_vm.spare);
	if (err)
		goto out_karea;
	close(kvm);
	return 0;

out_karea:
	munmap(kvm_vm.karea, KAREA_SIZE);
out_vm:
	close(kvm_vm.fd);
	kvm_vm.fd = -1;
out_kvm:
	close(kvm);
	return err;
}

static void *make(void *unused)
{
	int err = make_vm();

	mutex_lock(&kvm_vm.slots_lock);
	for (unsigned int i = 0; i < kvm_vm.nr_requests && !err; i++) {
		const struct slot_request *r = &kvm_vm.requests[i];

		err = add_range_locked(r->gpa, r->len, r->host);
		if (err)
			log_error("KVM takes no memory slot for %#lx+%#lx: %s", r->gpa, r->len,
				  strerror(-err));
	}
	kvm_vm.error = err;
	atomic_store(&kvm_vm.made, true);
	mutex_unlock(&kvm_vm.slots_lock);
	return unused;
}

void kvm_vm_prepare(void)
{
	cpu_set_t others;
	sigset_t all, old;

	if (kvm_vm.started)
		return;
	mutex_init(&kvm_vm.slots_lock, LOCK_PHYSMEM);
	kvm_vm.fd = -1;
	kvm_vm.nr_slots = kvm_vm.nr_requests = 0;
	kvm_vm.nr_vcpus = 0;
	kvm_vm.spare = NULL;
	kvm_vm.error = 0;
	atomic_store(&kvm_vm.made, false);
	kvm_vm.started = true;
	/* It must take no signals that are for the sandbox. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	kvm_vm.joined = pthread_create(&kvm_vm.maker, NULL, make, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (kvm_vm.joined)
		make(NULL);
	else if (other_processors(&kvm_vm.cpus, &others))
		pthread_setaffinity_np(kvm_vm.maker, sizeof(others), &others);
	else
		CPU_ZERO(&kvm_vm.cpus);
}

int kvm_vm_wait(void)
{
	if (likely(__atomic_load_n(&kvm_vm.joined, __ATOMIC_ACQUIRE)))
		return kvm_vm.error;
	pthread_mutex_lock(&join_lock);
	if (!kvm_vm.joined) {
		/* We sleep now. */
		if (CPU_COUNT(&kvm_vm.cpus))
			pthread_setaffinity_np(kvm_vm.maker, sizeof(kvm_vm.cpus), &kvm_vm.cpus);
		pthread_join(kvm_vm.maker, NULL);
		__atomic_store_n(&kvm_vm.joined, true, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&join_lock);
	return kvm_vm.error;
}

void kvm_vm_destroy(void)
{
	if (!kvm_vm_wait()) {
		vcpu_destroy_all();
		munmap(kvm_vm.karea, KAREA_SIZE);
		close(kvm_vm.fd);
	}
	kvm_vm.fd = -1;
	mutex_fini(&kvm_vm.slots_lock);
	kvm_vm.started = false;
}
