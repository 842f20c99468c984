/* SPDX-License-Identifier: MIT */
#include "reply.h"
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int shmq__reply_put(struct reply_scratch *scratch, const void *head, size_t bytes,
		    const struct shmq_msg *msg, struct shmq_msg *out)
{
	size_t need = bytes + msg->properties_len;

	if (need > UINT16_MAX)
		return SHMQ_EOPTION;
	if (need > scratch->bytes) {
		char *more = realloc(scratch->mem, need);

		if (!more)
			return -ENOMEM;
		scratch->mem = more;
		scratch->bytes = need;
	}
	memcpy(scratch->mem, head, bytes);
	if (msg->properties_len)
		memcpy(scratch->mem + bytes, msg->properties, msg->properties_len);
	*out = *msg;
	out->properties = scratch->mem;
	out->properties_len = need;
	return 0;
}

int shmq__reply_take(struct shmq_msg *msg, void *head, size_t bytes)
{
	if (msg->properties_len < bytes)
		return 0;
	shmq__copy_racy(head, msg->properties, bytes);
	msg->properties_len -= bytes;
	msg->properties = msg->properties_len ? (const char *)msg->properties + bytes : NULL;
	return 1;
}
