/* SPDX-License-Identifier: MIT */
#include "access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "name.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

enum whom_kind { WHOM_UID, WHOM_GID, WHOM_LABEL, WHOM_EVERYONE };

struct whom {
	enum whom_kind kind;
	uint32_t id;
	char *label;
};

struct rule {
	char *pattern;
	unsigned rights;
	struct whom *whom;
	unsigned whom_count;
};

struct access {
	struct rule *rule;
	unsigned count;
};

struct access *access_create(void)
{
	return calloc(1, sizeof(struct access));
}

static void free_rule(struct rule *rule)
{
	unsigned i;

	for (i = 0; i < rule->whom_count; i++)
		free(rule->whom[i].label);
	free(rule->whom);
	free(rule->pattern);
}

void access_destroy(struct access *a)
{
	unsigned i;

	if (!a)
		return;
	for (i = 0; i < a->count; i++)
		free_rule(&a->rule[i]);
	free(a->rule);
	free(a);
}

int access_has_rules(const struct access *a)
{
	return a && a->count > 0;
}

/* ---- reading rules --------------------------------------------------- */

static int parse_rights(char *text, unsigned *out, struct shmq__why *why)
{
	static const struct {
		const char *name;
		unsigned right;
	} names[] = {
		{ "create", ACCESS_CREATE },
		{ "publish", ACCESS_PUBLISH },
		{ "subscribe", ACCESS_SUBSCRIBE },
		{ "admin", ACCESS_ADMIN },
		{ "all", ACCESS_ALL },
	};
	char *word, *rest;
	unsigned i;

	*out = 0;
	for (word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (!strcmp(word, names[i].name))
				break;
		if (i == sizeof(names) / sizeof(names[0]))
			return shmq__fail(why, SHMQ_EOPTION,
					  "there is no right \"%s\": create, publish, subscribe, "
					  "admin or all",
					  word);
		*out |= names[i].right;
	}
	return *out ? 0 : shmq__fail(why, SHMQ_EOPTION, "a rule names at least one right");
}

static int parse_id(const char *text, uint32_t *id)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	*id = (uint32_t)n;
	return *text >= '0' && *text <= '9' && !*end && n < UINT32_MAX;
}

static int find_user(const char *name, uint32_t *id)
{
	const struct passwd *user = getpwnam(name);

	if (user)
		*id = user->pw_uid;
	return user != NULL;
}

static int find_group(const char *name, uint32_t *id)
{
	const struct group *group = getgrnam(name);

	if (group)
		*id = group->gr_gid;
	return group != NULL;
}

static int parse_whom(const char *text, struct whom *out, struct shmq__why *why)
{
	static const struct {
		const char *prefix;
		enum whom_kind kind;
		int (*find)(const char *name, uint32_t *id);
	} kinds[] = {
		{ "user:", WHOM_UID, find_user },   { "uid:", WHOM_UID, parse_id },
		{ "group:", WHOM_GID, find_group }, { "gid:", WHOM_GID, parse_id },
		{ "label:", WHOM_LABEL, NULL },
	};
	unsigned i;

	*out = (struct whom){ .kind = WHOM_EVERYONE };
	if (!strcmp(text, "everyone"))
		return 0;
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t length = strlen(kinds[i].prefix);

		if (strncmp(text, kinds[i].prefix, length) || !text[length])
			continue;
		out->kind = kinds[i].kind;
		text += length;
		if (kinds[i].find)
			return kinds[i].find(text, &out->id) ?
				       0 :
				       shmq__fail(
					       why, SHMQ_EOPTION, "there is no %s\"%s\"%s",
					       kinds[i].prefix, text,
					       kinds[i].find == parse_id ?
						       "" :
						       ": make it, or say its number by uid: or gid:");
		out->label = strdup(text);
		return out->label ? 0 : -ENOMEM;
	}
	return shmq__fail(why, SHMQ_EOPTION,
			  "\"%s\" is nobody: user:NAME, uid:N, group:NAME, gid:N, label:TEXT or "
			  "everyone",
			  text);
}

static int add_whom(struct rule *rule, const char *text, struct shmq__why *why)
{
	struct whom *more = reallocarray(rule->whom, rule->whom_count + 1, sizeof(*more));
	int error;

	if (!more)
		return -ENOMEM;
	rule->whom = more;
	error = parse_whom(text, &more[rule->whom_count], why);
	if (!error)
		rule->whom_count++;
	return error;
}

static int parse_rule(char *text, struct rule *rule, struct shmq__why *why)
{
	char *rest, *word, *pattern = strtok_r(text, " \t", &rest),
			   *rights = pattern ? strtok_r(NULL, " \t", &rest) : NULL,
			   *whom = rights ? strtok_r(NULL, " \t", &rest) : NULL;
	int error;

	if (!whom || strtok_r(NULL, " \t", &rest))
		return shmq__fail(why, SHMQ_EOPTION,
				  "a rule is a pattern, rights and callers, as in \"md.# "
				  "publish,subscribe user:feed,group:traders\"");
	error = shmq__name_check_pattern(pattern, why);
	if (error)
		return error;
	rule->pattern = strdup(pattern);
	if (!rule->pattern)
		return -ENOMEM;
	error = parse_rights(rights, &rule->rights, why);
	for (word = strtok_r(whom, ",", &rest); word && !error; word = strtok_r(NULL, ",", &rest))
		error = add_whom(rule, word, why);
	if (!error && !rule->whom_count)
		error = shmq__fail(why, SHMQ_EOPTION, "a rule names at least one caller");
	return error;
}

int access_add(struct access *a, const char *rule, struct shmq__why *why)
{
	struct rule *more = reallocarray(a->rule, a->count + 1, sizeof(*more)), fresh = { 0 };
	char *text = strdup(rule);
	int error = -ENOMEM;

	if (more)
		a->rule = more;
	if (more && text)
		error = parse_rule(text, &fresh, why);
	free(text);
	if (error) {
		free_rule(&fresh);
		return error;
	}
	a->rule[a->count++] = fresh;
	return 0;
}

int access_check(const char *rule, struct shmq__why *why)
{
	struct access *trial = access_create();
	int error = trial ? access_add(trial, rule, why) : -ENOMEM;

	access_destroy(trial);
	return error;
}

int access_read_user(const char *text, uint32_t *uid, int *is_everyone, struct shmq__why *why)
{
	struct whom whom;
	int error;

	if (strncmp(text, "user:", 5) && strncmp(text, "uid:", 4) && strcmp(text, "everyone"))
		return shmq__fail(why, SHMQ_EOPTION,
				  "\"%s\" is not one uid: user:NAME, uid:N or everyone", text);
	error = parse_whom(text, &whom, why);
	if (error)
		return error;
	*uid = whom.id;
	*is_everyone = whom.kind == WHOM_EVERYONE;
	return 0;
}

/* ---- callers --------------------------------------------------------- */

static int read_groups(int sock, gid_t first, struct access_caller *who)
{
	socklen_t bytes = 0;

	/* The size first.  A kernel that does not know of them has no others. */
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes) && errno != ERANGE)
		bytes = 0;
	who->group = malloc(sizeof(gid_t) + bytes);
	if (!who->group)
		return -ENOMEM;
	who->group[0] = first;
	if (bytes && getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, who->group + 1, &bytes))
		bytes = 0;
	who->group_count = 1 + (unsigned)(bytes / sizeof(gid_t));
	return 0;
}

int access_identify(int sock, struct access_caller *who)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);

	*who = (struct access_caller){ 0 };
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &length))
		return -errno;
	who->uid = cred.uid;
	length = sizeof(who->label) - 1;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERSEC, who->label, &length))
		who->label[0] = 0;
	return read_groups(sock, cred.gid, who);
}

void access_forget(struct access_caller *who)
{
	free(who->group);
	*who = (struct access_caller){ 0 };
}

static int is_owner(uint32_t uid)
{
	return uid == geteuid() || uid == 0;
}

int access_is_owner(const struct access_caller *who)
{
	return is_owner(who->uid);
}

int access_is_same(const struct access_caller *who, uint32_t uid)
{
	return is_owner(who->uid) ? is_owner(uid) : who->uid == uid;
}

static int has_group(const struct access_caller *who, uint32_t gid)
{
	unsigned i;

	for (i = 0; i < who->group_count; i++)
		if (who->group[i] == gid)
			return 1;
	return 0;
}

static int is_meant(const struct whom *whom, const struct access_caller *who)
{
	switch (whom->kind) {
	case WHOM_UID:
		return whom->id == who->uid;
	case WHOM_GID:
		return has_group(who, whom->id);
	case WHOM_LABEL:
		return !strcmp(whom->label, who->label);
	default:
		return 1;
	}
}

static int names(const struct rule *rule, const struct access_caller *who)
{
	unsigned i;

	for (i = 0; i < rule->whom_count; i++)
		if (is_meant(&rule->whom[i], who))
			return 1;
	return 0;
}

int access_knows(const struct access *a, const struct access_caller *who)
{
	unsigned i;

	for (i = 0; a && i < a->count; i++)
		if (names(&a->rule[i], who))
			return 1;
	return access_is_owner(who);
}

static int covers(const struct rule *rule, const char *topic)
{
	/* The bus itself: what is said of every topic. */
	if (!strcmp(topic, "#"))
		return !strcmp(rule->pattern, "#");
	return shmq__name_matches(rule->pattern, topic);
}

/* Who asks reads the answers, and nobody else; who may read what is asked answers. */
static unsigned reply_rights(const struct access *a, const struct access_caller *who,
			     const struct shmq__name_reply *reply)
{
	unsigned asked = access_rights(a, who, reply->topic), rights = 0;

	if (access_is_owner(who))
		return ACCESS_ALL;
	if (who->uid == reply->uid && (asked & ACCESS_PUBLISH))
		rights |= ACCESS_CREATE | ACCESS_SUBSCRIBE;
	if (asked & ACCESS_SUBSCRIBE)
		rights |= ACCESS_PUBLISH;
	return rights;
}

unsigned access_rights(const struct access *a, const struct access_caller *who, const char *topic)
{
	unsigned rights = access_is_owner(who) ? ACCESS_ALL : 0, i;
	struct shmq__name_reply reply;

	if (shmq__name_read_reply(topic, &reply))
		return reply_rights(a, who, &reply);
	for (i = 0; a && i < a->count; i++)
		if (covers(&a->rule[i], topic) && names(&a->rule[i], who))
			rights |= a->rule[i].rights;
	return rights;
}

/* ---- lists ----------------------------------------------------------- */

/* What is hashed of one caller: which of the two rights, and who. */
struct grant {
	uint32_t right, kind;
	uint64_t who;
};

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct grant));
}

/* By which right of a rule a topic is published and subscribed. */
struct by {
	unsigned publish, subscribe;
};

static unsigned add_grants(const struct rule *rule, const struct by *by, struct grant *out)
{
	const struct {
		unsigned has, gives;
	} rights[] = { { by->publish, ACCESS_PUBLISH }, { by->subscribe, ACCESS_SUBSCRIBE } };
	unsigned i, r, n = 0;

	for (i = 0; i < rule->whom_count; i++)
		for (r = 0; r < 2; r++) {
			const struct whom *w = &rule->whom[i];

			if (!(rule->rights & rights[r].has))
				continue;
			out[n++] =
				(struct grant){ rights[r].gives, w->kind,
						w->label ? XXH3_64bits(w->label, strlen(w->label)) :
							   w->id };
		}
	return n;
}

static uint64_t hash_grants(struct grant *grant, unsigned count)
{
	uint64_t hash;
	unsigned i, n = 0;

	qsort(grant, count, sizeof(*grant), compare);
	for (i = 0; i < count; i++)
		if (!n || compare(&grant[n - 1], &grant[i]))
			grant[n++] = grant[i];
	if (!n)
		return 0;
	hash = XXH3_64bits(grant, n * sizeof(*grant));
	return hash ? hash : 1;
}

uint64_t access_list(const struct access *a, const char *topic)
{
	struct by by = { ACCESS_PUBLISH, ACCESS_SUBSCRIBE };
	struct shmq__name_reply reply;
	struct grant *grant;
	unsigned room = 0, n = 0, i;
	int is_reply = shmq__name_read_reply(topic, &reply);
	uint64_t hash;

	if (is_reply) {
		topic = reply.topic;
		by = (struct by){ .publish = ACCESS_SUBSCRIBE };
		room = !is_owner(reply.uid);
	}

	for (i = 0; a && i < a->count; i++)
		if (shmq__name_matches(a->rule[i].pattern, topic))
			room += 2 * a->rule[i].whom_count;
	if (!room)
		return 0;
	grant = calloc(room, sizeof(*grant));
	if (!grant)
		return 0; /* the owner alone: never too many */
	for (i = 0; a && i < a->count; i++)
		if (shmq__name_matches(a->rule[i].pattern, topic))
			n += add_grants(&a->rule[i], &by, grant + n);
	if (is_reply && !is_owner(reply.uid))
		grant[n++] = (struct grant){ ACCESS_SUBSCRIBE, WHOM_UID, reply.uid };
	hash = hash_grants(grant, n);
	free(grant);
	return hash;
}

int access_lets_publish(const struct access *a, const char *topic)
{
	struct shmq__name_reply reply;
	unsigned right = ACCESS_PUBLISH, i;

	if (shmq__name_read_reply(topic, &reply)) {
		topic = reply.topic;
		right = ACCESS_SUBSCRIBE;
	}
	for (i = 0; a && i < a->count; i++)
		if (a->rule[i].rights & right && shmq__name_matches(a->rule[i].pattern, topic))
			return 1;
	return 0;
}
