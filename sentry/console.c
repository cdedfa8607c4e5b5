/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads move bytes: input from the host's descriptor into the master, output from the master
 * to the host's. Master operations don't block; a thread that must wait sleeps on a host semaphore
 * that a waiter on the master's queue posts. The input thread, which waits in poll(2), is stopped
 * by an eventfd: one that stayed in read(2) would swallow what is typed at the caller's next
 * prompt.
 */
#include "sentry/console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/objects.h"
#include "sentry/tty.h"

OBJTYPE(console_type, "console")

struct relay_wait {
	struct waiter w;
	sem_t sem;
};

struct console {
	struct refcount refs;
	struct file *master; /* reference */
	struct tty *tty;     /* kept by master */
	int in, out, stop;   /* hostfds; 0: none */
	struct relay_wait in_wait, out_wait;
	_Atomic bool stopping;
	_Atomic int running; /* relay threads */
	void (*ended)(void); /* set before stopping */
	sem_t done;	     /* posted when running has become 0 */
};

/* ---- the host's terminal ---- */

/* As it was: process-wide, for the restore on every way out. */
static struct termios host_termios;
static int host_tty = -1;

void host_terminal_restore(void)
{
	if (host_tty >= 0)
		tcsetattr(host_tty, TCSADRAIN, &host_termios);
}

void host_terminal_raw(int fd)
{
	struct termios raw;

	if (!isatty(fd) || tcgetattr(fd, &host_termios))
		return;
	raw = host_termios;
	cfmakeraw(&raw);
	if (!tcsetattr(fd, TCSADRAIN, &raw)) {
		host_tty = fd;
		atexit(host_terminal_restore);
	}
}

/* ---- the relay ---- */

static bool relay_wake(struct waiter *w, uint32_t events)
{
	sem_post(&container_of(w, struct relay_wait, w)->sem);
	return true;
}

static void relay_wait_init(struct relay_wait *rw, struct waitq *wq, uint32_t mask)
{
	sem_init(&rw->sem, 0, 0);
	list_init(&rw->w.node);
	rw->w.mask = mask;
	rw->w.fn = relay_wake;
	waitq_add(wq, &rw->w);
}

static void relay_wait_fini(struct relay_wait *rw)
{
	waitq_remove(&rw->w);
	sem_destroy(&rw->sem);
}

static void relay_sleep(struct relay_wait *rw)
{
	while (sem_wait(&rw->sem))
		;
}

static void console_unref(struct console *c)
{
	if (!refcount_put(&c->refs))
		return;
	relay_wait_fini(&c->in_wait);
	relay_wait_fini(&c->out_wait);
	file_put(c->master);
	if (c->in)
		hostfd_close(c->in);
	if (c->out)
		hostfd_close(c->out);
	hostfd_close(c->stop);
	sem_destroy(&c->done);
	objtype_dec(&console_type);
	kfree(c);
}

/* A relay thread ends; its reference goes. */
static void relay_ends(struct console *c)
{
	if (atomic_fetch_sub(&c->running, 1) == 1) {
		sem_post(&c->done);
		if (c->ended)
			c->ended();
	}
	console_unref(c);
}

/* Types all of it, unless the relay is stopped meanwhile or the master doesn't want it. */
static bool type(struct console *c, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = file_write_kernel(c->master, buf, len, 0);

		if (atomic_load(&c->stopping))
			return false;
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		} else if (n == -EAGAIN) {
			relay_sleep(&c->in_wait);
		} else {
			return false;
		}
	}
	return true;
}

static void *input_thread(void *arg)
{
	struct console *c = arg;
	struct pollfd p[2] = {{.fd = c->in ? hostfd_get(c->in) : -1, .events = POLLIN},
			      {.fd = hostfd_get(c->stop), .events = POLLIN}};
	char buf[4096];
	ssize_t n;

	while (p[0].fd >= 0 && !atomic_load(&c->stopping)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (!p[0].revents)
			continue;
		n = read(p[0].fd, buf, sizeof(buf));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0 || !type(c, buf, (size_t)n))
			break;
	}
	relay_ends(c);
	return NULL;
}

static void write_out(int fd, const char *buf, size_t len)
{
	while (len) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n < 0)
			poll(&p, 1, -1);
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
}

static void *output_thread(void *arg)
{
	struct console *c = arg;
	char buf[4096];

	for (;;) {
		bool stopping = atomic_load(&c->stopping);
		ssize_t n = file_read_kernel(c->master, buf, sizeof(buf), 0);

		if (n > 0) {
			if (c->out)
				write_out(hostfd_get(c->out), buf, (size_t)n);
		} else if ((n == -EAGAIN || n == -EIO) && !stopping) {
			/* EIO: no slave is open just now; another may open it. */
			relay_sleep(&c->out_wait);
		} else {
			break;
		}
	}
	relay_ends(c);
	return NULL;
}

/* With a reference and a place in running for it. */
static int start_thread(struct console *c, void *(*fn)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	refcount_get(&c->refs);
	atomic_fetch_add(&c->running, 1);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 << 10);
	err = kernel_fail_point("console thread") ? EAGAIN : pthread_create(&thread, &attr, fn, c);
	pthread_attr_destroy(&attr);
	if (err)
		relay_ends(c);
	return -err;
}

/* ---- the object ---- */

/* @fd, consumed, as a hostfd in *@index; 0 if it is none. */
static int take_fd(int fd, int *index)
{
	int ret = fd < 0 ? 0 : hostfd_add(fd);

	*index = MAX(ret, 0);
	return MIN(ret, 0);
}

int console_create(struct kernel *k, struct mnt_ns *ns, int in, int out, struct console **res,
		   struct file **slave)
{
	struct console *c = kzalloc(sizeof(*c));
	int err;

	if (!c) {
		close(in);
		close(out);
		return -ENOMEM;
	}
	err = take_fd(in, &c->in);
	if (err) {
		close(out);
		goto out_fds;
	}
	err = take_fd(out, &c->out);
	if (err)
		goto out_fds;
	err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = err < 0 ? -errno : take_fd(err, &c->stop);
	if (err)
		goto out_fds;
	err = tty_create_console(k, ns, &c->master, slave);
	if (err)
		goto out_fds;
	c->tty = tty_of_file(*slave);
	refcount_init(&c->refs, 1);
	sem_init(&c->done, 0, 0);
	relay_wait_init(&c->in_wait, c->master->ops->pollq(c->master), EPOLLOUT);
	relay_wait_init(&c->out_wait, c->master->ops->pollq(c->master), EPOLLIN);
	objtype_inc(&console_type);
	console_resize(c);
	err = start_thread(c, output_thread);
	if (!err)
		err = start_thread(c, input_thread);
	if (err) {
		file_put(*slave);
		console_put(c);
		return err;
	}
	*res = c;
	return 0;

out_fds:
	if (c->stop)
		hostfd_close(c->stop);
	if (c->out)
		hostfd_close(c->out);
	if (c->in)
		hostfd_close(c->in);
	kfree(c);
	return err;
}

void console_put(struct console *c)
{
	if (!c)
		return;
	console_stop(c, c->ended);
	console_unref(c);
}

struct tty *console_tty(struct console *c)
{
	return c->tty;
}

void console_resize(struct console *c)
{
	struct winsize ws;

	if ((c->out && !ioctl(hostfd_get(c->out), TIOCGWINSZ, &ws)) ||
	    (c->in && !ioctl(hostfd_get(c->in), TIOCGWINSZ, &ws)))
		tty_set_winsize(c->tty, &ws);
}

void console_stop(struct console *c, void (*ended)(void))
{
	uint64_t one = 1;

	c->ended = ended;
	atomic_store(&c->stopping, true);
	(void)!write(hostfd_get(c->stop), &one, sizeof(one));
	sem_post(&c->in_wait.sem);
	sem_post(&c->out_wait.sem);
}

bool console_ended(struct console *c)
{
	return !atomic_load(&c->running);
}

void console_hangup(struct console *c)
{
	tty_hangup(c->tty);
}

void console_make_raw(struct console *c)
{
	if (c->in)
		host_terminal_raw(hostfd_get(c->in));
}

void console_finish(struct console *c)
{
	console_stop(c, NULL);
	while (sem_wait(&c->done))
		;
	host_terminal_restore();
}
