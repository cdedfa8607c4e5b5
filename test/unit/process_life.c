/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel's whole life: it boots, creates processes, runs, kills them, is destroyed, and nothing
 * is left of it: every count that a test can read is zero or what it was before there was a kernel,
 * and LeakSanitizer has nothing to say about the host's heap.
 */
#include <sanitizer/lsan_interface.h>
#include <sys/wait.h>

#include "sentry/socket.h"
#include "sentry/socket_inet.h"
#include "test/unit/process_support.h"

static struct world w;

static void wait_running(uint32_t n)
{
	for (int i = 0; i < 10000 && w.k->nr_threads_running != n; i++)
		usleep(1000);
}

/* One thread of the process is in user code. */
static void wait_in_user(struct thread_group *tg)
{
	for (int i = 0; i < 10000 && !(tg->leader->state == TASK_RUNNING && tg->leader->in_user);
	     i++)
		usleep(1000);
}

static void test_init_ends(void)
{
	struct create_process_args a;

	world_open(&w);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	fake.user_code = user_exits;
	CHECK_EQ("init starts", kernel_start_process(w.k, w.init), 0);
	CHECK_EQ("and ends the kernel's wait", WEXITSTATUS(kernel_wait(w.k)), 7);
	CHECK("the sandbox has ended", w.k->exited && !w.k->nr_tasks);
	thread_group_put(w.init);
	w.init = NULL;
	fake.user_code = NULL;
	world_close(&w);
}

static void test_killed(void)
{
	struct create_process_args a;
	struct thread_group *tg[3];

	world_open(&w);
	xmount(&w, "tmpfs", NULL, "/mnt");
	for (int i = 0; i < 3; i++) {
		a = world_args(&w);
		a.filename = i ? "/bin/script" : NULL;
		tg[i] = xcreate(&w, &a);
	}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ("a process starts", kernel_start_process(w.k, tg[i]), 0);
		wait_in_user(tg[i]);
	}
	CHECK_EQ("two run", w.k->nr_threads_running, 2);
	kernel_kill_all(w.k, SIGKILL);
	CHECK_EQ("killed", WTERMSIG(kernel_wait(w.k)), SIGKILL);
	CHECK("both", tg[0]->is_zombie && tg[1]->is_zombie && !tg[2]->is_zombie);
	/* One that was killed before it was started dies when it is. */
	CHECK_EQ("the third starts", kernel_start_process(w.k, tg[2]), 0);
	kernel_wait(w.k);
	CHECK("to die", tg[2]->is_zombie && WTERMSIG(tg[2]->exit_code) == SIGKILL);
	CHECK_EQ("no task is left", w.k->nr_tasks, 0);
	CHECK_EQ("no ID either", w.k->root_pid_ns->nr_pids, 0);
	for (int i = 0; i < 3; i++)
		thread_group_put(tg[i]);
	world_close(&w);
}

/* Init forks, with a thread in each; init is killed and takes all of them along. */
static void test_tree(void)
{
	struct clone_params fork = {.exit_signal = SIGCHLD};
	struct clone_params thread = {.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
					       CLONE_THREAD};
	struct create_process_args a;
	siginfo_t info = {.si_signo = SIGKILL, .si_code = SI_KERNEL};
	struct task *t;

	world_open(&w);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	t = w.init->leader;
	for (int i = 0; i < 3; i++)
		CHECK("a child", task_clone(t, &fork) > 0);
	CHECK("a thread", task_clone(t, &thread) > 0);
	CHECK_EQ("init starts itself", kernel_start_process(w.k, w.init), 0);
	wait_running(5);
	CHECK_EQ("all run", w.k->nr_threads_running, 5);
	CHECK_EQ("init is killed", signal_send_group(w.init, &info), 0);
	CHECK_EQ("and everybody with it", WTERMSIG(kernel_wait(w.k)), SIGKILL);
	CHECK_EQ("no task is left", w.k->nr_tasks, 0);
	thread_group_put(w.init);
	w.init = NULL;
	world_close(&w);
}

/* A child that nobody waits for is a zombie until its parent ends. */
static void test_zombie(void)
{
	struct clone_params fork = {.exit_signal = SIGCHLD};
	struct create_process_args a;

	world_open(&w);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	fake.user_code = user_exits;
	CHECK("a child", task_clone(w.init->leader, &fork) > 0);
	kernel_wait(w.k);
	CHECK_EQ("ends, and stays", w.k->nr_tasks, 2);
	CHECK("as its parent's child", !list_empty(&w.init->children));
	CHECK_EQ("init ends", kernel_start_process(w.k, w.init), 0);
	kernel_wait(w.k);
	CHECK_EQ("with its child", w.k->nr_tasks, 0);
	thread_group_put(w.init);
	w.init = NULL;
	fake.user_code = NULL;
	world_close(&w);
}

/* A process listens: the sentry finds it by port, connects to it, and finds nobody afterwards. */
static void test_listener(void)
{
	struct inet_listening l;
	struct inet_stream *s;
	struct task *t;
	struct sock *sk;
	pid_t pids[2] = {0, 0};
	int fd;

	world_open_init(&w);
	t = w.init->leader;
	CHECK_EQ("a socket", sock_family_find(AF_INET)->create(t, SOCK_STREAM, 0, &sk), 0);
	fd = fd_install(t->files, sock_file(t, sk, 0), 0, false, 100);
	CHECK("has a descriptor", fd >= 0);
	CHECK_EQ("nobody listens", inet_listener_pids(w.k, w.k->root_net, 0, pids, 2), 0);
	CHECK_EQ("it listens", sk->ops->listen(t, sk, 1), 0);
	CHECK_EQ("is listed", inet_listeners(w.k->root_net, 0, &l, 1), 1);
	CHECK("by its inode", l.ino && l.ino == sk->ino);
	CHECK_EQ("its process is found", inet_listener_pids(w.k, w.k->root_net, l.port, pids, 2), 1);
	CHECK_EQ("by number", pids[0], 1);
	CHECK_EQ("on that port only",
		 inet_listener_pids(w.k, w.k->root_net, (uint16_t)(l.port ^ 1), pids, 2), 0);
	CHECK_EQ("the sentry connects", inet_stream_connect(w.k->root_net, l.port, &s), 0);
	CHECK_EQ("the descriptor is closed", fd_close(&t->vfs, t->files, (unsigned int)fd), 0);
	CHECK("which resets", inet_stream_poll(s) & EPOLLERR);
	inet_stream_close(s);
	CHECK_EQ("nobody is found", inet_listener_pids(w.k, w.k->root_net, 0, pids, 2), 0);
	world_close(&w);
}

static void test_kernel_init_fails(void)
{
	struct live before = live_now(), after;
	struct kernel *k;
	int failed = 0;

	for (long n = 1;; n++) {
		int err;

		arena_fail_at(n);
		err = kernel_init(&fake.base, &k);
		arena_fail_at(0);
		if (!err)
			break;
		failed += err == -ENOMEM;
		after = live_now();
		if (err != -ENOMEM || after.bytes != before.bytes)
			CHECK("a kernel that can't be made leaves nothing", false);
	}
	CHECK_EQ("every allocation of a kernel fails", failed, 6);
	kernel_destroy(k);
	check_live("a kernel without processes leaves nothing", &before);
	CHECK("there is none any more", !the_kernel);
}

static void tests(void)
{
	test_kernel_init_fails();
	test_init_ends();
	test_killed();
	test_tree();
	test_zombie();
	test_listener();
}

/* What there is without a kernel: the vfs's own. */
static bool nothing_lives(const struct live *l)
{
	bool none = true;

	for (size_t i = 0; i < l->count; i++) {
		static const char *const kernels[] = {
			"task",	  "thread_group", "pid",      "pid_ns", "sighand",
			"uts_ns", "ipc_ns",	  "net_ns",   "mm",	"vma",
			"cred",	  "fs_context",	  "fd_table", "mnt_ns", "tty"};

		for (size_t k = 0; k < ARRAY_SIZE(kernels); k++) {
			if (strcmp(l->type[i]->name, kernels[k]) || !l->n[i])
				continue;
			printf("# %s: %ld\n", l->type[i]->name, l->n[i]);
			none = false;
		}
	}
	return none;
}

int main(int argc, char **argv)
{
	struct live live;
	int ret;

	/* The checker is on unless the environment says otherwise: say it again. */
	if (!getenv("PROCESS_LIFE_LEAKS")) {
		setenv("PROCESS_LIFE_LEAKS", "1", 1);
		setenv("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=23", 1);
		execv("/proc/self/exe", argv);
	}
	ret = process_test_main(tests);
	live = live_now();
	CHECK("nothing of a kernel lives", nothing_lives(&live));
	CHECK("LeakSanitizer is silent", !__lsan_do_recoverable_leak_check());
	return ret || failures;
}
