/* SPDX-License-Identifier: MIT
 *
 * The configuration, without a bus: what a file says, where its mistakes are,
 * and what two of them differ in.
 */
#include "config.h"
#include "tap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char said[4096];

static void say(void *arg, const char *text)
{
	size_t used = strlen(said);

	(void)arg;
	snprintf(said + used, sizeof(said) - used, "%s\n", text);
}

static struct config *parse(const char *text)
{
	struct config *c;

	said[0] = 0;
	if (config_parse("f", text, strlen(text), &c, say, NULL))
		return NULL;
	CHECK_STR(said, "");
	return c;
}

static struct config *good(const char *text)
{
	struct config *c = parse(text);

	if (!c)
		FAIL("%s", said);
	CHECK(c);
	return c;
}

static void is_refused(const char *text, const char *with)
{
	CHECK(!parse(text));
	CHECK_STR(said, with);
}

TEST(a_mistake_tells_no_terminal_what_to_do)
{
	is_refused("gu\033[31mests = 4\n",
		   "f:1:1: there is no setting \"gu?[31mests\": see shmqd.conf(5)\n");
	is_refused("topic \"a\\n\\x1b]0;b\\x07\" { }\n",
		   "f:1:1: topic \"a??]0;b?\": byte 2 of the topic name is not a letter, digit, "
		   "'_', '-' or '.'\n");
}

TEST(what_it_says_is_read)
{
	struct config *c = good("log-level = warn\nlinger = 2s\nguests = 3\ndata-dir = /d\n"
				"allow = { \"md.# publish uid:1\",\n \"x subscribe uid:2\" }\n"
				"topic \"a.b\" { depth = 2k shared = yes tag = no }\n"
				"topic \"empty\" { }\n");

	CHECK_EQ(c->level, LOG_WARN + 1);
	CHECK_EQ(c->linger_ns, 2000000000);
	CHECK_EQ(c->guests, 3);
	CHECK_STR(c->data_dir, "/d");
	CHECK_EQ(c->allow_count, 2);
	CHECK_STR(c->allow[1], "x subscribe uid:2");
	CHECK_EQ(c->topic_count, 2);
	CHECK_STR(c->topic[0].name, "a.b");
	CHECK_EQ(c->topic[0].options.depth, 2048);
	CHECK_EQ(c->topic[0].options.mode, SHMQ_SHARED);
	CHECK_EQ(c->topic[0].options.flags, 0);
	CHECK_STR(c->topic[1].name, "empty");
	config_free(c);
	c = good("log-dirs = /a:/b\ndefaults { log-dir = /a }\n"
		 "topic \"t\" { log = block log-dir = /b }\n");
	CHECK_STR(c->log_dirs, "/a:/b");
	CHECK_STR(c->defaults.log_dir, "/a");
	CHECK_STR(c->topic[0].options.log_dir, "/b");
	config_free(c);
	config_free(good(""));
	config_free(good("# nothing but a comment\n"));
}

TEST(each_mistake_has_its_line_and_column)
{
	is_refused("log-level = info\nlinger = soon\nguests =   257\n",
		   "f:2:10: linger takes a duration, such as 100ms, 5s, 2min or forever, not "
		   "\"soon\"\nf:3:12: guests may be at most 256, not 257\n");
	is_refused("topic \"t\" {\n\tdepht = 1k\n}\n",
		   "f:2:2: there is no setting \"depht\" in topic: is it \"depth\"?\n");
	is_refused("zzzzzzzzz = 1\n",
		   "f:1:1: there is no setting \"zzzzzzzzz\": see shmqd.conf(5)\n");
	is_refused("guests = 2\nguests = 3\n", "f:2:1: guests is set already\n");
	is_refused("data-dir = logs\n", "f:1:12: data-dir takes an absolute path, not \"logs\"\n");
	is_refused("topic \"t\" { shared = maybe }",
		   "f:1:22: shared takes yes or no, not \"maybe\"\n");
	is_refused("limits \"group:x\" { topics = 1 }\nlimits \"uid:x\" { }",
		   "f:1:8: limits: \"group:x\" is not one uid: user:NAME, uid:N or everyone\n"
		   "f:2:8: limits: there is no uid:\"x\"\n");
	CHECK(!parse("allow = { \"md.# fly uid:1\" }"));
	CHECK(!strncmp(said, "f:1:12: there is no right \"fly\"", 31));
	CHECK(!parse("\n\ntopic \"a..b\" { }"));
	CHECK(!strncmp(said, "f:3:7: topic \"a..b\": ", 21));
	CHECK(!parse("topic \"t\" { log = block policy = lossy }"));
	CHECK(!strncmp(said, "f:1:7: topic \"t\": ", 18));
	is_refused("guests = 2\ntopic \"t\" {\n depth = 1k",
		   "f:3:1: the file ends within topic: a } is missing\n");
	CHECK(!parse("guests = 2\n/* topic"));
	CHECK(!parse("log = \"/x"));
	CHECK(!parse("allow = { \"x publish uid:1\""));
	CHECK(!parse("topic \"t\" { }\ntopic \"t\" { }"));
	CHECK(!parse("topic { }"));
	CHECK(!parse("= = ="));
}

/* Of an unknown list or section the first is told, and nothing of what is in it. */
TEST(a_setting_that_is_not_known_hides_no_other_mistake)
{
	is_refused("lingr = 1s\ngests = 1\nalow = { \"x publish uid:1\",\n\t\"y\" }\n"
		   "defaults { depht = 1k }\nlog-level = \"loud\"\nlimit \"uid:1\" { topics = 1 }\n"
		   "limit \"uid:2\" { a = { b, c } bytes = 2 }\nempty = { }\nmore += x\n"
		   "topic \"t\" { depht = 1k sloot = 3 }\ntopic \"u\" {\n\tdepht = 2k\n}\n"
		   "topic \"a..b\" { inner { x = 1 } depth = 3 }\nguests = 300\n",
		   "f:1:1: there is no setting \"lingr\": is it \"linger\"?\n"
		   "f:2:1: there is no setting \"gests\": is it \"guests\"?\n"
		   "f:3:1: there is no setting \"alow\": is it \"allow\"?\n"
		   "f:5:12: there is no setting \"depht\" in defaults: is it \"depth\"?\n"
		   "f:6:14: log-level takes error|warn|info|debug, not \"loud\"\n"
		   "f:7:1: there is no setting \"limit\": is it \"limits\"?\n"
		   "f:9:1: there is no setting \"empty\": see shmqd.conf(5)\n"
		   "f:10:1: there is no setting \"more\": see shmqd.conf(5)\n"
		   "f:11:13: there is no setting \"depht\" in topic: is it \"depth\"?\n"
		   "f:11:24: there is no setting \"sloot\" in topic: is it \"slot\"?\n"
		   "f:13:2: there is no setting \"depht\" in topic: is it \"depth\"?\n"
		   "f:15:16: there is no setting \"inner\" in topic: see shmqd.conf(5)\n"
		   "f:16:10: guests may be at most 256, not 300\n"
		   "f:15:7: topic \"a..b\": byte 3 of the topic name ends an empty word: words are "
		   "separated by single dots\n");
}

TEST(rules_are_given_once_and_added_to)
{
	struct config *c = good("allow = { \"x publish uid:1\" }\nallow += { \"y publish uid:1\", "
				"\"z publish uid:1\" }\nallow += \"q publish uid:1\"\n");

	CHECK_EQ(c->allow_count, 4);
	CHECK_STR(c->allow[3], "q publish uid:1");
	config_free(c);
	c = good("allow = { }\n");
	CHECK_EQ(c->allow_count, 0);
	config_free(c);
	is_refused("allow = { \"x publish uid:1\" }\nallow = { \"y publish uid:1\" }\n",
		   "f:2:1: allow is set already: more rules are added by +=\n");
	is_refused("allow = { \"x publish uid:1\", \"y publish uid:1\" }\nallow = { \"x publish "
		   "uid:1\" }\n",
		   "f:2:1: allow is set already: more rules are added by +=\n");
	CHECK(!parse("allow = { \"x publish uid:1\" }\nallow = { }\n"));
	is_refused("topic \"t\" { depth = 1k }\ntopic \"u\" { }\ntopic \"t\" { }\n",
		   "f:3:7: topic \"t\" is there already\n");
	is_refused("limits \"uid:1\" { topics = 1 }\nlimits \"uid:1\" { topics = 2 }\n",
		   "f:2:8: limits \"uid:1\" is there already\nf:1:8: limits: that uid has some "
		   "already\n");
	is_refused("limits \"uid:0\" { topics = 1 }\nlimits \"user:root\" { }\n",
		   "f:2:8: limits: that uid has some already\n");
}

static void count_mistake(void *arg, const char *text)
{
	(void)text;
	++*(unsigned *)arg;
}

/* Squares of so many lines would take minutes. */
TEST(a_large_file_is_read_and_compared_line_by_line)
{
	enum { TOPICS = 10000 };
	char *text = NULL, *wrong = NULL;
	size_t bytes = 0, wrong_bytes = 0;
	FILE *out = open_memstream(&text, &bytes),
	     *wrong_out = open_memstream(&wrong, &wrong_bytes);
	struct config *a, *b;
	unsigned i, mistakes = 0;

	for (i = 0; i < TOPICS; i++) {
		fprintf(out,
			"topic \"t.%u\" {\n\tdepth = 2k\n\tshared = yes\n}\ntopic \"e.%u\" { }\n",
			i, i);
		fprintf(wrong_out, "topic \"t..%u\" {\n\tdepth = 1k\n}\n", i);
	}
	CHECK_OK(fclose(out));
	CHECK_OK(fclose(wrong_out));
	CHECK_OK(config_parse("f", text, bytes, &a, say, NULL));
	CHECK_OK(config_parse("f", text, bytes, &b, say, NULL));
	CHECK_EQ(a->topic_count, 2 * TOPICS);
	CHECK_EQ(a->topic[2 * TOPICS - 2].options.depth, 2048);
	CHECK_EQ(config_compare(a, b, NULL, NULL), 0);
	config_free(b);
	CHECK_EQ(config_parse("f", wrong, wrong_bytes, &b, count_mistake, &mistakes), SHMQ_EOPTION);
	CHECK_EQ(mistakes, 100);
	config_free(a);
	free(text);
	free(wrong);
}

TEST(a_file_that_another_uid_can_change_is_taken_by_name_alone)
{
	struct config *c;
	char path[256];
	FILE *out;

	snprintf(path, sizeof(path), "%s/theirs", test_tmpdir());
	out = fopen(path, "w");
	CHECK(out);
	CHECK_OK(fclose(out));
	CHECK_OK(config_read(path, CONFIG_OWN, &c, say, NULL));
	config_free(c);
	CHECK_OK(chmod(path, 0666));
	said[0] = 0;
	CHECK_EQ(config_read(path, CONFIG_OWN, &c, say, NULL), SHMQ_EOPTION);
	CHECK(strstr(said, "theirs: uid ") && strstr(said, " and everybody can change it"));
	CHECK_OK(config_read(path, CONFIG_ANYBODYS, &c, say, NULL));
	config_free(c);
	CHECK_OK(chmod(path, 0664));
	said[0] = 0;
	CHECK_EQ(config_read(path, CONFIG_OWN, &c, say, NULL), SHMQ_EOPTION);
	CHECK(strstr(said, " and group "));
	if (geteuid() == 0) {
		CHECK_OK(chmod(path, 0644));
		CHECK_OK(chown(path, 4711, 4711));
		CHECK_EQ(config_read(path, CONFIG_OWN, &c, say, NULL), SHMQ_EOPTION);
	}
}

TEST(text_that_is_none_is_refused)
{
	static const char zero[] = "guests = 2\0\n";
	struct config *c;

	said[0] = 0;
	CHECK_EQ(config_parse("f", zero, sizeof(zero) - 1, &c, say, NULL), SHMQ_EOPTION);
	CHECK_STR(said, "f:1:1: has a byte 0 in it: it is no text\n");
	is_refused("log = \"/a\\x01b\"\n", "f:1:1: log has a control character in it\n");
}

TEST(what_is_no_file_is_refused)
{
	struct config *c;
	char path[256];

	snprintf(path, sizeof(path), "%s/none", test_tmpdir());
	CHECK_EQ(config_read(path, CONFIG_OWN, &c, say, NULL), -ENOENT);
	CHECK_EQ(config_read(test_tmpdir(), CONFIG_OWN, &c, say, NULL), -EISDIR);
	CHECK_EQ(config_read("/dev/zero", CONFIG_OWN, &c, say, NULL), -EISDIR);
}

/* ---- defaults ---------------------------------------------------------- */

static struct proto_options filled(const char *text, struct proto_options with)
{
	struct config *c = good(text);

	config_fill_defaults(c, &with);
	config_free(c);
	return with;
}

TEST(defaults_fill_what_was_left_open_and_nothing_else)
{
	const char *text =
		"defaults { depth = 2k slot = 256 policy = evict evict-after = 1s time = yes }";
	struct proto_options o = filled(text, (struct proto_options){ .depth = 4096 });

	CHECK_EQ(o.depth, 4096);
	CHECK_EQ(o.slot_bytes, 256);
	CHECK_EQ(o.policy, SHMQ_EVICT);
	CHECK_EQ(o.evict_ns, 1000000000);
	CHECK_EQ(o.flags, SHMQ_TOPIC_TIME);
	o = filled(text, (struct proto_options){ .policy = SHMQ_BLOCK });
	CHECK_EQ(o.evict_ns, 0);
}

TEST(defaults_that_the_creators_choice_excludes_are_left_out)
{
	const char *text =
		"defaults { log = block sync = every retain = 1G shared = yes stall = report }";
	struct proto_options o = filled(text, (struct proto_options){ .policy = SHMQ_LOSSY });

	CHECK_EQ(o.log, 0);
	CHECK_EQ(o.sync, 0);
	CHECK_EQ(o.retain_bytes, 0);
	o = filled(text, (struct proto_options){ .mode = SHMQ_EXCLUSIVE });
	CHECK_EQ(o.stall, 0);
	CHECK_EQ(o.log, SHMQ_LOG_BLOCK);
	CHECK_EQ(o.sync, SHMQ_SYNC_EVERY);
}

/* ---- limits ------------------------------------------------------------ */

TEST(limits_are_of_the_uid_else_of_everyone_but_the_owner)
{
	struct config *c =
		good("limits \"everyone\" { topics = 3 }\nlimits \"uid:7\" { bytes = 1M }");
	const struct access_caller seven = { .uid = 7 }, other = { .uid = 8 },
				   owner = { .uid = geteuid() };

	CHECK_EQ(config_limits_of(c, &seven).bytes, 1 << 20);
	CHECK_EQ(config_limits_of(c, &seven).topics, UINT64_MAX);
	CHECK_EQ(config_limits_of(c, &seven).requesters, UINT64_MAX);
	CHECK_EQ(config_limits_of(c, &other).topics, 3);
	CHECK_EQ(config_limits_of(c, &owner).topics, UINT64_MAX);
	CHECK_EQ(config_limits_of(NULL, &other).topics, UINT64_MAX);
	config_free(c);
}

/* ---- two of them ------------------------------------------------------- */

static char changes[1024];

static void note_change(void *arg, const struct config_item *item, const char *from, const char *to)
{
	size_t used = strlen(changes);

	(void)arg;
	snprintf(changes + used, sizeof(changes) - used, "%s:%s>%s;", item->key, from ? from : "",
		 to ? to : "");
}

TEST(what_differs_is_told)
{
	struct config *a = good("guests = 2\nallow = { \"x publish uid:1\", \"y publish uid:1\" }"
				"topic \"t\" { depth = 1k }"),
		      *b = good("guests = 3\nallow = { \"y publish uid:1\", \"z publish uid:1\" }"
				"topic \"u\" { depth = 1k }");

	changes[0] = 0;
	CHECK_EQ(config_compare(a, b, note_change, NULL), 5);
	CHECK_STR(changes, "allow:x publish uid:1>;depth:1k>;guests:2>3;allow:>z publish uid:1;"
			   "depth:>1k;");
	CHECK_EQ(config_compare(a, a, note_change, NULL), 0);
	CHECK_EQ(config_compare(NULL, a, note_change, NULL), 4);
	CHECK_EQ(config_compare(b, NULL, note_change, NULL), 4);
	config_free(a);
	config_free(b);
}

TEST(what_is_in_force_is_the_whole_text_or_gone)
{
	struct config *a = good("guests = 2 # as written\n"), *b;
	char path[256], scratch[256], from[64];

	snprintf(path, sizeof(path), "%s/bus.conf", test_tmpdir());
	snprintf(scratch, sizeof(scratch), "%s/.1", test_tmpdir());
	CHECK_OK(config_put(NULL, path, scratch, "/x"));
	config_put_from(path, from, sizeof(from));
	CHECK_STR(from, "");
	CHECK_OK(config_put(a, path, scratch, "/a b/c.conf"));
	config_put_from(path, from, sizeof(from));
	CHECK_STR(from, "/a b/c.conf");
	CHECK_OK(config_read(path, CONFIG_OWN, &b, say, NULL));
	CHECK_EQ(strncmp(b->text, a->text, a->text_bytes), 0);
	CHECK_OK(config_put(b, path, scratch, "/d"));
	config_put_from(path, from, sizeof(from));
	CHECK_STR(from, "/d");
	config_free(b);
	CHECK_EQ(access(scratch, F_OK), -1);
	CHECK_OK(config_put(NULL, path, scratch, "/x"));
	CHECK_EQ(config_read(path, CONFIG_OWN, &b, say, NULL), -ENOENT);
	config_free(a);
}
