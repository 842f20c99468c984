/* SPDX-License-Identifier: MIT
 *
 * The log of a supervisor, as a file.
 */
#include "log.h"
#include "tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[256];

/* Where this process says what went wrong is put back before anything can. */
static void write_lines(unsigned count)
{
	int said = dup(STDERR_FILENO), fd;
	unsigned i;

	snprintf(path, sizeof(path), "%s/bus.log", test_tmpdir());
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	dup2(fd, STDERR_FILENO);
	close(fd);
	log_open("control", LOG_INFO);
	log_bound(path);
	for (i = 0; i < count; i++)
		log_info("client %u (pid 4711 \"a name of thirty bytes or so\") joined", i);
	dup2(said, STDERR_FILENO);
	close(said);
}

TEST(a_log_keeps_what_was_last_and_says_what_is_gone)
{
	enum { MANY = 150000 }; /* 12 MB */
	char line[256], want[64], last[256] = "";
	unsigned n = 0, gone = 0;
	struct stat st;
	FILE *in;

	write_lines(MANY);
	CHECK_OK(stat(path, &st));
	CHECK_LT(st.st_size, LOG_BYTES_MAX);
	in = fopen(path, "re");
	CHECK(in);
	for (; fgets(line, sizeof(line), in); n++) {
		CHECK(strstr(line, " control: ") && strchr(line, '\n'));
		if (strstr(line, "kept below 8 MiB"))
			gone += n == 0;
		strcpy(last, line);
	}
	fclose(in);
	CHECK_EQ(gone, 1);
	CHECK_GE(n, 10000);
	snprintf(want, sizeof(want), "client %d ", MANY - 1);
	CHECK(strstr(last, want));
}

TEST(a_log_elsewhere_is_appended_to)
{
	struct stat st;
	int said = dup(STDERR_FILENO), fd;
	char other[300];

	snprintf(other, sizeof(other), "%s/other.log", test_tmpdir());
	snprintf(path, sizeof(path), "%s/bus.log", test_tmpdir());
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	fd = open(other, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	CHECK_OK(ftruncate(fd, LOG_BYTES_MAX));
	dup2(fd, STDERR_FILENO);
	log_bound(path);
	for (int i = 0; i < 2000; i++)
		log_warn("%d", i);
	dup2(said, STDERR_FILENO);
	close(said);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_GT(st.st_size, LOG_BYTES_MAX);
	close(fd);
}
