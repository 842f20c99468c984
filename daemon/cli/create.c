/* SPDX-License-Identifier: MIT */
#include "cli.h"

struct create {
	struct shmq_topic_options shape;
	int dry_run, if_missing, json, quiet;
};

#define AT(member) OPT_AT(struct create, member)

static const struct opt options[] = {
	{ "dry-run", .letter = 'n', .kind = OPT_SET, AT(dry_run), .value = 1,
	  .help = "say what it would take, create nothing" },
	{ "if-missing", .kind = OPT_SET, AT(if_missing), .value = 1,
	  .help = "a topic that exists is fine" },
	{ "quiet", .letter = 'q', .kind = OPT_SET, AT(quiet), .value = 1,
	  .help = "print nothing on success" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1, .help = "print one JSON object" },
};

enum outcome { CREATED, PLANNED, EXISTED };
static const char *const outcomes[] = { "created", "would be created", "exists already" };

static void print_json(const char *topic, enum outcome outcome, const struct shmq_plan *plan)
{
	json_t *object = json_object();

	json_put_text(object, "topic", topic);
	json_put(object, "created", json_boolean(outcome == CREATED));
	json_put(object, "existed", json_boolean(outcome == EXISTED));
	if (outcome != EXISTED) {
		json_put_u64(object, "ring_bytes", plan->ring_bytes);
		json_put_u64(object, "control_bytes", plan->control_bytes);
		json_put_u64(object, "growth_bytes", plan->growth_bytes);
		json_put_u64(object, "arena_bytes", plan->arena_bytes);
		json_put_u64(object, "depth", plan->depth);
		json_put_u64(object, "inline_bytes", plan->inline_bytes);
		json_put_u64(object, "page_bytes", plan->page_bytes);
		json_put(object, "node", topics_json_node(plan->node));
		json_put_u64(object, "available_bytes", plan->available_bytes);
		json_put_text(object, "source", plan->source);
		json_put_text(object, "note", plan->note);
	}
	json_print(object);
}

static void print_text(const char *topic, enum outcome outcome, const struct shmq_plan *plan)
{
	printf("%s: %s\n", topic, outcomes[outcome]);
	if (outcome == EXISTED)
		return;
	printf("  rings    %s, %s pages, node %s\n", units_size(plan->ring_bytes).s,
	       units_size(plan->page_bytes).s, units_node(plan->node).s);
	printf("  control  %s\n", units_size(plan->control_bytes).s);
	printf("  bus      grows by %s%s\n", units_size(plan->growth_bytes).s,
	       !plan->growth_bytes                    ? ", its pools have room" :
	       plan->growth_bytes == plan->ring_bytes ? "" :
							", its pools by whole chunks");
	if (plan->arena_bytes)
		printf("  arena    %s for each publisher, when it opens\n",
		       units_size(plan->arena_bytes).s);
	printf("  from     %s\n", plan->source);
	printf("  depth    %s messages per partition, up to %s inline\n",
	       units_count(plan->depth).s, units_size(plan->inline_bytes).s);
	out_notes(plan->note, 9);
}

static void report(const struct create *create, const char *topic, enum outcome outcome,
		   const struct shmq_plan *plan)
{
	if (create->quiet)
		return;
	if (create->json)
		print_json(topic, outcome, plan);
	else
		print_text(topic, outcome, plan);
}

static int exists(struct cli *cli, const struct create *create, const char *topic)
{
	struct shmq_topic_info info;

	if (shmq_topic_get_info(cli->bus, topic, &info) == 0)
		shape_compare(&create->shape, &info);
	report(create, topic, EXISTED, NULL);
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct create create = { .shape.size = sizeof(create.shape) };
	const struct opt_group groups[] = {
		{ "The topic (defaults in parentheses)", shape_options, shape_option_count,
		  &create.shape },
		{ "Options", options, ARRAY_COUNT(options), &create },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_create, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	struct shmq_plan plan = { 0 };
	const char *topic;
	int rc;

	if (argc - first != 1)
		opts_fail(&cmd_create, "create takes one topic");
	topic = argv[first];
	shape_check(&cmd_create, &create.shape);
	rc = cli_open(cli);
	if (rc != CLI_OK)
		return rc;
	rc = create.dry_run ? shmq_topic_plan(cli->bus, topic, &create.shape, &plan) :
			      shmq_topic_create(cli->bus, topic, &create.shape, &plan);
	if (rc == SHMQ_EEXISTS && create.if_missing)
		return exists(cli, &create, topic);
	if (rc < 0)
		return out_fail(cli, rc, create.dry_run ? "planning" : "creating", topic, NULL);
	report(&create, topic, create.dry_run ? PLANNED : CREATED, &plan);
	return CLI_OK;
}

const struct command cmd_create = {
	"create",
	"TOPIC [OPTION]...",
	"Create a topic and say how many bytes it takes and from where",
	"Names are words of letters, digits, _ and - separated by single dots, such as\n"
	"md.equities.AAPL.  Sizes take k, M and G (powers of 1024) and kB, MB, GB.\n",
	"shmq create md.trades --depth 64k --shared\n"
	"shmq create orders --log block --sync every --time\n",
	run,
};
