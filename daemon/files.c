/* SPDX-License-Identifier: MIT */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "shmq.h"

#define LOCK_POLL_MS 5
#define BACKLOG 4096

void files_name(struct files *f, const char *dir, const char *bus)
{
	snprintf(f->sock, sizeof(f->sock), "%s/%s.sock", dir, bus);
	snprintf(f->back, sizeof(f->back), "%s/%s.back", dir, bus);
	snprintf(f->lock, sizeof(f->lock), "%s/%s.lock", dir, bus);
	snprintf(f->control, sizeof(f->control), "%s/%s.control", dir, bus);
	snprintf(f->manifest, sizeof(f->manifest), "%s/%s.manifest", dir, bus);
	snprintf(f->conf, sizeof(f->conf), "%s/%s.conf", dir, bus);
	snprintf(f->log, sizeof(f->log), "%s/%s.log", dir, bus);
	snprintf(f->scratch, sizeof(f->scratch), "%s/.%d", dir, (int)getpid());
}

/* Whoever ends a bus removes its locks while it holds them, so one that
 * was waited for may be of a file that is gone. */
static int is_still_there(int fd, const char *path)
{
	struct stat held, named;

	return !fstat(fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino &&
	       held.st_dev == named.st_dev;
}

int files_are_anothers(int fd, const char *path)
{
	return !access(path, F_OK) && !is_still_there(fd, path);
}

int files_lock(const char *path, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);

	for (;;) {
		/* For reading, as a directory may become read-only meanwhile. */
		int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600),
		    error;

		if (fd < 0)
			return -errno;
		error = flock(fd, LOCK_EX | LOCK_NB) ? errno : 0;
		if (!error && is_still_there(fd, path))
			return fd;
		close(fd);
		if (error && error != EWOULDBLOCK && error != EINTR)
			return -error;
		if (!error)
			continue;
		if (shmq__clock_left(deadline) == 0)
			return -EWOULDBLOCK;
		poll(NULL, 0, LOCK_POLL_MS);
	}
}

static void fill_address(struct sockaddr_un *address, const char *path)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, strnlen(path, sizeof(address->sun_path) - 1));
}

int files_listen(const struct files *f, const char *path, enum files_door door)
{
	struct sockaddr_un address;
	int sock, error;
	mode_t mask;

	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return -errno;
	fill_address(&address, f->scratch);
	unlink(f->scratch);
	mask = umask(door == FILES_OWNER ? 0177 : 0111);
	error = bind(sock, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	umask(mask);
	if (!error && (listen(sock, BACKLOG) || rename(f->scratch, path)))
		error = -errno;
	if (!error)
		return sock;
	unlink(f->scratch);
	close(sock);
	return error;
}

int files_accepts(const struct files *f)
{
	struct sockaddr_un address;
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), error;

	if (sock < 0)
		return 0;
	fill_address(&address, f->sock);
	error = connect(sock, (struct sockaddr *)&address, sizeof(address));
	close(sock);
	return !error;
}

const char *files_strerror(int error)
{
	static const struct {
		int error;
		const char *text;
	} known[] = {
		{ -ENOENT, "No such file or directory: check the path" },
		{ -ENOTDIR, "Not a directory: check the path" },
		{ -EISDIR, "Not a regular file: check the path" },
		{ -ENAMETOOLONG, "File name too long: choose a shorter one" },
		{ -EACCES, "Permission denied: check owner and mode" },
		{ -EPERM, "Operation not permitted: check owner and mode" },
		{ -EROFS, "Read-only file system: choose another place" },
		{ -ENOSPC, "No space left on device: make room" },
		{ -EDQUOT, "Disk quota exceeded: make room" },
		{ -ENOMEM, "Cannot allocate memory: free some, or raise ulimit -v" },
		{ -EMFILE, "Too many open files: raise ulimit -n (LimitNOFILE=)" },
		{ -EAGAIN, "Resource temporarily unavailable: raise ulimit -u (TasksMax=)" },
	};
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].error == error)
			return known[i].text;
	return shmq_strerror(error);
}
