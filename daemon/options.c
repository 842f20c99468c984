/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "name.h"

static const char help[] =
	"usage: shmqd [options]\n"
	"Supervise one bus: create its topics, watch its clients, repair after the dead.\n"
	"\n"
	"  --bus NAME           name of the bus (default: default)\n"
	"  --runtime-dir DIR    where its socket is (default: $SHMQ_RUNTIME_DIR,\n"
	"                       $XDG_RUNTIME_DIR/shmq, else /tmp/shmq-<uid>)\n"
	"  --data-dir DIR       where the logs of its topics are (default:\n"
	"                       $SHMQ_DATA_DIR, /var/lib/shmq for root,\n"
	"                       $XDG_STATE_HOME/shmq, else ~/.local/state/shmq)\n"
	"  --foreground         stay attached to the terminal, log to stderr\n"
	"  --allow RULE         let others in: a pattern of topics, rights (create, publish,\n"
	"                       subscribe, admin, all) and callers (user:, uid:, group:,\n"
	"                       gid:, label:, everyone), as in\n"
	"                       \"md.# publish,subscribe user:feed,group:traders\"; again for\n"
	"                       each rule; without one the bus is its owner's and root's\n"
	"  --guests N           uids that may come besides the owner's (default: 16)\n"
	"  --on-demand          exit once the bus is empty; succeed if it runs already\n"
	"  --linger SECONDS     how long it must be empty for that (default: 5)\n"
	"  --log FILE           log there (default: <bus>.log in the runtime directory)\n"
	"  --log-level LEVEL    error, warn, info or debug (default: info)\n"
	"  --topology SPEC      decide placement for another machine: an hwloc XML file,\n"
	"                       or synthetic: and an hwloc description (tests)\n"
	"  --first-seq N        number of the first message of new topics (tests)\n"
	"  --help, --version\n"
	"\n"
	"Without --foreground it returns when the bus accepts clients.\n"
	"SIGTERM and SIGINT end the bus: its topics end by name.  SIGUSR2 executes the\n"
	"program again, which may be another build by then, and the bus goes on.\n"
	"\n"
	"exit codes: 0 done, 1 failed, 2 usage, 3 the bus is running already\n";

enum long_option {
	OPT_BUS = 256,
	OPT_DIR,
	OPT_DATA_DIR,
	OPT_FOREGROUND,
	OPT_ON_DEMAND,
	OPT_LINGER,
	OPT_LOG,
	OPT_LEVEL,
	OPT_TOPOLOGY,
	OPT_FIRST_SEQ,
	OPT_ALLOW,
	OPT_GUESTS,
	OPT_ROLE,
	OPT_PARENT_FD,
	OPT_ADOPT_FD,
	OPT_PROGRAM,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "bus", required_argument, NULL, OPT_BUS },
	{ "runtime-dir", required_argument, NULL, OPT_DIR },
	{ "data-dir", required_argument, NULL, OPT_DATA_DIR },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "on-demand", no_argument, NULL, OPT_ON_DEMAND },
	{ "linger", required_argument, NULL, OPT_LINGER },
	{ "log", required_argument, NULL, OPT_LOG },
	{ "log-level", required_argument, NULL, OPT_LEVEL },
	{ "topology", required_argument, NULL, OPT_TOPOLOGY },
	{ "first-seq", required_argument, NULL, OPT_FIRST_SEQ },
	{ "allow", required_argument, NULL, OPT_ALLOW },
	{ "guests", required_argument, NULL, OPT_GUESTS },
	{ "role", required_argument, NULL, OPT_ROLE },
	{ "parent-fd", required_argument, NULL, OPT_PARENT_FD },
	{ "adopt-fd", required_argument, NULL, OPT_ADOPT_FD },
	{ "program", required_argument, NULL, OPT_PROGRAM },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

#define GUESTS 16u

static const char *const role_names[] = { "start", "parent", "control", "tailer", "trial" };

static int misuse(const char *what, const char *value)
{
	fprintf(stderr, "shmqd: %s: \"%s\": see shmqd --help\n", what, value);
	return EXIT_USAGE;
}

static int parse_linger(const char *text, int64_t *out)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !isfinite(seconds) || seconds < 0 || seconds > 1e9)
		return misuse("--linger wants seconds", text);
	*out = (int64_t)(seconds * 1e9);
	return -1;
}

static int parse_number(const char *what, const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || *out > max)
		return misuse(what, text);
	return -1;
}

static int parse_role(const char *text, enum role *out)
{
	unsigned i;

	for (i = 0; i < sizeof(role_names) / sizeof(role_names[0]); i++)
		if (!strcmp(text, role_names[i])) {
			*out = (enum role)i;
			return -1;
		}
	return misuse("--role", text);
}

static int add_rule(struct options *o, const char *rule)
{
	char **more = reallocarray(o->allow, o->allow_count + 1, sizeof(*more));
	struct shmq__why why = { "" };
	int error = -ENOMEM;

	if (more)
		o->allow = more;
	if (!o->access)
		o->access = access_create();
	if (more && o->access)
		error = access_add(o->access, rule, &why);
	if (error) {
		fprintf(stderr, "shmqd: --allow \"%s\": %s\n", rule,
			*why.text ? why.text : shmq_strerror(error));
		return EXIT_USAGE;
	}
	more[o->allow_count++] = (char *)(uintptr_t)rule;
	return -1;
}

static int parse_one(int opt, const char *value, struct options *o, const char **dir)
{
	uint64_t n;
	int rc = -1;

	switch (opt) {
	case OPT_BUS:
		if (strlen(value) >= sizeof(o->bus))
			return misuse("--bus is too long", value);
		memcpy(o->bus, value, strlen(value) + 1);
		return -1;
	case OPT_DIR:
		*dir = value;
		return -1;
	case OPT_DATA_DIR:
		o->data_dir = value;
		return -1;
	case OPT_FOREGROUND:
		o->foreground = 1;
		return -1;
	case OPT_ON_DEMAND:
		o->on_demand = 1;
		return -1;
	case OPT_LINGER:
		return parse_linger(value, &o->linger_ns);
	case OPT_LOG:
		o->log = value;
		return -1;
	case OPT_LEVEL:
		return log_parse_level(value, &o->level) ? misuse("--log-level", value) : -1;
	case OPT_TOPOLOGY:
		o->topology = value;
		return -1;
	case OPT_FIRST_SEQ:
		return parse_number("--first-seq wants a number", value, UINT64_MAX, &o->first_seq);
	case OPT_ALLOW:
		return add_rule(o, value);
	case OPT_GUESTS:
		rc = parse_number("--guests wants a number of 1 to 256", value, 256, &n);
		if (rc < 0 && !n)
			return misuse("--guests wants a number of 1 to 256", value);
		o->guests = (unsigned)n;
		return rc;
	case OPT_ROLE:
		return parse_role(value, &o->role);
	case OPT_PARENT_FD:
	case OPT_ADOPT_FD:
		rc = parse_number("not a descriptor", value, INT_MAX, &n);
		if (rc < 0)
			o->fd = (int)n;
		return rc;
	case OPT_PROGRAM:
		o->program = value;
		return -1;
	case OPT_HELP:
		fputs(help, stdout);
		return EXIT_OK;
	case OPT_VERSION:
		printf("shmqd %s\n", shmq_version());
		return EXIT_OK;
	default:
		return EXIT_USAGE;
	}
}

/* A relative directory would mean another one after daemonising. */
static int resolve_dir(struct options *o, const char *given)
{
	enum shmq__name_dir how =
		o->role == ROLE_START ? SHMQ__NAME_DIR_CREATE : SHMQ__NAME_DIR_FIND;
	struct shmq__why why = { "" };
	char found[sizeof(o->dir)], full[PATH_MAX];
	int error = shmq__name_runtime_dir(given, how, found, sizeof(found), &why);

	if (!error && found[0] != '/' && realpath(found, full))
		error = shmq__name_runtime_dir(full, SHMQ__NAME_DIR_FIND, found, sizeof(found),
					       &why);
	if (error) {
		fprintf(stderr, "shmqd: %s\n", *why.text ? why.text : shmq_strerror(error));
		return EXIT_FAILED;
	}
	memcpy(o->dir, found, sizeof(found));
	return -1;
}

/* As it was named, so that a link is followed anew by whoever executes it
 * again; one that was executed by descriptor has no other name than this. */
static void find_program(struct options *o)
{
	static char found[PATH_MAX];
	const char *name = (const char *)getauxval(AT_EXECFN);
	size_t used = 0;
	ssize_t n;

	if (!name || !strncmp(name, "/dev/fd/", 8)) {
		n = readlink("/proc/self/exe", found, sizeof(found) - 1);
		found[n < 0 ? 0 : n] = 0;
	} else {
		if (*name != '/' && getcwd(found, sizeof(found)))
			used = strlen(found);
		snprintf(found + used, sizeof(found) - used, "%s%s", used ? "/" : "", name);
	}
	o->program = found;
}

/* Likewise. */
static int resolve_data_dir(struct options *o)
{
	static char found[PATH_MAX];
	char here[PATH_MAX];
	const char *env = getenv("SHMQ_DATA_DIR");

	if (!o->data_dir && env && *env)
		o->data_dir = env;
	if (!o->data_dir || *o->data_dir == '/')
		return -1;
	if (!getcwd(here, sizeof(here)) ||
	    snprintf(found, sizeof(found), "%s/%s", here, o->data_dir) >= (int)sizeof(found))
		return misuse("--data-dir", o->data_dir);
	o->data_dir = found;
	return -1;
}

int options_parse(int argc, char **argv, struct options *o)
{
	struct shmq__why why = { "" };
	const char *dir = NULL;
	int opt, rc;

	*o = (struct options){ .fd = -1,
			       .bus = "default",
			       .linger_ns = INT64_C(5000000000),
			       .level = LOG_INFO,
			       .guests = GUESTS };
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		rc = parse_one(opt, optarg, o, &dir);
		if (rc >= 0)
			return rc;
	}
	if (optind != argc)
		return misuse("unexpected argument", argv[optind]);
	if (shmq__name_check_bus(o->bus, &why)) {
		fprintf(stderr, "shmqd: %s\n", why.text);
		return EXIT_USAGE;
	}
	if (!o->allow_count)
		o->guests = 0;
	if (!o->program)
		find_program(o);
	if ((o->role == ROLE_START) != (o->fd < 0))
		return misuse("--role is for shmqd's own use", role_names[o->role]);
	rc = resolve_data_dir(o);
	return rc >= 0 ? rc : resolve_dir(o, dir);
}

/* Of what is open as `program`, or of this program if that is -1. */
static int become(const struct options *o, enum role role, int fd, int program)
{
	char fd_text[48], linger[32], first_seq[24], name[] = "shmqd", role_text[24], guests[12];
	char **argv = calloc(26 + 2 * (size_t)o->allow_count, sizeof(*argv));
	unsigned i;
	int n = 0, error;

	if (!argv)
		return -ENOMEM;
	snprintf(role_text, sizeof(role_text), "--role=%s", role_names[role]);
	snprintf(fd_text, sizeof(fd_text), "--%s-fd=%d", role == ROLE_CONTROL ? "parent" : "adopt",
		 fd);
	snprintf(linger, sizeof(linger), "%.3f", (double)o->linger_ns / 1e9);
	snprintf(first_seq, sizeof(first_seq), "%" PRIu64, o->first_seq);
	argv[n++] = name;
	argv[n++] = role_text;
	argv[n++] = fd_text;
	argv[n++] = (char *)(uintptr_t) "--bus";
	argv[n++] = (char *)(uintptr_t)o->bus;
	argv[n++] = (char *)(uintptr_t) "--runtime-dir";
	argv[n++] = (char *)(uintptr_t)o->dir;
	argv[n++] = (char *)(uintptr_t) "--log-level";
	argv[n++] = (char *)(uintptr_t)log_level_name(o->level);
	argv[n++] = (char *)(uintptr_t) "--linger";
	argv[n++] = linger;
	argv[n++] = (char *)(uintptr_t) "--first-seq";
	argv[n++] = first_seq;
	argv[n++] = (char *)(uintptr_t) "--program";
	argv[n++] = (char *)(uintptr_t)o->program;
	if (o->on_demand)
		argv[n++] = (char *)(uintptr_t) "--on-demand";
	if (o->data_dir) {
		argv[n++] = (char *)(uintptr_t) "--data-dir";
		argv[n++] = (char *)(uintptr_t)o->data_dir;
	}
	for (i = 0; i < o->allow_count; i++) {
		argv[n++] = (char *)(uintptr_t) "--allow";
		argv[n++] = o->allow[i];
	}
	if (o->guests) {
		snprintf(guests, sizeof(guests), "%u", o->guests);
		argv[n++] = (char *)(uintptr_t) "--guests";
		argv[n++] = guests;
	}
	if (o->topology) {
		argv[n++] = (char *)(uintptr_t) "--topology";
		argv[n++] = (char *)(uintptr_t)o->topology;
	}
	argv[n] = NULL;
	fcntl(fd, F_SETFD, 0);
	if (program < 0)
		execv("/proc/self/exe", argv);
	else
		execveat(program, "", argv, environ, AT_EMPTY_PATH);
	error = -errno;
	free(argv);
	return error;
}

int options_become_other(const struct options *o, enum role role, int fd, int program)
{
	int error = become(o, role, fd, program);

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return error;
}

pid_t options_spawn_other(const struct options *o, enum role role, int fd, int program)
{
	pid_t pid = fork();
	sigset_t none;

	if (pid < 0)
		return -errno;
	if (pid)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	become(o, role, fd, program);
	_exit(127);
}

pid_t options_spawn(const struct options *o, enum role role, int fd)
{
	return options_spawn_other(o, role, fd, -1);
}
