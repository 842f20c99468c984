/* SPDX-License-Identifier: MIT
 *
 * name: what buses and topics may be called, and where a bus's files are.
 */
#ifndef SHMQ_NAME_H
#define SHMQ_NAME_H

#include "error.h"

/* 0 or SHMQ_EBUSNAME. */
int shmq__name_check_bus(const char *name, struct shmq__why *why);

/* Topic names, with the reason for a refusal.  A first '$' passes only
 * with `reserved`, the bus's own topics.  0 or SHMQ_ENAME. */
enum shmq__name_who { SHMQ__NAME_USER, SHMQ__NAME_BUS };
int shmq__name_check_topic(const char *name, enum shmq__name_who who, struct shmq__why *why);

/* What a stored cursor may be called: as a user's topic.  0 or SHMQ_EOPTION. */
int shmq__name_check_cursor(const char *name, struct shmq__why *why);

/* What a pattern may be: words as of a topic, or '*' for one, or '#' for any
 * number of them.  0 or SHMQ_ENAME. */
int shmq__name_check_pattern(const char *pattern, struct shmq__why *why);
/* 1 if a name has that pattern, both checked.  The bus's own topics have none
 * that does not begin with '$' itself. */
int shmq__name_matches(const char *pattern, const char *name);
/* 1 if there is a wildcard in it, so that it is no name. */
int shmq__name_is_pattern(const char *text);

/* Private topics of requesters: "$reply.UID.ID.TOPIC", where ID is 16 hexadecimal
 * digits and TOPIC what is asked.  So the name says by itself who may do what on it:
 * that uid reads it, who may subscribe TOPIC answers (daemon/access.c). */
#define SHMQ__NAME_REPLY "$reply."
struct shmq__name_reply {
	uint32_t uid;
	uint64_t id;
	const char *topic; /* within the name that was read */
};
/* 0, or SHMQ_ENAME: with what goes before it the name of the topic is too long. */
int shmq__name_make_reply(const struct shmq__name_reply *reply, char out[SHMQ_NAME_MAX + 1]);
/* 1 if the name is one, as shmq__name_make_reply() makes it. */
int shmq__name_read_reply(const char *name, struct shmq__name_reply *out);

/* What somebody else wrote, as text to be shown: up to its end, of at most `bytes` with the
 * 0 that ends it, and '?' for what is not printable ASCII. */
void shmq__name_show(char *out, const char *from, size_t bytes);

/* The directory of a bus's socket, lock and manifest: dir if given, else
 * $SHMQ_RUNTIME_DIR, $XDG_RUNTIME_DIR/shmq if that is not another user's, else
 * /tmp/shmq-<euid>.  With create it is made 0700; it must be a directory that others cannot write,
 * of ours, or, where one was named, of root's or in one that only root can write. 0, SHMQ_EACCESS,
 * SHMQ_ELIMIT (path too long for a socket), -errno. */
enum shmq__name_dir { SHMQ__NAME_DIR_FIND, SHMQ__NAME_DIR_CREATE };
int shmq__name_runtime_dir(const char *dir, enum shmq__name_dir how, char *out, size_t bytes,
			   struct shmq__why *why);

#endif
