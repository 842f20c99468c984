/* SPDX-License-Identifier: MIT */
#include "tail_clean.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint32_t sum_of(const struct log_compacted *c)
{
	return shmq__log_sum(0, c, offsetof(struct log_compacted, checksum));
}

int tail_clean_read(int dir, const struct log_owner *owner, struct tail_clean *out)
{
	struct log_compacted c;
	int fd = openat(dir, "compacted", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, &c, sizeof(c));

	if (fd >= 0)
		close(fd);
	if (n != (ssize_t)sizeof(c) || c.magic != LOG_MAGIC_COMPACTED || c.checksum != sum_of(&c) ||
	    c.partition != owner->partition ||
	    memcmp(c.log_id, owner->log_id, sizeof(c.log_id)) != 0)
		return SHMQ_EEMPTY;
	*out = (struct tail_clean){ c.clean_seq, c.end_seq, c.passed_seq, c.tombstone_ns };
	return 0;
}

int tail_clean_write(int dir, const struct log_owner *owner, const struct tail_clean *c)
{
	struct log_compacted file = { .magic = LOG_MAGIC_COMPACTED,
				      .clean_seq = c->clean_seq,
				      .end_seq = c->end_seq,
				      .passed_seq = c->passed_seq,
				      .tombstone_ns = c->tombstone_ns,
				      .partition = owner->partition };
	int fd, error;

	memcpy(file.log_id, owner->log_id, sizeof(file.log_id));
	file.checksum = sum_of(&file);
	fd = openat(dir, "compacted.new",
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	error = shmq__log_write(fd, &file, sizeof(file));
	close(fd);
	if (!error && renameat(dir, "compacted.new", dir, "compacted"))
		error = -errno;
	return error;
}
