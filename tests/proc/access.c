/* SPDX-License-Identifier: MIT
 *
 * A bus of several users.  Another uid tries everything that it must not do:
 * by the calls of the library, and by the descriptors that its process holds.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../lib/asking.h"
#include "bus.h"
#include "raw.h"
#include "talk.h"

enum { GUEST = 4711, OTHER = 4712, TEAM = 4713, LARGE = 50000 };

#define GROUP_RULE "team.# publish,subscribe gid:4713"

/* ---- two users --------------------------------------------------------- */

static _Atomic int *stage;

static void begin(void)
{
	if (geteuid() != 0)
		SKIP("only root can be two users");
	stage = shared_memory(sizeof(*stage));
	test_bus_start("--allow", "md.# publish,subscribe uid:4711", "--allow",
		       "read.# subscribe uid:4711,uid:4712", "--allow", "write.# publish uid:4711",
		       "--allow", "own.# create,publish,subscribe uid:4711", "--allow",
		       "other.# all uid:4712", "--allow", GROUP_RULE, "--guests", "3");
	CHECK_OK(chmod(test_tmpdir(), 0755));
	CHECK_OK(chmod(test_bus_dir(), 0755));
}

static void become(uid_t uid)
{
	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setgid(uid));
	CHECK_OK(setuid(uid));
}

static shmq_bus *open_as(uid_t uid)
{
	become(uid);
	return test_bus_open();
}

/* For messages that need an arena as well. */
static void make(shmq_bus *bus, const char *name, enum shmq_policy policy)
{
	create(bus, name, .depth = 64, .policy = policy, .mode = SHMQ_SHARED,
	       .max_message_bytes = LARGE);
}

static void put(shmq_pub *pub, char byte, size_t bytes)
{
	static char text[LARGE];

	memset(text, byte, bytes);
	CHECK_OK(shmq_publish(pub, text, bytes));
}

static void get(shmq_sub *sub, char byte, size_t bytes)
{
	struct shmq_msg msg;

	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.len, bytes);
	CHECK_EQ(((const char *)msg.data)[0], byte);
	CHECK_EQ(((const char *)msg.data)[bytes - 1], byte);
	CHECK_OK(shmq_release(sub));
}

/* ---- what is allowed --------------------------------------------------- */

static int guest_talks(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_sub *sub = open_sub(bus, "md.a");
	shmq_pub *pub = open_pub(bus, "md.a");

	(void)arg;
	reach(stage, 1);
	get(sub, 'o', 10);
	get(sub, 'O', LARGE);
	put(pub, 'g', 10);
	put(pub, 'G', LARGE);
	get(sub, 'g', 10);
	get(sub, 'G', LARGE);
	shmq_bus_close(bus);
	return 0;
}

/* Both ways, and messages that stand in arenas of either. */
TEST(who_is_let_in_publishes_and_subscribes)
{
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;
	pid_t guest;

	begin();
	bus = test_bus_open();
	make(bus, "md.a", SHMQ_BLOCK);
	sub = open_sub(bus, "md.a");
	pub = open_pub(bus, "md.a");
	guest = test_spawn(guest_talks, NULL);
	await(stage, 1);
	put(pub, 'o', 10);
	put(pub, 'O', LARGE);
	get(sub, 'o', 10);
	get(sub, 'O', LARGE);
	get(sub, 'g', 10);
	get(sub, 'G', LARGE);
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int guest_sends_unsupervised(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_pub *pub = open_pub(bus, "md.a");

	(void)arg;
	reach(stage, 1);
	await(stage, 2);
	put(pub, 'G', LARGE);
	reach(stage, 3);
	await(stage, 4);
	shmq_bus_close(bus);
	return 0;
}

/* The reader was there first, and never saw that arena's slab. */
TEST(an_arena_of_a_uid_that_came_later_is_read_without_the_supervisor)
{
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t guest;

	begin();
	bus = test_bus_open();
	make(bus, "md.a", SHMQ_BLOCK);
	sub = open_sub(bus, "md.a");
	guest = test_spawn(guest_sends_unsupervised, NULL);
	await(stage, 1);
	CHECK_GE(test_bus_signal(NULL, SIGSTOP), 2);
	reach(stage, 2);
	await(stage, 3);
	get(sub, 'G', LARGE);
	CHECK_GE(test_bus_signal(NULL, SIGCONT), 2);
	reach(stage, 4);
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int guest_reads_slowly(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_sub *sub = open_sub(bus, "read.a");
	int i;

	(void)arg;
	reach(stage, 1);
	await(stage, 2);
	for (i = 0; i <= (int)topic_info(bus, "read.a").depth; i++)
		get(sub, (char)('a' + i % 26), 8);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	return 0;
}

/* Its publisher was there before the first process of that uid was. */
TEST(a_subscriber_of_a_uid_that_came_later_is_waited_for)
{
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t guest;
	int i, depth;

	begin();
	bus = test_bus_open();
	make(bus, "read.a", SHMQ_DROP_NEW);
	depth = (int)topic_info(bus, "read.a").depth;
	pub = open_pub(bus, "read.a");
	guest = test_spawn(guest_reads_slowly, NULL);
	await(stage, 1);
	for (i = 0; i < depth; i++)
		put(pub, (char)('a' + i % 26), 8);
	CHECK_ERROR(shmq_publish(pub, "refused", 8), SHMQ_EFULL);
	reach(stage, 2);
	while (peers_of(bus, "read.a", SHMQ_ROLE_SUBSCRIBER).lag)
		test_sleep_ms(1);
	put(pub, (char)('a' + depth % 26), 8);
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int member_talks(void *arg)
{
	static const gid_t groups[] = { 77, TEAM };
	shmq_bus *bus;
	shmq_pub *pub;

	(void)arg;
	CHECK_OK(setgroups(COUNT(groups), groups));
	CHECK_OK(setgid(OTHER));
	CHECK_OK(setuid(OTHER));
	bus = test_bus_open();
	pub = open_pub(bus, "team.a");
	put(pub, 't', 5);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_supplementary_group_lets_in)
{
	shmq_bus *bus;
	shmq_sub *sub;

	begin();
	bus = test_bus_open();
	make(bus, "team.a", SHMQ_BLOCK);
	sub = open_sub(bus, "team.a");
	CHECK_EQ(test_join(test_spawn(member_talks, NULL)), 0);
	get(sub, 't', 5);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- what is not ------------------------------------------------------- */

static void cannot(shmq_bus *bus, const char *topic, enum shmq_role role)
{
	shmq_pub *pub;
	shmq_sub *sub;

	if (role == SHMQ_ROLE_PUBLISHER)
		CHECK_ERROR(shmq_pub_open(bus, topic, NULL, &pub), SHMQ_EACCESS);
	else
		CHECK_ERROR(shmq_sub_open(bus, topic, NULL, &sub), SHMQ_EACCESS);
	check_says(topic);
}

/* A slab is named after its kind and id (registry_make_slab()). */
static int is_slab(const char *fd, char kind[16])
{
	char path[PATH_MAX], target[128] = "";
	unsigned id;

	snprintf(path, sizeof(path), "/proc/self/fd/%s", fd);
	return readlink(path, target, sizeof(target) - 1) > 0 &&
	       sscanf(target, "/memfd:shmq-%15[a-z]-%u", kind, &id) == 2;
}

struct held {
	unsigned slabs, writable_rings, writable_arenas, rings, arenas, writable_registry,
		writable_entries;
};

/* Whatever may be read, no more than that may be opened. */
static struct held look_at_descriptors(void)
{
	struct held held = { 0 };
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	char path[64], kind[16];

	CHECK(dir);
	while ((e = readdir(dir))) {
		int fd = atoi(e->d_name), writable, again;

		if (!is_slab(e->d_name, kind))
			continue;
		writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
		held.slabs++;
		held.writable_registry += writable && !strcmp(kind, "registry");
		held.writable_entries += writable && !strcmp(kind, "entry");
		held.writable_rings += writable && !strcmp(kind, "ring");
		held.writable_arenas += writable && !strcmp(kind, "arena");
		held.rings += !strcmp(kind, "ring");
		held.arenas += !strcmp(kind, "arena");
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		again = open(path, O_RDWR | O_CLOEXEC);
		if (again >= 0 || errno != EACCES)
			FAIL("%s can be opened again: %s", kind, strerror(errno));
		CHECK_EQ(fchmod(fd, 0777), -1);
	}
	closedir(dir);
	return held;
}

static int has_arenas_of_others(void *arg)
{
	(void)arg;
	return look_at_descriptors().arenas == 2 + 2;
}

static int ignore_peer(void *arg, const struct shmq_peer_info *peer)
{
	(void)arg;
	(void)peer;
	return 0;
}

static int guest_tries(void *arg)
{
	struct shmq_topic_options options = { .size = sizeof(options) };
	struct held held;
	shmq_bus *bus;
	shmq_pub *pub;

	(void)arg;
	await(stage, 1);
	bus = open_as(GUEST);
	held = look_at_descriptors();
	CHECK_EQ(held.rings + held.arenas, 0);
	CHECK_EQ(held.writable_registry, 0);
	CHECK_EQ(held.writable_entries, 1);

	/* What it is called, and no more. */
	CHECK_STR(topic_info(bus, "secret").name, "secret");
	CHECK_ERROR(shmq_peer_each(bus, "secret", ignore_peer, NULL), SHMQ_EACCESS);
	cannot(bus, "secret", SHMQ_ROLE_PUBLISHER);
	cannot(bus, "secret", SHMQ_ROLE_SUBSCRIBER);
	cannot(bus, "other.a", SHMQ_ROLE_SUBSCRIBER);
	cannot(bus, "read.a", SHMQ_ROLE_PUBLISHER);
	cannot(bus, "write.a", SHMQ_ROLE_SUBSCRIBER);
	CHECK_ERROR(shmq_topic_create(bus, "md.mine", &options, NULL), SHMQ_EACCESS);
	CHECK_ERROR(shmq_topic_create(bus, "secret", &options, NULL), SHMQ_EACCESS);
	CHECK_ERROR(shmq_topic_remove(bus, "md.a", SHMQ_FORCE), SHMQ_EACCESS);
	CHECK_ERROR(shmq_topic_remove(bus, "own.theirs", SHMQ_FORCE), SHMQ_EACCESS);
	CHECK_ERROR(shmq_topic_move(bus, "md.a"), SHMQ_EACCESS);
	CHECK_ERROR(shmq_bus_stop(bus, SHMQ_FORCE), SHMQ_EACCESS);
	check_says("may not administer this bus");
	held = look_at_descriptors();
	CHECK_EQ(held.rings + held.arenas, 0);

	/* What it may, it gets, and nothing else with it. */
	make(bus, "own.mine", SHMQ_BLOCK);
	open_sub(bus, "read.a");
	held = look_at_descriptors();
	CHECK_EQ(held.rings, 1);
	CHECK_EQ(held.writable_rings, 0);
	CHECK_EQ(held.writable_arenas, 0);
	pub = open_pub(bus, "write.a");
	put(pub, 'w', LARGE);
	held = look_at_descriptors();
	CHECK_EQ(held.rings, 2);
	CHECK_EQ(held.writable_rings, 1);
	CHECK_EQ(held.writable_arenas, 1);
	CHECK_OK(shmq_topic_remove(bus, "own.mine", 0));
	/* The owner's arena of the same topic is in other memory. */
	open_sub(bus, "md.a");
	open_pub(bus, "md.a");
	test_wait_until(has_arenas_of_others, NULL, 20000); /* which events bring */
	held = look_at_descriptors();
	CHECK_EQ(held.writable_arenas, 2);
	CHECK_EQ(held.arenas, 2 + 2);
	shmq_bus_close(bus);
	return 0;
}

/* ---- past the library ------------------------------------------------------ */

/* What a process holds for reading it cannot change, map to be written, or shape. */
static int attack_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;
	struct dirent *e;
	struct stat st;
	char kind[16];

	CHECK(dir);
	while ((e = readdir(dir))) {
		int fd = atoi(e->d_name);
		void *map;

		if (!is_slab(e->d_name, kind))
			continue;
		CHECK_OK(fstat(fd, &st));
		CHECK_EQ(st.st_mode & 07777, 0600);
		CHECK_EQ(ftruncate(fd, 4096), -1);
		CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
		CHECK_EQ(fchown(fd, GUEST, GUEST), -1);
		if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
			continue;
		CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
		CHECK_EQ(pwrite(fd, "x", 1, 0), -1);
		CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
		map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
		CHECK(map != MAP_FAILED);
		CHECK_EQ(mprotect(map, 4096, PROT_READ | PROT_WRITE), -1);
		CHECK_EQ(madvise(map, 4096, MADV_REMOVE), -1);
		CHECK_OK(munmap(map, 4096));
		n++;
	}
	closedir(dir);
	return n;
}

static void cannot_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd >= 0 || (errno != EACCES && errno != EPERM))
		FAIL("%s: %s", path, fd >= 0 ? "can be opened" : strerror(errno));
}

/* Neither the memory nor the descriptors of a process of the bus's owner. */
static void attack_process(pid_t pid)
{
	long number = 0, fd;
	struct iovec mine = { &number, sizeof(number) }, theirs = { &number, sizeof(number) };
	char path[64];

	CHECK_GT(pid, 1);
	CHECK_EQ(kill(pid, SIGSTOP), -1);
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(ptrace(PTRACE_SEIZE, pid, NULL, NULL), -1);
	CHECK_EQ(process_vm_readv(pid, &mine, 1, &theirs, 1, 0), -1);
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(process_vm_writev(pid, &mine, 1, &theirs, 1, 0), -1);
	CHECK_EQ(errno, EPERM);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	cannot_open(path, O_RDWR);
	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	cannot_open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	CHECK(!opendir(path));
	fd = syscall(SYS_pidfd_open, pid, 0);
	CHECK_GE(fd, 0);
	for (int theirs_too = 3; theirs_too < 16; theirs_too++)
		CHECK_EQ(syscall(SYS_pidfd_getfd, (int)fd, theirs_too, 0), -1);
	close((int)fd);
}

/* What is on disk is the owner's alone; but the sockets, behind which it is asked who
 * comes, and the directories on the way to them. */
static int attack_files(const char *in)
{
	DIR *dir = opendir(in);
	struct dirent *e;
	struct stat st;
	char path[PATH_MAX];
	int n = 0;

	CHECK(dir);
	while ((e = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", in, e->d_name);
		if (*e->d_name == '.' || lstat(path, &st) || S_ISDIR(st.st_mode))
			continue;
		CHECK_EQ(unlink(path), -1);
		CHECK_EQ(rename(path, "/tmp/stolen"), -1);
		if (S_ISSOCK(st.st_mode))
			continue;
		CHECK_EQ(st.st_mode & 077, 0);
		cannot_open(path, O_RDONLY);
		cannot_open(path, O_WRONLY);
		n++;
	}
	closedir(dir);
	snprintf(path, sizeof(path), "%s/mine", in);
	CHECK_EQ(mkdir(path, 0700), -1);
	return n;
}

/* A client of another uid that is let in as well. */
static _Atomic pid_t *neighbour;

static int other_is_there(void *arg)
{
	shmq_bus *bus;

	(void)arg;
	await(stage, 1);
	bus = open_as(OTHER);
	open_sub(bus, "read.a");
	atomic_store(neighbour, getpid());
	reach(stage, 2);
	await(stage, 3);
	shmq_bus_close(bus);
	return 0;
}

/* By root, who sees all: nothing below is anybody's but the owner's. */
static int check_mode(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)kind;
	(void)where;
	if (st->st_mode & 077)
		FAIL("%s has mode %o", path, st->st_mode & 07777U);
	return 0;
}

static int guest_attacks(void *arg)
{
	pid_t owner = getppid(), tailer;
	struct shmq_bus_info info;
	shmq_bus *bus;

	await(stage, 2);
	tailer = *(pid_t *)arg;
	bus = open_as(GUEST);
	open_sub(bus, "read.a");
	open_pub(bus, "write.a");
	CHECK_GE(attack_descriptors(), 2);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	attack_process((pid_t)info.daemon_pid);
	attack_process((pid_t)info.parent_pid);
	attack_process(tailer);
	attack_process(owner);
	attack_process(atomic_load(neighbour));
	CHECK_GE(attack_files(test_bus_dir()), 2);
	cannot_open(test_bus_data(), O_RDONLY | O_DIRECTORY);
	shmq_bus_close(bus);
	return 0;
}

static int has_tailer(void *arg)
{
	return (*(pid_t *)arg = test_bus_pid("tailer")) != 0;
}

TEST(what_another_uid_was_not_given_it_cannot_take)
{
	pid_t guest, other, *tailer;
	shmq_bus *bus;

	begin();
	tailer = shared_memory(sizeof(*tailer));
	neighbour = shared_memory(sizeof(*neighbour));
	guest = test_spawn(guest_attacks, tailer); /* before this process has descriptors */
	other = test_spawn(other_is_there, NULL);
	bus = test_bus_open();
	make(bus, "read.a", SHMQ_BLOCK);
	create(bus, "write.a", .depth = 64, .mode = SHMQ_SHARED, .max_message_bytes = LARGE,
	       .log = SHMQ_LOG_BLOCK);
	put(open_pub(bus, "write.a"), 'o', LARGE);
	CHECK(test_wait_until(has_tailer, tailer, 60000));
	CHECK_OK(nftw(test_bus_data(), check_mode, 16, FTW_PHYS));
	reach(stage, 1);
	CHECK_EQ(test_join(guest), 0);
	reach(stage, 3);
	CHECK_EQ(test_join(other), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- by requests of its own --------------------------------------------- */

/* What a guest may learn or guess of a client of the owner's and of its topic. */
struct known {
	uint64_t nonce, bus_nonce, topic_id, handle, gen;
	unsigned client;
};

/* Refused, and nothing comes with it; or nothing is there to be refused. */
static void forge(int fd, const struct proto_request *req, int want)
{
	struct proto_reply reply;

	CHECK_EQ(answer_to(fd, req, sizeof(*req), &reply), 1);
	if (reply.error != want || reply.fd_count)
		FAIL("request %u for \"%s\": %s with %u descriptors, want %s", req->op, req->topic,
		     shmq_errname(reply.error), reply.fd_count, shmq_errname(want));
}

static void forge_open(int fd, const char *topic, enum shmq_role role, unsigned flags, int want)
{
	struct proto_request req = request(PROTO_OPEN);

	snprintf(req.topic, sizeof(req.topic), "%s", topic);
	req.open.role = role;
	req.open.partition = -1;
	req.open.from = SHMQ_FROM_LATEST;
	req.open.flags = flags;
	forge(fd, &req, want);
	/* As a seat, which the supervisor gives and nobody asks for. */
	req.token = PROTO_WATCH_TOKEN(0, PROTO_WATCH_SEAT | 1);
	forge(fd, &req, want);
}

static void forge_about(int fd, enum proto_op op, const char *topic, int want)
{
	struct proto_request req = request(op);

	snprintf(req.topic, sizeof(req.topic), "%s", topic);
	if (op == PROTO_REMOVE || op == PROTO_STOP)
		req.remove.flags = SHMQ_FORCE;
	if (op == PROTO_CREATE || op == PROTO_PLAN)
		proto_put_options(TOPIC_OPTIONS(.depth = 1024), &req.create);
	forge(fd, &req, want);
}

static void forge_report(int fd, const struct known *known, enum proto_report kind)
{
	struct proto_request req = request(PROTO_REPORT);

	req.report.kind = kind;
	req.report.topic_id = known->topic_id;
	req.report.client = known->client;
	req.report.client_gen = known->gen;
	req.report.handle = known->handle;
	forge(fd, &req, SHMQ_ENOTOPIC);
}

static int guest_forges(void *arg)
{
	const struct known *known = arg;
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	int fd;

	await(stage, 1);
	become(GUEST);
	fd = raw_connect();
	/* As the client it is not. */
	req.hello.nonce = known->nonce;
	req.hello.bus_nonce = known->bus_nonce;
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_OK(reply.error);
	CHECK_EQ(reply.hello.resumed, 0);
	CHECK_NE(reply.hello.client, known->client);

	forge_open(fd, "secret", SHMQ_ROLE_PUBLISHER, 0, SHMQ_EACCESS);
	forge_open(fd, "secret", SHMQ_ROLE_SUBSCRIBER, 0, SHMQ_EACCESS);
	forge_open(fd, "secret", SHMQ_ROLE_SUBSCRIBER, PROTO_OPEN_OBSERVE, SHMQ_EACCESS);
	forge_open(fd, "secret", SHMQ_ROLE_SUBSCRIBER, PROTO_OPEN_RING_ONLY, SHMQ_EACCESS);
	forge_open(fd, "write.a", SHMQ_ROLE_SUBSCRIBER, 0, SHMQ_EACCESS);
	forge_open(fd, "read.a", SHMQ_ROLE_PUBLISHER, 0, SHMQ_EACCESS);
	forge_open(fd, "$sys.events", SHMQ_ROLE_SUBSCRIBER, 0, SHMQ_EACCESS);
	forge_open(fd, "$sys.events", SHMQ_ROLE_PUBLISHER, 0, SHMQ_EACCESS);
	forge_about(fd, PROTO_SLABS, "secret", SHMQ_EACCESS);
	forge_about(fd, PROTO_CREATE, "secret.too", SHMQ_EACCESS);
	forge_about(fd, PROTO_PLAN, "secret.too", SHMQ_EACCESS);
	forge_about(fd, PROTO_REMOVE, "secret", SHMQ_EACCESS);
	forge_about(fd, PROTO_MOVE, "secret", SHMQ_EACCESS);
	forge_about(fd, PROTO_STOP, "", SHMQ_EACCESS);
	forge_about(fd, PROTO_RELOAD, "", SHMQ_EACCESS);
	forge_report(fd, known, PROTO_REPORT_EVICT);
	forge_report(fd, known, PROTO_REPORT_STUCK);
	/* Another's handle is none of its own, to be closed or joined by. */
	req = request(PROTO_CLOSE);
	req.close.handle = known->handle;
	forge(fd, &req, 0);
	req.op = PROTO_JOIN;
	forge(fd, &req, SHMQ_EPROTO);
	close(fd);
	return 0;
}

TEST(by_requests_past_the_library_another_uid_gets_no_more)
{
	struct known *known;
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;
	pid_t guest;

	begin();
	known = shared_memory(sizeof(*known));
	guest = test_spawn(guest_forges, known);
	bus = test_bus_open();
	make(bus, "secret", SHMQ_EVICT);
	make(bus, "read.a", SHMQ_BLOCK);
	make(bus, "write.a", SHMQ_BLOCK);
	pub = open_pub(bus, "secret");
	sub = open_sub(bus, "secret");
	*known = (struct known){ bus->nonce,          bus->bus_nonce, topic_info(bus, "secret").id,
				 bus->handles->token, bus->gen,       shmq_bus_client_id(bus) };
	reach(stage, 1);
	CHECK_EQ(test_join(guest), 0);
	/* All is as it was. */
	put(pub, 'x', 100);
	get(sub, 'x', 100);
	CHECK_EQ(topic_info(bus, "secret").subscribers, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- labels -------------------------------------------------------------- */

static int comes_as_guest(void *arg)
{
	shmq_bus *bus;
	int rc;

	await(stage, 1);
	become(GUEST);
	rc = shmq_bus_open(test_bus_name(), BUS_OPTIONS(.runtime_dir = test_bus_dir()), &bus);
	if (rc)
		return rc == SHMQ_EACCESS ? 2 : 3;
	open_sub(bus, "t");
	shmq_bus_close(bus);
	(void)arg;
	return 0;
}

/* Of this process, as the kernel tells who is at the other end. */
static int read_label(char *label, socklen_t bytes)
{
	int ends[2], rc;

	CHECK_OK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	memset(label, 0, bytes--);
	rc = getsockopt(ends[0], SOL_SOCKET, SO_PEERSEC, label, &bytes);
	close(ends[0]);
	close(ends[1]);
	return rc || !*label ? -1 : 0;
}

TEST(a_label_lets_in_and_another_does_not)
{
	char label[256], rule[300];
	int is_ours;
	pid_t guest;
	shmq_bus *bus;

	if (geteuid() != 0)
		SKIP("only root can be two users");
	if (read_label(label, sizeof(label)))
		SKIP("this kernel labels no processes (SO_PEERSEC)");
	for (is_ours = 0; is_ours < 2; is_ours++) {
		stage = shared_memory(sizeof(*stage));
		snprintf(rule, sizeof(rule), "t subscribe label:%s%s", label,
			 is_ours ? "" : ".other");
		test_bus_start("--allow", rule);
		CHECK_OK(chmod(test_tmpdir(), 0755));
		CHECK_OK(chmod(test_bus_dir(), 0755));
		guest = test_spawn(comes_as_guest, NULL);
		bus = test_bus_open();
		create(bus, "t", .depth = 1024);
		reach(stage, 1);
		CHECK_EQ(test_join(guest), is_ours ? 0 : 2);
		shmq_bus_close(bus);
		test_bus_stop();
	}
}

/* ---- who asks ------------------------------------------------------------ */

static char (*private)[SHMQ_NAME_MAX + 1];

static int note_private(void *arg, const struct shmq_topic_info *topic)
{
	(void)arg;
	if (!strncmp(topic->name, "$reply.4711.", 12))
		snprintf(*private, sizeof(*private), "%s", topic->name);
	return 0;
}

static int guest_asks(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_requester *r;
	struct shmq_reply reply;
	uint64_t id;

	(void)arg;
	CHECK_ERROR(shmq_requester_open(bus, "read.a", NULL, &r), SHMQ_EACCESS);
	r = open_requester(bus, "write.a", .max_reply_bytes = LARGE);
	CHECK_OK(shmq_topic_each(bus, note_private, NULL));
	id = ask(r, "what", PATIENCE);
	reach(stage, 1);
	reply = outcome(r, id, SHMQ_REPLIED);
	CHECK_EQ(reply.msg.len, LARGE);
	/* Nothing but its own rings to read, which it cannot write. */
	cannot(bus, *private, SHMQ_ROLE_PUBLISHER);
	await(stage, 3);
	shmq_bus_close(bus);
	return 0;
}

static int other_listens(void *arg)
{
	shmq_bus *bus = open_as(OTHER);
	struct held held;

	(void)arg;
	await(stage, 2);
	cannot(bus, *private, SHMQ_ROLE_SUBSCRIBER);
	cannot(bus, *private, SHMQ_ROLE_PUBLISHER);
	CHECK_ERROR(shmq_peer_each(bus, *private, ignore_peer, NULL), SHMQ_EACCESS);
	held = look_at_descriptors();
	CHECK_EQ(held.rings + held.arenas, 0);
	/* Nor does it get one that is another's. */
	CHECK_ERROR(shmq_topic_create(bus, *private, NULL, NULL), SHMQ_ENAME);
	shmq_bus_close(bus);
	return 0;
}

TEST(what_is_answered_to_one_uid_is_read_by_no_other)
{
	static char large[LARGE];
	struct shmq_msg msg = { .data = large, .len = LARGE };
	struct shmq_request q;
	shmq_responder *s;
	pid_t guest, other;
	shmq_bus *bus;

	begin();
	private = shared_memory(sizeof(*private));
	other = test_spawn(other_listens, NULL);
	bus = test_bus_open();
	make(bus, "write.a", SHMQ_BLOCK);
	make(bus, "read.a", SHMQ_BLOCK);
	s = open_responder(bus, "write.a");
	guest = test_spawn(guest_asks, NULL);
	q = hear(s, "what");
	CHECK_EQ(q.uid, GUEST);
	await(stage, 1);
	CHECK_OK(shmq_responder_reply(s, &q, &msg));
	reach(stage, 2);
	CHECK_EQ(test_join(other), 0);
	reach(stage, 3);
	CHECK_EQ(test_join(guest), 0);
	shmq_responder_close(s);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(another_uid_can_do_nothing_that_no_rule_allows)
{
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t guest;

	begin();
	guest = test_spawn(guest_tries, NULL); /* before this process has descriptors */
	bus = test_bus_open();
	make(bus, "secret", SHMQ_BLOCK);
	make(bus, "md.a", SHMQ_BLOCK);
	make(bus, "read.a", SHMQ_BLOCK);
	make(bus, "write.a", SHMQ_BLOCK);
	make(bus, "other.a", SHMQ_BLOCK);
	make(bus, "own.theirs", SHMQ_BLOCK);
	/* An arena without an owner is no other uid's either. */
	pub = open_pub(bus, "md.a");
	put(pub, 'o', LARGE);
	shmq_pub_close(pub);
	reach(stage, 1);
	CHECK_EQ(test_join(guest), 0);
	CHECK_EQ(topic_info(bus, "md.a").publishers, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int stranger_comes(void *arg)
{
	shmq_bus *bus;

	(void)arg;
	become(5000);
	CHECK_ERROR(shmq_bus_open(test_bus_name(), BUS_OPTIONS(.runtime_dir = test_bus_dir()),
				  &bus),
		    SHMQ_EACCESS);
	check_says("whom no rule lets in");
	return 0;
}

TEST(who_has_no_right_at_all_is_not_let_in)
{
	begin();
	CHECK_EQ(test_join(test_spawn(stranger_comes, NULL)), 0);
	test_bus_stop();
}

static int comes_as(void *arg)
{
	shmq_bus *bus;
	int rc;

	become(*(uid_t *)arg);
	rc = shmq_bus_open(test_bus_name(), BUS_OPTIONS(.runtime_dir = test_bus_dir()), &bus);
	if (rc)
		check_says("--guests");
	return rc == SHMQ_ELIMIT ? 2 : rc != 0;
}

TEST(more_uids_than_the_bus_was_started_for_are_refused_by_name)
{
	uid_t uid;
	int n;

	if (geteuid() != 0)
		SKIP("only root can be two users");
	test_bus_start("--allow", "# subscribe everyone", "--guests", "2");
	CHECK_OK(chmod(test_tmpdir(), 0755));
	CHECK_OK(chmod(test_bus_dir(), 0755));
	for (n = 0, uid = 5000; uid < 5003; uid++, n++)
		CHECK_EQ(test_join(test_spawn(comes_as, &uid)), n < 2 ? 0 : 2);
	/* The slot of one that came is that uid's for as long as the bus lives. */
	uid = 5000;
	CHECK_EQ(test_join(test_spawn(comes_as, &uid)), 0);
	test_bus_stop();
}

static int guest_subscribes_all(void *arg)
{
	struct held held;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	(void)arg;
	await(stage, 1);
	bus = open_as(GUEST);
	sub = open_sub(bus, "#");
	reach(stage, 2);
	get(sub, 'm', LARGE);
	CHECK_STR(shmq_sub_topic(sub), "md.before");
	get(sub, 'r', LARGE);
	CHECK_STR(shmq_sub_topic(sub), "read.after");
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	held = look_at_descriptors();
	CHECK_EQ(held.rings, 2);
	CHECK_EQ(held.writable_rings, 0);
	shmq_bus_close(bus);
	return 0;
}

static void make_and_send(shmq_bus *bus, const char *topic, char byte)
{
	make(bus, topic, SHMQ_BLOCK);
	put(open_pub(bus, topic), byte, LARGE);
}

/* Topics that were there, and topics that come. */
TEST(a_pattern_covers_what_its_subscriber_may_have)
{
	shmq_bus *bus;
	shmq_pub *before, *secret;
	pid_t guest;

	begin();
	guest = test_spawn(guest_subscribes_all, NULL);
	bus = test_bus_open();
	make(bus, "md.before", SHMQ_BLOCK);
	make(bus, "secret.before", SHMQ_BLOCK);
	before = open_pub(bus, "md.before");
	secret = open_pub(bus, "secret.before");
	reach(stage, 1);
	await(stage, 2);
	put(secret, 's', LARGE);
	put(before, 'm', LARGE);
	make_and_send(bus, "secret.after", 's');
	make_and_send(bus, "read.after", 'r');
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- deaths ------------------------------------------------------------ */

static int guest_lives_through(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_sub *sub = open_sub(bus, "md.a");
	shmq_pub *pub = open_pub(bus, "md.a");
	int i;

	(void)arg;
	for (i = 1; i <= 3; i++) {
		reach(stage, 2 * i - 1);
		await(stage, 2 * i);
		get(sub, 'o', LARGE);
		put(pub, 'g', LARGE);
		get(sub, 'g', LARGE);
	}
	/* It is who it was. */
	make(bus, "own.later", SHMQ_BLOCK);
	cannot(bus, "secret", SHMQ_ROLE_SUBSCRIBER);
	shmq_bus_close(bus);
	return 0;
}

/* Of the worker, then of all that supervises: the memory that was made for
 * the guest's topics comes back as all other. */
TEST(a_guest_lives_through_the_deaths_of_the_supervisor)
{
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;
	pid_t guest;
	int i;

	begin();
	bus = test_bus_open();
	make(bus, "secret", SHMQ_BLOCK);
	make(bus, "md.a", SHMQ_BLOCK);
	sub = open_sub(bus, "md.a");
	pub = open_pub(bus, "md.a");
	guest = test_spawn(guest_lives_through, NULL);
	for (i = 1; i <= 3; i++) {
		await(stage, 2 * i - 1);
		if (i == 2)
			CHECK_GE(test_bus_kill("control"), 1);
		if (i == 3) {
			CHECK_GE(test_bus_kill(NULL), 1);
			test_bus_restart("--allow", "md.# publish,subscribe uid:4711", "--allow",
					 "own.# create uid:4711", "--guests", "3");
		}
		put(pub, 'o', LARGE);
		reach(stage, 2 * i);
		get(sub, 'o', LARGE);
		get(sub, 'g', LARGE);
	}
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int has_parent(void *arg)
{
	(void)arg;
	return test_bus_signal("parent", 0) > 0;
}

static int owner_becomes_guest(void *arg)
{
	struct shmq_topic_options options = { .size = sizeof(options) };
	shmq_bus *bus = test_bus_open();

	(void)arg;
	open_sub(bus, "md.a");
	become(GUEST);
	reach(stage, 1);
	await(stage, 2);
	/* For another uid there is no way back to what this one was given. */
	await_event(bus, SHMQ_EVENT_DETACHED, 0);
	CHECK_ERROR(shmq_topic_create(bus, "own.x", &options, NULL), SHMQ_ELOST);
	return 0;
}

TEST(who_became_another_uid_does_not_come_back_as_who_it_was)
{
	shmq_bus *bus;
	pid_t child;

	begin();
	bus = test_bus_open();
	make(bus, "md.a", SHMQ_BLOCK);
	child = test_spawn(owner_becomes_guest, NULL);
	await(stage, 1);
	CHECK_GE(test_bus_kill("control"), 1);
	reach(stage, 2);
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* More than wait in a socket as it comes from the kernel. */
TEST_WITHIN(a_bus_with_hundreds_of_slabs_lives_through_deaths, 120)
{
	shmq_bus *bus;
	shmq_pub *pub;
	char name[16];
	int i;

	if (geteuid() != 0)
		SKIP("only root can be two users");
	test_bus_start("--guests", "256", "--allow", "a.# publish uid:1", "--allow",
		       "b.# publish uid:2", "--allow", "c.# publish uid:3", "--allow",
		       "d.# publish uid:4", "--allow", "e.# publish uid:5", "--allow",
		       "f.# publish uid:6", "--allow", "g.# publish uid:7", "--allow",
		       "h.# publish uid:8");
	bus = test_bus_open();
	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "%c.t", 'a' + i);
		make(bus, name, SHMQ_BLOCK);
		pub = open_pub(bus, name);
		put(pub, 'x', LARGE);
	}
	CHECK_GE(test_bus_kill("control"), 1);
	make(bus, "after", SHMQ_BLOCK);
	CHECK_GE(test_bus_kill("parent"), 1);
	test_bus_await_killed();
	await_event(bus, SHMQ_EVENT_REATTACHED, 0);
	CHECK(test_wait_until(has_parent, NULL, 20000));
	make(bus, "then", SHMQ_BLOCK);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int guest_is_refused(void *arg)
{
	shmq_bus *bus = open_as(GUEST);
	shmq_pub *pub;

	(void)arg;
	CHECK_ERROR(shmq_pub_open(bus, "md.a", NULL, &pub), SHMQ_EACCESS);
	check_says("made under other rules");
	reach(stage, 1);
	await(stage, 2);
	open_pub(bus, "md.a");
	shmq_bus_close(bus);
	return 0;
}

static enum shmq_stall stall_of(shmq_bus *bus, const char *topic)
{
	struct shmq_topic_info info;

	CHECK_OK(shmq_topic_get_info(bus, topic, &info));
	return info.stall;
}

/* Its memory holds topics for others than may have them now. */
TEST(a_topic_made_under_other_rules_is_its_owners_until_it_is_moved)
{
	shmq_bus *bus;
	pid_t guest;

	begin();
	bus = test_bus_open();
	make(bus, "md.a", SHMQ_BLOCK);
	open_sub(bus, "md.a"); /* somebody brings its memory back */
	CHECK_GE(test_bus_kill(NULL), 1);
	test_bus_restart("--allow", "md.# publish uid:4711", "--guests", "3");
	guest = test_spawn(guest_is_refused, NULL);
	await(stage, 1);
	CHECK_OK(shmq_topic_move(bus, "md.a"));
	CHECK_EQ(stall_of(bus, "md.a"), SHMQ_STALL_REPORT);
	reach(stage, 2);
	CHECK_EQ(test_join(guest), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- claims in the name of others ---------------------------------------- */

static _Atomic unsigned *victim_id;

static int publish_and_stand_still(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	open_pub(bus, "md.a");
	atomic_store(victim_id, shmq_bus_client_id(bus));
	reach(stage, 1);
	pause();
	return 0;
}

static int claim_as_another(void *arg)
{
	struct shmq_msg msg;
	struct raw raw;
	shmq_bus *bus;
	shmq_sub *sub;

	(void)arg;
	await(stage, 1);
	bus = open_as(GUEST);
	sub = open_sub(bus, "md.a");
	raw_open(&raw, bus, "md.a");
	raw.w.owner = atomic_load(victim_id);
	raw_claim(&raw);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_ESTALLED);
	_exit(0); /* not in order: the claim is to stand */
}

TEST(a_claim_in_the_name_of_another_uid_kills_nobody)
{
	pid_t victim, guest;
	shmq_bus *bus;
	int status;

	begin();
	victim_id = shared_memory(sizeof(*victim_id));
	bus = test_bus_open();
	make(bus, "md.a", SHMQ_BLOCK);
	victim = test_spawn(publish_and_stand_still, NULL);
	guest = test_spawn(claim_as_another, NULL);
	CHECK_EQ(test_join(guest), 0);
	CHECK_EQ(waitpid(victim, &status, WNOHANG), 0);
	CHECK_OK(kill(victim, SIGKILL));
	CHECK_EQ(waitpid(victim, &status, 0), victim);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int ask_for_kill(void *arg)
{
	shmq_bus *bus = open_as(GUEST);

	(void)arg;
	create(bus, "own.mine", .mode = SHMQ_SHARED, .stall = SHMQ_STALL_KILL);
	CHECK_EQ(stall_of(bus, "own.mine"), SHMQ_STALL_REPORT);
	shmq_bus_close(bus);
	return 0;
}

TEST(only_the_owner_has_publishers_killed_where_others_publish)
{
	shmq_bus *bus;

	begin();
	bus = test_bus_open();
	create(bus, "md.a", .mode = SHMQ_SHARED);
	create(bus, "md.b", .mode = SHMQ_SHARED, .stall = SHMQ_STALL_KILL);
	create(bus, "read.a", .mode = SHMQ_SHARED);
	create(bus, "secret", .mode = SHMQ_SHARED);
	CHECK_EQ(stall_of(bus, "md.a"), SHMQ_STALL_REPORT);
	CHECK_EQ(stall_of(bus, "md.b"), SHMQ_STALL_KILL);
	CHECK_EQ(stall_of(bus, "read.a"), SHMQ_STALL_KILL);
	CHECK_EQ(stall_of(bus, "secret"), SHMQ_STALL_KILL);
	CHECK_EQ(test_join(test_spawn(ask_for_kill, NULL)), 0);
	CHECK_OK(shmq_topic_move(bus, "md.b"));
	CHECK_EQ(stall_of(bus, "md.b"), SHMQ_STALL_KILL); /* under the same rules */
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Nobody had it open, so nobody can bring it back. */
TEST(memory_that_nobody_had_is_lost_by_name_and_the_bus_comes_back)
{
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;

	begin();
	bus = test_bus_open();
	make(bus, "secret", SHMQ_BLOCK);
	make(bus, "md.a", SHMQ_BLOCK);
	sub = open_sub(bus, "secret");
	pub = open_pub(bus, "secret");
	CHECK_GE(test_bus_kill(NULL), 1);
	test_bus_restart("--allow", "md.# publish uid:4711", "--guests", "3");
	put(pub, 's', LARGE);
	get(sub, 's', LARGE);
	CHECK_ERROR(shmq_pub_open(bus, "md.a", NULL, &pub), SHMQ_ENOTOPIC);
	CHECK(test_bus_log_has("topic \"md.a\" cannot be adopted and is lost"));
	make(bus, "md.a", SHMQ_BLOCK);
	put(open_pub(bus, "md.a"), 'a', LARGE);
	shmq_bus_close(bus);
	test_bus_stop();
}
