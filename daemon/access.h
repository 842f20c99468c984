/* SPDX-License-Identifier: MIT
 *
 * access: who may do what on a bus.
 *
 * A rule gives rights on the topics of a pattern to some callers:
 *
 *     md.# publish,subscribe user:feed,group:traders
 *
 * Rights add up; no rule takes any away.  The bus's owner and root have all of
 * them, and without rules nobody else has any.  Who has none is not let in.
 *
 * What is enforced is enforced by descriptors: topics that the same callers
 * may publish and subscribe share memory (access_list()), and nobody is given
 * memory that holds others.
 */
#ifndef SHMQ_ACCESS_H
#define SHMQ_ACCESS_H

#include <stdint.h>
#include <sys/types.h>

#include "error.h"

enum access_right {
	ACCESS_CREATE = 1,    /* topics of these names, and remove those one made */
	ACCESS_PUBLISH = 2,   /* which includes reading what others publish there */
	ACCESS_SUBSCRIBE = 4, /* with all that comes with it, as holding publishers back */
	ACCESS_ADMIN = 8,     /* remove, move; with the pattern #, stop the bus */
};
#define ACCESS_ALL 15u

/* A process, as the kernel says. */
struct access_caller {
	uid_t uid;
	gid_t *group; /* all of them, the effective one first */
	unsigned group_count;
	char label[256]; /* of a security module, "" none */
};

struct access;

/* No rules, which NULL means too where rules are only read.  NULL without
 * memory. */
struct access *access_create(void);
void access_destroy(struct access *a);

/* One rule more: pattern, rights and callers, separated by blanks.  Names of
 * users and groups are looked up here.  0, SHMQ_EOPTION with why, -ENOMEM. */
int access_add(struct access *a, const char *rule, struct shmq__why *why);
/* The same without adding it to any. */
int access_check(const char *rule, struct shmq__why *why);
/* A single caller: user:NAME or uid:N, or everyone.  0, SHMQ_EOPTION with why. */
int access_read_user(const char *text, uint32_t *uid, int *is_everyone, struct shmq__why *why);
int access_has_rules(const struct access *a);

/* Ask the kernel who is at the other end of a socket.  0 or -errno. */
int access_identify(int sock, struct access_caller *who);
void access_forget(struct access_caller *who);

/* Owner of the bus, which is who the supervisor runs as, or root. */
int access_is_owner(const struct access_caller *who);
/* Whether a client of that uid had the same memory as this caller would have. */
int access_is_same(const struct access_caller *who, uint32_t uid);
/* Whether somebody has any right at all. */
int access_knows(const struct access *a, const struct access_caller *who);
/* Bits of enum access_right; a topic of "#" asks about the bus. */
unsigned access_rights(const struct access *a, const struct access_caller *who, const char *topic);

/* Who may publish and who may subscribe a topic of that name, as a number:
 * the same for the same callers.  0: the owner alone. */
uint64_t access_list(const struct access *a, const char *topic);
/* Whether rules let anybody publish it. */
int access_lets_publish(const struct access *a, const char *topic);

#endif
