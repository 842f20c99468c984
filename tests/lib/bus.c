/* SPDX-License-Identifier: MIT */
#include "bus.h"

#include "proc.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { START_MS = 10000, STOP_MS = 10000, ARGUMENT_MAX = 64 };

static char name[SHMQ_BUS_NAME_MAX + 1], dir[PATH_MAX], daemon_path[PATH_MAX];
static pid_t daemon_pid; /* of the parent this file started; 0 if none */

const char *test_bus_name(void)
{
	return name;
}

const char *test_bus_dir(void)
{
	return dir;
}

const char *test_bus_data(void)
{
	static char path[PATH_MAX + SHMQ_BUS_NAME_MAX + 8];

	snprintf(path, sizeof(path), "%s/%s", getenv("SHMQ_DATA_DIR"), name);
	return path;
}

int test_log_has(const char *path, const char *text)
{
	FILE *in = fopen(path, "re");
	char line[1024];
	int found = 0;

	CHECK(in != NULL);
	while (!found && fgets(line, sizeof(line), in))
		found = strstr(line, text) != NULL;
	fclose(in);
	return found;
}

int test_bus_log_has(const char *text)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s.log", dir);
	return test_log_has(path, text);
}

const char *test_bus_daemon(void)
{
	const char *given = getenv("SHMQ_DAEMON");
	ssize_t n;

	if (given && *given)
		return given;
	/* build/tests/<kind>/<program>: three levels up stands shmqd. */
	n = readlink("/proc/self/exe", daemon_path, sizeof(daemon_path) - 8);
	daemon_path[n < 0 ? 0 : n] = 0;
	for (int level = 0; level < 3; level++)
		*(strrchr(daemon_path, '/') ?: daemon_path) = 0;
	strcat(daemon_path, "/shmqd");
	return daemon_path;
}

void test_bus_prepare(void)
{
	const char *program = test_bus_daemon();
	char data[PATH_MAX + 8];

	if (access(program, X_OK) < 0)
		FAIL("no supervisor to run: %s: %s", program, strerror(errno));
	snprintf(dir, sizeof(dir), "%s/bus-XXXXXX", test_tmpdir());
	if (!mkdtemp(dir))
		FAIL("%s: %s", dir, strerror(errno));
	snprintf(name, sizeof(name), "t%d-%s", (int)getpid(), dir + strlen(dir) - 6);
	snprintf(data, sizeof(data), "%s.data", dir);
	setenv("SHMQ_RUNTIME_DIR", dir, 1);
	setenv("SHMQ_DATA_DIR", data, 1);
	setenv("XDG_CONFIG_HOME", dir, 1); /* not that of whoever runs the test */
	setenv("SHMQ_DAEMON", program, 1);
}

/* Who listens on the bus's socket; 0 if nobody does. */
static pid_t listener(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred who = { 0 };
	socklen_t bytes = sizeof(who);
	int fd;

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.sock", dir, name) >=
	    (int)sizeof(address.sun_path))
		FAIL("the socket's path is too long, choose a shorter TMPDIR: %s", dir);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		FAIL("socket: %s", strerror(errno));
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes), 0);
	close(fd);
	return who.pid;
}

int test_bus_accepts(void)
{
	return listener() != 0;
}

static int accepts_or_ended(void *arg)
{
	int status;

	(void)arg;
	if (daemon_pid && waitpid(daemon_pid, &status, WNOHANG) == daemon_pid) {
		daemon_pid = 0;
		FAIL("shmqd ended before it accepted: %s %d",
		     WIFSIGNALED(status) ? "signal" : "exit code",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	/* Not one that was killed here and has not closed its socket yet. */
	return listener() == daemon_pid;
}

static pid_t launch(const char *const *arguments)
{
	const char *program = test_bus_daemon();
	const char *argv[ARGUMENT_MAX] = {
		program, "--bus", name, "--runtime-dir", dir, "--foreground",
	};
	char log[PATH_MAX + 16];
	int argc = 6, fd;

	if (daemon_pid && waitpid(daemon_pid, NULL, WNOHANG) == 0)
		FAIL("a supervisor is running already: %d", (int)daemon_pid);
	while (*arguments && argc < ARGUMENT_MAX - 1)
		argv[argc++] = *arguments++;
	snprintf(log, sizeof(log), "%s.log", dir);
	daemon_pid = fork();
	if (daemon_pid < 0)
		FAIL("fork: %s", strerror(errno));
	if (!daemon_pid) {
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execv(program, (char *const *)argv);
		_exit(127);
	}
	return daemon_pid;
}

pid_t test_bus_launch(void)
{
	return launch((const char *const[]){ NULL });
}

pid_t test_bus_restart_args(const char *const *arguments)
{
	launch(arguments);
	if (!test_wait_until(accepts_or_ended, NULL, START_MS))
		FAIL("%s/%s.sock did not accept within %d ms", dir, name,
		     START_MS * test_slowdown());
	return daemon_pid;
}

pid_t test_bus_start_args(const char *const *arguments)
{
	test_bus_prepare();
	return test_bus_restart_args(arguments);
}

shmq_bus *test_bus_open(void)
{
	struct shmq_bus_options options = { .size = sizeof(options), .runtime_dir = dir };
	shmq_bus *bus = NULL;

	CHECK_OK(shmq_bus_open(name, &options, &bus));
	return bus;
}

pid_t test_bus_worker_pid(shmq_bus *bus)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	return info.daemon_pid;
}

static int has_parent(void *bus)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	return info.parent_pid > 0;
}

pid_t test_bus_parent_pid(shmq_bus *bus)
{
	struct shmq_bus_info info;

	if (!test_wait_until(has_parent, bus, START_MS))
		FAIL("the bus has no parent");
	CHECK_OK(shmq_bus_get_info(bus, &info));
	return info.parent_pid;
}

/* ---- stop ------------------------------------------------------------ */

/* A process of the supervisor: runs its program, with our directory among
 * its arguments or in its environment.  Children of it that were forked
 * without exec show both too. */
static int has_word(const char *proc, const char *file, const char *word)
{
	char path[280], text[65536];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/%s", proc, file);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	n = read(fd, text, sizeof(text));
	close(fd);
	return n > 0 && memmem(text, n, word, strlen(word));
}

static int is_supervisor(const char *proc)
{
	char path[280], exe[PATH_MAX], ours[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%s/exe", proc);
	n = readlink(path, exe, sizeof(exe) - 1);
	exe[n < 0 ? 0 : n] = 0;
	*(strstr(exe, " (deleted)") ?: exe + strlen(exe)) = 0; /* or replaced */
	if (!realpath(test_bus_daemon(), ours) || strcmp(exe, ours) != 0)
		return 0;
	return has_word(proc, "cmdline", dir) || has_word(proc, "environ", dir);
}

static int is_in_role(const char *proc, const char *role)
{
	char argument[32];

	if (!role)
		return 1;
	snprintf(argument, sizeof(argument), "--role=%s", role);
	return has_word(proc, "cmdline", argument) ||
	       (!strcmp(role, "parent") && !has_word(proc, "cmdline", "--role="));
}

static pid_t signalled[64]; /* by the last of these calls */

/* In that role, or with NULL in any. */
static int signal_supervisors(int sig, const char *role)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	memset(signalled, 0, sizeof(signalled));
	while (proc && (entry = readdir(proc))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		if (!is_supervisor(entry->d_name) || !is_in_role(entry->d_name, role))
			continue;
		if ((size_t)count < COUNT(signalled))
			signalled[count] = atoi(entry->d_name);
		count++;
		kill(atoi(entry->d_name), sig);
	}
	if (proc)
		closedir(proc);
	return count;
}

static int supervisors_gone(void *arg)
{
	(void)arg;
	if (daemon_pid && waitpid(daemon_pid, NULL, WNOHANG) != 0)
		daemon_pid = 0;
	return !daemon_pid && !signal_supervisors(0, NULL);
}

/* Those that are stopped start no others. */
static int stop_all(void)
{
	int before = -1, count = 0;

	while (count != before) {
		before = count;
		count = signal_supervisors(SIGSTOP, NULL);
	}
	return count;
}

static void reap_killed(void)
{
	int status;

	if (!daemon_pid || waitpid(daemon_pid, &status, WNOHANG) != daemon_pid)
		return;
	daemon_pid = 0;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		FAIL("shmqd ended by itself: status %x", (unsigned)status);
}

/* Not when /proc has no program of it any more: it has its descriptors, and
 * with them its locks, for a while after that. */
static int has_ended(pid_t pid)
{
	struct pollfd end = { .fd = shmq__proc_pidfd(pid), .events = POLLIN };
	int ended = end.fd == -ESRCH || (end.fd >= 0 && poll(&end, 1, 0) == 1);

	if (end.fd >= 0)
		close(end.fd);
	return ended;
}

/* Not all at once: one that is still dying is in no role any more. */
static pid_t killed[COUNT(signalled)];

static int killed_have_ended(void *arg)
{
	unsigned i, left = 0;

	(void)arg;
	for (i = 0; i < COUNT(killed) && killed[i]; i++)
		if (!has_ended(killed[i]))
			killed[left++] = killed[i];
	memset(killed + left, 0, (i - left) * sizeof(*killed));
	return !left;
}

static void note_killed(void)
{
	unsigned i, n = 0;

	killed_have_ended(NULL);
	while (n < COUNT(killed) && killed[n])
		n++;
	for (i = 0; i < COUNT(signalled) && signalled[i] && n < COUNT(killed); i++)
		killed[n++] = signalled[i];
}

static int killed_are_gone(void *arg)
{
	reap_killed();
	return killed_have_ended(arg) && !daemon_pid;
}

void test_bus_await_killed(void)
{
	if (!test_wait_until(killed_have_ended, NULL, STOP_MS))
		FAIL("what was killed is still there");
}

int test_bus_kill(const char *role)
{
	int count;

	reap_killed();
	if (!role)
		stop_all();
	count = signal_supervisors(SIGKILL, role);
	note_killed();
	if (!role && !test_wait_until(killed_are_gone, NULL, STOP_MS))
		FAIL("what was killed is still there");
	return count;
}

int test_bus_signal(const char *role, int sig)
{
	return signal_supervisors(sig, role);
}

pid_t test_bus_pid(const char *role)
{
	return signal_supervisors(0, role) == 1 ? signalled[0] : 0;
}

static void check_no_socket(void)
{
	DIR *entries = opendir(dir);
	struct dirent *entry;

	while (entries && (entry = readdir(entries)))
		if (entry->d_type == DT_SOCK)
			FAIL("a socket was left behind: %s/%s", dir, entry->d_name);
	if (entries)
		closedir(entries);
}

void test_bus_await_end(void)
{
	if (!test_wait_until(supervisors_gone, NULL, STOP_MS))
		FAIL("%d processes of the supervisor go on", signal_supervisors(0, NULL));
}

void test_bus_stop(void)
{
	char log[PATH_MAX + 16];

	if (!*dir)
		FAIL("no bus was started");
	/* The parent ends its workers; where the test killed the parent, or
	 * the library started one, they are told each. */
	if (daemon_pid && waitpid(daemon_pid, NULL, WNOHANG) == 0)
		kill(daemon_pid, SIGTERM);
	else
		signal_supervisors(SIGTERM, NULL);
	if (!test_wait_until(supervisors_gone, NULL, STOP_MS))
		FAIL("%d processes of the supervisor were left behind",
		     signal_supervisors(0, NULL));
	check_no_socket();
	snprintf(log, sizeof(log), "%s.log", dir);
	unlink(log);
	snprintf(log, sizeof(log), "%s.data", dir);
	test_remove_tree(log);
	test_remove_tree(dir);
	unsetenv("SHMQ_RUNTIME_DIR");
	*dir = *name = 0;
}
