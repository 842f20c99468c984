/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---------------------------------------------------------- */

/* What an error means to a script, and what a person can do about it. */
static const struct {
	int error;
	enum cli_exit code;
	const char *hint;
} answers[] = {
	{ SHMQ_EFULL, CLI_LOST, "shmq stat TOPIC names the subscriber that has not read on" },
	{ SHMQ_EEMPTY, CLI_TIMEOUT, "nothing is published right now" },
	{ SHMQ_ETIMEOUT, CLI_TIMEOUT, "shmq stat TOPIC shows who waits for whom" },
	{ SHMQ_EOVERRUN, CLI_LOST, "read faster, or create the topic deeper" },
	{ SHMQ_EEVICTED, CLI_LOST, "read faster, or create the topic deeper" },
	{ SHMQ_EENDED, CLI_MISSING, "create the topic again and repeat the command" },
	{ SHMQ_EMOVED, CLI_FAILURE, "repeat the command" },
	{ SHMQ_ESTALLED, CLI_FAILURE, "shmq stat TOPIC shows the publishers; continue or kill it" },
	{ SHMQ_EVERSION, CLI_FAILURE, "use shmq and shmqd of one release; shmq stop ends the old" },
	{ SHMQ_EBUSNAME, CLI_USAGE, "letters, digits, _ and -, at most 63 bytes" },
	{ SHMQ_ENAME, CLI_USAGE,
	  "words of letters, digits, _ and - separated by single dots, at most 255 bytes" },
	{ SHMQ_EOPTION, CLI_USAGE, "see the command's --help" },
	{ SHMQ_ENOTOPIC, CLI_MISSING, "shmq ls shows the topics, shmq create makes one" },
	{ SHMQ_EEXISTS, CLI_CONFLICT, "--if-missing takes what is there, shmq rm removes it" },
	{ SHMQ_EINUSE, CLI_CONFLICT, "shmq stat shows by whom, --force does it all the same" },
	{ SHMQ_EEXCLUSIVE, CLI_CONFLICT, "end that publisher, or create the topic --shared" },
	{ SHMQ_ETOOBIG, CLI_FAILURE, "create the topic with a larger --max" },
	{ SHMQ_ENODAEMON, CLI_MISSING,
	  "leave out --no-start, or see what shmqd --foreground says" },
	{ SHMQ_EDAEMON, CLI_MISSING, "try again; shmqd's log says what it is at" },
	{ SHMQ_ECORRUPT, CLI_FAILURE, "a client has damaged it: shmq stop --force, start afresh" },
	{ SHMQ_ENOMEMORY, CLI_RESOURCES, "ask for less: --depth, --slot, --partitions, --max" },
	{ SHMQ_ENOHUGE, CLI_RESOURCES, "--pages auto, or reserve some: sysctl vm.nr_hugepages=N" },
	{ SHMQ_ENONODE, CLI_RESOURCES, "leave out --node, or see numactl --hardware" },
	{ SHMQ_EMEMLOCK, CLI_RESOURCES, "--lock auto, or raise shmqd's limit: ulimit -l" },
	{ SHMQ_ELIMIT, CLI_RESOURCES, "see \"LIMITS OF THE MACHINE\" in shmq(7)" },
	{ SHMQ_EACCESS, CLI_FAILURE,
	  "ask for a rule that lets you (shmqd --allow), or see --runtime-dir" },
	{ SHMQ_ELOST, CLI_FAILURE, "repeat the command" },
	{ SHMQ_ENOBODY, CLI_MISSING, "start who answers, or give it longer" },
	{ SHMQ_EPEERDEAD, CLI_FAILURE, "repeat the command" },
	{ -ENOMEM, CLI_RESOURCES, "free some memory, or raise ulimit -v" },
	{ -EMFILE, CLI_RESOURCES, "raise ulimit -n" },
	{ -ENFILE, CLI_RESOURCES, "raise sysctl fs.file-max" },
	{ -EACCES, CLI_FAILURE, "check owner and mode" },
	{ -ENOENT, CLI_FAILURE, "check the path" },
	{ -EISDIR, CLI_FAILURE, "name a file" },
	{ -ENOSPC, CLI_FAILURE, "make room on the file system" },
};

static size_t answer(int error)
{
	size_t i;

	for (i = 0; i < ARRAY_COUNT(answers); i++)
		if (answers[i].error == error)
			break;
	return i;
}

int out_exit_code(int error)
{
	size_t i = answer(error);

	if (error >= 0)
		return CLI_OK;
	return i < ARRAY_COUNT(answers) ? (int)answers[i].code : CLI_FAILURE;
}

static const char *usual_hint(int error)
{
	size_t i = answer(error);

	return i < ARRAY_COUNT(answers) ? answers[i].hint : NULL;
}

/* What the bus says of a call that it refused; publish and receive leave the line of an
 * older call there. */
static const char *line_of(const struct cli *cli, int error)
{
	if (!cli || (error <= SHMQ_EFULL && error >= SHMQ_EEVICTED) || error == SHMQ_ESTALLED)
		return "";
	return shmq_bus_error(cli->bus);
}

/* Where the bus knows the way out, it stands behind a colon; but so does the kernel's
 * reason. */
static int says_way_out(const char *line)
{
	const char *colon = strstr(line, ": "), *last = NULL;
	int error;

	for (; colon; colon = strstr(last, ": "))
		last = colon + 2;
	for (error = 1; last && error < 200; error++)
		if (!strcmp(last, shmq_strerror(-error)))
			return 0;
	return last != NULL;
}

void out_error(const char *format, va_list ap)
{
	char *text, *at;

	if (vasprintf(&text, format, ap) < 0)
		return;
	for (at = text; *at; at++)
		if (((unsigned char)*at < ' ' && *at != '\n' && *at != '\t') || *at == 0x7f)
			*at = '?';
	fputs(text, stderr);
	free(text);
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	out_error(format, ap);
	va_end(ap);
}

/* The line says what happened, of this topic or that; without one the error's text
 * does. */
int out_fail(const struct cli *cli, int error, const char *doing, const char *what,
	     const char *hint)
{
	const char *line = line_of(cli, error);

	if (!hint && !says_way_out(line))
		hint = usual_hint(error);
	fflush(stdout);
	say("shmq: %s%s%s%s: %s%s%s%s\n", doing, what ? " \"" : "", what ? what : "",
	    what ? "\"" : "", line[0] ? line : shmq_strerror(error), hint ? " (hint: " : "",
	    hint ? hint : "", hint ? ")" : "");
	return out_exit_code(error);
}

void out_say(const char *format, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("shmq: ", stderr);
	va_start(ap, format);
	out_error(format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- notes ----------------------------------------------------------- */

/* "4 KiB pages: needs 4 hugepages of 2 MiB, 0 free: echo 4 > /sys/...; not locked: ..."
 * The next one, of which *text points behind: how long it is, and where its way out
 * begins, if it has one. */
static size_t next_note(const char **text, const char **note, size_t *way_out)
{
	const char *end = strstr(*text, "; ");
	size_t length = end ? (size_t)(end - *text) : strlen(*text), i, colons = 0;

	*note = *text;
	*way_out = 0;
	for (i = 0; i + 1 < length; i++)
		if ((*text)[i] == ':' && (*text)[i + 1] == ' ' && colons++)
			*way_out = i;
	*text += length + (end ? 2 : 0);
	return length;
}

void out_notes(const char *note, int width)
{
	const char *one;
	size_t length, way_out;

	while (*note) {
		length = next_note(&note, &one, &way_out);
		printf("  %-*s%.*s\n", width, "note", (int)(way_out ? way_out : length), one);
		if (way_out)
			printf("  %-*s%.*s\n", width, "hint", (int)(length - way_out - 2),
			       one + way_out + 2);
	}
}

struct units_text out_note_heads(const char *note)
{
	struct units_text heads = { "" };
	const char *one;
	size_t length, way_out, used = 0, head;

	while (*note) {
		length = next_note(&note, &one, &way_out);
		for (head = 0; head < length && one[head] != ':'; head++)
			;
		if (used < sizeof(heads.s))
			used += (size_t)snprintf(heads.s + used, sizeof(heads.s) - used, "%s%.*s",
						 used ? ", " : "", (int)head, one);
	}
	return heads;
}

int out_flush(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return errno ? -errno : -EIO;
}

int out_broken(int error)
{
	__fpurge(stdout);
	clearerr(stdout);
	if (error == -EPIPE)
		return CLI_OK;
	return out_fail(NULL, error, "writing to standard output", NULL, NULL);
}

int out_finish(void)
{
	int rc = out_flush();

	return rc < 0 ? out_broken(rc) : CLI_OK;
}

/* ---- tables ---------------------------------------------------------- */

void table_add(struct table *table, const char *format, ...)
{
	va_list ap;
	char *cell;
	int rc;

	va_start(ap, format);
	rc = vasprintf(&cell, format, ap);
	va_end(ap);
	if (rc < 0)
		cell = cli_strdup("?");
	table->cells = cli_grow(table->cells, table->count, &table->room, sizeof(*table->cells));
	table->cells[table->count++] = cell;
}

static int column_width(const struct table *table, size_t column)
{
	const char *head = table->heads[column];
	size_t width = strlen(head) - (head[0] == '>'), len, i;

	for (i = column; i < table->count; i += table->columns) {
		len = strlen(table->cells[i]);
		if (len > width)
			width = len;
	}
	return (int)width;
}

/* No line ends in blanks: the last column is not padded, and what stands
 * between two is written with the second. */
static void print_cell(const struct table *table, size_t column, const char *text,
		       const int *widths)
{
	int is_last = column + 1 == table->columns;

	if (column && (text[0] || !is_last))
		fputs("  ", stdout);
	if (table->heads[column][0] == '>')
		printf("%*s", widths[column], text);
	else if (!is_last)
		printf("%-*s", widths[column], text);
	else
		fputs(text, stdout);
	if (is_last)
		putchar('\n');
}

void table_print(const struct table *table, const char *indent)
{
	int *widths = cli_alloc(NULL, table->columns * sizeof(*widths));
	size_t i;

	fputs(indent, stdout);
	for (i = 0; i < table->columns; i++)
		widths[i] = column_width(table, i);
	for (i = 0; i < table->columns; i++)
		print_cell(table, i, table->heads[i] + (table->heads[i][0] == '>'), widths);
	for (i = 0; i < table->count; i++) {
		if (i % table->columns == 0)
			fputs(indent, stdout);
		print_cell(table, i % table->columns, table->cells[i], widths);
	}
	free(widths);
}

void table_clear(struct table *table)
{
	size_t i;

	for (i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
	table->cells = NULL;
	table->count = table->room = 0;
}

/* ---- JSON ------------------------------------------------------------ */

void json_put(json_t *object, const char *key, json_t *value)
{
	if (value && json_object_set_new(object, key, value) == 0)
		return;
	out_fail(NULL, -ENOMEM, "writing JSON", NULL, NULL);
	exit(CLI_RESOURCES);
}

/* JSON integers of jansson are signed; the few numbers beyond become text
 * rather than wrong. */
void json_put_u64(json_t *object, const char *key, uint64_t value)
{
	if (value <= INT64_MAX)
		json_put(object, key, json_integer((json_int_t)value));
	else
		json_put(object, key, json_string(units_count(value).s));
}

void json_put_text(json_t *object, const char *key, const char *value)
{
	json_put_bytes(object, key, value, strlen(value));
}

static char *base64(const unsigned char *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = cli_alloc(NULL, (len + 2) / 3 * 4 + 1), *to = text;
	size_t i;

	for (i = 0; i < len; i += 3) {
		uint32_t group = (uint32_t)data[i] << 16;

		group |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
		group |= i + 2 < len ? data[i + 2] : 0;
		*to++ = digits[group >> 18];
		*to++ = digits[group >> 12 & 63];
		*to++ = i + 1 < len ? digits[group >> 6 & 63] : '=';
		*to++ = i + 2 < len ? digits[group & 63] : '=';
	}
	*to = '\0';
	return text;
}

void json_put_bytes(json_t *object, const char *key, const void *data, size_t len)
{
	json_t *text = json_stringn(len ? data : "", len); /* NULL unless UTF-8 */
	char *encoded, *name;

	if (text) {
		json_put(object, key, text);
		return;
	}
	encoded = base64(data, len);
	name = cli_alloc(NULL, strlen(key) + sizeof("_base64"));
	strcpy(name, key);
	strcat(name, "_base64");
	json_put(object, name, json_string(encoded));
	free(encoded);
	free(name);
}

void json_print(json_t *value)
{
	json_dumpf(value, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(value);
}
