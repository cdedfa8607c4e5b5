/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where named sandboxes are kept: a directory of mode 0700 (--state, $KVMSBOX_STATE, /run/kvmsbox
 * for root, else $XDG_RUNTIME_DIR/kvmsbox) with one folder for each:
 *
 *	NAME/lock	   flock'd exclusively by the sandbox's process for as long as it lives:
 *			   that, and nothing else, is what makes a sandbox a running one
 *	NAME/state.json	   what it is: image, command, process and its start time, platform, created
 *	NAME/control.sock  control_msg.h
 *	NAME/log	   standard output and error of one in the background
 *	NAME/exit	   empty; once it has ended, how (JSON). Empty and not locked: it died
 *	.lock		   flock'd exclusively by who makes or removes a folder, shared by who looks
 *
 * A name is made by mkdir(2) under .lock, so of two at once one wins and the other is told.
 */
#ifndef TOOLS_KVMSBOX_STORE_H
#define TOOLS_KVMSBOX_STORE_H

#include <jansson.h>
#include <sys/types.h>

#include "sentry/lib/types.h"

#define SANDBOX_NAME_MAX 64

struct store {
	const char *verb; /* for complaints */
	int dir;	  /* -1: there is none, so no sandbox */
	char *path;
};

enum sandbox_status { SANDBOX_RUNNING, SANDBOX_EXITED, SANDBOX_DIED };

struct sandbox {
	char name[SANDBOX_NAME_MAX + 1];
	int dir;   /* its folder */
	int lock;  /* -1: it has none */
	dev_t dev; /* of the folder, to know it again */
	ino_t inode;
	enum sandbox_status status;
	int exit_status;  /* of one that has exited */
	char reason[640]; /* why it died, or what kvmsbox had to say when it ended */
	double created;	  /* seconds since the epoch; 0: unknown */
	pid_t pid;	  /* 0: unknown */
	uint64_t start;	  /* of that process, in clock ticks since boot */
	json_t *state;	  /* state.json, an object; may be empty */
};

/* What a new sandbox's process keeps open. */
struct sandbox_files {
	int lock, control, log, exit;
};

/* Letters, digits, '_', '.', '-', the first a letter or digit, at most SANDBOX_NAME_MAX. */
bool sandbox_name_ok(const char *name);
/*
 * Opens the state directory @dir, or the default one when that is NULL; makes it if @create. 0, or
 * the exit status after a complaint.
 */
int store_open(struct store *s, const char *verb, const char *dir, bool create);
/*
 * Finds the sandbox @name. 0; or the exit status after a complaint, that there is none included.
 * sandbox_close afterwards.
 */
int store_find(const struct store *s, const char *name, struct sandbox *sb);
/* The same without a word: 0 or -errno. */
int store_lookup(const struct store *s, const char *name, struct sandbox *sb);
/* 0 if no sandbox is called @name; or the exit status after a complaint. */
int store_check_free(struct store *s, const char *name);
void sandbox_close(struct sandbox *sb);
/* All of them by name: a malloc'd array of *@n. 0, or the exit status after a complaint. */
int store_list(struct store *s, struct sandbox **list, size_t *n);
/*
 * Makes the folder of a new sandbox whose process is the caller's. @state (borrowed) gets pid,
 * start_time, created, name. 0, or the exit status after a complaint; nothing is left then.
 */
int store_create(struct store *s, const char *name, json_t *state, struct sandbox_files *files);
/*
 * Removes @sb's folder, unless it runs or is another's by now. @own: the caller is the sandbox, and
 * its lock doesn't count. 0 or -errno: -EBUSY, it runs.
 */
int store_remove(struct store *s, const struct sandbox *sb, bool own);
/* Writes how it ended. For the sandbox's process, locked down as it may be. */
void sandbox_write_exit(int fd, int status, const char *error);
/* Reads what that wrote into @sb: exited, or died when there is nothing. */
void sandbox_read_exit(struct sandbox *sb, int fd);
/* Waits until @sb doesn't run any more, @ms milliseconds at most (-1: forever). False: it does. */
bool sandbox_wait(const struct sandbox *sb, int ms);
/* Sends SIGKILL to its process, if that is still the one. 0 or -errno. */
int sandbox_kill(const struct sandbox *sb);
/* "running", "exited (3)", "died". */
const char *sandbox_status_text(const struct sandbox *sb, char *buf, size_t size);

/* ---- client.c: talking to one that runs ---- */

struct control_msg;

/*
 * Connects. @ms: how long an answer may take, 0: as long as it takes. Returns the socket or -errno.
 */
int sandbox_connect(const struct sandbox *sb, int ms);
/* Sends @m with @n descriptors. 0 or -errno. */
int control_send(int sock, struct control_msg *m, const int *fds, size_t n);
/*
 * The next message, with its text (CONTROL_TEXT_MAX + 1 bytes, NUL-terminated). 0; -EPIPE: the
 * sandbox has closed the connection; -EPROTO; or another -errno.
 */
int control_receive(int sock, struct control_msg *m, char *text);
/* The same with the descriptor that came with it, -1: none. */
int control_receive_fd(int sock, struct control_msg *m, char *text, int *fd);
/* Sends a request without descriptors and waits for its reply. 0 or -errno. */
int control_ask(const struct sandbox *sb, int ms, struct control_msg *m, char *text);

#endif
