/* SPDX-License-Identifier: MIT */
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "link.h"
#include "shmq.h"

#define FIRST_FD 3
#define FDS_MAX (LINK_SLABS_MAX + 8)
#define SLAB_NAME "slab-"
#define WATCHDOG_LEAST_US 10000u /* who wants it more often would have us do nothing else */

/* What was passed: a socket, or a slab of that id. */
static struct {
	int fd;
	int slab; /* -1 a socket */
} passed[FDS_MAX];
static unsigned passed_count;

/* A number in the environment that is meant for this process. */
static uint64_t number_of(const char *name, const char *pid_name)
{
	const char *text = secure_getenv(name), *pid = secure_getenv(pid_name);
	char *end;
	uint64_t n;

	if (!text || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	n = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end ? n : 0;
}

static int slab_of(const char *name)
{
	char *end;
	unsigned long id;

	if (strncmp(name, SLAB_NAME, strlen(SLAB_NAME)) != 0)
		return -1;
	id = strtoul(name + strlen(SLAB_NAME), &end, 10);
	return *end || id >= LINK_SLABS_MAX ? -1 : (int)id;
}

int service_begin(void)
{
	uint64_t n = secure_getenv("LISTEN_PID") ? number_of("LISTEN_FDS", "LISTEN_PID") : 0;
	char *names = secure_getenv("LISTEN_FDNAMES"), *copy = names ? strdup(names) : NULL,
	     *rest = copy;
	unsigned i;

	for (i = 0; i < n; i++) {
		const char *name = rest ? strsep(&rest, ":") : NULL;

		if (passed_count == FDS_MAX || fcntl(FIRST_FD + (int)i, F_SETFD, FD_CLOEXEC))
			break;
		passed[passed_count].fd = FIRST_FD + (int)i;
		passed[passed_count++].slab = name ? slab_of(name) : -1;
	}
	free(copy);
	/* Not once more by what this process executes. */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return FIRST_FD + (int)passed_count;
}

void service_disown(void)
{
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

static int is_socket_at(int fd, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNSPEC };
	socklen_t length = sizeof(address), bytes = sizeof(int);
	int type = 0, listens = 0;

	if (getsockname(fd, (struct sockaddr *)&address, &length) ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes))
		return 0;
	return address.sun_family == AF_UNIX && type == SOCK_SEQPACKET && listens &&
	       !strncmp(address.sun_path, path, sizeof(address.sun_path));
}

int service_socket(const char *path, struct shmq__why *why)
{
	struct stat st;
	unsigned i;
	int fd;

	for (i = 0; i < passed_count; i++) {
		fd = passed[i].fd;
		if (fd < 0 || passed[i].slab >= 0)
			continue;
		if (fstat(fd, &st) || !S_ISSOCK(st.st_mode)) { /* of another build's, perhaps */
			passed[i].fd = -1;
			close(fd);
			continue;
		}
		if (!is_socket_at(fd, path))
			return shmq__fail(
				why, SHMQ_EOPTION,
				"what the service manager passed as descriptor %d does not "
				"listen at %s: ListenSequentialPacket= has to name that",
				fd, path);
		passed[i].fd = -1;
		fcntl(fd, F_SETFL, O_NONBLOCK);
		return fd;
	}
	return -1;
}

int service_next_slab(unsigned *id)
{
	unsigned i;
	int fd;

	for (i = 0; i < passed_count; i++) {
		fd = passed[i].fd;
		if (fd < 0 || passed[i].slab < 0)
			continue;
		passed[i].fd = -1;
		*id = (unsigned)passed[i].slab;
		return fd;
	}
	return -1;
}

/* 0, or -errno. */
static int send_words(const char *words, int fd)
{
	const char *path = secure_getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec text = { (void *)(uintptr_t)words, strlen(words) };
	struct msghdr msg = { .msg_name = &address, .msg_iov = &text, .msg_iovlen = 1 };
	size_t length = path ? strlen(path) : 0;
	int sock, error;

	if (length < 2 || length >= sizeof(address.sun_path) || (*path != '/' && *path != '@'))
		return 0;
	memcpy(address.sun_path, path, length);
	if (*path == '@')
		address.sun_path[0] = 0;
	msg.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.room);
		control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
						 .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	error = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
	close(sock);
	return error;
}

/* Its socket takes so many datagrams and no more until it reads them. */
struct owed {
	STAILQ_ENTRY(owed) link;
	int fd; /* of the parent's for good, or -1 */
	char words[];
};
static STAILQ_HEAD(, owed) owed = STAILQ_HEAD_INITIALIZER(owed);

int service_catch_up(void)
{
	struct owed *o;

	while ((o = STAILQ_FIRST(&owed)) && send_words(o->words, o->fd) != -EAGAIN) {
		STAILQ_REMOVE_HEAD(&owed, link);
		free(o);
	}
	return o != NULL;
}

/* What is said again counts from then on, so that no more is owed than there are
 * different things to say. */
static void take_back(const char *words)
{
	struct owed *o;

	STAILQ_FOREACH(o, &owed, link)
	if (!strcmp(o->words, words))
		break;
	if (!o)
		return;
	STAILQ_REMOVE(&owed, o, owed, link);
	free(o);
}

static void tell(const char *words, int fd)
{
	struct owed *o;

	if (!service_catch_up() && send_words(words, fd) != -EAGAIN)
		return;
	take_back(words);
	o = malloc(sizeof(*o) + strlen(words) + 1);
	if (!o)
		return;
	o->fd = fd;
	strcpy(o->words, words);
	STAILQ_INSERT_TAIL(&owed, o, link);
}

void service_notify(const char *words)
{
	tell(words, -1);
}

/* Without FDPOLL=0 a manager would drop what looks closed; memory never does. */
void service_store(unsigned id, int fd)
{
	char words[64];

	snprintf(words, sizeof(words), "FDSTORE=1\nFDNAME=" SLAB_NAME "%u\nFDPOLL=0", id);
	tell(words, fd);
}

void service_forget(unsigned id)
{
	char words[64];

	snprintf(words, sizeof(words), "FDSTOREREMOVE=1\nFDNAME=" SLAB_NAME "%u", id);
	tell(words, -1);
}

int64_t service_watchdog_ns(void)
{
	uint64_t us = number_of("WATCHDOG_USEC", "WATCHDOG_PID");

	if (!us || us > INT64_MAX / 1000)
		return 0;
	return (int64_t)(us < WATCHDOG_LEAST_US ? WATCHDOG_LEAST_US : us) * 1000;
}
