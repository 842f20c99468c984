/* SPDX-License-Identifier: MIT
 *
 * punch: what a descriptor for writing is a right to.
 */
#ifndef TEST_PUNCH_H
#define TEST_PUNCH_H

#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Give back the pages of all shared memory that this process may write. */
static inline void punch_all(void)
{
	char path[64], target[64];
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/fd");

	CHECK(dir != NULL);
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);
		struct stat st;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%.20s", entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 7 || strncmp(target, "/memfd:", 7) ||
		    (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
			continue;
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size),
			 0);
	}
	closedir(dir);
}

#endif
