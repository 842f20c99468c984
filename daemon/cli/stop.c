/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <unistd.h>

struct stop {
	unsigned flags;
	int64_t timeout_ns;
	int if_running, json;
};

static const struct opt options[] = {
	{ "force", .letter = 'f', .kind = OPT_OR, OPT_AT(struct stop, flags), .value = SHMQ_FORCE,
	  .help = "stop while clients are attached: all topics end" },
	{ "if-running", .kind = OPT_SET, OPT_AT(struct stop, if_running), .value = 1,
	  .help = "that none runs is fine" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, OPT_AT(struct stop, timeout_ns),
	  .arg = "TIME", .help = "how long to wait for its exit (10s)" },
	{ "json", .kind = OPT_SET, OPT_AT(struct stop, json), .value = 1,
	  .help = "print one JSON object" },
};

/* The process may be one of another pid namespace, or gone: then there is
 * nothing to wait for. */
static int open_process(struct cli *cli)
{
	struct shmq_bus_info info;

	if (shmq_bus_get_info(cli->bus, &info) < 0 || info.parent_pid <= 0)
		return -1;
	return pidfd_open(info.parent_pid, 0);
}

/* When the command is done the bus is gone, so that a script can start the
 * next one. */
static int wait_for_exit(int process, int64_t timeout_ns)
{
	struct pollfd exited = { .fd = process, .events = POLLIN };
	int64_t ms = timeout_ns == SHMQ_FOREVER ? -1 : timeout_ns / 1000000;
	int rc;

	if (process < 0)
		return 0;
	do
		rc = poll(&exited, 1, ms > INT32_MAX ? INT32_MAX : (int)ms);
	while (rc < 0 && errno == EINTR);
	close(process);
	return rc > 0 ? 0 : SHMQ_ETIMEOUT;
}

static int report(const struct stop *stop, const char *bus, int is_stopped)
{
	json_t *object;

	if (!stop->json)
		return CLI_OK;
	object = json_object();
	json_put_text(object, "bus", bus);
	json_put(object, "stopped", json_boolean(is_stopped));
	json_print(object);
	return CLI_OK;
}

/* 0: there is none, which is said unless it is fine. */
static int open_bus(struct cli *cli, const struct stop *stop, const char *name, int *code)
{
	struct shmq_bus_options how = { .size = sizeof(how),
					.runtime_dir = cli->runtime_dir,
					.client_name = cli->client_name };
	int rc = shmq_bus_open(cli->bus_name, &how, &cli->bus);

	if (rc == 0)
		return 1;
	cli->bus = NULL;
	if (rc != SHMQ_ENODAEMON)
		*code = out_fail(cli, rc, "stopping bus", name, NULL);
	else if (stop->if_running)
		*code = report(stop, name, 0);
	else
		*code = out_fail(NULL, rc, "stopping bus", name,
				 "--if-running takes that for done");
	return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct stop stop = { .timeout_ns = 10 * (int64_t)1000000000 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &stop },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_stop, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	const char *name = cli->bus_name ? cli->bus_name : "default";
	int process, rc, code;

	if (first != argc)
		opts_fail(&cmd_stop, "stop takes no operand (hint: --bus names the bus)");
	if (!open_bus(cli, &stop, name, &code))
		return code;
	process = open_process(cli);
	rc = shmq_bus_stop(cli->bus, stop.flags);
	if (rc < 0) {
		if (process >= 0)
			close(process);
		return out_fail(cli, rc, "stopping bus", name, NULL);
	}
	rc = wait_for_exit(process, stop.timeout_ns);
	if (rc)
		return out_fail(NULL, rc, "waiting for the exit of bus", name,
				"it waits a minute at most for a disk that is full; shmqd's log "
				"says what it is at");
	return report(&stop, name, 1);
}

const struct command cmd_stop = {
	"stop",
	"[OPTION]...",
	"Stop the supervisor of the bus",
	"Refuses while other clients are attached, unless --force.  Never starts one: if none\n"
	"runs the exit code is 5, or with --if-running 0.\n",
	"shmq stop --force\n",
	run,
};
