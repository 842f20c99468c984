/* SPDX-License-Identifier: MIT
 *
 * What people and scripts type: names, numbers with units, options of both
 * programs, the environment, and what `shmq pub` reads.
 */
#include "fuzz.h"

#include "../../daemon/cli/cli.h"
#include "name.h"
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const unsigned fuzz_runs = 20000;

enum { STEPS = 1 << 22, WORDS_MAX = 16, WORD_MAX = 600 };

static FILE *nowhere;

/* ---- programs that end ---------------------------------------------------- */

static sigjmp_buf *on_exit_jump;

__typeof__(mkdir) __wrap_mkdir;
void __real_exit(int code) __attribute__((noreturn));
void __wrap_exit(int code) __attribute__((noreturn));

/* What was allocated until then is the program's to forget. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

void __wrap_exit(int code)
{
	if (!on_exit_jump)
		__real_exit(code);
	siglongjmp(*on_exit_jump, code + 1);
}

/* Directories of these names are not made.  A sanitizer that is to report to files
 * comes by here before it can check anything. */
__attribute__((no_sanitize("address"))) int __wrap_mkdir(const char *path, mode_t mode)
{
	errno = EACCES;
	return -1;
}

/* What programs say is not for us. */
static void be_quiet(FILE **out, FILE **err)
{
	*out = stdout;
	*err = stderr;
	stdout = stderr = nowhere;
}

static void be_heard(FILE *out, FILE *err)
{
	stdout = out;
	stderr = err;
}

/* ---- options ---------------------------------------------------------------- */

static const struct opt own_options[] = {
	{ "count", 'n', OPT_COUNT, OPT_AT(struct shmq_topic_options, depth), .min = 1 },
	{ "rate", 'r', OPT_RATE, OPT_AT(struct shmq_topic_options, evict_ns) },
	{ "index", .kind = OPT_INDEX, OPT_AT(struct shmq_topic_options, node), .max = 100 },
};

/* The help of a command that takes everything would be a page each time. */
static int is_help(char **argv, int argc)
{
	while (argc--)
		if (!strncmp(argv[argc], "--h", 3) || !strncmp(argv[argc], "-h", 2))
			return 1;
	return 0;
}

static void parse_command(char **argv, int argc, int stops)
{
	static const struct command command = { .name = "fuzz", .operands = "" };
	struct shmq_topic_options o = { 0 };
	struct cli cli = { 0 };
	const struct opt_group groups[] = {
		{ "own", own_options, ARRAY_COUNT(own_options), &o },
		{ "shape", shape_options, shape_option_count, &o },
		{ "shared", opts_shared, opts_shared_count, &cli },
	};
	sigjmp_buf jump;
	volatile int operand;
	FILE *out, *err;

	if (is_help(argv, argc))
		return;
	be_quiet(&out, &err);
	if (__lsan_disable)
		__lsan_disable();
	if (!sigsetjmp(jump, 0)) {
		on_exit_jump = &jump;
		fuzz_begin("opts_parse()", STEPS);
		operand = opts_parse(&command, stops ? OPTS_STOP : OPTS_PERMUTE, argc, argv, groups,
				     3);
		CHECK(operand >= 1 && operand <= argc);
		shape_check(&command, &o);
	}
	fuzz_end();
	on_exit_jump = NULL;
	if (__lsan_enable)
		__lsan_enable();
	be_heard(out, err);
}

static void parse_daemon(char **argv, int argc)
{
	struct options o;
	FILE *out, *err;
	int rc;

	if (is_help(argv, argc))
		return;
	be_quiet(&out, &err);
	optind = 0;
	rc = WITHIN(STEPS, options_parse(argc, argv, &o));
	access_destroy(o.access); /* what a supervisor keeps for life */
	free(o.allow);
	be_heard(out, err);
	CHECK(rc >= -1 && rc <= 3);
	if (rc >= 0)
		return;
	CHECK_OK(shmq__name_check_bus(o.bus, NULL));
	CHECK(memchr(o.dir, 0, sizeof(o.dir)) != NULL);
	CHECK_GE(o.linger_ns, 0);
}

/* ---- words -------------------------------------------------------------------- */

static void parse_units(const char *text)
{
	uint64_t count = 0, size = 0;
	int64_t ns = 0;
	double rate = 0;

	if (!WITHIN(STEPS, units_parse_count(text, &count)))
		CHECK(*units_count(count).s);
	if (!WITHIN(STEPS, units_parse_size(text, &size)))
		CHECK(*units_size(size).s);
	if (!WITHIN(STEPS, units_parse_duration(text, &ns))) {
		CHECK_GE(ns, SHMQ_FOREVER);
		CHECK(*units_duration(ns).s);
	}
	if (!WITHIN(STEPS, units_parse_rate(text, &rate))) {
		CHECK_GE(rate, 0);
		CHECK(*units_rate(rate).s);
	}
}

static void check_name(const char *text)
{
	struct shmq__why why = { "" };

	if (!WITHIN(STEPS, shmq__name_check_topic(text, SHMQ__NAME_USER, &why))) {
		CHECK_LE(strlen(text), SHMQ_NAME_MAX);
		CHECK_OK(shmq__name_check_topic(text, SHMQ__NAME_BUS, &why));
	}
	if (!WITHIN(STEPS, shmq__name_check_bus(text, &why)))
		CHECK_LE(strlen(text), SHMQ_BUS_NAME_MAX);
	CHECK(memchr(why.text, 0, sizeof(why.text)) != NULL);
}

/* A rule of access, and what it says of some callers. */
static void check_rule(const char *text)
{
	gid_t group = 7;
	const struct access_caller who = { .uid = 4711, .group = &group, .group_count = 1 };
	struct access *a = access_create();
	struct shmq__why why = { "" };

	CHECK(a);
	if (!strstr(text, "user:") && !strstr(text, "group:") &&
	    !WITHIN(STEPS, access_add(a, text, &why))) {
		CHECK_EQ(access_has_rules(a), 1);
		CHECK_LE(WITHIN(STEPS, access_rights(a, &who, "a.b.c")), ACCESS_ALL);
		(void)WITHIN(STEPS, access_list(a, "a.b.c"));
	}
	CHECK(memchr(why.text, 0, sizeof(why.text)) != NULL);
	access_destroy(a);
}

static void find_dir(const char *text, unsigned how)
{
	struct shmq__why why = { "" };
	char dir[108];
	int rc;

	if (how & 1)
		setenv("SHMQ_RUNTIME_DIR", text, 1);
	if (how & 2)
		setenv("XDG_RUNTIME_DIR", text, 1);
	rc = WITHIN(STEPS,
		    shmq__name_runtime_dir(how & 4 ? text : NULL,
					   how & 8 ? SHMQ__NAME_DIR_FIND : SHMQ__NAME_DIR_CREATE,
					   dir, sizeof(dir), &why));
	CHECK(memchr(why.text, 0, sizeof(why.text)) != NULL);
	if (!rc)
		CHECK(memchr(dir, 0, sizeof(dir)) != NULL);
	unsetenv("SHMQ_RUNTIME_DIR");
	unsetenv("XDG_RUNTIME_DIR");
}

/* ---- what pub reads -------------------------------------------------------------- */

/* Records are within what was read, and no larger than may be. */
static void read_input(struct bites *in, enum input_shape shape, size_t limit)
{
	struct input input = { .shape = shape, .limit = limit };
	enum input_status status;
	size_t len, all = in->left;
	const char *data;
	int fd = memfd_create("shmq-test", MFD_CLOEXEC);
	ssize_t n;

	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, in->at, in->left), all);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	input.fd = fd;
	in->left = 0;
	do {
		n = WITHIN(STEPS, input_fill(&input));
		CHECK_GE(n, 0);
		while ((status = WITHIN(STEPS, input_next(&input, &data, &len))) == INPUT_RECORD) {
			CHECK_LE(len, limit);
			fuzz_touch(data, len);
		}
	} while (n && status == INPUT_NEEDS_MORE);
	if (status == INPUT_NEEDS_MORE && input_rest(&input, &data, &len) == INPUT_RECORD)
		fuzz_touch(data, len);
	CHECK_LE(input.number, all + 1);
	input_clear(&input);
	close(fd);
}

/* ---- the target -------------------------------------------------------------------- */

/* The next word, up to a zero or a line's end. */
static char *bite_word(struct bites *in, char *to)
{
	size_t n = 0;

	while (in->left && n < WORD_MAX - 1) {
		char byte = (char)bite(in, 1);

		if (!byte || byte == '\n')
			break;
		to[n++] = byte;
	}
	to[n] = 0;
	return to;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char word[WORDS_MAX][WORD_MAX];
	char program[] = "fuzz", *argv[WORDS_MAX + 2] = { program };
	struct bites in = { data, size };
	unsigned how = (unsigned)bite(&in, 1);
	int argc = 1;

	if (!nowhere)
		CHECK((nowhere = fopen("/dev/null", "we")) != NULL);
	if (how % 4 == 3) {
		read_input(&in, (enum input_shape)(how / 4 % 3), how / 16 ? how / 16 * 64 : 1);
		return 0;
	}
	while (in.left && argc <= WORDS_MAX) {
		argv[argc] = bite_word(&in, word[argc - 1]);
		parse_units(argv[argc]);
		check_name(argv[argc]);
		check_rule(argv[argc]);
		find_dir(argv[argc], how / 4);
		argc++;
	}
	if (how % 4 == 1)
		parse_daemon(argv, argc);
	else if (how % 4 == 2)
		parse_command(argv, argc, how & 4);
	return 0;
}

void fuzz_leave(void)
{
	if (nowhere)
		fclose(nowhere);
	nowhere = NULL;
}
