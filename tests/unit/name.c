/* SPDX-License-Identifier: MIT */
#include "name.h"
#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct shmq__why why;

static const char *repeat(char c, size_t count)
{
	static char text[1024];

	memset(text, c, count);
	text[count] = 0;
	return text;
}

/* ---- buses ----------------------------------------------------------------- */

static void bus_refused(const char *name, const char *reason)
{
	memset(&why, 0, sizeof(why));
	CHECK_EQ(shmq__name_check_bus(name, &why), SHMQ_EBUSNAME);
	CHECK_STR(why.text, reason);
	CHECK_EQ(shmq__name_check_bus(name, NULL), SHMQ_EBUSNAME);
}

TEST(names_of_private_topics_are_read_as_they_are_made)
{
	static const char *const others[] = { "$reply",
					      "$reply.",
					      "$reply.1000.0123456789abcdef",
					      "$reply.1000.0123456789abcdef.",
					      "$reply.1000.0123456789ABCDEF.svc",
					      "$reply.1000.123456789abcdef.svc",
					      "$reply.01000.0123456789abcdef.svc",
					      "$reply.-1.0123456789abcdef.svc",
					      "$reply. 1000.0123456789abcdef.svc",
					      "$reply.4294968296.0123456789abcdef.svc",
					      "$reply.1000.0123456789abcdef.$reply",
					      "$reply.1000.0123456789abcdef.a..b",
					      "reply.1000.0123456789abcdef.svc",
					      "$sys.1000.0123456789abcdef.svc" };
	struct shmq__name_reply reply = { 1000, UINT64_C(0x0123456789abcdef), "svc.a" }, got;
	char name[SHMQ_NAME_MAX + 1], topic[SHMQ_NAME_MAX + 1];
	unsigned i;

	CHECK_OK(shmq__name_make_reply(&reply, name));
	CHECK_STR(name, "$reply.1000.0123456789abcdef.svc.a");
	CHECK(shmq__name_read_reply(name, &got));
	CHECK_EQ(got.uid, 1000);
	CHECK_EQ(got.id, reply.id);
	CHECK_STR(got.topic, "svc.a");
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		CHECK(!shmq__name_read_reply(others[i], &got));
	memset(topic, 't', sizeof(topic));
	topic[220] = 0;
	reply = (struct shmq__name_reply){ UINT32_MAX, UINT64_MAX, topic };
	CHECK_OK(shmq__name_make_reply(&reply, name));
	CHECK_EQ(strlen(name), SHMQ_NAME_MAX);
	CHECK(shmq__name_read_reply(name, &got));
	topic[220] = 't';
	topic[221] = 0;
	CHECK_EQ(shmq__name_make_reply(&reply, name), SHMQ_ENAME);
}

TEST(good_bus_names_pass)
{
	static const char *const good[] = { "a", "default", "A-b_9", "-", "0" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK_OK(shmq__name_check_bus(good[i], &why));
	CHECK_OK(shmq__name_check_bus(repeat('x', SHMQ_BUS_NAME_MAX), &why));
}

TEST(bad_bus_names_are_refused_with_the_reason)
{
	bus_refused(NULL, "a bus name must not be empty");
	bus_refused("", "a bus name must not be empty");
	bus_refused(repeat('x', SHMQ_BUS_NAME_MAX + 1), "a bus name has at most 63 bytes");
	bus_refused("a.b", "byte 2 of the bus name is not a letter, digit, '_' or '-'");
	bus_refused("../x", "byte 1 of the bus name is not a letter, digit, '_' or '-'");
	bus_refused("ab/", "byte 3 of the bus name is not a letter, digit, '_' or '-'");
	bus_refused("a b", "byte 2 of the bus name is not a letter, digit, '_' or '-'");
	bus_refused("ab\n", "byte 3 of the bus name is not a letter, digit, '_' or '-'");
	bus_refused("\xc3\xa9", "byte 1 of the bus name is not a letter, digit, '_' or '-'");
}

/* ---- topics ---------------------------------------------------------------- */

static void refused(const char *name, const char *reason)
{
	memset(&why, 0, sizeof(why));
	CHECK_EQ(shmq__name_check_topic(name, SHMQ__NAME_USER, &why), SHMQ_ENAME);
	CHECK_STR(why.text, reason);
	CHECK_EQ(shmq__name_check_topic(name, SHMQ__NAME_USER, NULL), SHMQ_ENAME);
	CHECK_EQ(shmq_topic_check_name(name), SHMQ_ENAME);
}

TEST(good_topic_names_pass)
{
	static const char *const good[] = { "a", "md.equities.AAPL", "0.1", "-._", "a-b_c.D9" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CHECK_OK(shmq__name_check_topic(good[i], SHMQ__NAME_USER, &why));
		CHECK_OK(shmq__name_check_topic(good[i], SHMQ__NAME_BUS, &why));
		CHECK_OK(shmq_topic_check_name(good[i]));
	}
	CHECK_OK(shmq__name_check_topic(repeat('x', SHMQ_NAME_MAX), SHMQ__NAME_USER, &why));
}

TEST(bad_topic_names_are_refused_with_the_reason)
{
	static const char odd[] = "is not a letter, digit, '_', '-' or '.'";
	char text[200];

	refused(NULL, "a topic name must not be empty");
	refused("", "a topic name must not be empty");
	refused(repeat('x', SHMQ_NAME_MAX + 1), "a topic name has at most 255 bytes");
	refused(".",
		"byte 1 of the topic name ends an empty word: words are separated by single dots");
	refused(".a",
		"byte 1 of the topic name ends an empty word: words are separated by single dots");
	refused("a..b",
		"byte 3 of the topic name ends an empty word: words are separated by single dots");
	refused("a.", "a topic name must not end with a dot");
	refused("md.x.", "a topic name must not end with a dot");
	for (int c = 1; c < 256; c++) {
		char name[] = { 'a', 'b', (char)c, 'd', 0 };

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		    c == '_' || c == '-' || c == '.') {
			CHECK_OK(shmq__name_check_topic(name, SHMQ__NAME_USER, NULL));
			continue;
		}
		snprintf(text, sizeof(text), "byte 3 of the topic name %s", odd);
		refused(name, text);
	}
}

TEST(a_pattern_has_whole_words_for_wildcards)
{
	static const struct {
		const char *pattern, *name;
		int fits;
	} cases[] = {
		{ "a.b", "a.b", 1 },
		{ "a.b", "a.c", 0 },
		{ "a.b", "a", 0 },
		{ "a.b", "a.b.c", 0 },
		{ "a.b", "a.bc", 0 },
		{ "a.bc", "a.b", 0 },
		{ "*", "a", 1 },
		{ "*", "a.b", 0 },
		{ "*.b", "b", 0 },
		{ "md.*.AAPL", "md.eq.AAPL", 1 },
		{ "md.*.AAPL", "md.AAPL", 0 },
		{ "md.*.AAPL", "md.eq.x.AAPL", 0 },
		{ "*.*", "a.b", 1 },
		{ "#", "a", 1 },
		{ "#", "a.b.c", 1 },
		{ "a.#", "a", 1 },
		{ "a.#", "a.b.c", 1 },
		{ "a.#", "b", 0 },
		{ "#.c", "c", 1 },
		{ "#.c", "a.b.c", 1 },
		{ "#.c", "a.c.b", 0 },
		{ "a.#.c", "a.c", 1 },
		{ "a.#.c", "a.c.c.b.c", 1 },
		{ "a.#.c", "a.c.d", 0 },
		{ "#.a.#", "x.a.y", 1 },
		{ "#.a.#", "a", 1 },
		{ "#.a.#", "x.y", 0 },
		{ "#.a.#.b", "a.x.a.b", 1 },
		{ "#.a.#.b", "b.a", 0 },
		{ "#.*", "a", 1 },
		{ "*.#", "a.b", 1 },
		{ "#.#", "a", 1 },
		{ "#.a.b", "a.a.b", 1 },
		{ "#.a.*.#.b", "a.b.b", 1 },
		{ "#", "$sys.events", 0 },
		{ "$sys.#", "$sys.events", 1 },
		{ "$sys.#", "sys.events", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CHECK_OK(shmq__name_check_pattern(cases[i].pattern, &why));
		if (shmq__name_matches(cases[i].pattern, cases[i].name) != cases[i].fits)
			FAIL("%s and %s", cases[i].pattern, cases[i].name);
	}
}

/* What a search that tries everything would not see the end of. */
TEST(a_pattern_of_many_wildcards_is_soon_decided)
{
	char pattern[SHMQ_NAME_MAX + 1] = "#", name[SHMQ_NAME_MAX + 1] = "a";

	while (strlen(pattern) + 4 < sizeof(pattern))
		strcat(pattern, ".a.#");
	while (strlen(name) + 2 < sizeof(name))
		strcat(name, ".a");
	CHECK_EQ(shmq__name_matches(pattern, name), 1);
	pattern[strlen(pattern) - 1] = 'b';
	CHECK_EQ(shmq__name_matches(pattern, name), 0);
}

TEST(bad_patterns_are_refused_with_the_reason)
{
	static const struct {
		const char *pattern, *reason;
	} cases[] = {
		{ "", "a pattern name must have a word" },
		{ "a*", "byte 2 of the pattern: '*' stands for whole words" },
		{ "#a", "byte 1 of the pattern: '#' stands for whole words" },
		{ "a.**", "byte 3 of the pattern: '*' stands for whole words" },
		{ "a..b", "byte 3 of the pattern name ends an empty word: words are separated by "
			  "single dots" },
		{ "a.", "a pattern name must not end with a dot" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CHECK_EQ(shmq__name_check_pattern(cases[i].pattern, &why), SHMQ_ENAME);
		CHECK_STR(why.text, cases[i].reason);
	}
	CHECK_EQ(shmq__name_check_pattern(repeat('x', SHMQ_NAME_MAX + 1), &why), SHMQ_ENAME);
}

TEST(names_with_a_dollar_belong_to_the_bus)
{
	refused("$sys", "names that start with '$' belong to the bus: choose another");
	refused("$", "names that start with '$' belong to the bus: choose another");
	refused("a$", "byte 2 of the topic name is not a letter, digit, '_', '-' or '.'");
	CHECK_OK(shmq__name_check_topic("$sys", SHMQ__NAME_BUS, &why));
	CHECK_OK(shmq__name_check_topic("$sys.x", SHMQ__NAME_BUS, &why));
	CHECK_EQ(shmq__name_check_topic("$", SHMQ__NAME_BUS, &why), SHMQ_ENAME);
	CHECK_STR(why.text, "a topic name must have a word");
	CHECK_EQ(shmq__name_check_topic("$.a", SHMQ__NAME_BUS, &why), SHMQ_ENAME);
	CHECK_STR(
		why.text,
		"byte 2 of the topic name ends an empty word: words are separated by single dots");
	CHECK_EQ(shmq__name_check_topic("$$", SHMQ__NAME_BUS, &why), SHMQ_ENAME);
}

TEST(what_others_wrote_is_shown_as_text)
{
	char out[16];

	shmq__name_show(out, "md.AAPL \"1\"", sizeof(out));
	CHECK_STR(out, "md.AAPL \"1\"");
	shmq__name_show(out, "\033[31m\n\r\x7f\xc2\x9b", sizeof(out));
	CHECK_STR(out, "?[31m?????");
	shmq__name_show(out, "0123456789abcdefg", sizeof(out));
	CHECK_STR(out, "0123456789abcde");
}

/* ---- the runtime directory ------------------------------------------------- */

static char dir[200], text[PATH_MAX];

static int find(const char *given, enum shmq__name_dir how)
{
	memset(&why, 0, sizeof(why));
	memset(text, 0, sizeof(text));
	return shmq__name_runtime_dir(given, how, text, sizeof(text), &why);
}

static const char *in_tmp(const char *name)
{
	snprintf(dir, sizeof(dir), "%s/%s", test_tmpdir(), name);
	return dir;
}

TEST(the_directory_given_goes_before_the_environment)
{
	char env[300], xdg[300];

	snprintf(env, sizeof(env), "%s", in_tmp("env"));
	snprintf(xdg, sizeof(xdg), "%s", in_tmp("xdg"));
	CHECK_EQ(mkdir(xdg, 0700), 0);
	setenv("SHMQ_RUNTIME_DIR", env, 1);
	setenv("XDG_RUNTIME_DIR", xdg, 1);
	CHECK_OK(find(in_tmp("given"), SHMQ__NAME_DIR_CREATE));
	CHECK_STR(text, in_tmp("given"));
	CHECK_OK(find(NULL, SHMQ__NAME_DIR_CREATE));
	CHECK_STR(text, env);
	CHECK_OK(find("", SHMQ__NAME_DIR_CREATE));
	CHECK_STR(text, env);
	setenv("SHMQ_RUNTIME_DIR", "", 1);
	CHECK_OK(find(NULL, SHMQ__NAME_DIR_CREATE));
	CHECK_STR(text, in_tmp("xdg/shmq"));
	unsetenv("SHMQ_RUNTIME_DIR");
	unsetenv("XDG_RUNTIME_DIR");
	find(NULL, SHMQ__NAME_DIR_FIND);
	snprintf(env, sizeof(env), "/tmp/shmq-%u", (unsigned)geteuid());
	CHECK_STR(text, env);
}

TEST(a_directory_is_made_for_its_owner_alone_and_only_if_asked)
{
	struct stat st;

	umask(0);
	in_tmp("new");
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_FIND), -ENOENT);
	CHECK(strstr(why.text, dir));
	CHECK_LT(lstat(dir, &st), 0);
	CHECK_OK(find(dir, SHMQ__NAME_DIR_CREATE));
	CHECK_OK(lstat(dir, &st));
	CHECK_EQ(st.st_mode & 07777, 0700);
	CHECK_OK(find(dir, SHMQ__NAME_DIR_CREATE));
	CHECK_OK(find(dir, SHMQ__NAME_DIR_FIND));
	CHECK_EQ(find(in_tmp("no/such"), SHMQ__NAME_DIR_CREATE), -ENOENT);
}

TEST(a_directory_that_others_may_write_is_refused)
{
	char want[300];

	in_tmp("open");
	CHECK_EQ(mkdir(dir, 0700), 0);
	CHECK_EQ(chmod(dir, 0702), 0);
	snprintf(want, sizeof(want), "%s can be written by others: chmod go-w it", dir);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_CREATE), SHMQ_EACCESS);
	CHECK_STR(why.text, want);
	CHECK_EQ(chmod(dir, 0720), 0);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_FIND), SHMQ_EACCESS);
	CHECK_EQ(chmod(dir, 0755), 0);
	CHECK_OK(find(dir, SHMQ__NAME_DIR_FIND));
}

TEST(a_directory_that_is_meant_for_all_is_not_to_be_closed_to_them)
{
	char want[300];

	in_tmp("shared");
	CHECK_EQ(mkdir(dir, 0700), 0);
	CHECK_EQ(chmod(dir, 01777), 0);
	snprintf(want, sizeof(want),
		 "%s can be written by others: set SHMQ_RUNTIME_DIR to a directory of your own",
		 dir);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_FIND), SHMQ_EACCESS);
	CHECK_STR(why.text, want);
}

TEST(what_is_no_directory_is_refused_symbolic_links_included)
{
	char target[300], want[300];
	FILE *file;

	snprintf(target, sizeof(target), "%s", in_tmp("target"));
	CHECK_EQ(mkdir(target, 0700), 0);
	in_tmp("link");
	CHECK_EQ(symlink(target, dir), 0);
	snprintf(want, sizeof(want),
		 "%s is not a directory: set SHMQ_RUNTIME_DIR to a directory of your own", dir);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_CREATE), SHMQ_EACCESS);
	CHECK_STR(why.text, want);
	file = fopen(in_tmp("file"), "we");
	CHECK(file);
	fclose(file);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_FIND), SHMQ_EACCESS);
}

enum { OTHER = 4711 };

static int as_nobody(void *arg)
{
	char want[300];

	(void)arg;
	if (setgid(65534) || setuid(65534))
		return 1;
	snprintf(want, sizeof(want),
		 "%s belongs to uid %d: set SHMQ_RUNTIME_DIR to a directory of your own", dir,
		 OTHER);
	CHECK_EQ(find(dir, SHMQ__NAME_DIR_FIND), SHMQ_EACCESS);
	CHECK_STR(why.text, want);
	return 0;
}

TEST(a_directory_of_somebody_else_is_refused)
{
	if (geteuid())
		SKIP("needs root, to be somebody else");
	CHECK_EQ(chmod(test_tmpdir(), 0777), 0);
	in_tmp("theirs");
	CHECK_EQ(mkdir(dir, 0755), 0);
	CHECK_EQ(chown(dir, OTHER, OTHER), 0);
	CHECK_EQ(test_join(test_spawn(as_nobody, NULL)), 0);
}

static int finds_own_as_other(void *arg)
{
	char want[300];

	(void)arg;
	CHECK_EQ(setuid(OTHER), 0);
	CHECK_OK(find(NULL, SHMQ__NAME_DIR_CREATE));
	snprintf(want, sizeof(want), "%s/shmq", dir);
	CHECK_STR(text, want);
	return 0;
}

TEST(the_environment_of_who_became_root_leads_into_no_directory_of_his)
{
	char want[300];

	if (geteuid())
		SKIP("needs root, to be somebody else");
	unsetenv("SHMQ_RUNTIME_DIR");
	CHECK_EQ(chmod(test_tmpdir(), 0755), 0);
	in_tmp("xdg");
	CHECK_EQ(mkdir(dir, 0700), 0);
	CHECK_EQ(chown(dir, OTHER, OTHER), 0);
	setenv("XDG_RUNTIME_DIR", dir, 1);
	CHECK_EQ(test_join(test_spawn(finds_own_as_other, NULL)), 0);
	find(NULL, SHMQ__NAME_DIR_FIND);
	snprintf(want, sizeof(want), "/tmp/shmq-%u", (unsigned)geteuid());
	CHECK_STR(text, want);
}

static int finds_as_nobody(void *arg)
{
	(void)arg;
	CHECK_EQ(setuid(65534), 0);
	CHECK_OK(find(dir, SHMQ__NAME_DIR_FIND));
	return 0;
}

/* As the directory of a bus for several users is. */
TEST(what_root_made_for_somebody_is_taken_where_it_is_named)
{
	if (geteuid())
		SKIP("needs root, to be somebody else");
	CHECK_EQ(chmod(test_tmpdir(), 0755), 0);
	in_tmp("theirs");
	CHECK_EQ(mkdir(dir, 0755), 0);
	CHECK_EQ(test_join(test_spawn(finds_as_nobody, NULL)), 0);
	CHECK_EQ(chown(dir, OTHER, OTHER), 0);
	CHECK_EQ(test_join(test_spawn(finds_as_nobody, NULL)), 0);
}

TEST(a_path_too_long_for_a_socket_is_refused_before_anything_is_made)
{
	char long_dir[300], want[300];
	struct stat st;

	snprintf(long_dir, sizeof(long_dir), "%.100s/%.100s", test_tmpdir(), repeat('d', 100));
	snprintf(
		want, sizeof(want),
		"runtime directory path of %zu bytes is too long for a socket: set SHMQ_RUNTIME_DIR to "
		"a shorter one",
		strlen(long_dir));
	CHECK_EQ(find(long_dir, SHMQ__NAME_DIR_CREATE), SHMQ_ELIMIT);
	CHECK_STR(why.text, want);
	CHECK_LT(lstat(long_dir, &st), 0);
	in_tmp("x");
	CHECK_EQ(shmq__name_runtime_dir(dir, SHMQ__NAME_DIR_CREATE, text, strlen(dir), &why),
		 SHMQ_ELIMIT);
	CHECK_LT(lstat(dir, &st), 0);
}

/* ---- patterns against all ways --------------------------------------------- */

/* Words by their letters: '.' is left out. */
static int try_all(const char *pattern, const char *name)
{
	if (!*pattern)
		return !*name;
	if (*pattern == '#')
		return try_all(pattern + 1, name) || (*name && try_all(pattern, name + 1));
	return *name && (*pattern == '*' || *pattern == *name) && try_all(pattern + 1, name + 1);
}

static void with_dots(char *to, const char *letters)
{
	for (; *letters; letters++) {
		*to++ = *letters;
		*to++ = '.';
	}
	to[-1] = 0;
}

static void make_words(char *to, const char *from, unsigned words, uint64_t *random)
{
	unsigned i, kinds = (unsigned)strlen(from);

	for (i = 0; i < words; i++) {
		*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
		to[i] = from[(*random >> 33) % kinds];
	}
	to[words] = 0;
}

TEST(a_pattern_means_what_trying_all_ways_says)
{
	char p[16], n[16], pattern[32], name[32];
	uint64_t random = 1;
	unsigned i, meant = 0;

	for (i = 0; i < 200000; i++) {
		make_words(p, "ab*##", 1 + i % 7, &random);
		make_words(n, "ab", 1 + i % 9, &random);
		with_dots(pattern, p);
		with_dots(name, n);
		meant += (unsigned)try_all(p, n);
		if (shmq__name_matches(pattern, name) != try_all(p, n))
			FAIL("\"%s\" and \"%s\": not %d", pattern, name, try_all(p, n));
	}
	CHECK_GT(meant, 1000);
	CHECK_LT(meant, 199000);
}

TEST(many_wildcards_do_not_take_long)
{
	char pattern[SHMQ_NAME_MAX + 1], name[SHMQ_NAME_MAX + 1];
	unsigned i;

	for (i = 0; i < 63; i++)
		memcpy(pattern + 4 * i, "#.a.", 4);
	memcpy(pattern + 252, "#.b", 4);
	for (i = 0; i < 127; i++)
		memcpy(name + 2 * i, "a.", 2);
	memcpy(name + 254, "a", 2);
	for (i = 0; i < 1000; i++)
		CHECK_EQ(shmq_topic_matches(pattern, name), 0);
}

TEST(a_topic_matches_by_the_public_name_too)
{
	CHECK_EQ(shmq_topic_matches("md.*.AAPL", "md.nyse.AAPL"), 1);
	CHECK_EQ(shmq_topic_matches("md.*.AAPL", "md.AAPL"), 0);
	CHECK_EQ(shmq_topic_matches("#", "$sys.events"), 0);
	CHECK_EQ(shmq_topic_matches("a*", "a"), SHMQ_ENAME);
	CHECK_EQ(shmq_topic_matches("a.!.b", "a"), SHMQ_ENAME);
	CHECK_EQ(shmq_topic_matches("a...b", "a"), SHMQ_ENAME);
	CHECK_EQ(shmq_topic_matches(NULL, "a"), SHMQ_ENAME);
	CHECK(shmq__name_is_pattern("a.*") && shmq__name_is_pattern("#"));
	CHECK(!shmq__name_is_pattern("a.b") && !shmq__name_is_pattern(NULL));
}
