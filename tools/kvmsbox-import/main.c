/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox-import: brings one archive into the image cache, for kvmsbox. A program of its own
 * because libarchive and libcrypto bring twenty more libraries with them, whose loading takes
 * longer than a sandbox does to start; a start from a cached image never needs them, and kvmsbox is
 * linked without.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/log.h"
#include "tools/kvmsbox-import/protocol.h"

int main(int argc, char **argv)
{
	struct import_answer answer = {0};
	struct image_options options = {0};
	ssize_t n;
	int fd;

	if (argc != 8) {
		fprintf(stderr, "kvmsbox-import: kvmsbox runs it: see kvmsbox image import\n");
		return 125;
	}
	fd = atoi(argv[1]);
	options.cache_dir = *argv[2] ? argv[2] : NULL;
	options.max_bytes = strtoull(argv[3], NULL, 10);
	options.max_entries = strtoull(argv[4], NULL, 10);
	options.quiet = !strcmp(argv[5], "quiet");
	log_level = atoi(argv[6]);
	answer.code = image_import(argv[7], &options, answer.hash, &answer.error);
	do
		n = write(fd, &answer, sizeof(answer));
	while (n < 0 && errno == EINTR);
	return answer.code ? 125 : 0;
}
