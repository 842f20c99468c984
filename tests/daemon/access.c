/* SPDX-License-Identifier: MIT
 *
 * Rules of access, without a bus.
 */
#include "access.h"
#include "tap.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct access *rules(const char *const *text)
{
	struct access *a = access_create();
	struct shmq__why why = { "" };

	CHECK(a);
	for (; *text; text++)
		CHECK_OK(access_add(a, *text, &why));
	return a;
}
#define RULES(...) rules((const char *const[]){ __VA_ARGS__, NULL })

static gid_t groups[] = { 50, 51, 52 };
static const struct access_caller guest = { .uid = 4711, .group = groups, .group_count = 3 };

static unsigned rights(const struct access *a, const char *topic)
{
	return access_rights(a, &guest, topic);
}

TEST(rights_add_up_and_nobody_else_has_any)
{
	struct access *a =
		RULES("md.# publish uid:4711", "md.*.x subscribe,create gid:52", "# admin uid:1");
	const struct access_caller other = { .uid = 4712, .group = groups, .group_count = 1 };

	CHECK_EQ(rights(a, "md"), ACCESS_PUBLISH);
	CHECK_EQ(rights(a, "md.a.x"), ACCESS_PUBLISH | ACCESS_SUBSCRIBE | ACCESS_CREATE);
	CHECK_EQ(rights(a, "me.a.x"), 0);
	CHECK_EQ(access_rights(a, &other, "md.a.x"), 0);
	CHECK_EQ(access_knows(a, &guest), 1);
	CHECK_EQ(access_knows(a, &other), 0);
	access_destroy(a);
}

TEST(only_a_rule_of_every_topic_is_one_of_the_bus)
{
	struct access *a = RULES("*.# all uid:4711"), *b = RULES("# admin uid:4711");

	CHECK_EQ(rights(a, "#"), 0);
	CHECK_EQ(rights(b, "#"), ACCESS_ADMIN);
	access_destroy(a);
	access_destroy(b);
}

TEST(owner_and_root_have_all_rights_with_and_without_rules)
{
	const struct access_caller owner = { .uid = geteuid() }, root = { .uid = 0 };
	struct access *a = RULES("md.# publish uid:4711");

	CHECK_EQ(access_rights(a, &owner, "x"), ACCESS_ALL);
	CHECK_EQ(access_rights(NULL, &owner, "x"), ACCESS_ALL);
	CHECK_EQ(access_rights(NULL, &root, "#"), ACCESS_ALL);
	CHECK_EQ(access_rights(NULL, &guest, "x"), geteuid() == 4711 ? ACCESS_ALL : 0);
	CHECK_EQ(access_knows(NULL, &owner), 1);
	CHECK_EQ(access_has_rules(NULL), 0);
	CHECK_EQ(access_has_rules(a), 1);
	access_destroy(a);
}

TEST(a_label_is_compared_whole)
{
	struct access *a = RULES("t publish label:system_u:system_r:feed_t:s0");
	struct access_caller labelled = guest;

	CHECK_EQ(rights(a, "t"), 0);
	snprintf(labelled.label, sizeof(labelled.label), "system_u:system_r:feed_t:s0");
	CHECK_EQ(access_rights(a, &labelled, "t"), ACCESS_PUBLISH);
	snprintf(labelled.label, sizeof(labelled.label), "system_u:system_r:feed_t:s0:c1");
	CHECK_EQ(access_rights(a, &labelled, "t"), 0);
	access_destroy(a);
}

/* However it is said: what topics share memory by. */
TEST(the_same_callers_are_the_same_list)
{
	struct access *a = RULES("a publish,subscribe uid:1,gid:2", "b subscribe gid:2,uid:1",
				 "b publish uid:1", "b publish gid:2", "c publish uid:1,gid:2",
				 "d publish,subscribe uid:1", "e create,admin uid:1",
				 "f publish,subscribe uid:2,gid:1", "g publish everyone",
				 "h publish label:x", "i publish label:y");
	static const char names[] = "abcdefghi";
	uint64_t list[9];
	unsigned i, j;

	for (i = 0; i < 9; i++)
		list[i] = access_list(a, (const char[]){ names[i], 0 });
	CHECK_EQ(list[0], list[1]);
	CHECK_EQ(list[4], 0); /* its owner's, to read and write */
	CHECK_EQ(access_list(a, "none"), 0);
	for (i = 1; i < 9; i++)
		for (j = 0; j < i; j++)
			if (i > 1 && list[i] == list[j])
				FAIL("%c and %c share memory", names[i], names[j]);
	access_destroy(a);
}

TEST(bad_rules_are_refused_with_the_reason)
{
	static const struct {
		const char *rule, *reason;
	} cases[] = {
		{ "", "a rule is a pattern, rights and callers" },
		{ "a publish", "a rule is a pattern, rights and callers" },
		{ "a publish uid:1 uid:2", "a rule is a pattern, rights and callers" },
		{ "a* publish uid:1", "'*' stands for whole words" },
		{ "a write uid:1", "there is no right \"write\"" },
		{ "a , uid:1", "at least one right" },
		{ "a publish ,", "at least one caller" },
		{ "a publish alice", "\"alice\" is nobody" },
		{ "a publish user:no-such-user-here", "there is no user:\"no-such-user-here\"" },
		{ "a publish group:no-such-group-here", "there is no group:" },
		{ "a publish uid:-1", "there is no uid:" },
		{ "a publish uid:4294967295", "there is no uid:" },
		{ "a publish uid:1x", "there is no uid:" },
		{ "a publish uid:", "is nobody" },
	};
	struct access *a = access_create();
	struct shmq__why why;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		why.text[0] = 0;
		CHECK_LT(access_add(a, cases[i].rule, &why), 0);
		if (!strstr(why.text, cases[i].reason))
			FAIL("\"%s\": %s", cases[i].rule, why.text);
	}
	CHECK_EQ(access_has_rules(a), 0);
	access_destroy(a);
}
