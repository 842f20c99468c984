/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
	const char *root;
	int fix, all, json;
};

#define AT(member) OPT_AT(struct options, member)

static const struct opt options[] = {
	{ "all", .letter = 'a', .kind = OPT_SET, AT(all), .value = 1,
	  .help = "also what is as it should be" },
	{ "fix", .kind = OPT_SET, AT(fix), .value = 1,
	  .help = "do what is safe: remove what dead buses left, close the\n"
		  "runtime directory to others, let shared memory ask for\n"
		  "transparent hugepages, raise the number of maps" },
	{ "root", .kind = OPT_TEXT, AT(root), .arg = "DIR",
	  .help = "read DIR/proc and DIR/sys, as of another machine; the\n"
		  "kernel is judged by its version" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1,
	  .help = "one JSON array, an object for each check" },
};

static const struct opt_word levels[] = {
	{ "ok", LEVEL_OK }, { "hint", LEVEL_HINT }, { "warn", LEVEL_WARN }, { "bad", LEVEL_BAD },
	{ NULL, 0 },
};

/* ---- findings ---------------------------------------------------------- */

struct finding *doctor_add(struct doctor *d, const char *check, enum level level,
			   const char *format, ...)
{
	struct finding *f;
	va_list ap;

	d->all = cli_grow(d->all, d->count, &d->room, sizeof(*d->all));
	f = &d->all[d->count++];
	*f = (struct finding){ .check = check, .level = level };
	va_start(ap, format);
	vsnprintf(f->what, sizeof(f->what), format, ap);
	va_end(ap);
	return f;
}

void doctor_costs(struct finding *f, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(f->costs, sizeof(f->costs), format, ap);
	va_end(ap);
}

void doctor_fix(struct finding *f, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(f->fix, sizeof(f->fix), format, ap);
	va_end(ap);
}

static int write_value(const struct finding *f)
{
	int fd = open(f->path, O_WRONLY | O_CLOEXEC), rc = 0;
	size_t len = strlen(f->value);

	if (fd < 0)
		return -errno;
	if (write(fd, f->value, len) != (ssize_t)len)
		rc = errno ? -errno : -EIO;
	close(fd);
	return rc;
}

void doctor_write(struct doctor *d, struct finding *f, const char *path, const char *value)
{
	snprintf(f->path, sizeof(f->path), "%s%s", d->root, path);
	f->value = value;
	f->repair = write_value;
	doctor_fix(f, "echo %s > %s", value, path);
}

/* ---- files ------------------------------------------------------------- */

static FILE *open_below(const struct doctor *d, const char *path)
{
	char name[512];

	snprintf(name, sizeof(name), "%s%s", d->root, path);
	return fopen(name, "re");
}

int doctor_line(const struct doctor *d, const char *path, char *out, size_t bytes)
{
	FILE *in = open_below(d, path);
	char *line;

	out[0] = 0;
	if (!in)
		return -1;
	line = fgets(out, (int)bytes, in);
	fclose(in);
	if (!line)
		return -1;
	out[strcspn(out, "\n")] = 0;
	return 0;
}

int doctor_number(const struct doctor *d, const char *path, uint64_t *out)
{
	char text[64], *end;

	*out = 0;
	if (doctor_line(d, path, text, sizeof(text)))
		return -1;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return end == text || errno ? -1 : 0;
}

int doctor_field(const struct doctor *d, const char *path, const char *key, char *out, size_t bytes)
{
	FILE *in = open_below(d, path);
	char line[512];
	size_t len = strlen(key);
	int rc = -1;

	out[0] = 0;
	if (!in)
		return -1;
	while (rc && fgets(line, sizeof(line), in))
		if (!strncmp(line, key, len)) {
			line[strcspn(line, "\n")] = 0;
			snprintf(out, bytes, "%s", line + len + strspn(line + len, " \t"));
			rc = 0;
		}
	fclose(in);
	return rc;
}

/* ---- report ------------------------------------------------------------ */

static void fix(struct doctor *d)
{
	size_t i;
	int rc;

	for (i = 0; i < d->count; i++) {
		struct finding *f = &d->all[i];

		if (f->level == LEVEL_OK || !f->repair)
			continue;
		rc = f->repair(f);
		f->is_fixed = rc == 0;
		if (rc)
			out_fail(NULL, rc, "repairing", f->check,
				 rc == -EACCES || rc == -EPERM ? "run it as root" :
								 "run the command it names");
	}
}

/* Paths are bytes. */
static void put_text_or_null(json_t *object, const char *key, const char *text)
{
	if (*text)
		json_put_text(object, key, text);
	else
		json_put(object, key, json_null());
}

static void print_json(const struct doctor *d)
{
	json_t *array = json_array(), *object;
	size_t i;

	for (i = 0; i < d->count; i++) {
		const struct finding *f = &d->all[i];

		object = json_object();
		json_put_text(object, "check", f->check);
		json_put_text(object, "level", value_word(levels, (int)f->level));
		json_put_text(object, "what", f->what);
		put_text_or_null(object, "costs", f->costs);
		put_text_or_null(object, "fix", f->fix);
		json_put(object, "safe", json_boolean(f->repair != NULL));
		json_put(object, "fixed", json_boolean(f->is_fixed));
		json_array_append_new(array, object);
	}
	json_print(array);
}

static void print_text(const struct doctor *d, int all)
{
	size_t i, shown = 0, safe = 0;

	for (i = 0; i < d->count; i++) {
		const struct finding *f = &d->all[i];

		if (f->level == LEVEL_OK && !all)
			continue;
		printf("%-5s %-12s %s\n", f->is_fixed ? "fixed" : value_word(levels, (int)f->level),
		       f->check, f->what);
		if (f->costs[0])
			printf("      costs: %s\n", f->costs);
		if (f->fix[0] && !f->is_fixed)
			printf("      fix:   %s\n", f->fix);
		shown += f->level != LEVEL_OK;
		safe += f->level != LEVEL_OK && f->repair && !f->is_fixed;
	}
	printf("%zu of %zu checks found something", shown, d->count);
	if (safe)
		printf("; --fix repairs %zu", safe);
	putchar('\n');
}

static int verdict(const struct doctor *d)
{
	size_t i;

	for (i = 0; i < d->count; i++)
		if (d->all[i].level >= LEVEL_WARN && !d->all[i].is_fixed)
			return CLI_FAILURE;
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct options o = { .root = "" };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &o },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_doctor, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	struct doctor d = { 0 };
	struct stat st;
	int code;

	if (argc > first)
		opts_fail(&cmd_doctor, "doctor takes options only, not \"%s\"", argv[first]);
	if (o.root[0] && stat(o.root, &st))
		return out_fail(cli, -errno, "reading", o.root, NULL);
	d.root = o.root;
	d.is_default = runtime_dir(cli, d.runtime, sizeof(d.runtime));
	doctor_host(&d);
	doctor_kernel(&d);
	doctor_files(&d);
	if (o.fix)
		fix(&d);
	if (o.json)
		print_json(&d);
	else
		print_text(&d, o.all);
	code = verdict(&d);
	free(d.all);
	return code;
}

const struct command cmd_doctor = {
	"doctor",
	"[OPTION]...",
	"Say what of this machine costs a bus something, and how to mend it",
	"Needs no supervisor and starts none.  Each finding says what it costs and the\n"
	"command that mends it.  The exit code is 1 if there is one beyond a hint that\n"
	"--fix did not mend, else 0.\n",
	"shmq doctor --all\n",
	run,
};
