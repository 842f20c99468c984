/* SPDX-License-Identifier: MIT */
#include "name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int is_word_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

int shmq__name_check_bus(const char *name, struct shmq__why *why)
{
	size_t i;

	if (!name || !*name)
		return shmq__fail(why, SHMQ_EBUSNAME, "a bus name must not be empty");
	for (i = 0; name[i]; i++) {
		if (i == SHMQ_BUS_NAME_MAX)
			return shmq__fail(why, SHMQ_EBUSNAME, "a bus name has at most %d bytes",
					  SHMQ_BUS_NAME_MAX);
		if (!is_word_byte(name[i]))
			return shmq__fail(
				why, SHMQ_EBUSNAME,
				"byte %zu of the bus name is not a letter, digit, '_' or '-'",
				i + 1);
	}
	return 0;
}

/* Words, separated by single dots, from byte `at` of the name on. */
static int check_words(const char *name, size_t at, const char *what, int error,
		       struct shmq__why *why)
{
	size_t i, word = 0;

	for (i = at; name[i]; i++) {
		if (i == SHMQ_NAME_MAX)
			return shmq__fail(why, error, "a %s name has at most %d bytes", what,
					  SHMQ_NAME_MAX);
		if (name[i] == '.' && !word)
			return shmq__fail(why, error,
					  "byte %zu of the %s name ends an empty word: words are "
					  "separated by single dots",
					  i + 1, what);
		if (name[i] != '.' && !is_word_byte(name[i]))
			return shmq__fail(why, error,
					  "byte %zu of the %s name is not a letter, digit, '_', "
					  "'-' or '.'",
					  i + 1, what);
		word = name[i] == '.' ? 0 : word + 1;
	}
	if (word)
		return 0;
	return shmq__fail(why, error,
			  i == at ? "a %s name must have a word" :
				    "a %s name must not end with a dot",
			  what);
}

int shmq__name_check_topic(const char *name, enum shmq__name_who who, struct shmq__why *why)
{
	if (!name || !*name)
		return shmq__fail(why, SHMQ_ENAME, "a topic name must not be empty");
	if (name[0] == '$' && who != SHMQ__NAME_BUS)
		return shmq__fail(why, SHMQ_ENAME,
				  "names that start with '$' belong to the bus: choose another");
	return check_words(name, name[0] == '$', "topic", SHMQ_ENAME, why);
}

int shmq__name_check_cursor(const char *name, struct shmq__why *why)
{
	return check_words(name, 0, "cursor", SHMQ_EOPTION, why);
}

int shmq__name_check_pattern(const char *pattern, struct shmq__why *why)
{
	char word[SHMQ_NAME_MAX + 1];
	size_t i, n = 0;

	if (!pattern)
		return shmq__fail(why, SHMQ_ENAME, "a pattern must not be empty");
	/* As a name, with a letter for each wildcard that stands alone. */
	for (i = pattern[0] == '$'; pattern[i] && n < sizeof(word) - 1; i++) {
		char before = n ? pattern[i - 1] : '.', after = pattern[i + 1];
		int wild = pattern[i] == '*' || pattern[i] == '#';

		if (wild && (before != '.' || (after && after != '.')))
			return shmq__fail(why, SHMQ_ENAME,
					  "byte %zu of the pattern: '%c' stands for whole words",
					  i + 1, pattern[i]);
		word[n++] = wild ? 'x' : pattern[i];
	}
	word[n] = 0;
	if (pattern[i])
		return shmq__fail(why, SHMQ_ENAME, "a pattern has at most %d bytes", SHMQ_NAME_MAX);
	return check_words(word, 0, "pattern", SHMQ_ENAME, why);
}

static size_t word_length(const char *at)
{
	return strcspn(at, ".");
}

static const char *next_word(const char *at)
{
	at += word_length(at);
	return *at ? at + 1 : at;
}

/* Word by word, both to their ends.  Where a word does not fit, the last '#'
 * takes one more; an earlier one need not, since what stands between the two
 * fits where it was found first. */
int shmq__name_matches(const char *pattern, const char *name)
{
	const char *after = NULL, *from = NULL; /* of the last '#' */

	if ((*pattern == '$') != (*name == '$'))
		return 0;
	while (*name || *pattern) {
		size_t n = word_length(name), p = word_length(pattern);

		if (p == 1 && *pattern == '#') {
			pattern = after = next_word(pattern);
			from = name;
		} else if (*name &&
			   ((p == 1 && *pattern == '*') || (p == n && !memcmp(pattern, name, n)))) {
			pattern = next_word(pattern);
			name = next_word(name);
		} else if (after && *from) {
			from = name = next_word(from);
			pattern = after;
		} else {
			return 0;
		}
	}
	return 1;
}

int shmq__name_is_pattern(const char *text)
{
	return text && strpbrk(text, "*#") != NULL;
}

int shmq__name_make_reply(const struct shmq__name_reply *reply, char out[SHMQ_NAME_MAX + 1])
{
	int n = snprintf(out, SHMQ_NAME_MAX + 1, SHMQ__NAME_REPLY "%" PRIu32 ".%016" PRIx64 ".%s",
			 reply->uid, reply->id, reply->topic);

	return n < 0 || n > SHMQ_NAME_MAX ? SHMQ_ENAME : 0;
}

/* Made again of what was read, it must be the same: so there is one spelling. */
int shmq__name_read_reply(const char *name, struct shmq__name_reply *out)
{
	char again[SHMQ_NAME_MAX + 1];
	int n = 0;

	if (strncmp(name, SHMQ__NAME_REPLY, strlen(SHMQ__NAME_REPLY)) != 0 ||
	    sscanf(name + strlen(SHMQ__NAME_REPLY), "%" SCNu32 ".%" SCNx64 ".%n", &out->uid,
		   &out->id, &n) != 2 ||
	    !n)
		return 0;
	out->topic = name + strlen(SHMQ__NAME_REPLY) + n;
	return !shmq__name_check_topic(out->topic, SHMQ__NAME_USER, NULL) &&
	       !shmq__name_make_reply(out, again) && !strcmp(name, again);
}

SHMQ_EXPORT int shmq_topic_matches(const char *pattern, const char *name)
{
	int error = shmq__name_check_pattern(pattern, NULL);

	return error ? error : shmq__name_matches(pattern, name);
}

SHMQ_EXPORT int shmq_topic_check_name(const char *name)
{
	return shmq__name_check_topic(name, SHMQ__NAME_USER, NULL);
}

void shmq__name_show(char *out, const char *from, size_t bytes)
{
	size_t i;

	memset(out, 0, bytes);
	for (i = 0; i + 1 < bytes && from[i]; i++)
		out[i] = from[i] >= ' ' && from[i] < 0x7f ? from[i] : '?';
}

/* Root made it, where nobody else makes any. */
static int is_of_root(const char *path)
{
	char above[128];
	const char *slash = strrchr(path, '/');
	struct stat st;
	int n = slash ? snprintf(above, sizeof(above), "%.*s/.", (int)(slash - path), path) : -1;

	return n > 0 && (size_t)n < sizeof(above) && !lstat(above, &st) && st.st_uid == 0 &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

/* Root may name another user's directory, but is not lured into one: under
 * /tmp anybody could have made it.  Others may name root's, or what root made
 * for the user of a service, as a bus for several users has it. */
enum choice { CHOSEN, BY_DEFAULT };
static int is_trusted(const char *path, const struct stat *st, enum choice choice)
{
	if (st->st_uid == geteuid())
		return 1;
	return choice == CHOSEN && (geteuid() == 0 || st->st_uid == 0 || is_of_root(path));
}

static int check_dir(const char *path, enum choice choice, struct shmq__why *why)
{
	struct stat st;

	if (lstat(path, &st))
		return shmq__fail(why, -errno, "runtime directory %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return shmq__fail(why, SHMQ_EACCESS,
				  "%s is not a directory: set SHMQ_RUNTIME_DIR to a "
				  "directory of your own",
				  path);
	if (!is_trusted(path, &st, choice))
		return shmq__fail(why, SHMQ_EACCESS,
				  "%s belongs to uid %u: set SHMQ_RUNTIME_DIR to a "
				  "directory of your own",
				  path, (unsigned)st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return shmq__fail(why, SHMQ_EACCESS, "%s can be written by others: %s", path,
				  st.st_mode & S_ISVTX ? /* /tmp is meant to be */
					  "set SHMQ_RUNTIME_DIR to a directory of your own" :
					  "chmod go-w it");
	return 0;
}

/* It is the user's alone, by its specification.  In the shell of su(1) it is still that
 * of who typed it, who could pose as the supervisor there, and whom what is made there
 * would keep out of his own. */
static int is_of_another_user(const char *xdg)
{
	struct stat st;

	return !stat(xdg, &st) && st.st_uid != geteuid() && st.st_uid != 0;
}

int shmq__name_runtime_dir(const char *dir, enum shmq__name_dir how, char *out, size_t bytes,
			   struct shmq__why *why)
{
	const char *env = secure_getenv("SHMQ_RUNTIME_DIR"),
		   *xdg = secure_getenv("XDG_RUNTIME_DIR");
	enum choice choice = CHOSEN;
	int n;

	if (dir && *dir)
		n = snprintf(out, bytes, "%s", dir);
	else if (env && *env)
		n = snprintf(out, bytes, "%s", env);
	else if (xdg && *xdg && !is_of_another_user(xdg))
		n = snprintf(out, bytes, "%s/shmq", xdg);
	else {
		n = snprintf(out, bytes, "/tmp/shmq-%u", (unsigned)geteuid());
		choice = BY_DEFAULT;
	}
	if (n < 0 || (size_t)n >= bytes ||
	    (size_t)n + SHMQ_BUS_NAME_MAX + sizeof("/.sock") >
		    sizeof(((struct sockaddr_un *)0)->sun_path))
		return shmq__fail(
			why, SHMQ_ELIMIT,
			"runtime directory path of %d bytes is too long for a socket: set "
			"SHMQ_RUNTIME_DIR to a shorter one",
			n);
	if (how == SHMQ__NAME_DIR_CREATE && mkdir(out, 0700) && errno != EEXIST)
		return shmq__fail(why, -errno,
				  "making runtime directory %s: %s: choose another place "
				  "(SHMQ_RUNTIME_DIR)",
				  out, strerror(errno));
	return check_dir(out, choice, why);
}
