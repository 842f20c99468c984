/* SPDX-License-Identifier: MIT
 *
 * files: what a bus has in its runtime directory.
 *
 *   <bus>.sock      where clients connect
 *   <bus>.back      where they offer descriptors to a start that lacks them
 *   <bus>.lock      held by the parent
 *   <bus>.control   held by the control worker
 *   <bus>.manifest  what the parent holds (manifest.h)
 *   <bus>.conf      the configuration in force, if there is one (config.h)
 *   <bus>.log       of a daemonised supervisor; stays if there is a warning in it
 *
 * A lock belongs to a process and goes with it.  A start that finds the
 * first one free and the second one held meets a worker that has lost its
 * parent and is about to replace it: the bus is running.
 */
#ifndef SHMQ_FILES_H
#define SHMQ_FILES_H

#include <stdint.h>

#define FILES_PATH_MAX 192

struct files {
	char sock[FILES_PATH_MAX];
	char back[FILES_PATH_MAX];
	char lock[FILES_PATH_MAX];
	char control[FILES_PATH_MAX];
	char manifest[FILES_PATH_MAX];
	char conf[FILES_PATH_MAX];
	char log[FILES_PATH_MAX];
	char scratch[FILES_PATH_MAX]; /* a name of this process's own */
};

void files_name(struct files *f, const char *dir, const char *bus);

/* Take the lock at path, waiting at most timeout_ns.  A descriptor, which
 * no other process may inherit, or -EWOULDBLOCK, or -errno. */
int files_lock(const char *path, int64_t timeout_ns);

/* Whether at the path of a lock that is held as fd there is another's: the directory was
 * removed, and there is another bus of the name, which its files belong to. */
int files_are_anothers(int fd, const char *path);

/* A listening socket at `path` (f->sock or f->back), the owner's alone to connect
 * to or everybody's, who is then told apart by uid, in the place of whatever was
 * there.  Only under the parent's lock.  A descriptor or
 * -errno. */
enum files_door { FILES_OWNER, FILES_EVERYBODY };
int files_listen(const struct files *f, const char *path, enum files_door door);

/* 1 if someone listens at f->sock. */
int files_accepts(const struct files *f);

/* What an error is, and of an -errno the way out of it, as "Permission denied: check
 * owner and mode". */
const char *files_strerror(int error);

#endif
