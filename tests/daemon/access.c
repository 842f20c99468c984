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

TEST(who_asks_reads_replies_and_who_may_be_asked_writes_them)
{
	static const char mine[] = "$reply.4711.0123456789abcdef.svc.a",
			  theirs[] = "$reply.4712.0123456789abcdef.svc.a",
			  other[] = "$reply.4711.0123456789abcdef.none";
	struct access *a = RULES("svc.# publish uid:4711,uid:4712", "svc.# subscribe uid:4713",
				 "$# all uid:4714"),
		      *both = RULES("svc.# publish,subscribe uid:4711"), *none = access_create(),
		      *same = RULES("b publish uid:4711", "b subscribe uid:4711,uid:4713");
	const struct access_caller owner = { .uid = geteuid() },
				   answers = { .uid = 4713, .group = groups, .group_count = 1 },
				   sly = { .uid = 4714, .group = groups, .group_count = 1 };

	CHECK_EQ(rights(a, mine), ACCESS_CREATE | ACCESS_SUBSCRIBE);
	CHECK_EQ(rights(a, theirs), 0);
	CHECK_EQ(rights(a, other), 0);
	CHECK_EQ(access_rights(a, &answers, mine), ACCESS_PUBLISH);
	CHECK_EQ(access_rights(a, &sly, mine), 0);
	CHECK_EQ(access_rights(a, &owner, mine), ACCESS_ALL);
	/* Its own and another's, if it answers as well. */
	CHECK_EQ(rights(both, mine), ACCESS_CREATE | ACCESS_SUBSCRIBE | ACCESS_PUBLISH);
	CHECK_EQ(rights(both, theirs), ACCESS_PUBLISH);
	/* In memory that nobody else has. */
	CHECK_NE(access_list(a, mine), access_list(a, theirs));
	CHECK_NE(access_list(a, mine), access_list(a, "svc.a"));
	CHECK_NE(access_list(a, mine), access_list(a, other));
	CHECK_EQ(access_list(a, mine), access_list(a, "$reply.4711.fedcba9876543210.svc.b"));
	CHECK_NE(access_list(none, mine), 0);
	CHECK_EQ(access_list(none, "$reply.0.0123456789abcdef.svc.a"), 0);
	/* Not even in that of the requests, which it writes. */
	CHECK_NE(access_list(same, "$reply.4711.0123456789abcdef.b"), access_list(same, "b"));
	access_destroy(a);
	access_destroy(both);
	access_destroy(none);
	access_destroy(same);
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
