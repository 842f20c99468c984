/* SPDX-License-Identifier: MIT
 *
 * A supervisor under a service manager, which the test is: what it is told, the
 * socket it passes, the descriptors it keeps, and its watchdog.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "../lib/helpers.h"
#include "../lib/watch.h"

enum { KEPT_MAX = 64, WORDS = 512 };

static struct manager {
	int sock;
	char path[128];
	struct kept {
		int fd;
		char name[32];
	} kept[KEPT_MAX];
	int kept_count;
	int listen_fd;  /* -1 none */
	int journal_fd; /* where standard error goes, as to the journal; -1 elsewhere */
	pid_t pid;      /* of the supervisor */
} m;

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	CHECK_LT(strlen(path), sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path));
	return address;
}

static void begin(void)
{
	struct sockaddr_un address;

	test_bus_prepare();
	m = (struct manager){ .listen_fd = -1, .journal_fd = -1 };
	snprintf(m.path, sizeof(m.path), "%s/notify", test_bus_dir());
	address = address_of(m.path);
	m.sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK_OK(bind(m.sock, (struct sockaddr *)&address, sizeof(address)));
}

static void keep(const char *words, int fd)
{
	const char *name = strstr(words, "FDNAME=");
	char short_name[32];
	int i;

	CHECK(name);
	snprintf(short_name, sizeof(short_name), "%.*s", (int)strcspn(name + 7, "\n"), name + 7);
	if (!strncmp(words, "FDSTORE=1", 9)) {
		CHECK_GE(fd, 0);
		CHECK_LT(m.kept_count, KEPT_MAX);
		m.kept[m.kept_count].fd = fd;
		snprintf(m.kept[m.kept_count++].name, 32, "%s", short_name);
		return;
	}
	for (i = 0; i < m.kept_count; i++)
		if (!strcmp(m.kept[i].name, short_name)) {
			close(m.kept[i].fd);
			m.kept[i--] = m.kept[--m.kept_count];
		}
}

/* What it says next: into words, or 0 after that time. */
static int hear(char *words, int timeout_ms)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec text = { words, WORDS - 1 };
	struct msghdr msg = { .msg_iov = &text,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct pollfd p = { .fd = m.sock, .events = POLLIN };
	int fd = -1;
	ssize_t n;

	if (poll(&p, 1, timeout_ms) != 1)
		return 0;
	n = recvmsg(m.sock, &msg, MSG_CMSG_CLOEXEC);
	CHECK_GT(n, 0);
	words[n] = 0;
	if (msg.msg_controllen)
		memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	if (strstr(words, "FDSTORE"))
		keep(words, fd);
	return 1;
}

static void await_words(const char *wanted)
{
	char words[WORDS];

	do
		CHECK(hear(words, 60000 * test_slowdown()));
	while (strncmp(words, wanted, strlen(wanted)) != 0);
}

/* As a service manager does: the descriptors from 3 on, named. */
static void start(const char *watchdog_us)
{
	char names[KEPT_MAX * 32] = "", number[16], stream[64];
	int i, n = 0, fds[KEPT_MAX + 1];

	fflush(NULL);
	m.pid = fork();
	CHECK_GE(m.pid, 0);
	if (m.pid)
		return;
	for (i = 0; i < m.kept_count; i++) {
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", n ? ":" : "",
			 m.kept[i].name);
		fds[n++] = fcntl(m.kept[i].fd, F_DUPFD, 100);
	}
	if (m.listen_fd >= 0) {
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%sbus.socket",
			 n ? ":" : "");
		fds[n++] = fcntl(m.listen_fd, F_DUPFD, 100);
	}
	if (m.journal_fd >= 0)
		dup2(m.journal_fd, STDERR_FILENO);
	for (i = 0; i < n; i++)
		dup2(fds[i], 3 + i);
	syscall(SYS_close_range, 3 + n, ~0U, 0);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("NOTIFY_SOCKET", m.path, 1);
	setenv("LISTEN_PID", number, 1);
	if (m.journal_fd >= 0) {
		struct stat st;

		fstat(STDERR_FILENO, &st);
		snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
			 (uintmax_t)st.st_ino);
		setenv("JOURNAL_STREAM", stream, 1);
	}
	if (watchdog_us) {
		setenv("WATCHDOG_PID", number, 1);
		setenv("WATCHDOG_USEC", watchdog_us, 1);
	}
	snprintf(number, sizeof(number), "%d", n);
	setenv("LISTEN_FDS", number, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	execl(test_bus_daemon(), "shmqd", "--foreground", "--bus", test_bus_name(), "--runtime-dir",
	      test_bus_dir(), "--config", "none", (char *)NULL);
	_exit(127);
}

static int end(int sig)
{
	int status;

	CHECK_OK(kill(m.pid, sig));
	CHECK_EQ(waitpid(m.pid, &status, 0), m.pid);
	return status;
}

static void leave(void)
{
	while (m.kept_count)
		close(m.kept[--m.kept_count].fd);
	if (m.listen_fd >= 0)
		close(m.listen_fd);
	close(m.sock);
	CHECK_OK(unlink(m.path));
	test_bus_stop();
}

TEST(it_is_told_of_the_start_the_reload_and_the_end)
{
	begin();
	start(NULL);
	await_words("READY=1\nSTATUS=serving bus");
	CHECK_OK(kill(m.pid, SIGHUP));
	await_words("RELOADING=1");
	await_words("READY=1");
	CHECK_EQ(end(SIGTERM), 0);
	await_words("STOPPING=1");
	leave();
}

static int start_on_demand(void *arg)
{
	struct shmq_bus_options how = { .size = sizeof(how), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	(void)arg;
	setenv("NOTIFY_SOCKET", m.path, 1);
	setenv("WATCHDOG_USEC", "1000000", 1);
	unsetenv("WATCHDOG_PID");
	how.runtime_dir = test_bus_dir();
	how.daemon_path = test_bus_daemon();
	CHECK_OK(shmq_bus_open(test_bus_name(), &how, &bus));
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	return 0;
}

/* It is the application's: it would take that for ready, or for stopping. */
TEST(the_manager_of_who_started_the_bus_is_told_nothing_of_it)
{
	char word;

	begin();
	CHECK_EQ(test_join(test_spawn(start_on_demand, NULL)), 0);
	test_bus_await_end();
	CHECK_EQ(recv(m.sock, &word, 1, MSG_DONTWAIT), -1);
	CHECK_EQ(errno, EAGAIN);
	leave();
}

TEST(the_journal_hears_priorities_and_adds_the_time_itself)
{
	char text[4096], *line, *rest;
	int pipes[2], n = 0;
	ssize_t got, all = 0;

	begin();
	CHECK_OK(pipe2(pipes, O_CLOEXEC));
	m.journal_fd = pipes[1];
	start(NULL);
	close(pipes[1]);
	await_words("READY=1");
	CHECK_EQ(end(SIGTERM), 0);
	while ((got = read(pipes[0], text + all, sizeof(text) - 1 - (size_t)all)) > 0)
		all += got;
	text[all] = 0;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++)
		CHECK(!strncmp(line, "<6>control: ", 12) || !strncmp(line, "<6>parent: ", 11));
	CHECK_GT(n, 0);
	close(pipes[0]);
	m.journal_fd = -1;
	leave();
}

static void listen_for_it(const char *path)
{
	struct sockaddr_un address = address_of(path);

	m.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK_OK(bind(m.listen_fd, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(listen(m.listen_fd, 64));
}

TEST(the_socket_it_passes_is_served_and_stays)
{
	char path[160];
	shmq_bus *bus;

	begin();
	snprintf(path, sizeof(path), "%s/%s.sock", test_bus_dir(), test_bus_name());
	listen_for_it(path);
	start(NULL);
	await_words("READY=1");
	bus = test_bus_open();
	create(bus, "t");
	shmq_bus_close(bus);
	CHECK_EQ(end(SIGTERM), 0);
	CHECK_OK(access(path, F_OK));
	/* Once more at the same socket. */
	start(NULL);
	await_words("READY=1");
	shmq_bus_close(test_bus_open());
	CHECK_EQ(end(SIGTERM), 0);
	unlink(path);
	leave();
}

TEST(another_socket_is_refused_by_name)
{
	char path[160];
	int status;

	begin();
	snprintf(path, sizeof(path), "%s/other.sock", test_bus_dir());
	listen_for_it(path);
	start(NULL);
	CHECK_EQ(waitpid(m.pid, &status, 0), m.pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 1);
	unlink(path);
	leave();
}

/* It takes one datagram at a time, and is slow. */
TEST(a_manager_that_is_slow_is_told_all_of_it)
{
	int fd, tries = 0;

	if (unshare(CLONE_NEWNET))
		SKIP("it takes a network namespace to make a socket take less");
	fd = open("/proc/sys/net/unix/max_dgram_qlen", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		SKIP("max_dgram_qlen cannot be written");
	close(fd);
	begin();
	start(NULL);
	while (!test_bus_accepts() && tries++ < 60000)
		test_sleep_ms(1);
	shmq_bus_close(test_bus_open()); /* all slabs are there */
	await_words("READY=1");
	CHECK_GT(m.kept_count, 3);
	CHECK_EQ(end(SIGTERM), 0);
	leave();
}

TEST(what_it_kept_that_is_no_slab_is_in_nobodys_way)
{
	begin();
	m.kept[0].fd = memfd_create("other", MFD_CLOEXEC);
	snprintf(m.kept[0].name, sizeof(m.kept[0].name), "slab-9999");
	m.kept[1].fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	snprintf(m.kept[1].name, sizeof(m.kept[1].name), "stored");
	m.kept[2].fd = memfd_create("other", MFD_CLOEXEC);
	snprintf(m.kept[2].name, sizeof(m.kept[2].name), "slab-0");
	m.kept_count = 3;
	start(NULL);
	await_words("READY=1");
	CHECK_EQ(end(SIGTERM), 0);
	leave();
}

/* All of it dies, and no client holds anything: the store has it. */
TEST(what_it_keeps_brings_the_bus_back)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	begin();
	start(NULL);
	await_words("READY=1");
	bus = test_bus_open();
	create(bus, "t", .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "kept", 4));
	shmq_bus_close(bus);
	CHECK_GT(m.kept_count, 3);
	CHECK_GE(test_bus_kill(NULL), 2);
	waitpid(m.pid, NULL, 0);
	start(NULL);
	await_words("READY=1");
	bus = test_bus_open();
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "kept", 4);
	/* Another bus keeps nothing of this one. */
	shmq_bus_close(bus);
	CHECK_EQ(end(SIGTERM), 0);
	start(NULL);
	await_words("READY=1");
	bus = test_bus_open();
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &pub), SHMQ_ENOTOPIC);
	shmq_bus_close(bus);
	CHECK_EQ(end(SIGTERM), 0);
	leave();
}

TEST(its_watchdog_hears_of_a_worker_that_is_well_and_not_of_one_that_hangs)
{
	char words[WORDS];
	int i;

	begin();
	start("400000"); /* so every 0.2 s */
	await_words("READY=1");
	for (i = 0; i < 3; i++)
		await_words("WATCHDOG=1");
	CHECK_EQ(test_bus_signal("control", SIGSTOP), 1);
	/* One may be under way, and the ping behind it. */
	for (i = 0; i < 3 && hear(words, 1000); i++)
		;
	CHECK_LT(i, 3);
	CHECK_EQ(test_bus_signal("control", SIGCONT), 1);
	await_words("WATCHDOG=1");
	CHECK_EQ(end(SIGTERM), 0);
	leave();
}

TEST(its_watchdog_waits_for_a_worker_that_takes_over)
{
	char path[PATH_MAX];
	int lock, i;

	begin();
	snprintf(path, sizeof(path), "%s/%s.control", test_bus_dir(), test_bus_name());
	start("400000");
	await_words("READY=1");
	/* What the next worker needs to go on. */
	CHECK_OK(kill(m.pid, SIGSTOP));
	lock = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_GE(lock, 0);
	CHECK_GE(test_bus_signal("control", SIGKILL), 1);
	CHECK_OK(flock(lock, LOCK_EX));
	CHECK_OK(kill(m.pid, SIGCONT));
	for (i = 0; i < 8; i++)
		await_words("WATCHDOG=1");
	close(lock);
	await_words("READY=1");
	CHECK_EQ(end(SIGTERM), 0);
	leave();
}
