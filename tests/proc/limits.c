/* SPDX-License-Identifier: MIT
 *
 * What this machine cannot carry is refused beforehand, by name, without
 * any effect; and the bus is there for what it can.
 */
#include "helpers.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { DEPTH = 1024 };

static uint64_t meminfo(const char *key)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)) &&
		    sscanf(line + strlen(key), ": %llu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib << 10;
}

static void check_works(shmq_bus *bus)
{
	struct shmq_msg msg;
	shmq_pub *pub;
	shmq_sub *sub;

	create(bus, "probe", .depth = DEPTH);
	sub = open_sub(bus, "probe");
	pub = open_pub(bus, "probe");
	CHECK_OK(shmq_publish(pub, "probe", 5));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(bus, "probe", 0));
}

/* The refusal, what it says and that nothing came of it. */
static void check_refused(shmq_bus *bus, struct shmq_topic_options *o, int error, const char *word)
{
	struct shmq_bus_info before, after;
	struct shmq_plan plan;

	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_ERROR(shmq_topic_plan(bus, "refused", o, &plan), error);
	if (!strstr(shmq_bus_error(bus), word))
		FAIL("\"%s\" does not name \"%s\"", shmq_bus_error(bus), word);
	CHECK_ERROR(shmq_topic_create(bus, "refused", o, &plan), error);
	if (!strstr(shmq_bus_error(bus), word))
		FAIL("\"%s\" does not name \"%s\"", shmq_bus_error(bus), word);
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.bytes, before.bytes);
	CHECK_EQ(after.topics, before.topics);
	CHECK_EQ(after.epoch, before.epoch);
	check_works(bus);
}

TEST(more_memory_than_there_is_is_refused_beforehand)
{
	uint64_t slots = 1, available = meminfo("MemAvailable");
	struct shmq_topic_options *o =
		TOPIC_OPTIONS(.pages = SHMQ_PAGES_4K, .lock = SHMQ_LOCK_NEVER);
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	/* The next power of two above what is available, and far above. */
	while (slots * 4096 <= available)
		slots *= 2;
	o->depth = slots;
	o->slot_bytes = 4096;
	check_refused(bus, o, SHMQ_ENOMEMORY, "MemAvailable");
	o->depth = UINT64_C(1) << 32;
	check_refused(bus, o, SHMQ_ENOMEMORY, "MemAvailable");
	o->partitions = 4096;
	o->depth = UINT64_C(1) << 26;
	check_refused(bus, o, SHMQ_ELIMIT, ""); /* no address space has that */
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_arena_that_does_not_fit_is_refused_with_the_publisher)
{
	struct shmq_bus_info before, after;
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 1 << 20);
	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_ERROR(shmq_pub_open(bus, "t",
				  PUB_OPTIONS(.arena_bytes = meminfo("MemTotal") + (1 << 20)),
				  &pub),
		    SHMQ_ENOMEMORY);
	CHECK(strstr(shmq_bus_error(bus), "MemAvailable") != NULL);
	/* And one that cannot hold a message is no arena. */
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.arena_bytes = 1 << 19), &pub),
		    SHMQ_EOPTION);
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.bytes, before.bytes);
	CHECK_EQ(topic_info(bus, "t").publishers, 0);
	CHECK_OK(shmq_pub_open(bus, "t", NULL, &pub));
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(hugepages_that_are_not_there_are_refused_with_what_gives_them)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	/* More than the machine can have, whatever its pools hold. */
	check_refused(bus,
		      TOPIC_OPTIONS(.depth = UINT64_C(1) << 30, .slot_bytes = 128,
				    .pages = SHMQ_PAGES_2M),
		      SHMQ_ENOHUGE, "nr_hugepages");
	check_refused(bus,
		      TOPIC_OPTIONS(.depth = UINT64_C(1) << 32, .slot_bytes = 128,
				    .pages = SHMQ_PAGES_1G),
		      SHMQ_ENOHUGE, "1 GiB");
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_node_that_is_not_there_is_refused)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	check_refused(bus, TOPIC_OPTIONS(.node = SHMQ_NODE(77)), SHMQ_ENONODE, "77");
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Become somebody without rights, for good; the test's directory goes with
 * us, and the supervisor, which may lie where only root gets to. */
static void become_nobody(void)
{
	char copy[PATH_MAX], command[3 * PATH_MAX];

	if (geteuid() != 0)
		return;
	snprintf(copy, sizeof(copy), "%s/shmqd", test_tmpdir());
	snprintf(command, sizeof(command), "cp '%s' '%s'", test_bus_daemon(), copy);
	CHECK_EQ(system(command), 0);
	CHECK_OK(setenv("SHMQ_DAEMON", copy, 1));
	CHECK_OK(chown(test_tmpdir(), 65534, 65534));
	CHECK_OK(setgid(65534));
	CHECK_OK(setuid(65534));
}

TEST(memory_that_may_not_be_locked_is_refused_if_that_was_asked_for)
{
	struct rlimit limit = { 64 << 10, 64 << 10 };
	struct shmq_topic_info info;
	shmq_bus *bus;

	become_nobody();
	CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &limit));
	test_bus_start();
	bus = test_bus_open();
	check_refused(bus, TOPIC_OPTIONS(.lock = SHMQ_LOCK_ALWAYS, .pages = SHMQ_PAGES_4K),
		      SHMQ_EMEMLOCK, "emlock");
	create(bus, "auto", .pages = SHMQ_PAGES_4K); /* as it fits: not */
	info = topic_info(bus, "auto");
	CHECK_EQ(info.locked, 0);
	create(bus, "never", .lock = SHMQ_LOCK_NEVER);
	CHECK_EQ(topic_info(bus, "never").locked, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(where_no_memory_may_be_locked_nothing_is_and_the_note_says_what_to_raise)
{
	struct rlimit none = { 0, 0 };
	struct shmq_topic_info info;
	shmq_bus *bus;

	become_nobody();
	CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &none));
	test_bus_start();
	bus = test_bus_open();
	check_refused(bus, TOPIC_OPTIONS(.lock = SHMQ_LOCK_ALWAYS, .pages = SHMQ_PAGES_4K),
		      SHMQ_EMEMLOCK, "memlock limit is 0 B");
	create(bus, "small", .depth = DEPTH, .pages = SHMQ_PAGES_4K);
	create(bus, "large", .depth = 65536, .pages = SHMQ_PAGES_4K);
	info = topic_info(bus, "small");
	CHECK_EQ(info.locked, 0);
	CHECK_STR(info.note, "not locked: the memlock limit is 0 B with 0 B locked: "
			     "raise ulimit -l (LimitMEMLOCK=)");
	CHECK_EQ(topic_info(bus, "large").locked, 0);
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(memory_that_may_be_locked_is)
{
	struct rlimit limit;
	shmq_bus *bus;

	CHECK_OK(getrlimit(RLIMIT_MEMLOCK, &limit));
	if (geteuid() != 0 && limit.rlim_cur < 4 << 20)
		SKIP("less than 4 MiB may be locked");
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .lock = SHMQ_LOCK_ALWAYS, .pages = SHMQ_PAGES_4K);
	CHECK_EQ(topic_info(bus, "t").locked, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_needs_no_rights)
{
	shmq_bus *bus;

	become_nobody();
	test_bus_start();
	bus = test_bus_open();
	CHECK_EQ(peers_of(bus, (create(bus, "t"), "t"), SHMQ_ROLE_PUBLISHER).count, 0);
	open_pub(bus, "t");
	CHECK_EQ(peers_of(bus, "t", SHMQ_ROLE_PUBLISHER).last.uid, geteuid());
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int open_as_nobody(void *arg)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	shmq_bus *bus;

	(void)arg;
	o.runtime_dir = test_bus_dir();
	CHECK_OK(setgid(65534));
	CHECK_OK(setuid(65534));
	CHECK_ERROR(shmq_bus_open(test_bus_name(), &o, &bus), SHMQ_EACCESS);
	CHECK(*shmq_bus_error(NULL));
	return 0;
}

TEST(the_bus_of_another_user_is_refused_by_name)
{
	char path[PATH_MAX];

	if (geteuid() != 0)
		SKIP("only root can be two users");
	test_bus_start();
	CHECK_OK(chmod(test_tmpdir(), 0755));
	CHECK_OK(chmod(test_bus_dir(), 0755));
	/* A directory that lets in whom the socket does not. */
	CHECK_EQ(test_join(test_spawn(open_as_nobody, NULL)), 0);
	snprintf(path, sizeof(path), "%s/%s.sock", test_bus_dir(), test_bus_name());
	CHECK_OK(chmod(path, 0666));
	CHECK_EQ(test_join(test_spawn(open_as_nobody, NULL)), 0);
	CHECK_OK(chmod(test_bus_dir(), 0700));
	test_bus_stop();
}

/* ---- descriptors -------------------------------------------------------------- */

enum { TABLE = 256 };

/* Fill this process's table up to `spare` descriptors. */
static void fill_table(int filler[TABLE], int spare)
{
	struct rlimit limit;
	int count = 0, fd;

	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = TABLE;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		filler[count++] = fd;
	CHECK_EQ(errno, EMFILE);
	CHECK_GE(count, spare);
	while (spare--)
		close(filler[--count]);
	filler[count] = -1;
}

static void empty_table(const int filler[TABLE])
{
	struct rlimit limit;

	while (*filler >= 0)
		close(*filler++);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

TEST(a_full_descriptor_table_in_the_client_is_named_and_leaks_nothing)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	int before, refused = 0, spare, filler[TABLE + 1];
	struct shmq_bus_info info;
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	before = test_fd_count();
	for (spare = 0; spare < 60; spare++) {
		int rc;

		fill_table(filler, spare);
		rc = shmq_bus_open(test_bus_name(), &o, &bus);
		empty_table(filler);
		if (!rc)
			break;
		if (rc != SHMQ_ELIMIT)
			CHECK_ERROR(rc, -EMFILE);
		CHECK(bus == NULL);
		CHECK_EQ(test_fd_count(), before);
		refused++;
	}
	CHECK_GT(refused, 0);
	CHECK_LT(spare, 60);
	check_works(bus);
	NOTE("a client needs %d descriptors", spare);
	/* What an attached client has done before takes no more of them. */
	fill_table(filler, 0);
	check_works(bus);
	create(bus, "large", .depth = DEPTH, .max_message_bytes = 8 << 20);
	open_sub(bus, "large");
	/* Its first arena does. */
	CHECK_ERROR(shmq_pub_open(bus, "large", NULL, &pub), SHMQ_ELIMIT);
	CHECK(strstr(shmq_bus_error(bus), "RLIMIT_NOFILE") != NULL);
	empty_table(filler);
	pub = open_pub(bus, "large"); /* which is exclusive: nobody must have it */
	shmq_pub_close(pub);
	check_works(bus);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.clients, 1);
	shmq_bus_close(bus);
	CHECK_EQ(test_fd_count(), before);
	test_bus_stop();
}

/* The hard limit of a process cannot be raised again, so one of its own. */
static void start_with_few_descriptors(rlim_t count)
{
	struct rlimit few = { count, count };
	pid_t pid = fork();

	CHECK_GE(pid, 0);
	if (!pid) {
		setrlimit(RLIMIT_NOFILE, &few);
		execl(test_bus_daemon(), "shmqd", "--bus", test_bus_name(), "--runtime-dir",
		      test_bus_dir(), NULL);
		_exit(127);
	}
	CHECK_EQ(test_join(pid), 0); /* it returns when it accepts */
}

/* The log of a supervisor in the background is in its runtime directory. */
static int log_has(const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.log", test_bus_dir(), test_bus_name());
	return test_log_has(path, text);
}

/* With every count of descriptors that are left for the last one to come. */
static void run_out_of_descriptors(rlim_t limit)
{
	enum { CLIENTS = 40 };
	struct shmq_bus_options o = { .size = sizeof(o), .timeout_ns = 2 * SECOND };
	char named[64];
	shmq_bus *bus[CLIENTS];
	int count = 0;

	test_bus_prepare();
	start_with_few_descriptors(limit);
	snprintf(named, sizeof(named), "RLIMIT_NOFILE of shmqd, now %u", (unsigned)limit);
	o.runtime_dir = test_bus_dir();
	for (int i = 0; i < CLIENTS; i++) {
		int rc = shmq_bus_open(test_bus_name(), &o, &bus[count]);

		if (!rc) {
			count++;
			continue;
		}
		CHECK_ERROR(rc, SHMQ_ELIMIT);
		if (!strstr(shmq_bus_error(NULL), named))
			FAIL("\"%s\" does not name \"%s\"", shmq_bus_error(NULL), named);
	}
	CHECK_LT(count, CLIENTS);
	CHECK_GT(count, 3);
	CHECK(log_has(named));
	for (int i = 0; i < count; i++)
		check_works(bus[i]);
	shmq_bus_close(bus[--count]);
	shmq_bus_close(bus[--count]);
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus[count++]));
	check_works(bus[count - 1]);
	while (count)
		shmq_bus_close(bus[--count]);
	test_bus_stop();
}

TEST(a_supervisor_out_of_descriptors_refuses_by_name_and_serves_those_it_has)
{
	for (rlim_t limit = 64; limit < 68; limit++)
		run_out_of_descriptors(limit);
}

/* ---- address space, maps ---------------------------------------------------------- */

TEST(too_little_address_space_is_refused)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	struct rlimit limit, small;
	shmq_bus *bus;
	int before, rc;

	if (test_is_shadowed())
		SKIP("the sanitizer needs all the address space there is");
	test_bus_start();
	o.runtime_dir = test_bus_dir();
	before = test_fd_count();
	CHECK_OK(getrlimit(RLIMIT_AS, &limit));
	small = limit;
	small.rlim_cur = UINT64_C(8) << 30;
	CHECK_OK(setrlimit(RLIMIT_AS, &small));
	rc = shmq_bus_open(test_bus_name(), &o, &bus);
	CHECK_OK(setrlimit(RLIMIT_AS, &limit));
	if (rc != SHMQ_ELIMIT)
		CHECK_ERROR(rc, -ENOMEM);
	CHECK(*shmq_bus_error(NULL));
	CHECK_EQ(test_fd_count(), before);
	bus = test_bus_open();
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- maps --------------------------------------------------------------------- */

struct maps {
	char *mem;
	size_t pages, used;
};

/* Every other page of a range gets a protection of its own, until the kernel
 * gives no more maps; then `spare` of them, an even number, are given back. */
static void fill_maps(struct maps *m, size_t spare)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long long most = 0;

	CHECK(file && fscanf(file, "%llu", &most) == 1);
	fclose(file);
	if (most > 4 << 20)
		SKIP("vm.max_map_count is %llu", most);
	m->pages = 2 * most;
	m->mem = mmap(NULL, m->pages * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	CHECK(m->mem != MAP_FAILED);
	for (m->used = 0; m->used < m->pages; m->used += 2)
		if (mprotect(m->mem + m->used * 4096, 4096, PROT_READ))
			break;
	CHECK_EQ(errno, ENOMEM);
	for (; spare; spare -= 2) {
		m->used -= 2;
		CHECK_OK(mprotect(m->mem + m->used * 4096, 4096, PROT_NONE));
	}
}

static void empty_maps(struct maps *m)
{
	CHECK_OK(munmap(m->mem, m->pages * 4096));
}

static void check_names_maps(int rc)
{
	if (rc != SHMQ_ELIMIT)
		CHECK_ERROR(rc, -ENOMEM);
	if (!strstr(shmq_bus_error(NULL), "vm.max_map_count"))
		FAIL("\"%s\" does not name the limit", shmq_bus_error(NULL));
}

TEST(a_full_map_table_in_the_client_is_named_and_leaks_nothing)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	int before, refused = 0, rc = -1;
	struct shmq_bus_info info;
	size_t spare;
	struct maps maps;
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;

	if (test_is_shadowed())
		SKIP("the sanitizer needs maps of its own");
	test_bus_start();
	o.runtime_dir = test_bus_dir();
	before = test_fd_count();
	for (spare = 0; spare < 60 && rc; spare += 2) {
		fill_maps(&maps, spare);
		rc = shmq_bus_open(test_bus_name(), &o, &bus);
		empty_maps(&maps);
		if (!rc)
			break;
		check_names_maps(rc);
		CHECK(bus == NULL);
		CHECK_EQ(test_fd_count(), before);
		refused++;
	}
	CHECK_GT(refused, 0);
	CHECK_OK(rc);
	create(bus, "t", .depth = DEPTH);
	fill_maps(&maps, 0);
	rc = shmq_sub_open(bus, "t", NULL, &sub);
	check_names_maps(rc);
	rc = shmq_pub_open(bus, "t", NULL, &pub);
	check_names_maps(rc);
	empty_maps(&maps);
	check_works(bus);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.clients, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}
