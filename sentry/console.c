/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads move bytes: input from the host's terminal into the master, output from the master to
 * the host. Master operations don't block; a thread that must wait sleeps on a host semaphore that
 * a waiter on the master's queue posts.
 */
#include "sentry/console.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"

struct relay_wait {
	struct waiter w;
	sem_t sem;
};

struct console {
	struct file *master;
	struct tty *tty;
	int in, out;
	pthread_t output;
	struct relay_wait in_wait, out_wait;
	_Atomic bool finishing;
};

/* The host's terminal as it was: process-wide, for the restore on every way out. */
static struct termios host_termios;
static int host_tty = -1;

void console_restore(void)
{
	if (host_tty >= 0)
		tcsetattr(host_tty, TCSADRAIN, &host_termios);
}

static void make_raw(int fd)
{
	struct termios raw;

	if (tcgetattr(fd, &host_termios))
		return;
	raw = host_termios;
	cfmakeraw(&raw);
	if (!tcsetattr(fd, TCSADRAIN, &raw)) {
		host_tty = fd;
		atexit(console_restore);
	}
}

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

static void *input_thread(void *arg)
{
	struct console *c = arg;
	char buf[4096];

	for (;;) {
		ssize_t n = read(c->in, buf, sizeof(buf)), done = 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		while (done < n) {
			ssize_t w = file_write_kernel(c->master, buf + done, (size_t)(n - done), 0);

			if (w > 0)
				done += w;
			else if (w == -EAGAIN)
				sem_wait(&c->in_wait.sem);
			else
				return NULL;
		}
	}
}

static void write_out(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
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
		ssize_t n = file_read_kernel(c->master, buf, sizeof(buf), 0);

		if (n > 0) {
			write_out(c->out, buf, (size_t)n);
		} else if (n == -EAGAIN && !atomic_load(&c->finishing)) {
			while (sem_wait(&c->out_wait.sem))
				;
		} else if (n == -EIO && !atomic_load(&c->finishing)) {
			/* No slave is open just now; another may open it. */
			while (sem_wait(&c->out_wait.sem))
				;
		} else {
			return NULL;
		}
	}
}

static int start_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	err = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

int console_create(struct kernel *k, struct mnt_ns *ns, int in, int out, struct console **res,
		   struct file **slave)
{
	struct console *c = calloc(1, sizeof(*c));
	pthread_t input;
	int err;

	if (!c)
		return -ENOMEM;
	err = tty_create_console(k, ns, &c->master, slave);
	if (err)
		goto out_free;
	c->tty = tty_of_file(*slave);
	k->console = c->tty;
	c->in = in;
	c->out = out;
	console_resize(c);
	relay_wait_init(&c->in_wait, c->master->ops->pollq(c->master), EPOLLOUT);
	relay_wait_init(&c->out_wait, c->master->ops->pollq(c->master), EPOLLIN);
	err = start_thread(&c->output, output_thread, c);
	if (!err)
		err = start_thread(&input, input_thread, c);
	if (err)
		goto out_free;
	pthread_detach(input);
	if (isatty(in))
		make_raw(in);
	*res = c;
	return 0;

out_free:
	free(c);
	return err;
}

struct tty *console_tty(struct console *c)
{
	return c->tty;
}

void console_resize(struct console *c)
{
	struct winsize ws;

	if (!ioctl(c->out, TIOCGWINSZ, &ws) || !ioctl(c->in, TIOCGWINSZ, &ws))
		tty_set_winsize(c->tty, &ws);
}

void console_finish(struct console *c)
{
	atomic_store(&c->finishing, true);
	sem_post(&c->out_wait.sem);
	pthread_join(c->output, NULL);
	console_restore();
}
