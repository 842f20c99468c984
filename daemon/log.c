/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define LINE_BYTES 1024
#define SECOND_NS UINT64_C(1000000000)
#define LOG_BYTES_KEPT (1u << 20)
#define LOOK_BYTES (64u << 10) /* that are written from one look at its size to the next */

static const char *const names[] = { "error", "warn", "info", "debug" };
static const int priority[] = { 3, 4, 6, 7 }; /* of syslog(3) */

/* A process has one log. */
static const char *role = "shmqd";
static enum log_level verbosity = LOG_INFO;
static unsigned dropped;
static int to_journal;
static const char *bounded; /* its path, NULL without a bound */
static uint64_t written;

/* systemd.exec(5): then the journal adds the time, and takes a priority. */
static int is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char ours[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st))
		return 0;
	snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return !strcmp(stream, ours);
}

void log_open(const char *who, enum log_level level)
{
	role = who;
	verbosity = level;
	to_journal = is_journal();
}

int log_parse_level(const char *text, enum log_level *out)
{
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i])) {
			*out = (enum log_level)i;
			return 0;
		}
	return -1;
}

const char *log_level_name(enum log_level level)
{
	return names[level];
}

static size_t put_prefix(char *line, enum log_level level)
{
	uint64_t now = shmq__clock_realtime_ns();
	time_t seconds = (time_t)(now / SECOND_NS);
	struct tm tm;
	char stamp[32];

	if (to_journal)
		return (size_t)snprintf(line, LINE_BYTES, "<%d>%s: ", priority[level], role);
	gmtime_r(&seconds, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	return (size_t)snprintf(line, LINE_BYTES, "%s.%03uZ %s %s: ", stamp,
				(unsigned)(now % SECOND_NS / 1000000), names[level], role);
}

static int has_room(void)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* What others chose may be in it, that neither begins a line of its own nor tells a
 * terminal what to do. */
static void make_plain(char *text, const char *end)
{
	for (; text < end; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

static int is_ours(int fd)
{
	struct stat ours, named;

	return !fstat(STDERR_FILENO, &ours) && !fstat(fd, &named) && ours.st_dev == named.st_dev &&
	       ours.st_ino == named.st_ino;
}

static void write_all(const char *text, size_t bytes)
{
	ssize_t n;

	/* Nothing sensible can be done about a log that cannot be written. */
	for (; bytes && (n = write(STDERR_FILENO, text, bytes)) > 0; text += n)
		bytes -= (size_t)n;
}

/* Whoever may come as often as he likes writes two lines each time. */
static void shorten(int fd, uint64_t bytes)
{
	char *kept = malloc(LOG_BYTES_KEPT), *from;
	ssize_t n = kept ? pread(fd, kept, LOG_BYTES_KEPT, (off_t)(bytes - LOG_BYTES_KEPT)) : 0;

	from = n > 0 ? memchr(kept, '\n', (size_t)n) : NULL;
	if (from && !ftruncate(STDERR_FILENO, 0)) {
		from++;
		n -= from - kept;
		log_warn("the log is kept below %u MiB: %" PRIu64 " bytes before this are gone",
			 LOG_BYTES_MAX >> 20, bytes - (uint64_t)n);
		write_all(from, (size_t)n);
	}
	free(kept);
}

static void keep_bound(size_t more)
{
	struct stat st;
	int fd;

	written += more;
	if (!bounded || written < LOOK_BYTES || fstat(STDERR_FILENO, &st))
		return;
	written = 0;
	if (st.st_size < (off_t)(LOG_BYTES_MAX - LOOK_BYTES))
		return;
	fd = open(bounded, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	if (is_ours(fd))
		shorten(fd, (uint64_t)st.st_size);
	close(fd);
}

void log_bound(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return;
	bounded = is_ours(fd) ? path : NULL;
	close(fd);
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LINE_BYTES];
	size_t used;
	va_list ap;
	int n;

	if (level > verbosity)
		return;
	if (!has_room()) {
		dropped++;
		return;
	}
	used = put_prefix(line, level);
	if (dropped) {
		used += (size_t)snprintf(line + used, sizeof(line) - used, "[%u lines dropped] ",
					 dropped);
		dropped = 0;
	}
	va_start(ap, format);
	n = vsnprintf(line + used, sizeof(line) - used, format, ap);
	va_end(ap);
	used += n < 0 ? 0 : (size_t)n;
	if (used > sizeof(line) - 1)
		used = sizeof(line) - 1;
	make_plain(line, line + used);
	line[used++] = '\n';
	write_all(line, used);
	keep_bound(used);
}

int log_may(struct log_limit *limit, unsigned *held)
{
	uint64_t now = shmq__clock_monotonic_ns();

	if (now < limit->next_ns) {
		limit->held++;
		return 0;
	}
	*held = limit->held;
	limit->held = 0;
	limit->next_ns = now + SECOND_NS;
	return 1;
}

/* ---- the file -------------------------------------------------------- */

static int is_information(const char *line)
{
	char stamp[32], level[8];

	return sscanf(line, "%31s %7s", stamp, level) == 2 &&
	       (!strcmp(level, names[LOG_INFO]) || !strcmp(level, names[LOG_DEBUG]));
}

static int is_worth_keeping(FILE *in)
{
	char *line = NULL;
	size_t size = 0;
	int is_worth = 0;

	while (!is_worth && getline(&line, &size, in) > 0)
		is_worth = !is_information(line);
	free(line);
	return is_worth || ferror(in);
}

void log_end(const char *path)
{
	FILE *in = fopen(path, "re");

	if (!in)
		return;
	if (is_ours(fileno(in)) && !is_worth_keeping(in))
		unlink(path);
	fclose(in);
}

void log_follow(const char *path)
{
	struct stat ours;
	int fd;

	if (fstat(STDERR_FILENO, &ours) || ours.st_nlink)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}
