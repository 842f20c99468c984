/* SPDX-License-Identifier: MIT
 *
 * log: lines for people, on stderr, which is the log file once daemonised.
 * A reader that has stopped reading never holds the supervisor up: lines
 * that do not fit are dropped and counted.
 */
#ifndef SHMQ_LOG_H
#define SHMQ_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR = 0, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* `who` is a static string: the role of this process. */
void log_open(const char *who, enum log_level level);

/* 0, or -1 if text is not error, warn, info or debug. */
int log_parse_level(const char *text, enum log_level *out);
const char *log_level_name(enum log_level level);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* What anyone can provoke is said once a second at most: 1 if it may be
 * said now.  *held is how often it was not. */
struct log_limit {
	uint64_t next_ns;
	unsigned held;
};
int log_may(struct log_limit *limit, unsigned *held);

/* From now on a log at `path`, if that is where we write, is kept below so many bytes:
 * what is oldest goes, and a line says so.  For one process of a bus: what another
 * writes at that moment goes, too. */
#define LOG_BYTES_MAX (8u << 20)
void log_bound(const char *path);

/* The end of a log at `path`, if that is where we write: removed if no line of
 * it is more than information.  Under the parent's lock, which log_follow()
 * waits for: it begins the file anew if it was removed under us. */
void log_end(const char *path);
void log_follow(const char *path);

#endif
