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

#include "files.h"
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
	"  --log-dirs DIR[:DIR]...  where logs of topics may be besides, as on other\n"
	"                       disks: a topic says which by log-dir\n"
	"  --config FILE        what else it is to be, shmqd.conf(5) (default:\n"
	"                       /etc/shmq/<bus>.conf of a bus in /run/shmq, else\n"
	"                       $XDG_CONFIG_HOME/shmq/<bus>.conf if it is there; none: no file).\n"
	"                       What is said here counts more\n"
	"  --config-list WHICH  print each setting of the file, or those that the bus runs\n"
	"                       by (in-force), or what a reload would change (diff):\n"
	"                       section, title, setting, value, separated by tabs\n"
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
	"  --sandbox WHICH      the filter of system calls: auto where the kernel has one,\n"
	"                       off, or require to fail without (default: auto)\n"
	"  --topology SPEC      decide placement for another machine: an hwloc XML file,\n"
	"                       or synthetic: and an hwloc description (tests)\n"
	"  --first-seq N        number of the first message of new topics (tests)\n"
	"  --help, --version\n"
	"\n"
	"Without --foreground it returns when the bus accepts clients.\n"
	"SIGTERM and SIGINT end the bus: its topics end by name.  SIGUSR2 executes the\n"
	"program again, which may be another build by then, and the bus goes on.  SIGHUP\n"
	"takes the configuration anew, all of it or, with a mistake in it, nothing.\n"
	"\n"
	"exit codes: 0 done, 1 failed, 2 usage, 3 the bus is running already\n";

enum long_option {
	OPT_BUS = 256,
	OPT_DIR,
	OPT_DATA_DIR,
	OPT_LOG_DIRS,
	OPT_CONFIG,
	OPT_CONFIG_LIST,
	OPT_FOREGROUND,
	OPT_ON_DEMAND,
	OPT_LINGER,
	OPT_LOG,
	OPT_LEVEL,
	OPT_SANDBOX,
	OPT_TOPOLOGY,
	OPT_FIRST_SEQ,
	OPT_ALLOW,
	OPT_GUESTS,
	OPT_ROLE,
	OPT_PARENT_FD,
	OPT_ADOPT_FD,
	OPT_PROGRAM,
	OPT_ACTIVATED,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "bus", required_argument, NULL, OPT_BUS },
	{ "runtime-dir", required_argument, NULL, OPT_DIR },
	{ "data-dir", required_argument, NULL, OPT_DATA_DIR },
	{ "log-dirs", required_argument, NULL, OPT_LOG_DIRS },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "config-list", required_argument, NULL, OPT_CONFIG_LIST },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "on-demand", no_argument, NULL, OPT_ON_DEMAND },
	{ "linger", required_argument, NULL, OPT_LINGER },
	{ "log", required_argument, NULL, OPT_LOG },
	{ "log-level", required_argument, NULL, OPT_LEVEL },
	{ "sandbox", required_argument, NULL, OPT_SANDBOX },
	{ "topology", required_argument, NULL, OPT_TOPOLOGY },
	{ "first-seq", required_argument, NULL, OPT_FIRST_SEQ },
	{ "allow", required_argument, NULL, OPT_ALLOW },
	{ "guests", required_argument, NULL, OPT_GUESTS },
	{ "role", required_argument, NULL, OPT_ROLE },
	{ "parent-fd", required_argument, NULL, OPT_PARENT_FD },
	{ "adopt-fd", required_argument, NULL, OPT_ADOPT_FD },
	{ "program", required_argument, NULL, OPT_PROGRAM },
	{ "activated", no_argument, NULL, OPT_ACTIVATED },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

#define GUESTS 16u
#define LINGER_NS INT64_C(5000000000)

static const char *const sandbox_names[] = { "auto", "off", "require" };
static const char *const role_names[] = { "start", "parent", "control", "tailer", "trial" };

static int misuse(const char *what, const char *value)
{
	fprintf(stderr, "shmqd: %s: \"%s\": see shmqd --help\n", what, value);
	return EXIT_USAGE;
}

static int parse_sandbox(const char *text, enum sandbox *out)
{
	unsigned i;

	for (i = 0; i < sizeof(sandbox_names) / sizeof(sandbox_names[0]); i++)
		if (!strcmp(text, sandbox_names[i])) {
			*out = (enum sandbox)i;
			return -1;
		}
	return misuse("--sandbox wants auto, off or require", text);
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
	if (more)
		error = access_check(rule, &why);
	if (error) {
		fprintf(stderr, "shmqd: --allow \"%s\": %s\n", rule,
			*why.text ? why.text : shmq_strerror(error));
		return EXIT_USAGE;
	}
	more[o->allow_count++] = (char *)(uintptr_t)rule;
	return -1;
}

/* What options_parse() needs of the command line besides. */
struct given {
	const char *dir, *config, *list;
};

static int parse_one(int opt, const char *value, struct options *o, struct given *given)
{
	enum log_level level;
	uint64_t n;
	int rc = -1;

	switch (opt) {
	case OPT_BUS:
		if (strlen(value) >= sizeof(o->bus))
			return misuse("--bus is too long", value);
		memcpy(o->bus, value, strlen(value) + 1);
		return -1;
	case OPT_DIR:
		given->dir = value;
		return -1;
	case OPT_DATA_DIR:
		o->said.data_dir = value;
		return -1;
	case OPT_LOG_DIRS:
		if (*value != '/')
			return misuse("--log-dirs wants absolute paths", value);
		o->said.log_dirs = value;
		return -1;
	case OPT_CONFIG:
		given->config = value;
		return -1;
	case OPT_CONFIG_LIST:
		given->list = value;
		return -1;
	case OPT_FOREGROUND:
		o->foreground = 1;
		return -1;
	case OPT_ON_DEMAND:
		o->on_demand = 1;
		return -1;
	case OPT_LINGER:
		return parse_linger(value, &o->said.linger_ns);
	case OPT_LOG:
		o->said.log = value;
		return -1;
	case OPT_LEVEL:
		if (log_parse_level(value, &level))
			return misuse("--log-level", value);
		o->said.level = (int)level + 1;
		return -1;
	case OPT_SANDBOX:
		return parse_sandbox(value, &o->sandbox);
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
		o->said.guests = (unsigned)n;
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
	case OPT_ACTIVATED:
		o->is_activated = 1;
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
	enum shmq__name_dir how = o->role == ROLE_TAILER || o->role == ROLE_TRIAL ?
					  SHMQ__NAME_DIR_FIND :
					  SHMQ__NAME_DIR_CREATE;
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
	const char *env = secure_getenv("SHMQ_DATA_DIR");

	if (!o->said.data_dir && env && *env)
		o->said.data_dir = env;
	if (!o->said.data_dir || *o->said.data_dir == '/')
		return -1;
	if (!getcwd(here, sizeof(here)) ||
	    snprintf(found, sizeof(found), "%s/%s", here, o->said.data_dir) >= (int)sizeof(found))
		return misuse("--data-dir", o->said.data_dir);
	o->said.data_dir = found;
	return -1;
}

/* ---- the configuration ----------------------------------------------- */

int options_apply(struct options *o, struct config *config)
{
	struct access *access = access_create();
	unsigned i, rules = o->allow_count + (config ? config->allow_count : 0);
	struct shmq__why why = { "" };
	int error = access ? 0 : -ENOMEM;

	for (i = 0; i < rules && !error; i++)
		error = access_add(access,
				   i < o->allow_count ? o->allow[i] :
							config->allow[i - o->allow_count],
				   &why);
	if (error) {
		access_destroy(access);
		return error;
	}
	access_destroy(o->access);
	o->access = access;
	o->level = o->said.level           ? (enum log_level)(o->said.level - 1) :
		   config && config->level ? (enum log_level)(config->level - 1) :
					     LOG_INFO;
	o->linger_ns = o->said.linger_ns >= 0      ? o->said.linger_ns :
		       config && config->linger_ns ? config->linger_ns :
						     LINGER_NS;
	o->guests = o->said.guests           ? o->said.guests :
		    config && config->guests ? (unsigned)config->guests :
					       GUESTS;
	if (!rules)
		o->guests = 0;
	o->data_dir = o->said.data_dir ? o->said.data_dir : config ? config->data_dir : NULL;
	o->log_dirs = o->said.log_dirs ? o->said.log_dirs : config ? config->log_dirs : NULL;
	o->log = o->said.log ? o->said.log : config ? config->log : NULL;
	if (o->config != config)
		config_free(o->config);
	o->config = config;
	return 0;
}

static void say(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "shmqd: %s\n", text);
}

static int find_config(struct options *o, const char *given)
{
	char full[PATH_MAX];

	if (given && !strcmp(given, "none"))
		return -1;
	o->config_is_named = given != NULL;
	/* What is in /etc is the administrator's to give away. */
	o->config_whose = given || !strcmp(o->dir, "/run/shmq") ? CONFIG_ANYBODYS : CONFIG_OWN;
	if (!given)
		return config_find(o->dir, o->bus, o->config_path, sizeof(o->config_path)) ?
			       misuse("the configuration's path is too long for bus", o->bus) :
			       -1;
	if (strlen(given) >= sizeof(full))
		return misuse("--config is too long", given);
	if (*given == '/')
		snprintf(full, sizeof(full), "%s", given);
	else if (!realpath(given, full)) {
		fprintf(stderr, "shmqd: reading the configuration %s: %s\n", given,
			files_strerror(-errno));
		return EXIT_USAGE;
	}
	_Static_assert(sizeof(full) <= sizeof(o->config_path), "paths");
	memcpy(o->config_path, full, strlen(full) + 1);
	return -1;
}

static int read_file(const struct options *o, struct config **out)
{
	int error = *o->config_path ? config_read(o->config_path, o->config_whose, out, say, NULL) :
				      -ENOENT;

	if (error == -ENOENT && !o->config_is_named) {
		*out = NULL;
		return -1;
	}
	if (!error)
		return -1;
	if (error != SHMQ_EOPTION)
		fprintf(stderr, "shmqd: reading the configuration %s: %s\n", o->config_path,
			files_strerror(error));
	return EXIT_USAGE;
}

/* A worker goes by what is in force.  Where that is spoiled it goes on without:
 * nobody but its owner can have done it, and less is allowed then. */
static void read_force(const struct options *o, struct config **out)
{
	struct files files;
	int error;

	files_name(&files, o->dir, o->bus);
	error = config_read(files.conf, CONFIG_ANYBODYS, out, say, NULL);
	if (error && error != -ENOENT)
		fprintf(stderr, "shmqd: reading %s: %s: going on without\n", files.conf,
			shmq_strerror(error));
}

static void print_item(const char *sign, const struct config_item *item, const char *value)
{
	printf("%s%s\t%s\t%s\t%s\n", sign, item->section, item->title, item->key, value);
}

static void print_change(void *arg, const struct config_item *item, const char *from,
			 const char *to)
{
	(void)arg;
	if (from)
		print_item("-\t", item, from);
	if (to)
		print_item(config_is_for_start(item) ? "+start\t" : "+\t", item, to);
}

/* Of a bus that runs: the file that it was told, and a reload reads. */
static void find_its_config(struct options *o)
{
	struct files files;
	char from[sizeof(o->config_path)];

	files_name(&files, o->dir, o->bus);
	config_put_from(files.conf, from, sizeof(from));
	if (!*from || !strcmp(from, o->config_path))
		return;
	memcpy(o->config_path, from, sizeof(from));
	o->config_is_named = 1;
	o->config_whose = CONFIG_ANYBODYS;
}

static int list(const struct options *o, const char *which)
{
	struct config *file = NULL, *force = NULL;
	const struct config *shown;
	unsigned i;
	int rc = -1;

	if (strcmp(which, "file") != 0 && strcmp(which, "in-force") != 0 &&
	    strcmp(which, "diff") != 0)
		return misuse("--config-list takes file, in-force or diff", which);
	if (strcmp(which, "in-force") != 0)
		rc = read_file(o, &file);
	if (rc >= 0)
		return rc;
	if (strcmp(which, "file") != 0)
		read_force(o, &force);
	shown = *which == 'f' ? file : force;
	if (!strcmp(which, "diff"))
		config_compare(force, file, print_change, NULL);
	else
		for (i = 0; shown && i < shown->item_count; i++)
			print_item("", &shown->item[i], shown->item[i].value);
	config_free(file);
	config_free(force);
	return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
}

int options_parse(int argc, char **argv, struct options *o)
{
	struct given given = { 0 };
	struct shmq__why why = { "" };
	struct config *config = NULL;
	int opt, rc;

	*o = (struct options){ .fd = -1, .bus = "default", .said.linger_ns = -1 };
	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		if (opt == '?' || opt == ':')
			return misuse(opt == ':' ? "a value is missing behind" :
				      optopt && !strncmp(argv[optind - 1], "--", 2) ?
						   "there is no value to" :
						   "no such option",
				      argv[optind - 1]);
		rc = parse_one(opt, optarg, o, &given);
		if (rc >= 0)
			return rc;
	}
	if (optind != argc)
		return misuse("unexpected argument", argv[optind]);
	if (shmq__name_check_bus(o->bus, &why)) {
		fprintf(stderr, "shmqd: %s\n", why.text);
		return EXIT_USAGE;
	}
	if (!o->program)
		find_program(o);
	if ((o->role == ROLE_START) != (o->fd < 0))
		return misuse("--role is for shmqd's own use", role_names[o->role]);
	rc = resolve_data_dir(o);
	if (rc < 0)
		rc = resolve_dir(o, given.dir);
	if (rc < 0)
		rc = find_config(o, given.config);
	if (rc >= 0)
		return rc;
	if (given.list && !given.config)
		find_its_config(o);
	if (given.list)
		return list(o, given.list);
	if (o->role == ROLE_START)
		rc = read_file(o, &config);
	else
		read_force(o, &config);
	if (rc >= 0)
		return rc;
	if (options_apply(o, config)) {
		fprintf(stderr, "shmqd: no memory for the rules\n");
		return EXIT_FAILED;
	}
	return -1;
}

/* ---- other roles ----------------------------------------------------- */

/* Of what is open as `program`, or of this program if that is -1. */
static int become(const struct options *o, enum role role, int fd, int program)
{
	char fd_text[48], linger[32], first_seq[24], name[] = "shmqd", role_text[24], guests[12];
	const char *said[32] = { role_text, fd_text };
	char **argv =
		calloc(sizeof(said) / sizeof(said[0]) + 2 * (size_t)o->allow_count, sizeof(*argv));
	unsigned i, count = 2;
	int n = 0, error;

	if (!argv)
		return -ENOMEM;
#define SAY(option, value) \
	do { \
		said[count++] = (option); \
		said[count++] = (value); \
	} while (0)
	snprintf(role_text, sizeof(role_text), "--role=%s", role_names[role]);
	snprintf(fd_text, sizeof(fd_text), "--%s-fd=%d", role == ROLE_CONTROL ? "parent" : "adopt",
		 fd);
	snprintf(linger, sizeof(linger), "%.3f", (double)o->said.linger_ns / 1e9);
	snprintf(first_seq, sizeof(first_seq), "%" PRIu64, o->first_seq);
	snprintf(guests, sizeof(guests), "%u", o->said.guests);
	SAY("--bus", o->bus);
	SAY("--runtime-dir", o->dir);
	SAY("--first-seq", first_seq);
	SAY("--program", o->program);
	/* Where it is by default a worker finds by itself. */
	if (o->config_is_named || !*o->config_path)
		SAY("--config", *o->config_path ? o->config_path : "none");
	if (o->said.level)
		SAY("--log-level", log_level_name((enum log_level)(o->said.level - 1)));
	if (o->said.linger_ns >= 0)
		SAY("--linger", linger);
	if (o->said.data_dir)
		SAY("--data-dir", o->said.data_dir);
	if (o->said.log_dirs)
		SAY("--log-dirs", o->said.log_dirs);
	if (o->said.guests)
		SAY("--guests", guests);
	if (o->topology)
		SAY("--topology", o->topology);
	if (o->sandbox)
		SAY("--sandbox", sandbox_names[o->sandbox]);
	if (o->on_demand)
		said[count++] = "--on-demand";
	if (o->is_activated)
		said[count++] = "--activated";
#undef SAY
	argv[n++] = name;
	for (i = 0; i < count; i++)
		argv[n++] = (char *)(uintptr_t)said[i];
	for (i = 0; i < o->allow_count; i++) {
		argv[n++] = (char *)(uintptr_t) "--allow";
		argv[n++] = o->allow[i];
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
