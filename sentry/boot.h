/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting a sandbox: from a configuration to a running init, and to its exit status. Called once
 * per host process, by a front end.
 */
#ifndef SENTRY_BOOT_H
#define SENTRY_BOOT_H

#include "sentry/fnchan.h"
#include "sentry/lib/types.h"

/* Exit statuses as container users know them. */
#define EXIT_TIMEOUT   124
#define EXIT_KVMSBOX   125
#define EXIT_CANT_EXEC 126
#define EXIT_NOT_FOUND 127

struct boot_result {
	int status;	  /* exit status for the shell: the program's, 128+N, or one of the above */
	bool started;	  /* init ran: what follows is not a failure to start */
	char error[640];  /* one line when kvmsbox itself failed, else empty */
	uint64_t boot_ns; /* from sentry_run to the first instruction of init */
	uint64_t run_ns;  /* from there to its end */
};

/*
 * Runs the sandbox that the device tree of @size bytes at @blob describes, until its init has
 * ended. Takes over the host descriptors that it names. Signals sent to this process are forwarded.
 */
void sentry_run(const void *blob, size_t size, struct boot_result *result);

/*
 * What can be done for sentry_restore before it is known what is to be restored, lockdown included:
 * to be followed by a sentry_restore that is given the root's file. The forwarded
 * signals are blocked from then on. False: @result says why not.
 */
bool sentry_restore_prepare(const char *platform, struct boot_result *result);
/*
 * The same for the sandbox in the snapshot @image (FN_IMAGE's descriptors), which serves a function
 * over @channel. Its second one -1: the file is opened.
 * @platform: NULL for the one it was made on. @poll_percent: as in the configuration.
 */
void sentry_restore(const int image[FN_IMAGE_FDS], int channel, const char *platform,
		    unsigned int poll_percent, struct boot_result *result);
/* The same for the sandbox in the file @file, until its init has ended. */
struct snapshot_file;
struct restore_args {
	const struct snapshot_file *file; /* stays open */
	const char *platform;		  /* NULL: the one it was made on */
	int stdio[3];			  /* host descriptors for init's places; the caller's */
	unsigned int poll_percent;	  /* as in the configuration, like the rest */
	uint64_t timeout_ms;
	int control_fd, ready_fd;
};
void sentry_restore_file(const struct restore_args *args, struct boot_result *result);
/* After any of them: what --stats prints. */
void sentry_print_stats(int fd, const struct boot_result *result);

#endif
